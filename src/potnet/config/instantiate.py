"""Building the objects that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potnet.config.composition import plain
from potnet.config.signatures import check_arguments, locate


def build(config: Any, where: str = "", nested: bool = True, **arguments: Any) -> Any:
    """Build the object that a config names by `_target_`; every other key is an argument of it.

    Args:
        config: Mapping with `_target_`; None gives None.
        where: Key of the config, for messages.
        nested: Whether inner mappings with a `_target_` are built as well. A network takes plain
            arguments only, and so a checkpoint, which says what to build, can build nothing else.
        **arguments: Further arguments, passed as they are.

    Raises:
        ConfigError: An unknown target or argument, a missing one, or one of the wrong kind.
    """
    config = plain(config)
    if config is None:
        return None
    settings = {
        key: build(value, f"{where}.{key}")
        if nested and isinstance(value, Mapping) and "_target_" in value
        else value
        for key, value in config.items()
        if key != "_target_"
    }
    target = locate(config, where)
    check_arguments(target, settings | arguments, where)
    return target(**settings, **arguments)
