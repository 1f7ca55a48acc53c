"""What a card says of an ensemble: its predictions on each part of its split, and what follows from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from potnet.inference.ensemble import Ensemble
from potnet.inference.intervals import LEVELS, Intervals, Reliability, of_intervals, of_spread

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule

METALS = (*(3, 4, 11, 12, 13, *range(19, 32), *range(37, 51), *range(55, 85), *range(87, 104)),)
"""Atomic numbers of metals: those left of the line from B to At, without the metalloids."""

ANIONS = (7, 8, 9, 16, 17, 34, 35, 53)


@dataclass(frozen=True)
class Part:
    """Predictions of one target on one part, learned unit.

    Attributes:
        ids: n names.
        label: (n,); NaN where missing.
        members: (M, n).
        embedding: (n, G) of the first member.
        atoms: (n,) atoms of the primitive cell.
        elements: (n,) sets of atomic numbers.
    """

    ids: list[str]
    label: np.ndarray
    members: np.ndarray
    embedding: Tensor
    atoms: np.ndarray
    elements: list[frozenset[int]]

    @property
    def mean(self) -> np.ndarray:
        """(n,)."""
        return np.asarray(self.members.mean(0))

    @property
    def spread(self) -> np.ndarray:
        """(n,) standard deviation of the members; zeros for one."""
        n = len(self.members)
        return np.asarray(self.members.std(0, ddof=1)) if n > 1 else np.zeros(self.members.shape[1])

    @property
    def error(self) -> np.ndarray:
        """(n,) absolute, of the mean."""
        return np.abs(self.label - self.mean)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Part:
        """Some crystals."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Part(
            [self.ids[n] for n in rows],
            self.label[rows],
            self.members[:, rows],
            self.embedding[torch.from_numpy(rows)],
            self.atoms[rows],
            [self.elements[n] for n in rows],
        )


def predictions(
    ensemble: Ensemble, data: CrystalDataModule, part: str, key: str, most: int | None = None
) -> Part:
    """Predict a part of the split; of a larger one than `most` the first crystals by a hash of their ids."""
    from potnet.data.loading import CrystalDataset

    whole = data.dataset(part)
    rows = np.arange(len(whole))
    if most is not None and len(rows) > most:
        order = sorted(range(len(rows)), key=lambda n: hashlib.sha256(whole.ids[n].encode()).digest())
        rows = np.sort(np.array(order[:most]))
    dataset = CrystalDataset(whole.store, whole.rows[rows], whole.labels)
    labels, members, embeddings, atoms, elements = [], [], [], [], []
    target = ensemble.targets[key]
    for start in range(0, len(dataset), 64):
        batch = dataset.batch(range(start, min(start + 64, len(dataset))))
        labels.append(target.learned(batch.targets[key].double()))
        members.append(ensemble.by_member(batch)[key])
        with torch.no_grad():
            found = ensemble.model.embed(batch.to(ensemble.device))  # type: ignore[operator]
        embeddings.append(found.crystals.cpu())
        atoms.append(batch.num_atoms)
        elements += [frozenset(z.tolist()) for z in batch.z.split(batch.num_atoms.tolist())]
    return Part(
        dataset.ids,
        torch.cat(labels).numpy(),
        torch.cat(members, 1).numpy(),
        torch.cat(embeddings),
        torch.cat(atoms).numpy(),
        elements,
    )


def halves(formulas: Sequence[str], seed: int) -> np.ndarray:
    """(n,) whether a crystal calibrates rather than tests: about half, no formula in both."""

    def bit(formula: str) -> bool:
        return hashlib.sha256(f"{seed}:{formula}".encode()).digest()[0] % 2 == 0

    return np.array([bit(formula) for formula in formulas], dtype=bool)


def errors(part: Part) -> dict[str, Any]:
    """`mae`, `rmse`, `n` of the mean, and the MAE of each member alone."""
    known = np.isfinite(part.label)
    error = part.error[known]
    single = np.abs(part.members - part.label)[:, known].mean(1)
    return {
        "mae": rounded(error.mean()),
        "rmse": rounded(np.sqrt(np.square(error).mean())),
        "n": int(known.sum()),
        "members_mae": [rounded(value) for value in single],
    }


def errors_by_size(part: Part) -> dict[str, dict[str, Any]]:
    """MAE by atoms of the primitive cell."""
    bounds = ((1, 2), (3, 5), (6, 10), (11, 20), (21, 10**6))
    found = {}
    for low, high in bounds:
        rows = (part.atoms >= low) & (part.atoms <= high) & np.isfinite(part.label)
        if rows.sum():
            name = f"{low} to {high}" if high < 10**6 else f"{low} or more"
            found[name] = {"n": int(rows.sum()), "mae": rounded(part.error[rows].mean())}
    return found


def errors_by_element(part: Part, least: int = 5) -> dict[str, dict[str, Any]]:
    """MAE over the crystals that contain an element, by symbol, for elements of at least `least` crystals."""
    from potnet.crystals.elements import symbol

    found = {}
    for z in sorted(set().union(*part.elements)) if part.elements else []:
        rows = np.array([z in kinds for kinds in part.elements]) & np.isfinite(part.label)
        if rows.sum() >= least:
            found[symbol(z)] = {"n": int(rows.sum()), "mae": rounded(part.error[rows].mean())}
    return found


def classes(part: Part) -> dict[str, np.ndarray]:
    """Kinds of crystals, by name: (n,) whether each is one."""
    metals = frozenset(METALS)
    metallic = np.array([kinds <= metals for kinds in part.elements], dtype=bool)
    ionic = np.array(
        [bool(kinds & metals) and bool(kinds & frozenset(ANIONS)) for kinds in part.elements], dtype=bool
    )
    return {
        "metals only": metallic,
        "metal with N, O, S, Se or halogen": ionic,
        "other": ~metallic & ~ionic,
        "1 or 2 elements": np.array([len(kinds) <= 2 for kinds in part.elements], dtype=bool),
        "3 or more elements": np.array([len(kinds) > 2 for kinds in part.elements], dtype=bool),
        "up to 5 atoms": part.atoms <= 5,
        "more than 5 atoms": part.atoms > 5,
    }


def last_layer(training: Part, validation: Part, other: Part) -> np.ndarray:
    """Deviation of each crystal's error by Bayesian regression on the last layer of the first member, (n,).

    sigma² = s² (1 + φ' (Φ'Φ + 1)⁻¹ φ), φ the standardised embedding and 1, Φ that of training crystals, and s
    such that the validation part has a mean squared z of about 1.
    """
    middle, width = training.embedding.double().mean(0), training.embedding.double().std(0)

    def features(part: Part) -> np.ndarray:
        x = (part.embedding.double() - middle) / width.clamp(min=1e-6)
        return torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1).numpy()

    phi = features(training)
    inverse = np.linalg.inv(phi.T @ phi + np.eye(phi.shape[1]))

    def factor(part: Part) -> np.ndarray:
        x = features(part)
        return np.asarray(1 + np.einsum("nf,fg,ng->n", x, inverse, x))

    error = np.abs(validation.label - validation.members[0])
    scale = np.nanmean(error**2 / factor(validation))
    return np.asarray(np.sqrt(scale * factor(other)))


def judged(
    part: Part,
    formulas: Sequence[str],
    floor: float,
    repeats: int = 20,
    sigma: np.ndarray | None = None,
    difficulty: np.ndarray | None = None,
) -> dict[str, dict[str, Any]]:
    """How intervals and alternatives do, mean over divisions of the part in calibration and test.

    Args:
        part: That no member was trained or chosen on.
        formulas: Of its crystals.
        floor: See `Intervals`.
        repeats: Divisions by formula.
        sigma: (n,) from `last_layer`.
        difficulty: (n,) by which intervals are normalised; None is the spread. Where it is given, the spread
            alone is the method "spread normalised".

    Returns:
        By method, "conformal", "one network" (the first member, intervals of equal width), "last layer" (the
        same with `sigma`, as if errors were normal), and with several members "spread" (likewise): coverage
        and width by level, area, z2. And, under "classes", coverage of the conformal interval at 0.9 and n
        by class; under "curve" its coverage at each level of `GRID`.
    """
    known = np.isfinite(part.label)
    part = part.take(known)
    sigma = None if sigma is None else sigma[known]
    hard = part.spread if difficulty is None else difficulty[known]
    plain_floor = float(np.median(part.spread)) or 1.0
    formulas = [formula for formula, there in zip(formulas, known, strict=True) if there]
    first = np.abs(part.label - part.members[0])
    nothing = np.zeros(len(part))
    kinds = classes(part)
    methods = ("conformal", "spread normalised", "one network", "last layer", "spread")
    found: dict[str, list[Reliability]] = {method: [] for method in methods}
    inside: dict[str, list[bool]] = {name: [] for name in kinds}
    for seed in range(repeats):
        fit = halves(formulas, seed)
        test = ~fit
        if fit.all() or test.all():
            continue
        ours = Intervals.fit(part.label[fit], part.mean[fit], hard[fit], floor)
        found["conformal"].append(of_intervals(ours, part.error[test], hard[test]))
        if difficulty is not None and len(part.members) > 1:
            alone = Intervals.fit(part.label[fit], part.mean[fit], part.spread[fit], plain_floor)
            found["spread normalised"].append(of_intervals(alone, part.error[test], part.spread[test]))
        single = Intervals.fit(part.label[fit], part.members[0][fit], nothing[fit], 1.0)
        found["one network"].append(of_intervals(single, first[test], nothing[test]))
        if sigma is not None:
            found["last layer"].append(of_spread(first[test], sigma[test]))
        if len(part.members) > 1:
            found["spread"].append(of_spread(part.error[test], part.spread[test]))
        hit = part.error <= ours.half_width(hard, 0.9)
        for name, rows in kinds.items():
            inside[name] += hit[rows & test].tolist()
    shown: dict[str, dict[str, Any]] = {name: _mean(values) for name, values in found.items() if values}
    shown["classes"] = {
        name: {"coverage_0.9": rounded(np.mean(hits)), "n": int(kinds[name].sum())}
        for name, hits in inside.items()
        if hits
    }
    shown["curve"] = {"coverage": np.mean([r.curve for r in found["conformal"]], axis=0)}
    return shown


def _mean(found: list[Reliability]) -> dict[str, Any]:
    return {
        "coverage": {level: rounded(np.mean([r.coverage[level] for r in found])) for level in LEVELS},
        "width": {level: rounded(np.mean([r.width[level] for r in found])) for level in LEVELS},
        "miscalibration_area": rounded(np.mean([r.area for r in found])),
        "mean_squared_z": rounded(np.mean([r.z2 for r in found])),
    }


def rounded(value: Any) -> float:
    """Four significant digits, as a plain number."""
    return float(f"{float(value):.4g}")
