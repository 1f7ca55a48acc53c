"""Settings that follow from others on the command line, after Hydra has composed a config."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from potnet.config.signatures import argument_names, locate

log = logging.getLogger(__name__)


def with_own_keys(overrides: Sequence[str]) -> list[str]:
    """Overrides in which a class given by `_target_` may have keys that the configuration does not know.

    `model._target_=mynet.Net model.size=16` becomes `model._target_=mynet.Net ++model.size=16`; whether the
    class takes the key is checked when it is built. An override that begins with `+` or `~` stays as it is.
    """
    keys = [override.partition("=")[0] for override in overrides]
    places = tuple(key.lstrip("+").removesuffix("_target_") for key in keys if key.endswith("._target_"))
    return [
        f"++{override}" if key.startswith(places) and not key.endswith("._target_") else override
        for key, override in zip(keys, overrides, strict=True)
    ]


def adapt(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Let a class or a key that was given alone not inherit what belongs to the option it replaces.

    - `model._target_=mynet.Net`, or `data.source._target_=...`: keys of the class before that this one does
      not take, and that were not given as well, are dropped.
    - `split=file`: so are keys that a data set gave its own recipe of the split.
    - `target.key=e_form`: the name of the property before is dropped, so that titles say `e_form`.

    Args:
        config: Composed; changed in place.
        overrides: Of the command line.

    Raises:
        ConfigError: There is no such class.
    """
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    with read_write(config), open_dict(config):
        for key in sorted(given):
            place, _, leaf = key.rpartition(".")
            if leaf == "_target_" and isinstance(OmegaConf.select(config, place), DictConfig):
                _drop_foreign_keys(config, place, given)
        if "split" in given and OmegaConf.select(config, "data.split._target_"):
            _drop_foreign_keys(config, "data.split", given)
        if "target.key" in given and "target.name" not in given and "target" in config:
            config.target.name = config.target.key
    return config


def _drop_foreign_keys(config: DictConfig, place: str, given: set[str]) -> None:
    node = OmegaConf.select(config, place)
    taken, _ = argument_names(locate({"_target_": node["_target_"]}, place))
    foreign = [
        str(key)
        for key in node
        if key != "_target_"
        and key not in taken
        and not any(name == f"{place}.{key}" or name.startswith(f"{place}.{key}.") for name in given)
    ]
    for key in foreign:
        del node[key]
    if foreign:
        log.info(
            "%s._target_=%s: without %s, which it does not take", place, node["_target_"], ", ".join(foreign)
        )
