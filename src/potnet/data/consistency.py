"""Whether labelled forces and stress are the derivatives of the labelled energies, in sign and unit, and of
the configuration that they stand with.

Of two configurations A and B of the same atoms, near each other, the trapezoidal rule gives

    E_B - E_A = V s : e - F . d,

with the strain e between their cells, the displacements d of the atoms beside it, and volume V, stress s and
forces F as means of both. Labels that are c times too large fit with a factor of 1 / c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from potnet.crystals import Crystal
from potnet.data.errors import name_some

if TYPE_CHECKING:
    from potnet.data.features.store import FeatureStore
    from potnet.data.targets import Targets

LOOKED_AT = 1000
"""Crystals whose labels are compared at the start of a run."""

KBAR, GPA = 1602.176634, 160.2176634
"""In one eV/Å³."""

LARGEST_STRAIN, LARGEST_STEP = 0.08, 0.3
"""Of a pair: of any component, and Å of any atom. Farther apart, the trapezoidal rule is too coarse."""

LEAST_STEP = 0.02
"""Å; below it, atoms count as moving with the cell."""

LEAST_PAIRS, LEAST_CORRELATION = 6, 0.8
LEAST_SHARE = 0.3
MOST_OF_A_GROUP = 200
AGREES, UNKNOWN = 1.5, 3.0
"""A factor within AGREES of one is agreement, and of a known cause that cause. What no known cause explains
has to be farther off, as a few pairs of configurations are enough.
"""

_STRESSES = {
    "their sign is opposite (they count compression as positive)": -1.0,
    "they are in kbar": KBAR,
    "they are in kbar with compression positive, as VASP writes them": -KBAR,
    "they are in GPa": GPA,
    "they are in GPa with compression positive": -GPA,
}
_FORCES = {
    "their sign is opposite (they are gradients of the energy)": -1.0,
    "they are in hartree/bohr": 1 / 51.422067,
    "they are in Ry/bohr": 1 / 25.711034,
    "they are in kcal/(mol Å)": 23.060548,
}


class Consistency(NamedTuple):
    """What pairs of configurations say.

    Attributes:
        pairs: How many were near enough.
        stress: Factor with which the stress fits, 1 if it is right; NaN if the pairs do not tell.
        forces: The same of the forces.
    """

    pairs: int
    stress: float
    forces: float


def compare(crystals: Sequence[Crystal], source: str | None = None) -> Consistency:
    """Fit both factors by least squares over all pairs of configurations of the same atoms that are near.

    Args:
        crystals: With `energy` (eV of the cell) and `forces` (n, 3) or `stress` (6,), or both, in
            `properties`; what is missing or NaN is left out.
        source: Property that names where labels come from: energies of two sources are not compared.
    """
    groups: dict[tuple[bytes, object], list[Crystal]] = {}
    for crystal in crystals:
        if np.isfinite(crystal.properties.get("energy", np.nan)):
            key = crystal.z.tobytes(), crystal.properties.get(source) if source else None
            groups.setdefault(key, []).append(crystal)
    rows = [row for group in groups.values() for row in _pairs(group[:MOST_OF_A_GROUP])]
    table = np.array(rows, dtype=float).reshape(-1, 4)
    _, work, moved, step = table.T
    # Without labels of forces, pairs tell of the stress only if atoms move with the cell; the energy of what
    # else they do is part of the residual then.
    table[:, 2] = 0 if np.isnan(moved).all() else moved
    strained = np.nan_to_num(np.abs(work)) > 0
    table[~strained, 1] = 0
    stress = _fit(table[strained & ~np.isnan(table[:, 2])], 1)
    forces = _fit(table[~np.isnan(moved) & (step > LEAST_STEP)], 2)
    return Consistency(len(table), stress, forces)


def problems(found: Consistency) -> list[str]:
    """What is wrong with the labels, one sentence each."""
    said = []
    for name, factor, causes in (("stress", found.stress, _STRESSES), ("forces", found.forces, _FORCES)):
        if not np.isfinite(factor) or 1 / AGREES < factor < AGREES:
            continue
        fits = [cause for cause, times in causes.items() if 1 / AGREES < factor * times < AGREES]
        if not fits and 1 / UNKNOWN < factor < UNKNOWN:
            continue
        why = f"it looks as if {fits[0]}" if fits else "check sign and unit"
        unit = "eV/Å³, positive under tension" if name == "stress" else "eV/Å, minus the gradient"
        said.append(
            f"the labels of {name} are no derivatives of the energies: over {found.pairs} pairs of near "
            f"configurations they fit when multiplied by {factor:.3g}; {why}. Wanted is {unit}"
        )
    return said


def repeated(crystals: Sequence[Crystal], keys: Sequence[str]) -> list[str]:
    """What is wrong with labels that several configurations share to the last digit, one sentence a key.

    Args:
        crystals: With labels in `properties`; zeros and NaN do not count.
        keys: Of labels that are arrays.
    """
    said = []
    for key in keys:
        owner: dict[bytes, Crystal] = {}
        pairs = []
        for crystal in crystals:
            value = np.asarray(crystal.properties.get(key, np.nan), dtype=float)
            if not np.isfinite(value).all() or not value.any():
                continue
            first = owner.setdefault(value.tobytes(), crystal)
            same = first.positions.shape == crystal.positions.shape and all(
                np.allclose(a, b, atol=1e-5)
                for a, b in ((first.positions, crystal.positions), (first.cell, crystal.cell))
            )
            if not same:
                pairs.append(f"{crystal.id} that of {first.id}")
        if pairs:
            said.append(
                f"the {key} of {len(pairs)} configurations is that of another one, to the last digit "
                f"({name_some(pairs)}): labels have come to the wrong configurations; correct them or leave "
                "them out (null)"
            )
    return said


def problems_of(
    targets: Targets, labels: Mapping[str, np.ndarray], store: FeatureStore, rows: np.ndarray
) -> list[str]:
    """What speaks against the derived targets of a run being derivatives of its energy, or of the
    configuration that they stand with.

    Args:
        targets: Of the run.
        labels: (R,) of each target of crystals, for the rows of the store.
        store: Features, with the labels that are arrays.
        rows: Crystals to look at, the first `LOOKED_AT` of them.
    """
    keys = list(targets.derived)
    if not keys:
        return []
    energy = str(targets[keys[0]].derived_from)
    by = targets[energy].reference_by
    sources = None if by is None else store.table.values(by)
    crystals = []
    for row in rows[:LOOKED_AT].tolist():
        batch = store.batch(np.array([row]), numbers=False)
        found = {key: batch.targets[key].numpy() for key in keys}
        properties: dict[str, Any] = {"energy": float(labels[energy][row])}
        properties |= {key: value if key == "forces" else value[0] for key, value in found.items()}
        if sources is not None:
            properties["source"] = str(sources[row])
        geometry = batch.cell[0].numpy(), batch.positions.numpy(), batch.z.numpy()
        crystals.append(Crystal(*geometry, batch.ids[0], properties))
    return [*repeated(crystals, keys), *problems(compare(crystals, "source"))]


def _pairs(group: Sequence[Crystal]) -> list[tuple[float, float, float, float]]:
    """Difference of energies, V s : e, -F . d, and the largest |d|, of near pairs of the same atoms."""
    cells = np.stack([c.cell for c in group])
    inverse = np.linalg.inv(cells)
    fractional = np.stack([c.positions @ i for c, i in zip(group, inverse, strict=True)])
    energy = np.array([float(c.properties["energy"]) for c in group])
    volume = np.abs(np.linalg.det(cells))
    stress = np.stack([_tensor(c.properties.get("stress")) for c in group])
    none = np.full_like(group[0].positions, np.nan)
    forces = np.stack([np.asarray(c.properties.get("forces", none), dtype=float) for c in group])
    rows = []
    for a in range(len(group) - 1):
        b = np.arange(a + 1, len(group))
        strain = inverse[a] @ cells[b] - np.eye(3)
        strain = (strain + strain.swapaxes(1, 2)) / 2
        step = fractional[b] - fractional[a]
        step -= np.round(step)
        step -= step.mean(1, keepdims=True)
        step = step @ ((cells[a] + cells[b]) / 2)
        size = np.linalg.norm(step, axis=2).max(1)
        near = (np.abs(strain).max((1, 2)) < LARGEST_STRAIN) & (size < LARGEST_STEP)
        work = ((volume[a] * stress[a] + volume[b, None, None] * stress[b]) / 2 * strain).sum((1, 2))
        moved = -((forces[a] + forces[b]) / 2 * step).sum((1, 2))
        columns = energy[b] - energy[a], work, moved, size
        rows += list(zip(*(column[near].tolist() for column in columns), strict=True))
    return rows


def _fit(table: np.ndarray, column: int) -> float:
    """The factor of a column of `_pairs`, by robust least squares; NaN where the pairs do not tell."""
    used = [c for c in (1, 2) if len(table) and np.ptp(table[:, c]) > 0]
    if column not in used:
        return math.nan
    # Columns of a wrong unit differ by orders of magnitude.
    scale = np.sqrt(np.mean(table[:, used] ** 2, axis=0))
    energy, design = table[:, 0], table[:, used] / scale
    kept = np.ones(len(energy), dtype=bool)
    for _ in range(10):
        if kept.sum() < LEAST_PAIRS:
            return math.nan
        solution = np.linalg.lstsq(design[kept], energy[kept], rcond=None)[0]
        error = np.abs(design @ solution - energy)
        kept = error <= 4 * np.median(error[kept]) + 1e-9
    explained = design[kept] @ solution
    part = design[kept, used.index(column)] * solution[used.index(column)]
    spread = np.std(energy[kept])
    if not spread > 1e-6 or np.corrcoef(explained, energy[kept])[0, 1] < LEAST_CORRELATION:
        return math.nan
    # What is a small part of the differences is lost in the errors of the other part.
    if np.std(part) < LEAST_SHARE * spread:
        return math.nan
    return float(solution[used.index(column)] / scale[used.index(column)])


def _tensor(stress: object) -> np.ndarray:
    if stress is None:
        return np.full((3, 3), np.nan)
    return np.asarray(stress, dtype=float)[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
