"""Intervals on synthetic data, where it is known how many labels they must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from potnet.config import ConfigError
from potnet.inference.intervals import Intervals, check_level, of_intervals, of_spread


def test_the_factor_is_the_order_statistic_of_the_paper() -> None:
    intervals = Intervals(np.array([3.0, 1.0, 2.0, 4.0, 9.0, 8.0, 7.0, 6.0, 5.0]), 1.0)
    assert intervals.factor(0.9) == 9.0  # ceil(10 · 0.9) = 9
    assert intervals.factor(0.5) == 5.0
    assert intervals.factor(0.01) == 1.0
    assert intervals.factor(0.91) == math.inf  # rank 10 of 9
    assert Intervals(np.array([]), 1.0).factor(0.5) == math.inf


def test_coverage_is_exact_on_average_whatever_the_errors_are() -> None:
    """With n = 19 scores a level of 0.9 must give rank 18 of 20: 90 % on average, for any distribution."""
    random = np.random.default_rng(0)
    inside = []
    for _ in range(4000):
        spread = random.uniform(0.1, 2.0, 20)
        error = spread * random.standard_cauchy(20)  # tails without a variance
        intervals = Intervals.fit(error[:19], np.zeros(19), spread[:19], floor=0.05)
        inside.append(abs(error[19]) <= intervals.half_width(spread[19:], 0.9)[0])
    assert np.mean(inside) == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 4000))


def test_normalised_intervals_hold_in_quiet_and_in_noisy_parts() -> None:
    random = np.random.default_rng(1)
    spread = np.where(random.random(20_000) < 0.5, 0.1, 1.0)
    label = 2 * spread * random.standard_normal(20_000)  # the spread is too small by a factor of 2
    fit = Intervals.fit(label[:10_000], np.zeros(10_000), spread[:10_000], floor=1e-6)
    error, width = np.abs(label[10_000:]), spread[10_000:]
    for part in (width < 0.5, width > 0.5):
        assert of_intervals(fit, error[part], width[part]).coverage[0.9] == pytest.approx(0.9, abs=0.015)
    judged = of_intervals(fit, error, width)
    assert judged.area < 0.01
    assert judged.z2 == pytest.approx(1.0, abs=0.05)
    assert judged.width[0.9] > judged.width[0.5] > 0
    plain = of_spread(error, width)
    assert plain.coverage[0.9] == pytest.approx(0.59, abs=0.02)  # P(|N| < 1.645 / 2)
    assert plain.z2 == pytest.approx(4.0, abs=0.2)
    assert plain.area > 0.1


def test_missing_labels_are_left_out_and_one_network_has_a_constant_width() -> None:
    label = np.array([0.0, np.nan, 1.0, -2.0])
    fit = Intervals.fit(label, np.zeros(4), np.zeros(4), floor=0.5)
    assert list(fit.scores) == [0.0, 2.0, 4.0]
    np.testing.assert_allclose(fit.half_width(np.zeros(2), 0.75), [2.0, 2.0])


@pytest.mark.parametrize("level", [0, 1, 90, -0.1, True, "0.9", float("nan")])
def test_levels_that_are_none(level: float) -> None:
    with pytest.raises(ConfigError, match="level="):
        Intervals(np.ones(3), 1.0).factor(level)


def test_levels_of_numpy() -> None:
    assert check_level(np.float32(0.5)) == 0.5


@pytest.mark.parametrize(("scores", "floor"), [([1.0, np.nan], 1.0), ([-1.0], 1.0), ([1.0], 0.0)])
def test_what_is_no_calibration(scores: list[float], floor: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Intervals(np.array(scores), floor)
