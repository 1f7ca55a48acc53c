"""The configuration as Hydra composes it, and its errors as Hydra and OmegaConf raise them."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from potnet.config.adapt import adapt, with_own_keys
from potnet.config.paths import config_dir
from potnet.config.resolvers import register_resolvers

register_resolvers()


def hydra_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose as the command line does. `potnet.config.compose` makes one message of what is wrong.

    Raises:
        HydraException, OmegaConfBaseException: A wrong key, group or option.
        ConfigError: There is no class of a name that was given as `_target_`.
    """
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return adapt(compose(name, overrides=with_own_keys(overrides)), overrides)
