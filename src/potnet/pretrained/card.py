# ruff: noqa: E501  (lines of text)
"""The card of a model: a page that says what it is for, how good it is, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from potnet.files import write_whole
from potnet.inference.intervals import GRID, LEVELS

if TYPE_CHECKING:
    from potnet.inference.predictor import Predictor
    from potnet.pretrained.measure import Part


def write_card(
    folder: Path,
    name: str,
    entry: Mapping[str, Any],
    classes: Mapping[str, Mapping[str, Any]],
    elements: Mapping[str, Mapping[str, Any]],
    sizes: Mapping[str, Mapping[str, Any]],
    test: Part,
    half_width: np.ndarray,
    curve: np.ndarray,
    notes: str,
    seconds: Sequence[float],
    member: Predictor,
) -> Path:
    """Write NAME.md and NAME.png.

    Args:
        folder: Of both.
        name: Of the model.
        entry: Of the registry.
        classes, elements, sizes: See `potnet.pretrained.measure`.
        test: The test part.
        half_width: (n,) of the shipped intervals at 90 % on the test part, learned unit.
        curve: (99,) coverage by level, mean over divisions of the test part.
        notes: Markdown.
        seconds: That members trained.
        member: The first one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _plot(folder / f"{name}.png", test, half_width, curve, entry)
    data, figures, unit = entry["data"], entry["figures"], entry["learned_unit"] or "no unit"
    parameters = sum(p.numel() for p in member.model.parameters())
    lines = [
        f"# {name}: {entry['title']}",
        "",
        f"{len(entry['members'])} network{'s' if len(entry['members']) > 1 else ''} ({type(member.model).__name__}, {parameters:,} parameters each, stored "
        f"as {entry['weights']}) that predict {entry['target']}"
        + (f" in {entry['unit']}" if entry["unit"] else "")
        + f", with conformal intervals. `potnet predict FILES model={name}`.",
        "",
        "## For what",
        "",
        f"Ordered inorganic crystals like those of {data['name']}, relaxed as there: ranking and screening, and a first "
        "value before a calculation. It reproduces the calculations that it learned from, with their errors.",
        "",
        "Not for: molecules, surfaces, disordered or defective cells, structures far from equilibrium, elements that "
        "the flags name; not as a substitute for a calculation where one decision depends on one value.",
        *(["", notes] if notes else []),
        "",
        "## Data",
        "",
        f"{data['name']}: {', '.join(f'{n} {part}' for part, n in data['sizes'].items())}. "
        f"Licence: {data['licence'] or 'see its source'}. {data['citation']}",
        "",
        f"Content {data['content_hash'][:16]}..., split {data['split_hash'][:16]}... "
        f"The test part ({figures['test']['n']} crystals) calibrates the intervals.",
        "",
        "## Errors",
        "",
        f"| part | crystals | MAE, {unit} | RMSE | MAE of each member |",
        "|---|---|---|---|---|",
        *(
            f"| {part} | {figures[part]['n']} | {figures[part]['mae']} | {figures[part]['rmse']} | "
            f"{', '.join(map(str, figures[part]['members_mae']))} |"
            for part in ("train", "val", "test")
        ),
        "",
        "The best epoch of each member was chosen on the validation part.",
        *_table("atoms of the primitive cell", sizes, unit),
        *_table("crystals with the element", elements, unit),
        "",
        "## Intervals",
        "",
        "Mean over 20 divisions of the test part by formula: one half calibrates, the other is tested; what is shipped is calibrated on both. Width: median, "
        f"{unit}. z²: mean squared error over the squared deviation that the method states, 1 is right.",
        "",
        f"| method | {' | '.join(f'{100 * level:g} % holds' for level in LEVELS)} | width at 90 % | "
        "miscalibration area | z² |",
        "|---" * (len(LEVELS) + 4) + "|",
        *(
            _method(m, figures[m])
            for m in ("conformal", "spread normalised", "spread", "one network", "last layer")
            if m in figures
        ),
        "",
        "conformal: mean of the members, with intervals normalised by their spread and by the errors of the 20 nearest "
        "validation crystals, shipped. spread normalised: the same by the spread alone. spread: their standard deviation as that of a normal distribution. "
        "one network: the first member, conformal intervals of equal width. last layer: the first member, Bayesian "
        "regression on its last layer, as the deviation of a normal distribution.",
        "",
        "| class | crystals | 90 % holds |",
        "|---|---|---|",
        *(f"| {kind} | {row['n']} | {100 * row['coverage_0.9']:.1f} |" for kind, row in classes.items()),
        "",
        *_outside(figures.get("outside"), unit),
        f"![predictions and calibration]({name}.png)",
        "",
        "The promise holds for crystals of the kind of the test part. For others (an element that was never seen, a "
        "structure far from all training crystals) the column `flags` says so, and the interval may hold less.",
        "",
        "## Training",
        "",
        *([f"    {line}" for line in entry["command"]] or ["Command: see the record in the weights."]),
        "",
        f"Registered {entry['date']}. "
        + (f"Training a member took {', '.join(f'{s / 60:.0f} min' for s in seconds)}. " if seconds else "")
        + f"Licence of the weights: {entry['licence']}. Made by `potnet register`.",
        "",
    ]
    card = folder / f"{name}.md"
    write_whole(card, "\n".join(lines))
    return card


def _outside(found: Mapping[str, Any] | None, unit: str) -> list[str]:
    """The section on crystals of another kind; nothing if none were tried."""
    if not found:
        return []
    return [
        "## Crystals of another kind",
        "",
        f"{found['title']}: {found['n']} crystals whose formulas are not in the data of the model"
        + (f" ({found['failed']} more could not be predicted)" if found["failed"] else "")
        + ". What the shipped intervals at 90 % hold there, and which flags are raised (a crystal may have several):",
        "",
        f"| crystals | share, % | MAE, {unit} | 90 % holds | median width |",
        "|---|---|---|---|---|",
        *(
            f"| {kind} ({row['n']}) | {100 * row['share']:.1f} | {row['mae']} | {100 * row['coverage']:.1f} | {row['width']} |"
            for kind, row in found["rows"].items()
        ),
        "",
    ]


def _method(name: str, row: Mapping[str, Any]) -> str:
    """A row of the table of intervals."""
    held = " | ".join(f"{100 * row['coverage'][level]:.1f}" for level in LEVELS)
    return (
        f"| {name} | {held} | {row['width'][0.9]} | {row['miscalibration_area']} | {row['mean_squared_z']} |"
    )


def _table(what: str, rows: Mapping[str, Mapping[str, Any]], unit: str) -> list[str]:
    shown = sorted(rows.items(), key=lambda row: -row[1]["mae"])
    if len(shown) > 12:
        shown = [*shown[:6], *shown[-6:]]
        what = f"{what} (six with the largest and six with the smallest error)"
    else:
        shown = list(rows.items())
    return [
        "",
        f"| {what} | crystals | MAE, {unit} |",
        "|---|---|---|",
        *(f"| {name} | {row['n']} | {row['mae']} |" for name, row in shown),
    ]


def _plot(
    file: Path, test: Part, half_width: np.ndarray, curve: np.ndarray, entry: Mapping[str, Any]
) -> None:
    """Left: predictions with 90 % intervals against labels. Right: asked and found coverage."""
    from matplotlib.figure import Figure

    known = np.isfinite(test.label)
    part = test.take(known)
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.errorbar(
        part.label,
        part.mean,
        yerr=np.nan_to_num(half_width[known], posinf=0.0),
        fmt=".",
        markersize=3,
        elinewidth=0.4,
        alpha=0.6,
    )
    ends = [float(min(part.label.min(), part.mean.min())), float(max(part.label.max(), part.mean.max()))]
    left.plot(ends, ends, color="black", linewidth=0.8)
    left.set_xlabel(f"{entry['title']}, {entry['learned_unit']}")
    left.set_ylabel("prediction with 90 % interval")
    right.plot(GRID, curve)
    right.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    right.set_xlabel("level asked")
    right.set_ylabel("labels inside")
    right.set_title("mean over divisions of the test part by formula", fontsize="small")
    figure.savefig(file, dpi=110)
