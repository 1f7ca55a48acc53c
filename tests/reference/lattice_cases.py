"""Crystals on which the lattice sums are tried: random, named, and nasty ones. All are seeded and in Å."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from lattice_reference import (
    REFERENCE_EPS,
    Real,
    Spec,
    exponential,
    lennard_jones,
    morse,
    power,
    quadrature_sums,
    screened,
    shortened,
)
from numpy.typing import NDArray
from torch import Tensor

from potnet import lattice
from potnet.lattice import LatticeSums, Potential

Cell = NDArray[np.float64]
ACCURACIES = (1e-4, 1e-6, 1e-8, 1e-10, 1e-12)

#: Potentials of the package beside what they mean to the reference.
POTENTIALS: tuple[tuple[Potential, Spec], ...] = (
    (lattice.Coulomb(), power(0.5)),
    (lattice.London(), power(3.0)),
    (lattice.Pauli(alpha=3.0), exponential(3.0)),
    (lattice.LennardJones(sigma=1.3), lennard_jones(1.3)),
    (lattice.Morse(alpha=1.1, r_e=1.4), morse(1.1, 1.4)),
    (lattice.ScreenedCoulomb(alpha=0.7), screened(0.7)),
    *((lattice.InversePower(p), power(p)) for p in (1.0, 2.0, 2.5, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0)),
)


@dataclass(frozen=True)
class Case:
    """One crystal: `cell` (3, 3) and `positions` (n, 3), Å."""

    name: str
    cell: Cell
    positions: Cell

    def __str__(self) -> str:
        return self.name


def from_parameters(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> Cell:
    """Cell from lengths in Å and angles in degrees."""
    ca, cb, cg = (math.cos(math.radians(angle)) for angle in (alpha, beta, gamma))
    sg = math.sin(math.radians(gamma))
    x = (ca - cb * cg) / sg
    return np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * cb, c * x, c * math.sqrt(1 - cb * cb - x * x)]])


def scattered(
    cell: Cell, n: int, rng: np.random.Generator, closest: float = 0.8, slab: float | None = None
) -> Cell:
    """(up to n, 3) random positions, no two of them or of their images closer than `closest` Å.

    Args:
        cell: (3, 3) Å.
        n: Atoms wanted; fewer are placed where there is no room.
        rng: Source of randomness.
        closest: Å.
        slab: Keep fractional coordinates along the third vector below this.
    """
    # Images within `closest` of anything in the cell: a generous box by the inverse's column norms.
    reach = np.ceil(closest * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    shifts = np.array(list(itertools.product(*[range(-m, m + 1) for m in reach]))) @ cell
    placed: list[Cell] = []
    for _ in range(60 * n):
        fractional = rng.random(3)
        fractional[2] *= slab or 1.0
        trial = fractional @ cell
        difference = np.array(placed).reshape(-1, 3) - trial
        frac = difference @ np.linalg.inv(cell)
        difference = (frac - np.round(frac)) @ cell
        if len(placed) and (np.linalg.norm(difference[:, None] + shifts, axis=-1) < closest).any():
            continue
        placed.append(trial)
        if len(placed) == n:
            break
    return np.array(placed)


def rotation(rng: np.random.Generator) -> Cell:
    """A random proper rotation (3, 3)."""
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return q * np.sign(np.linalg.det(q))


def unimodular(rng: np.random.Generator, steps: int = 4, largest: int = 2) -> NDArray[np.int64]:
    """A random integer matrix with determinant ±1: another basis of the same lattice."""
    matrix = np.eye(3, dtype=np.int64)
    for _ in range(steps):
        i, j = rng.choice(3, 2, replace=False)
        matrix[i] += int(rng.integers(-largest, largest + 1)) * matrix[j]
    return matrix


def random_cases(count: int, seed: int, most_atoms: int = 30) -> list[Case]:
    """Triclinic cells with edges from 2 to 60 Å and ratios up to 20, of either handedness, 1 to
    `most_atoms` atoms.
    """
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        while True:
            shortest = rng.uniform(2.0, 6.0)
            edges = np.minimum(shortest * np.exp(rng.uniform(0, math.log(20), 3) * rng.random()), 60.0)
            cell = rng.normal(size=(3, 3))
            cell *= (edges / np.linalg.norm(cell, axis=1))[:, None]
            # Not flatter than crystals are: every layer at least 1.5 Å thick.
            if (1 / np.linalg.norm(np.linalg.inv(cell), axis=0)).min() > 1.5:
                break
        n = int(rng.integers(1, most_atoms + 1))
        cases.append(Case(f"random-{seed}-{number}", cell, scattered(cell, n, rng)))
    return cases


def named_cases() -> list[Case]:
    """Cells of real structures, and those that the package promises to handle."""
    rng = np.random.default_rng(7)
    fcc = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cubic = np.eye(3)
    nacl = np.concatenate([np.vstack([np.zeros(3), fcc]), np.vstack([np.zeros(3), fcc]) + 0.5])
    perovskite = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    mos2 = from_parameters(3.16, 3.16, 43.1, 90, 90, 120)
    mos2_sites = np.array(
        [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5 + 1.56 / 43.1], [2 / 3, 1 / 3, 0.5 - 1.56 / 43.1]]
    )
    albite = from_parameters(8.14, 12.79, 7.16, 94.3, 116.6, 87.7)
    slab = from_parameters(4.0, 4.0, 46.0, 90, 90, 90)
    acute = from_parameters(5.0, 6.0, 7.0, 10.0, 90.0, 92.0)
    obtuse = from_parameters(4.0, 5.0, 6.0, 88.0, 91.0, 170.0)
    both = from_parameters(6.0, 60.0, 14.0, 86.0, 93.0, 10.0)
    long = np.diag([3.0, 3.5, 60.0])
    thin = np.diag([60.0, 60.0, 3.0])
    cases = [
        Case("nacl-conventional", 5.64 * cubic, 5.64 * nacl),
        Case("nacl-primitive", 5.64 * fcc, 5.64 * np.array([[0, 0, 0], [0.5, 0.5, 0.5]])),
        Case("diamond", 3.567 * fcc, 3.567 * np.array([[0, 0, 0], [0.25, 0.25, 0.25]])),
        Case("perovskite", 3.905 * cubic, 3.905 * perovskite),
        Case("mos2-slab-40A-vacuum", mos2, mos2_sites @ mos2),
        Case("triclinic-albite", albite, scattered(albite, 26, rng, 1.4)),
        Case("slab-40A-vacuum", slab, scattered(slab, 12, rng, 1.2, slab=6 / 46)),
        Case("angle-10", acute, scattered(acute, 4, rng)),
        Case("angle-170", obtuse, scattered(obtuse, 5, rng)),
        Case("long-and-angle-10", both, scattered(both, 10, rng)),
        Case("needle-60A", long, scattered(long, 9, rng)),
        Case("sheet-60A", thin, scattered(thin, 6, rng)),
        Case("one-atom-2A", 2.0 * cubic, np.array([[0.3, 0.2, 0.1]])),
        Case("one-atom-60x60x2", np.diag([60.0, 60.0, 2.0]), np.zeros((1, 3))),
        Case("one-atom-60A", 60.0 * cubic, np.zeros((1, 3))),
        Case("close-pair-in-60A", 60.0 * cubic, np.array([[59.9, 0.1, 0.2], [0.7, 0.1, 0.2]])),
    ]
    left = albite[[1, 0, 2]]
    cases.append(Case("left-handed", left, cases[5].positions))
    unwrapped = cases[5].positions + rng.integers(-9, 10, (26, 3)) @ albite
    cases.append(Case("unwrapped", albite, unwrapped))
    skewed = np.array([[1, 0, 0], [3, 1, 0], [-5, 4, 1]]) @ albite
    cases.append(Case("unreduced", skewed, cases[5].positions))
    return cases


def tensors(cases: list[Case]) -> tuple[Tensor, Tensor, Tensor]:
    """Cells (B, 3, 3), positions (N, 3) and batch (N,) for `lattice_sums`."""
    batch = torch.arange(len(cases)).repeat_interleave(torch.tensor([len(c.positions) for c in cases]))
    cell = torch.from_numpy(np.stack([c.cell for c in cases]))
    return cell, torch.from_numpy(np.concatenate([c.positions for c in cases])), batch


def some_pairs(case: Case, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """An atom with itself, and up to `count` other pairs, the closest one among them."""
    n = len(case.positions)
    pairs = list(itertools.combinations(range(n), 2))
    if len(pairs) > count:
        cell = shortened(case.cell.astype(Real)).astype(float)
        first, second = np.array(pairs).T
        fractional = (case.positions[first] - case.positions[second]) @ np.linalg.inv(cell)
        vectors = (fractional - np.round(fractional)) @ cell
        neighbours = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ cell
        lengths = np.linalg.norm(vectors[:, None] + neighbours, axis=-1).min(1)
        chosen = {int(np.argmin(lengths)), *rng.choice(len(pairs), count - 1, replace=False).tolist()}
        pairs = [pairs[i] for i in sorted(chosen)]
    # Either order: the sum does not depend on it.
    return [(0, 0), *[pair if rng.random() < 0.5 else pair[::-1] for pair in pairs]]


@dataclass(frozen=True)
class Truth:
    """Reference sums of some pairs of one crystal.

    Attributes:
        pairs: m pairs of sites.
        values: (m, P).
        error: (m, P), of the reference by rounding, generous.
        scale: (m, P), sums of absolute contributions.
    """

    pairs: list[tuple[int, int]]
    values: NDArray[np.longdouble]
    error: Cell
    scale: Cell


def truth(case: Case, specs: list[Spec], pairs: list[tuple[int, int]]) -> Truth:
    """Reference sums: the exact crystal that the float64 numbers stand for, in extended precision."""
    x = case.positions.astype(Real)
    vectors = np.stack([x[a] - x[b] for a, b in pairs])
    values, scale = quadrature_sums(case.cell.astype(Real), vectors, specs)
    # Below exp(-59) of the integrand nothing is summed.
    error = 1e-24 + 100 * REFERENCE_EPS * scale.astype(float)
    return Truth(pairs, values, error, scale.astype(float))


def pick(
    sums: LatticeSums, cases: list[Case], number: int, pairs: list[tuple[int, int]]
) -> NDArray[np.longdouble]:
    """Values (m, P) of the given pairs of crystal `number`."""
    sizes = [len(c.positions) for c in cases]
    start, n = sum(s * s for s in sizes[:number]), sizes[number]
    rows = [start + a * n + b for a, b in pairs]
    return sums.values.detach()[rows].numpy().astype(Real)
