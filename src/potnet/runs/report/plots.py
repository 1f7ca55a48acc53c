"""The pictures of a report. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

from potnet.runs.figures import BLUE, INK, ORANGE, new_figure
from potnet.runs.report.rows import Row, Section

REFERENCE, OTHER = ORANGE, BLUE


def curve(row: Row, key: str = "val/mae") -> list[tuple[int, float, float, float]]:
    """A column of metrics.csv over all runs of a row: (epoch, counted from 1, mean, least, most)."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in row.runs:
        for epoch in run.epochs:
            if key in epoch and "epoch" in epoch:
                values[int(epoch["epoch"]) + 1].append(epoch[key])
    return [(epoch, statistics.fmean(v), min(v), max(v)) for epoch, v in sorted(values.items())]


def error_plot(path: Path, section: Section) -> None:
    """Errors of all rows on one axis: every run a dot, the mean a line, the standard deviation a bar.

    Args:
        path: PNG to write.
        section: With at least one finished run.
    """
    rows = [row for row in section.rows if row.error(section.part)]
    figure, axes = new_figure(7.0, 1.2 + 0.3 * len(rows), dpi=140)
    for place, row in enumerate(rows):
        color = REFERENCE if row is section.reference else OTHER
        error = row.error(section.part)
        assert error is not None
        axes.errorbar(
            error.mean, place, xerr=error.deviation or 0, color=color, capsize=3, marker="|", markersize=11
        )
        dots = [mae for run in row.finished if (mae := run.metric(section.part)) is not None]
        axes.scatter(dots, [place] * len(dots), s=14, color=color, alpha=0.55, linewidths=0, zorder=3)
    best = section.reference.error(section.part)
    if best:
        axes.axvline(best.mean, color=REFERENCE, linewidth=0.9, linestyle=":", zorder=1)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(_label(section, section.part))
    figure.savefig(path)


def learning_plot(path: Path, section: Section) -> None:
    """Validation error by epoch: the mean of each row, and a band from the least to the most of its runs.

    Args:
        path: PNG to write.
        section: With at least one epoch in a run.
    """
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    figure, axes = new_figure(7.5, 4.6, dpi=140)
    rows = [row for row in section.rows if curve(row)]
    others = [row for row in rows if row is not section.reference]
    palette, styles = colormaps["tab10"], ("-", "--", ":", "-.")
    look = {id(row): (palette(i % 10), styles[i // 10 % 4], 1.2) for i, row in enumerate(others)}
    for row in rows:
        color, style, width = look.get(id(row), (INK, "-", 2.2))
        epochs, mean, low, high = zip(*curve(row), strict=True)
        marker = "o" if len(epochs) < 3 else None
        axes.plot(epochs, mean, color=color, linestyle=style, linewidth=width, marker=marker, label=row.name)
        axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)
    axes.set_yscale("log")
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter(ScalarFormatter())
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(_label(section, "val"))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path)


def _label(section: Section, part: str) -> str:
    unit = f", {section.unit}" if section.unit else ""
    return f"{'validation' if part == 'val' else part} MAE of {section.name}{unit}"
