"""Composing a configuration in Python, and resolving it; what is wrong becomes one message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from potnet.config.errors import ConfigError
from potnet.config.hydra_config import hydra_config
from potnet.config.messages import explain


def compose(name: str = "train", overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a configuration in Python, as the command line would.

    Args:
        name: "train", "evaluate", "predict", "report" or "wandb_report".
        overrides: As on the command line, such as `["model=potnet_published", "trainer.max_epochs=2"]`.

    Raises:
        ConfigError: A wrong key, group or option; the nearest valid one is named.
    """
    from hydra.errors import HydraException

    try:
        return hydra_config(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, name, overrides)) from error


def plain(config: Any) -> Any:
    """Plain dictionaries and lists, interpolations resolved.

    Raises:
        ConfigError: A key that must be given is missing, or an interpolation fails.
    """
    if not isinstance(config, DictConfig | ListConfig):
        return config
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
