"""Gaussian broadening: many weighted numbers become a histogram with smooth edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

REACH = 5.0
"""Gaussians end at this many standard deviations; 6e-7 of each lies beyond."""

_BLOCK = 2**20
"""Numbers times grid points that are held at a time."""


@dataclass(frozen=True)
class Grid:
    """Evenly spaced points, and the Gaussians that are put on them.

    Args:
        min: First point.
        max: Last point.
        n: Number of points, at least 2.
        sigma: Standard deviation of the Gaussians, in the unit of the points.

    Raises:
        ValueError: A setting that makes no sense.
    """

    min: float
    max: float
    n: int
    sigma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min) and math.isfinite(self.max) and self.min < self.max):
            raise ValueError(f"min={self.min}, max={self.max}: give a smaller min than max")
        if not (isinstance(self.n, int) and self.n >= 2):
            raise ValueError(f"n={self.n}: give a whole number of points, 2 or more")
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma={self.sigma}: give a positive width")
        for name in ("min", "max", "sigma"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def step(self) -> float:
        """Distance of neighbouring points."""
        return (self.max - self.min) / (self.n - 1)

    def histogram(
        self,
        values: NDArray[np.float64],
        weights: NDArray[np.float64],
        rows: NDArray[np.int64],
        num_rows: int,
    ) -> NDArray[np.float64]:
        """Sum of normalised Gaussians around the values, as their mean density in the interval of each point.

        f(r, t) = sum over i with rows_i = r of weights_i / step * integral from x_t - step/2 to x_t + step/2
        of N(x; values_i, sigma²) dx

        The integral, rather than the density at the point, keeps the sum when the Gaussian is narrower than
        the step.

        Args:
            values: (m,), where the Gaussians are.
            weights: (m,).
            rows: (m,), which histogram each belongs to, from 0.
            num_rows: R, number of histograms.

        Returns:
            (R, n), in units of weight over unit of the values.
        """
        reach = math.ceil(REACH * self.sigma / self.step)
        window = np.arange(-reach, reach + 1)
        edges = torch.from_numpy(np.arange(-reach, reach + 2) - 0.5)
        found = np.zeros(num_rows * self.n)
        block = max(1, _BLOCK // len(window))
        for start in range(0, len(values), block):
            part = slice(start, start + block)
            place = (values[part] - self.min) / self.step
            center = np.rint(place).astype(np.int64)
            beyond = torch.from_numpy(center - place)[:, None] + edges
            share = torch.special.ndtr(beyond * (self.step / self.sigma)).diff(dim=1).numpy()
            point = center[:, None] + window
            inside = (point >= 0) & (point < self.n)
            slot = (rows[part, None] * self.n + point)[inside]
            found += np.bincount(slot, (share * weights[part, None])[inside], num_rows * self.n)
        return found.reshape(num_rows, self.n) / self.step
