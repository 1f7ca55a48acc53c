"""Means over seeds and folds, and differences to a reference row."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from potnet.config import ConfigError, did_you_mean, flat
from potnet.runs.report.collect import Run
from potnet.runs.report.names import averaged_keys, changes, name_rows, repeat_of, settings_of

REFERENCE = "ablation=complete"
"""The override that marks the reference row unless another is asked for."""

OVER = ("seed", "fold")
"""What rows average over unless something else is asked for."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of n values; the deviation is None for a single one."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Of the values that are there; None if there are none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True)
class Comparison:
    """A row against the reference row, on the same crystals and, where they share any, the same seeds.

    Attributes:
        seeds: Of the difference of the two MAEs seed by seed.
        mean: Of the difference of the two absolute errors crystal by crystal, each the mean over seeds.
            Negative: the row is better. As the MAE is a mean over crystals, it equals the difference of MAEs.
        low, high: 95 % interval of `mean` over samples of crystals: Student's t, crystals independent.
        p: Of the paired two-sided t test. It knows the scatter over crystals, not that over seeds.
        crystals: How many.
    """

    seeds: Spread | None
    mean: float
    low: float
    high: float
    p: float
    crystals: int


@dataclass
class Row:
    """Runs whose settings differ in nothing but what is averaged over: the seed, the fold.

    Attributes:
        runs: All of them, finished or not.
        settings: Every setting by its full name, without those that rows average over.
        name: The settings in which the row differs from the others of its section.
        changes: Settings that differ from the reference row's: name -> (there, here).
        comparison: None for the reference row, and where either has no finished run.
    """

    runs: list[Run]
    settings: dict[str, Any]
    name: str = ""
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    comparison: Comparison | None = None

    @property
    def finished(self) -> list[Run]:
        """The runs that came to their end."""
        return [run for run in self.runs if run.metrics is not None]

    def error(self, part: str) -> Spread | None:
        """The error of a part, "val" or "test", over the seeds and folds; see `Run.error`."""
        return Spread.of(run.error(part) for run in self.finished)

    @property
    def published(self) -> dict[str, Any]:
        """What the paper behind the experiment reports: `mae`, `unit`, `source`, `data`; or empty."""
        return dict(self.runs[0].config.get("published") or {})

    @property
    def parameters(self) -> int | None:
        """Of the network; None if no run is finished."""
        return next(((run.metrics or {}).get("parameters") for run in self.finished), None)

    @property
    def epoch_seconds(self) -> Spread | None:
        """Time of an epoch, the median of each finished run."""
        return Spread.of(run.epoch_seconds for run in self.finished)

    @property
    def total_seconds(self) -> Spread | None:
        """Time of a finished run from features to the last test."""
        return Spread.of((run.metrics or {}).get("seconds", {}).get("total") for run in self.finished)


@dataclass
class Section:
    """Rows that can be compared: one property, one unit.

    Attributes:
        key: Of the property, such as "k_vrh".
        name: Such as "bulk modulus".
        unit: Of the errors, such as "log10(GPa)"; "" if there is none or no run is finished.
        rows: In the order of their first runs; of a search the best first.
        reference: One of the rows; of a search the best.
        part: "test" or "val": what the rows are compared on.
        measure: What the errors are, "MAE" or "wrong classes".
    """

    key: str
    name: str
    unit: str
    rows: list[Row]
    reference: Row
    part: str
    measure: str = "MAE"


def sections(
    runs: Sequence[Run], reference: str | None = None, part: str = "test", over: Sequence[str] = OVER
) -> list[Section]:
    """Group runs into rows and sections, name the rows, and compare them with the reference rows.

    Args:
        runs: As `collect` found them.
        reference: Name of the reference row, or an override of its runs such as "ablation=complete"; by
            default the row with `ablation=complete`, else the first that has a finished run.
        part: "test" or "val".
        over: Settings that runs of one row differ in. "seed" stands for every setting of this name outside of
            the model.

    Raises:
        ConfigError: No row has this name, or no run has a setting of `over`.
    """
    check_over(runs, over)
    grouped: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for view in (view for run in runs for view in run.by_target()):
        grouped[view.key, str(view.target.get("transform", "none"))].append(view)
    found = [_section(group, reference, part, over) for group in grouped.values()]
    if not any(_find(section.rows, reference) for section in found) and reference:
        names = [row.name for section in found for row in section.rows]
        raise ConfigError(f"reference={reference}: there is no such row{did_you_mean(reference, names)}")
    return found


def check_over(runs: Sequence[Run], over: Sequence[str]) -> None:
    """Refuse a setting to average over that no run has.

    Raises:
        ConfigError: The nearest setting is named.
    """
    known = {key for run in runs for key in flat(run.config)}
    for name in over:
        if name not in OVER and not averaged_keys(known, [name]):
            last = {key.rpartition(".")[2] for key in known}
            raise ConfigError(f"over=[{name}]: no run has this setting{did_you_mean(name, known | last)}")


def _section(runs: Sequence[Run], reference: str | None, part: str, over: Sequence[str]) -> Section:
    rows: list[Row] = []
    for run in runs:  # settings may hold lists, so they are no keys of a dictionary
        settings = settings_of(run.config, over)
        row = next((row for row in rows if row.settings == settings), None)
        if row is None:
            rows.append(row := Row([], settings))
        row.runs.append(run)
    names = name_rows([(row.runs[0].overrides, row.settings) for row in rows], over)
    for row, name in zip(rows, names, strict=True):
        row.name = name
    chosen = _find(rows, reference) or next((row for row in rows if row.finished), rows[0])
    for row in rows:
        row.changes = changes(chosen.settings, row.settings)
        if row is not chosen:
            row.comparison = compare(row, chosen, part, over)
    units = [run.unit(where) for run in runs for where in (part, "val", "test")]
    return Section(
        key=runs[0].key,
        name=runs[0].title,
        unit=next((unit for unit in units if unit), ""),
        rows=rows,
        reference=chosen,
        part=part,
        measure="wrong classes" if runs[0].is_class else "MAE",
    )


def _find(rows: Iterable[Row], reference: str | None) -> Row | None:
    wanted = reference or REFERENCE
    tests: tuple[Callable[[Row], bool], ...] = (
        lambda row: row.name == wanted,
        lambda row: wanted in row.runs[0].overrides,
    )
    return next((row for test in tests for row in rows if test(row)), None)


def compare(row: Row, reference: Row, part: str, over: Sequence[str] = OVER) -> Comparison | None:
    """Compare two rows crystal by crystal; None where fewer than two are predicted by both.

    Args:
        row: The one.
        reference: The other.
        part: "test" or "val".
        over: As for `sections`: runs of the same values are compared with each other.
    """
    here, there = _by_repeat(row, over), _by_repeat(reference, over)
    common = [repeat for repeat in here if repeat in there]
    if common:
        here, there = ({repeat: runs[repeat] for repeat in common} for runs in (here, there))
    mine, its = (mean_errors(runs.values(), part) for runs in (here, there))
    shared = [crystal for crystal in mine if crystal in its]
    if len(shared) < 2:
        return None
    differences = [mine[crystal] - its[crystal] for crystal in shared]
    low, high, p = _t_test(differences)
    by_seed = [
        a - b
        for repeat in common
        if (a := here[repeat].error(part)) is not None and (b := there[repeat].error(part)) is not None
    ]
    return Comparison(Spread.of(by_seed), statistics.fmean(differences), low, high, p, len(shared))


def _by_repeat(row: Row, over: Sequence[str]) -> dict[tuple[Any, ...], Run]:
    return {repeat_of(run.config, over): run for run in row.finished}


def mean_errors(runs: Iterable[Run], part: str) -> dict[str, float]:
    """Absolute error of each crystal, the mean over the runs that predict it."""
    errors: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for crystal, error in run.errors(part).items():
            errors[crystal].append(error)
    return {crystal: statistics.fmean(values) for crystal, values in errors.items()}


def _t_test(differences: Sequence[float]) -> tuple[float, float, float]:
    """95 % interval of the mean, and p of the two-sided one-sample t test against 0."""
    from scipy import stats

    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / len(differences) ** 0.5
    if error == 0:  # predictions that differ nowhere, or everywhere by the same
        return mean, mean, 1.0 if mean == 0 else 0.0
    student = stats.t(len(differences) - 1)
    half = float(student.ppf(0.975)) * error
    return mean - half, mean + half, 2 * float(student.sf(abs(mean) / error))
