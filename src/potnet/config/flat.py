"""The leaves of nested settings, by their full names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf by its full name; an empty mapping or list is a leaf, and so is a list of plain values."""
    if isinstance(config, Mapping) and config:
        items = config.items()
    elif isinstance(config, list) and any(isinstance(entry, Mapping) for entry in config):
        items = {str(number): entry for number, entry in enumerate(config)}.items()
    else:
        return {prefix.removesuffix("."): config}
    return {key: value for name, inner in items for key, value in flat(inner, f"{prefix}{name}.").items()}
