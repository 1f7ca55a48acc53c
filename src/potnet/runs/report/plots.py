"""The pictures of a report: files beside it, and parts of its page."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.runs.figures import BLUE, INK, ORANGE, new_figure, plain_log, save, title_marks
from potnet.runs.report.rows import Row, Section
from potnet.runs.report.search import axis_of, parameters_of

if TYPE_CHECKING:
    from potnet.runs.figures import Destination

_PALETTE = (
    "#2166ac", "#1b9e77", "#7570b3", "#a6761d", "#e7298a", "#66a61e", "#4d4d4d", "#17becf",
    "#b2182b", "#9970ab",
)  # fmt: skip
_DASHES = ("-", "--", ":", "-.")


def looks(section: Section) -> dict[str, tuple[str, str]]:
    """Name of a row -> its colour, and the dashes of its line.

    The reference row is orange; further rows take the palette in order, once for each kind of dashes.
    """
    found = {}
    others = [row for row in section.rows if row is not section.reference]
    for i, row in enumerate(others):
        found[row.name] = (_PALETTE[i % len(_PALETTE)], _DASHES[i // len(_PALETTE) % len(_DASHES)])
    found[section.reference.name] = (ORANGE, _DASHES[0])
    return found


def curve(row: Row, part: str = "val") -> list[tuple[int, float, float, float]]:
    """Error by epoch over all runs of a row: (epoch, counted from 1, mean, least, most)."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in row.runs:
        for epoch, error in run.curve(part):
            values[epoch].append(error)
    return [(epoch, statistics.fmean(v), min(v), max(v)) for epoch, v in sorted(values.items())]


def error_plot(path: Destination, section: Section) -> None:
    """Errors of all rows on one axis: every run a dot, the mean a line, the standard deviation a bar.

    Args:
        path: Where it goes.
        section: With at least one finished run.
    """
    rows = [row for row in section.rows if row.error(section.part)]
    look = looks(section)
    figure, axes = new_figure(7.0, 1.2 + 0.3 * len(rows), dpi=140)
    for place, row in enumerate(rows):
        color, _ = look[row.name]
        error = row.error(section.part)
        assert error is not None
        axes.errorbar(
            error.mean, place, xerr=error.deviation or 0, color=color, capsize=3, marker="|", markersize=11
        )
        dots = [value for run in row.finished if (value := run.error(section.part)) is not None]
        points = axes.scatter(
            dots, [place] * len(dots), s=14, color=color, alpha=0.55, linewidths=0, zorder=3
        )
        names = [run.folder.name for run in row.finished if run.error(section.part) is not None]
        title_marks(points, [f"{n}: {x:.4f}" for n, x in zip(names, dots, strict=True)], row.name)
    best = section.reference.error(section.part)
    if best:
        axes.axvline(best.mean, color=ORANGE, linewidth=0.9, linestyle=":", zorder=1)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label_of(section, section.part))
    save(figure, path)


def learning_plot(path: Destination, section: Section) -> None:
    """Validation error by epoch: the mean of each row, and a band from the least to the most of its runs.

    Args:
        path: Where it goes.
        section: With at least one epoch in a run.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(7.5, 4.6, dpi=140)
    look = looks(section)
    lines = [(row.name, curve(row), *look[row.name]) for row in section.rows]
    if len(section.rows) == 1:  # a single configuration is shown with its training error
        lines.insert(0, ("training", curve(section.rows[0], "train"), "#9aa5b1", _DASHES[0]))
        lines[1] = ("validation", *lines[1][1:])
    for name, points, color, dashes in lines:
        if not points:
            continue
        epochs, mean, low, high = zip(*points, strict=True)
        width = 2.2 if color == ORANGE else 1.2
        marker = "o" if len(epochs) < 3 else None
        (line,) = axes.plot(
            epochs, mean, color=color, linestyle=dashes, linewidth=width, marker=marker, label=name
        )
        title_marks(line, [f"{name}: at last {mean[-1]:.4f}, at best {min(mean):.4f}"], name)
        band = axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)
        title_marks(band, [f"{name}: the least and the most of its runs"], name)
    if section.measure == "MAE":
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(label_of(section, "val" if len(section.rows) > 1 else ""))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def coordinates(section: Section) -> dict[str, Any]:
    """Parallel coordinates of a search: a line a finished trial, an axis a setting and one for the error.

    Returns:
        `axes`: names; `labels`: for each axis (place from 0 to 1, text); `lines`: for each trial its row's
        name, its places, its error, and the texts of its settings.
    """
    rows = [row for row in section.rows if row.error("val")]
    names = parameters_of(section)
    places, labels = [], []
    for key in names:
        where, texts = axis_of([row.settings.get(key) for row in rows])
        places.append(where)
        labels.append(texts)
    errors = [error.mean for row in rows if (error := row.error("val")) is not None]
    where, texts = axis_of(errors)
    places.append(where)
    labels.append(texts if len(texts) <= 2 else [texts[0], texts[-1]])
    return {
        "axes": [*names.values(), label_of(section, "val")],
        "labels": labels,
        "lines": [
            {"name": row.name, "places": list(points), "error": error}
            for row, points, error in zip(rows, zip(*places, strict=True), errors, strict=True)
        ],
    }


def parallel_plot(path: Destination, section: Section) -> None:
    """Parallel coordinates of a search, dark for a small error, the best trial in orange.

    Args:
        path: Where it goes.
        section: Of `search.ranked`, with at least one finished trial.
    """
    found = coordinates(section)
    axes_count, lines = len(found["axes"]), found["lines"]
    figure, axes = new_figure(1.6 + 1.5 * axes_count, 4.2, dpi=140)
    axes.grid(False)
    for rank, line in reversed(list(enumerate(lines))):
        best = rank == 0
        shade = 0.15 + 0.7 * rank / max(len(lines) - 1, 1)
        color: Any = ORANGE if best else (shade, shade + 0.02, shade + 0.05)
        (drawn,) = axes.plot(
            range(axes_count), line["places"], color=color,
            linewidth=2.6 if best else 1.0, zorder=3 if best else 2,
        )  # fmt: skip
        title_marks(drawn, [f"{line['name']}: {line['error']:.4f}"], line["name"])
    for x, (name, labels) in enumerate(zip(found["axes"], found["labels"], strict=True)):
        axes.plot([x, x], [0, 1], color=INK, linewidth=0.8, zorder=1)
        for y, text in labels:
            axes.annotate(
                text, (x, y), xytext=(4, 0), textcoords="offset points", fontsize=7, va="center", color=BLUE
            )
        axes.annotate(name, (x, 1.0), xytext=(0, 12), textcoords="offset points", fontsize=8, ha="center")
    axes.set(xlim=(-0.3, axes_count - 0.4), ylim=(-0.05, 1.12), xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    save(figure, path)


def trial_plot(path: Destination, section: Section) -> None:
    """Validation error of each trial in the order in which they ran, and the best so far."""
    figure, axes = new_figure(7.0, 3.6, dpi=140)
    points = trials(section)
    dots = axes.scatter(
        [n for n, _, _ in points], [error for _, error, _ in points], s=18, color=BLUE, linewidths=0
    )
    title_marks(dots, [f"trial {n}: {error:.4f}" for n, error, _ in points])
    axes.step(
        [n for n, _, _ in points], [best for _, _, best in points], where="post", color=ORANGE, linewidth=1.6
    )
    axes.set_yscale("log")
    plain_log(axes.yaxis)
    axes.set(xlabel="trial", ylabel=label_of(section, "val"))
    save(figure, path)


def trials(section: Section) -> list[tuple[int, float, float]]:
    """Number of each finished trial, its validation error, and the least so far, in the order of numbers."""
    found: list[tuple[int, float]] = []
    for row in section.rows:
        number = row.runs[0].folder.name.partition("_")[0]
        error = row.error("val")
        if error is not None:
            found.append((int(number) if number.isdigit() else len(found), error.mean))
    best, points = float("inf"), []
    for n, value in sorted(found):
        best = min(best, value)
        points.append((n, value, best))
    return points


def label_of(section: Section, part: str) -> str:
    """Of an axis: "test MAE of bulk modulus, log10(GPa)"."""
    unit = f", {section.unit}" if section.unit else ""
    name = {"val": "validation "}.get(part, f"{part} " if part else "")
    return f"{name}{section.measure} of {section.name}{unit}"


def drawings(section: Section, kind: str) -> dict[str, Callable[[Destination], None]]:
    """What a report of this kind draws of a section, by name; what has no data is left out.

    Args:
        section: Of the report.
        kind: "run", "study" or "search".
    """
    found: dict[str, Callable[[Destination], None]] = {}
    if kind == "run":
        found |= _single(section)
    elif kind == "search" and any(row.error("val") for row in section.rows):
        found["parallel"] = partial(parallel_plot, section=section)
        found["trials"] = partial(trial_plot, section=section)
    elif kind == "study" and any(row.error(section.part) for row in section.rows):
        found["errors"] = partial(error_plot, section=section)
    if kind != "search" and any(curve(row) for row in section.rows):
        found["learning"] = partial(learning_plot, section=section)
    return found


def _single(section: Section) -> dict[str, Callable[[Destination], None]]:
    from potnet.runs.periodic_table import plot_error_by_element
    from potnet.runs.plots import parity_plot
    from potnet.runs.report.single import element_errors, pairs

    (run,) = section.rows[0].runs
    found: dict[str, Callable[[Destination], None]] = {}
    points = pairs(run, section.part)
    if points:
        ids, values, predictions = zip(*points, strict=True)
        found["parity"] = partial(
            parity_plot,
            target=values,
            prediction=predictions,
            metrics=(run.metrics or {}).get(section.part, {}).get(section.key, {}),
            name=section.name,
            unit=str(run.target.get("unit") or ""),
            log=run.target.get("transform") == "log10",
            ids=ids,
        )
    elements = element_errors(run)
    if elements:
        found["elements"] = partial(
            plot_error_by_element, errors=elements, name=section.name, unit=section.unit
        )
    return found


def pictures(folder: Path, sections: Sequence[Section], kind: str) -> list[Path]:
    """Draw a report's pictures into files NAME_TARGET.png of a folder."""
    drawn: list[Path] = []
    for section in sections:
        for name, draw in drawings(section, kind).items():
            drawn.append(folder / f"{name}_{section.key}.png")
            draw(drawn[-1])
    return drawn
