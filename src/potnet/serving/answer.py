"""What the page says of a file: its crystals, predictions, and training crystals like them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from potnet.crystals import Crystal, CrystalError
from potnet.data.sources import open_structures
from potnet.inference.predictor import Predictor

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST = 100
"""Crystals of one file that the page offers."""


def read_upload(name: str, content: bytes, box: float | None = None) -> tuple[list[Crystal], list[str]]:
    """The crystals of a file that was dropped, and what is wrong with others. Nothing is kept on disk.

    Args:
        name: Of the file; its ending says what it is.
        content: Its bytes.
        box: See `read_crystals`.
    """
    crystals: list[Crystal] = []
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        # Its ending and the beginning: a name may be too long for the file system, or none at all.
        stem = Path(name.replace("\0", "")).name.removeprefix("..")
        file = Path(folder) / (stem[:80] + "".join(Path(stem[80:]).suffixes[-2:]) or "structure")
        file.write_bytes(content)
        for outcome in open_structures(file, box):
            if isinstance(outcome, CrystalError):
                problems.append(str(outcome).replace(str(file), file.name).replace(f"{folder}/", ""))
            else:
                crystals.append(outcome)
            if len(crystals) == MOST:
                break
    return crystals, problems


@dataclass
class Answer:
    """What is known of one crystal.

    Attributes:
        values: A row a target: property, value, unit, spread, lower, upper (numbers, or None).
        flags: Why values may be wrong.
        nearest: By target, rows of training crystals: id, formula, value, distance.
        problem: Why there are no values.
    """

    values: list[dict[str, Any]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    nearest: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    problem: str = ""


def answer(predictor: Predictor, crystal: Crystal, level: float) -> Answer:
    """Predict a crystal."""
    table = predictor.predict([crystal], on_error="skip", level=level)
    if table.failures:
        return Answer(problem=table.failures[0].reason)
    row = table[0]
    found = Answer(flags=[flag for flag in row["flags"].split("; ") if flag])
    several = len(predictor.targets) > 1
    for key, target in predictor.targets.items():
        if key not in row:
            continue
        prefix = f"{key}_" if several else ""
        beside = {name: row.get(f"{prefix}{column}") for name, column in
                  (("spread", "std"), ("lower", "lower"), ("upper", "upper"))}  # fmt: skip
        known = {name: None if value is None or np.isnan(value) else value for name, value in beside.items()}
        found.values.append({"property": target.title, "value": row[key], "unit": target.unit, **known})
    for model in getattr(predictor, "models", {"": predictor}).values():
        nearest = getattr(model, "nearest", None)
        for neighbours in nearest([crystal]) if nearest else ():
            target = model.targets.first
            found.nearest[target.title] = [
                {"id": one.id, "formula": one.formula, f"{target.key} ({target.unit})": one.value,
                 "distance": round(distance, 2)}
                for one, distance in neighbours
            ]  # fmt: skip
    return found


def picture(crystal: Crystal) -> Figure:
    """A crystal in its cell, with the images of atoms on faces, edges and corners."""
    import plotly.graph_objects as go
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors

    fractional = np.linalg.solve(crystal.cell.T, crystal.positions.T).T % 1.0
    shifts = np.stack(np.meshgrid(*[(0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    places = (fractional[:, None] + shifts[None]).reshape(-1, 3)
    z = np.repeat(crystal.z, len(shifts))
    inside = (places <= 1.0 + 1e-3).all(1)
    places, z = places[inside] @ crystal.cell, z[inside]
    figure = go.Figure()
    for kind in np.unique(z):
        here = places[z == kind]
        red, green, blue = (255 * jmol_colors[kind]).astype(int)
        figure.add_trace(
            go.Scatter3d(
                x=here[:, 0], y=here[:, 1], z=here[:, 2], mode="markers", name=chemical_symbols[kind],
                marker={"size": 12 * float(covalent_radii[kind]), "color": f"rgb({red},{green},{blue})",
                        "opacity": 1.0, "line": {"width": 1, "color": "#333"}},
                hovertemplate=f"{chemical_symbols[kind]} at %{{x:.3f}}, %{{y:.3f}}, %{{z:.3f}} Å"
                "<extra></extra>",
            )
        )  # fmt: skip
    edges: list[Any] = []
    for start in shifts:
        for axis in range(3):
            if start[axis] == 0:
                stop = start + np.eye(3, dtype=int)[axis]
                edges += [start @ crystal.cell, stop @ crystal.cell, [None] * 3]
    x, y, height = zip(*edges, strict=True)
    lines = {"color": "#888", "width": 3}
    figure.add_trace(
        go.Scatter3d(x=x, y=y, z=height, mode="lines", line=lines, hoverinfo="skip", showlegend=False)
    )
    # Not along a diagonal, where atoms of a cubic cell hide each other.
    camera = {"projection": {"type": "orthographic"}, "eye": {"x": 1.5, "y": 0.55, "z": 0.4}}
    hidden = {axis: {"visible": False} for axis in ("xaxis", "yaxis", "zaxis")}
    figure.update_layout(
        scene={**hidden, "aspectmode": "data", "camera": camera},
        margin=dict.fromkeys("lrtb", 0),
        height=420,
        legend={"orientation": "h"},
    )
    return figure
