"""Crystal property prediction with complete interatomic potentials."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Predictions", "Predictor", "PropertyCalculator", "__version__", "load", "train"]

SUBPACKAGES = ("crystals", "forcefield", "lattice", "pretrained")
"""Imported when they are first asked for, so that `potnet.lattice` works after `import potnet`."""

if TYPE_CHECKING:
    from potnet.api import Predictions, Predictor, load
    from potnet.inference.calculator import PropertyCalculator
    from potnet.trained import train_from_python as train


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; --help and potnet.__version__ do without it.
    if name in ("Predictions", "Predictor", "load"):
        from potnet import api

        return getattr(api, name)
    if name == "PropertyCalculator":
        from potnet.inference.calculator import PropertyCalculator

        return PropertyCalculator
    if name == "train" or name in SUBPACKAGES:  # the module train is called like a function
        return importlib.import_module(f"potnet.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *SUBPACKAGES})
