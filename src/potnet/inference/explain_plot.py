"""The picture of an explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes

    from potnet.inference.explain import Explanation

COLORS = "RdBu_r"


def plot(explanation: Explanation, id: str) -> Figure:
    """See `Explanation.plot`; `id` is one of its crystals."""
    atoms = explanation.cells[id]
    columns = {
        name: values[explanation.crystals["id"].index(id)] for name, values in explanation.crystals.items()
    }
    without = {
        name.removeprefix("without_"): value for name, value in columns.items() if name.startswith("without_")
    }
    panels = 1 + bool(without) + bool(explanation.pairs)
    figure = Figure(figsize=(1 + 3.6 * panels, 3.8), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, panels)))
    unit = explanation.unit or "no unit"
    figure.suptitle(
        f"{id}, {atoms.get_chemical_formula()}: {explanation.target} {columns['value']:.3f} {unit}",
        fontsize="medium",
    )
    rows = [n for n, name in enumerate(explanation.atoms["id"]) if name == id]
    _atoms(axes.pop(0), atoms, np.array([explanation.atoms["contribution"][n] for n in rows]), unit)
    if without:
        _potentials(axes.pop(0), {name: columns["value"] - value for name, value in without.items()}, unit)
    if explanation.pairs:
        square = np.zeros((len(atoms), len(atoms)))
        table = zip(
            *(explanation.pairs[name] for name in ("id", "atom_1", "atom_2", "contribution")), strict=True
        )
        for name, i, j, value in table:
            if name == id:
                square[i, j] = square[j, i] = value
        _pairs(axes.pop(0), square, atoms, unit)
    return figure


def _norm(values: np.ndarray) -> TwoSlopeNorm:
    most = float(np.abs(values).max(initial=0.0)) or 1.0
    return TwoSlopeNorm(0.0, -most, most)


def _atoms(axes: Axes, atoms: Atoms, values: np.ndarray, unit: str) -> None:
    """The cell, seen a little from the side."""
    from ase.visualize.plot import plot_atoms

    colors = ScalarMappable(_norm(values), COLORS)
    plot_atoms(
        atoms, axes, radii=0.5, rotation="-70x,15y,5z", colors=colors.to_rgba(values)[:, :3], show_unit_cell=2
    )
    axes.set_axis_off()
    axes.set_title("contribution of atoms", fontsize="small")
    axes.figure.colorbar(colors, ax=axes, shrink=0.7, label=unit)


def _potentials(axes: Axes, changes: dict[str, float], unit: str) -> None:
    axes.barh(list(changes), list(changes.values()), color="C0")
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_title("what the complete potentials add", fontsize="small")
    axes.set_xlabel(f"value less that without them, {unit}", fontsize="small")


def _pairs(axes: Axes, square: np.ndarray, atoms: Atoms, unit: str) -> None:
    picture = axes.imshow(square, cmap=COLORS, norm=_norm(square))
    if len(atoms) <= 24:
        names = [f"{symbol}{n}" for n, symbol in enumerate(atoms.get_chemical_symbols())]
        axes.set_xticks(range(len(atoms)), names, rotation=90, fontsize="small")
        axes.set_yticks(range(len(atoms)), names, fontsize="small")
    axes.set_title("contribution of pairs, by their potentials", fontsize="small")
    axes.figure.colorbar(picture, ax=axes, shrink=0.7, label=unit)
