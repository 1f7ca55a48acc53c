"""Which kind of value each key of a command takes, so that a wrong one is named before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from potnet.config.errors import ConfigError
from potnet.config.instantiate import check_value

_COMMON: dict[str, Any] = {"checkpoint": str, "device": str, "cache_dir": str | None}

KINDS: dict[str, Mapping[str, Any]] = {
    "train": {"name": str, "runs_dir": str, "allow": list, "resume": str | None},
    "evaluate": {
        **_COMMON,
        "parts": str | list,
        "path": str | None,
        "output": str | None,
        "batch_size": int | None,
        "allow": list,
    },
    "export": {"checkpoint": str, "output": str | None, "dtype": Literal["float32", "float16", "bfloat16"]},
    "predict": {
        **_COMMON,
        "inputs": str | list,
        "output": str | None,
        "on_error": Literal["skip", "raise"],
        "box": float | None,
        "batch_size": int,
        "max_memory_gib": float | None,
        "allow": list,
    },
    "report": {
        "runs": str | list,
        "output": str,
        "reference": str | None,
        "part": str,
        "title": str | None,
        "over": str | list,
        "kind": str | None,
    },
}
"""Command -> key -> kind. Keys that are not listed are checked where they are used."""


def check_settings(name: str, config: DictConfig) -> None:
    """Compare the values of a composed config with their kinds.

    Raises:
        ConfigError: A list where one value is wanted, text in place of a number, and so on.
    """
    for key, kind in KINDS.get(name, {}).items():
        if key not in config or OmegaConf.is_missing(config, key):
            continue
        value = config[key]
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if kind == str | list:
            if value is None or isinstance(value, Mapping):
                raise ConfigError(f"{key}={value}: expected text, or a list of it")
        else:
            check_value(key, value, kind)
