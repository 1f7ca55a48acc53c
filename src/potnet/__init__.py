"""Crystal property prediction with complete interatomic potentials."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Predictions", "Predictor", "PropertyCalculator", "__version__", "load", "train"]

if TYPE_CHECKING:
    from potnet.api import Predictions, Predictor, load
    from potnet.inference.calculator import PropertyCalculator
    from potnet.runs.trained import train_from_python as train


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; --help and potnet.__version__ do without it.
    if name in ("Predictions", "Predictor", "load"):
        from potnet import api

        return getattr(api, name)
    if name == "PropertyCalculator":
        from potnet.inference.calculator import PropertyCalculator

        return PropertyCalculator
    if name == "train":
        import importlib

        return importlib.import_module("potnet.train")  # which is called like a function
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
