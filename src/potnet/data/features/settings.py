"""Potentials and descriptors as plain data, which configs, caches and checkpoints hold, and back."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from potnet.crystals import Descriptor
from potnet.data.errors import DataError
from potnet.lattice.potentials import Potential


def build_potential(entry: Potential | Mapping[str, Any]) -> Potential:
    """A potential from its plain form `{"_target_": class path, **arguments}`; objects are passed through.

    Nothing but subclasses of `Potential` is built, so that the settings in a foreign checkpoint cannot run
    arbitrary code.

    Raises:
        DataError: The class does not exist or is no potential, or refuses its arguments.
    """
    return _build(entry, Potential, "features.potentials", "pair potential", "potnet.lattice.Coulomb")


def build_descriptor(entry: Descriptor | Mapping[str, Any]) -> Descriptor:
    """A descriptor from its plain form, as `build_potential` for potentials.

    Raises:
        DataError: The class does not exist or is no descriptor, or refuses its arguments.
    """
    return _build(entry, Descriptor, "features.descriptor", "descriptor", "potnet.descriptors.MBTR")


def _build(entry: Any, base: type[Any], place: str, what: str, example: str) -> Any:
    """An object from its plain form, of a subclass of `base` and nothing else."""
    if isinstance(entry, base):
        return entry
    arguments = {str(key): value for key, value in entry.items()}
    path = str(arguments.pop("_target_", ""))
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise DataError(f"{place}: there is no {path!r}; try {example}") from None
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise DataError(f"{place}: {path} is not a {what}")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {path}: {error}") from error


def potential_settings(potential: Potential) -> dict[str, Any]:
    """The plain form of a potential, defaults included: equal potentials have equal forms."""
    form = descriptor_settings(potential)
    return {key: float(value) if type(value) is int else value for key, value in form.items()}


def descriptor_settings(value: Descriptor | Potential) -> dict[str, Any]:
    """The plain form `{"_target_": class path, **arguments}`, defaults included."""
    if not dataclasses.is_dataclass(value):
        raise DataError(f"{type(value).__name__} must be a dataclass, so that its parameters can be saved")
    target = f"{type(value).__module__}.{type(value).__qualname__}"
    return {"_target_": target, **dataclasses.asdict(value)}
