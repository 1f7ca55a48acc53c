"""The error of each element, on a periodic table. matplotlib is imported when it is drawn."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from potnet.crystals.elements import ATOMIC_NUMBERS, MAX_Z, SYMBOLS
from potnet.runs.figures import GRID, INK, new_figure, save

if TYPE_CHECKING:
    from potnet.runs.figures import Destination

EMPTY = "#f7f7f7"

UNSURE = 10
"""An error over fewer crystals than this is drawn as unsure."""

NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)
"""Atomic numbers that end a period."""


@dataclass(frozen=True)
class ElementError:
    """The mean absolute error of the crystals that contain an element.

    Attributes:
        mae: In the learned unit.
        crystals: How many there are.
    """

    mae: float
    crystals: int


def elements_of(formula: str) -> set[int]:
    """Atomic numbers of the elements in a chemical formula, such as "Mg(OH)2"."""
    return {ATOMIC_NUMBERS[found] for found in re.findall("[A-Z][a-z]?", formula) if found in ATOMIC_NUMBERS}


def error_by_element(formulas: Sequence[str], errors: Sequence[float]) -> dict[int, ElementError]:
    """The error of each element that occurs, by atomic number; a crystal counts for each of its elements.

    Args:
        formulas: n formulas.
        errors: n absolute errors, in the learned unit.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for formula, error in zip(formulas, errors, strict=True):
        for z in elements_of(formula):
            found[z].append(error)
    return {z: ElementError(sum(found[z]) / len(found[z]), len(found[z])) for z in sorted(found)}


def place(z: int) -> tuple[float, int]:
    """Row and column of an element in the table of 18 columns; lanthanides and actinides stand below it."""
    period = bisect_left(NOBLE_GASES, z)
    first = NOBLE_GASES[period - 1] + 1 if period else 1
    length = NOBLE_GASES[period] - first + 1
    nth = z - first
    if length == 32 and 2 <= nth <= 16:
        return period + 2.4, nth
    # What a short period lacks is missing behind its s block: one element in the first, two in the others.
    return period, nth if nth < min(2, length // 2) else nth + 18 - length


def plot_error_by_element(
    path: Destination, errors: Mapping[int, ElementError], name: str, unit: str
) -> None:
    """Draw the heat map; each element that occurs shows its symbol and the number of crystals.

    Args:
        path: Where it goes.
        errors: By atomic number, at least one.
        name: Of the property.
        unit: Learned unit, that of the errors.
    """
    # Figure without pyplot: no global state, no display.
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    figure, axes = new_figure(9.0, 5.0)
    axes.set(xlim=(-0.6, 17.6), ylim=(9.5, -0.6), aspect="equal")
    axes.axis("off")
    # A single bad crystal of a rare element must not take all the colour.
    top = sorted(error.mae for error in errors.values())[int(0.95 * (len(errors) - 1))] or 1.0
    colors, scale = colormaps["YlOrRd"], Normalize(0.0, top)
    for z in range(1, MAX_Z + 1):
        row, column = place(z)
        error = errors.get(z)
        face = EMPTY if error is None else colors(scale(error.mae))
        unsure = error is not None and error.crystals < UNSURE
        look: dict[str, Any] = {"facecolor": face, "edgecolor": GRID}
        if unsure:  # pale and hatched: the mean of a few crystals says little
            look = {"facecolor": (*face[:3], 0.35), "edgecolor": "#999999", "linestyle": ":", "hatch": "////"}
            look["linewidth"] = 0.6
        axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, **look))
        if error is None:
            axes.text(column, row, SYMBOLS[z], ha="center", va="center", color="#aaaaaa", fontsize=8)
            continue
        ink = "white" if scale(error.mae) > 0.65 and not unsure else INK
        axes.text(column, row - 0.12, SYMBOLS[z], ha="center", va="center", color=ink, fontsize=10)
        axes.text(column, row + 0.29, str(error.crystals), ha="center", va="center", color=ink, fontsize=5.5)
    bar = figure.colorbar(
        ScalarMappable(scale, colors),
        cax=axes.inset_axes((0.2, 0.87, 0.42, 0.03)),
        orientation="horizontal",
        extend="max",
    )
    bar.outline.set_visible(False)
    bar.ax.set_title(f"{name}: test MAE{f', {unit}' if unit else ''}", fontsize=10, color=INK)
    axes.text(
        -0.5,
        9.45,
        f"small: test crystals that contain the element; hatched: fewer than {UNSURE}, so unsure",
        color=INK,
        fontsize=8,
        va="bottom",
    )
    save(figure, path)
