"""The two pictures of a run. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from potnet.runs.figures import BLUE, INK, ORANGE, new_figure, plain_log, save, title_marks

if TYPE_CHECKING:
    from potnet.data.targets import Target
    from potnet.runs.figures import Destination

TRAIN, VALIDATION, TEST = "#9aa5b1", ORANGE, BLUE


def parity_plot(
    path: Destination,
    target: Sequence[float] | np.ndarray,
    prediction: Sequence[float] | np.ndarray,
    metrics: Mapping[str, Any],
    name: str,
    unit: str,
    log: bool,
    ids: Sequence[str] = (),
) -> None:
    """Predictions against targets of the test part.

    Args:
        path: Where it goes.
        target: (n,) in physical units.
        prediction: (n,) in physical units.
        metrics: `mae`, `r2`, `unit` for the inset.
        name: Of the property.
        unit: Physical unit.
        log: Whether both axes are logarithmic.
        ids: n names of crystals, shown on a page.
    """
    target, prediction = np.asarray(target, dtype=float), np.asarray(prediction, dtype=float)
    figure, axes = new_figure(5.0, 4.6)
    both = np.concatenate([target, prediction])
    both = both[both > 0] if log else both
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.1, 1.0)
    if log:
        low, high = low / 1.2, high * 1.2
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_log(axes.xaxis)
        plain_log(axes.yaxis)
    else:
        margin = 0.04 * (high - low) or 1.0
        low, high = low - margin, high + margin
    axes.plot([low, high], [low, high], color=INK, linewidth=0.9, zorder=1)
    points = axes.scatter(target, prediction, s=12, color=TEST, alpha=0.55, linewidths=0, zorder=2)
    if len(ids):
        shown = (target > 0) & (prediction > 0) if log else np.isfinite(target + prediction)
        triples = zip(np.asarray(ids)[shown], target[shown].tolist(), prediction[shown].tolist(), strict=True)
        title_marks(points, [f"{id}: {x:.4g}, predicted {y:.4g}" for id, x, y in triples])
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    suffix = f" ({unit})" if unit else ""
    axes.set_xlabel(f"{name}, DFT{suffix}")
    axes.set_ylabel(f"{name}, predicted{suffix}")
    lines = [f"{len(target)} test crystals", f"MAE {metrics['mae']:.4f} {metrics['unit']}".rstrip()]
    if metrics["r2"] is not None:
        lines.append(f"R² {metrics['r2']:.3f}")
    axes.text(0.04, 0.96, "\n".join(lines), transform=axes.transAxes, va="top", color=INK)
    save(figure, path)


def learning_curve(path: Destination, rows: Sequence[Mapping[str, Any]], target: Target) -> None:
    """Errors of training and validation by epoch.

    Args:
        path: Where it goes.
        rows: Of metrics.csv.
        target: Whose.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(5.0, 4.6)
    names = ("error", "accuracy") if target.is_class else ("mae", "mae")
    for part, name, color in (("train", names[0], TRAIN), ("val", names[1], VALIDATION)):
        points = _points(rows, f"{part}/{target.key}/{name}")
        if not points:
            continue
        x, y = zip(*points, strict=True)
        if name == "accuracy":
            y = tuple(1 - value for value in y)
        label = "training" if part == "train" else "validation"
        axes.plot(x, y, color=color, linewidth=1.6, marker="o" if len(x) < 3 else None, label=label)
        if part == "val":
            best = int(np.nanargmin(y)) if np.isfinite(y).any() else 0
            axes.scatter([x[best]], [y[best]], color=color, s=28, zorder=3)
            axes.annotate(
                f"{y[best]:.4f}", (x[best], y[best]), xytext=(0, -14), textcoords="offset points",
                ha="center", color=color, fontsize=9,
            )  # fmt: skip
    if not target.is_class:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    what = "wrong classes" if target.is_class else f"MAE, {target.metric_unit}".rstrip(", ")
    axes.set_ylabel(f"{target.title}: {what}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    save(figure, path)


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """Number of the epoch, from 1, and the value of a column, where there is one."""
    return [(int(row["epoch"]) + 1, float(row[key])) for row in rows if row.get(key) not in (None, "")]
