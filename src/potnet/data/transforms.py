"""Transforms: the scale on which a number is learned.

One class owns everything about a scale; training, metrics, reports and plots all ask it. A further one is a
subclass and an entry in `TRANSFORMS`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Transform:
    """The identity: a value is learned as it is.

    Attributes:
        name: As in `target.transform`.
        axis: Scale of a plot's axis for physical values, as matplotlib names it.
    """

    name = "none"
    axis = "linear"

    def __call__(self, values: Tensor) -> Tensor:
        """Physical values to learned ones, any shape."""
        return values

    def inverse(self, values: Tensor) -> Tensor:
        """Learned values to physical ones, any shape."""
        return values

    def unit(self, unit: str) -> str:
        """Unit of the learned value."""
        return unit

    def invalid(self, values: np.ndarray) -> np.ndarray:
        """Which finite physical values have no learned value, (n,) bool."""
        return np.zeros(values.shape, dtype=bool)

    @property
    def refusal(self) -> str:
        """What is wrong with an invalid value, for messages."""
        return ""


class Log10(Transform):
    """The decadic logarithm, for positive quantities that span decades."""

    name = "log10"
    axis = "log"

    def __call__(self, values: Tensor) -> Tensor:
        """log10 of physical values."""
        return torch.log10(values)

    def inverse(self, values: Tensor) -> Tensor:
        """10 to the power of learned values."""
        return torch.pow(10.0, values)

    def unit(self, unit: str) -> str:
        """log10(unit), or log10 of a number without unit."""
        return f"log10({unit})" if unit else "log10"

    def invalid(self, values: np.ndarray) -> np.ndarray:
        """Zero and negative values."""
        with np.errstate(invalid="ignore"):
            return values <= 0

    @property
    def refusal(self) -> str:
        """Zero or negative."""
        return "zero or negative, and so has no log10"


TRANSFORMS: dict[str, Transform] = {"none": Transform(), "log10": Log10()}
