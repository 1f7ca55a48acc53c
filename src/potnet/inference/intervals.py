"""Prediction intervals by split conformal calibration, normalised by how hard a crystal is.

Of a calibration crystal that no member was trained on: its score is |label - mean| / scale, where
scale = sqrt(spread² + floor²), and spread is that of the members, or with it the errors around the crystal
(`Calibration.difficulty`). With n scores the interval at a level p is mean ± q · scale, with q the k-th
smallest score, k = ceil((n + 1) p) (Papadopoulos et al. 2002; Lei et al., JASA 113, 1094 (2018), eq. 2 and
section 5.2). If a new crystal is exchangeable with those of the calibration, the interval holds its label
with a probability of at least p, and of at most p + 1 / (n + 1) where no two scores are equal: whatever the
network is worth. Where k > n nothing can be promised, and the interval is infinite.

All in the learned unit (log10(GPa) for a modulus): the scales are monotone, so that the physical interval
holds the label exactly when the learned one does.
"""  # fmt: skip

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from potnet.config import ConfigError


def check_level(level: float) -> float:
    """A level, if it is one.

    Raises:
        ConfigError: It does not lie between 0 and 1.
    """
    if isinstance(level, bool) or not isinstance(level, numbers.Real) or not 0 < level < 1:
        raise ConfigError(f"level={level}: give a number between 0 and 1, such as 0.9 for 90 %")
    return float(level)


@dataclass(frozen=True)
class Intervals:
    """What turns the mean and spread of an ensemble into intervals.

    Args:
        scores: (n,) of the calibration part, in any order; kept ascending.
        floor: Least scale, in the learned unit: crystals on which the members agree by chance get no interval
            of zero width.

    Raises:
        ValueError: A score that is not a number of 0 or more, or a floor that is not positive.
    """

    scores: np.ndarray = field(repr=False)
    floor: float

    def __post_init__(self) -> None:
        scores = np.sort(np.asarray(self.scores, dtype=np.float64).ravel())
        if not np.isfinite(scores).all() or (scores < 0).any():
            raise ValueError("scores must be finite and not negative")
        if not (math.isfinite(self.floor) and self.floor > 0):
            raise ValueError(f"floor must be positive, got {self.floor}")
        object.__setattr__(self, "scores", scores)

    @classmethod
    def fit(cls, label: np.ndarray, mean: np.ndarray, spread: np.ndarray, floor: float) -> Intervals:
        """From the calibration part.

        Args:
            label: (n,), learned unit; NaN (no label) is left out.
            mean: (n,), of the members.
            spread: (n,), standard deviation of the members; zeros for a single network.
            floor: See above. It must not be chosen by these labels.
        """
        known = np.isfinite(label)
        scale = np.hypot(spread[known], floor)
        return cls(np.abs(label[known] - mean[known]) / scale, floor)

    def __len__(self) -> int:
        """Crystals of the calibration."""
        return len(self.scores)

    def scale(self, spread: np.ndarray) -> np.ndarray:
        """What a crystal's error is measured in, (n,)."""
        return np.hypot(spread, self.floor)

    def factor(self, level: float) -> float:
        """q: how many scales an interval reaches to either side; infinite where the calibration is too small.

        Raises:
            ConfigError: The level does not lie between 0 and 1.
        """
        # Rounding must not make 10 · 0.9 = 9.000000000000002 a rank of 10.
        rank = math.ceil(round((len(self) + 1) * check_level(level), 9))
        return float(self.scores[rank - 1]) if rank <= len(self) else math.inf

    def half_width(self, spread: np.ndarray, level: float) -> np.ndarray:
        """(n,) half of the interval, learned unit."""
        return self.factor(level) * self.scale(spread)


LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Levels that cards show."""


@dataclass(frozen=True)
class Reliability:
    """How intervals did on crystals whose labels are known.

    Attributes:
        coverage: level -> the part of the labels that lay inside.
        width: level -> median width, learned unit.
        area: Miscalibration area: mean over levels from 0.01 to 0.99 of |coverage - level| (Tran et al.
            2020).
        z2: Mean of (error / sigma)²; 1 if sigma is the standard deviation of the errors.
        n: Crystals.
        curve: (99,) coverage at each level of `GRID`.
    """

    coverage: dict[float, float]
    width: dict[float, float]
    area: float
    z2: float
    n: int
    curve: np.ndarray = field(repr=False)


GRID = np.linspace(0.01, 0.99, 99)


def reliability(
    error: np.ndarray, half_widths: Iterable[np.ndarray], sigma: np.ndarray, shown: Iterable[np.ndarray]
) -> Reliability:
    """Judge intervals.

    Args:
        error: (n,) |label - mean|, learned unit.
        half_widths: (n,) at each level of `GRID`.
        sigma: (n,) what is taken for the standard deviation of the errors.
        shown: (n,) half widths at each of `LEVELS`.
    """
    halves = dict(zip(LEVELS, shown, strict=True))
    inside = np.array([np.mean(error <= half) for half in half_widths])
    with np.errstate(divide="ignore", invalid="ignore"):
        z2 = float(np.mean(np.square(error / sigma)))
    return Reliability(
        {level: float(np.mean(error <= half)) for level, half in halves.items()},
        {level: float(2 * np.median(half)) for level, half in halves.items()},
        float(np.mean(np.abs(inside - GRID))),
        z2,
        len(error),
        inside,
    )


def of_intervals(intervals: Intervals, error: np.ndarray, spread: np.ndarray) -> Reliability:
    """Reliability of conformal intervals; sigma is half of their width at 68.27 %."""
    return reliability(
        error,
        (intervals.half_width(spread, float(level)) for level in GRID),
        intervals.half_width(spread, 0.6827),
        [intervals.half_width(spread, level) for level in LEVELS],
    )


def of_spread(error: np.ndarray, spread: np.ndarray) -> Reliability:
    """Reliability of the plain spread of an ensemble, taken for the deviation of a normal distribution."""
    from scipy.special import ndtri

    return reliability(
        error,
        (float(ndtri((1 + level) / 2)) * spread for level in GRID),
        spread,
        [float(ndtri((1 + level) / 2)) * spread for level in LEVELS],
    )
