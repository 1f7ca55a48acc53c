"""A search for good settings: its trials sorted, the best first, and the settings that it varied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from potnet.runs.report.collect import Run
from potnet.runs.report.names import changes, short_keys, short_value, varying_keys
from potnet.runs.report.planned import sweeper_of
from potnet.runs.report.rows import Row, Section


def is_search(runs: Sequence[Run]) -> bool:
    """Whether all runs are trials of sweepers that choose them as they go, such as Optuna."""
    sweepers = {sweeper_of(run.folder) for run in runs}
    return all(sweeper and "BasicSweeper" not in sweeper for sweeper in sweepers)


def ranked(section: Section) -> Section:
    """The section with its rows in the order of their validation errors, the best as the reference.

    Trials without a result come last. They are not compared crystal by crystal, as the best of many is best
    on these crystals partly by luck.
    """

    def key(row: Row) -> float:
        error = row.error("val")
        return math.inf if error is None else error.mean

    rows = sorted(section.rows, key=key)
    best = rows[0]
    for row in rows:
        row.comparison = None
        row.changes = changes(best.settings, row.settings)
    return replace(section, rows=rows, reference=best)


def parameters_of(section: Section) -> dict[str, str]:
    """The settings that a search varied: full name -> name for people.

    Those given on the trials' command lines if these are known, else all in which the trials differ.
    """
    varying = varying_keys([row.settings for row in section.rows])
    given = [text.partition("=")[0].lstrip("+") for row in section.rows for text in row.runs[0].overrides]
    chosen = [key for key in dict.fromkeys(given) if key in varying] or varying
    return short_keys(chosen)


def axis_of(values: Sequence[object]) -> tuple[list[float], list[tuple[float, str]]]:
    """Places of values on an axis from 0 to 1, and its labels.

    Positive numbers that span more than a decade are placed by their logarithm, other numbers by their value,
    and anything else side by side.

    Args:
        values: n, of one setting.

    Returns:
        n places; (place, text) of each label.
    """
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        texts = sorted({short_value(value) for value in values})
        step = 1 / max(len(texts) - 1, 1)
        place = {text: n * step if len(texts) > 1 else 0.5 for n, text in enumerate(texts)}
        return [place[short_value(value)] for value in values], [(place[t], t) for t in texts]
    low, high = min(numbers), max(numbers)
    if low == high:
        return [0.5] * len(numbers), [(0.5, short_value(low))]
    log = low > 0 and high / low > 10
    scaled = [math.log(x) if log else x for x in numbers]
    span = max(scaled) - min(scaled)
    places = [(x - min(scaled)) / span for x in scaled]
    ticks = sorted(set(numbers)) if len(set(numbers)) <= 6 else [low, high]
    labels = [(((math.log(x) if log else x) - min(scaled)) / span, _tick(x)) for x in ticks]
    return places, labels


def _tick(value: float) -> str:
    return f"{value:.3g}"
