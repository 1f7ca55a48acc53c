"""Batched sums of pair potentials over all periodic images, differentiable, with guaranteed accuracy.

    S(a, b) = sum over k in Z³ of phi(|x_a - x_b + k L|), the term at zero distance left out

(PotNet, Lin et al., ICML 2023, equation 3) is split at eta into a real-space and a reciprocal sum (Ewald
1921):

    S(a, b) = sum' R(|v + k L|) + sum over G of cos(G v) F(|G|) - [a = b] origin,    v = x_a - x_b.

Crystals with the same number of atoms and the same eta (a power of two times a constant, so that there are
few) form dense blocks:
distances, exponentials and structure factors are shared by all kernels, half of the pairs and half of the
wave vectors suffice.
Everything runs in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.block import Block
from potnet.lattice.bounds import rounding
from potnet.lattice.inputs import checked, complete_pairs, tolerances
from potnet.lattice.plan import blocks, detached, make_plan
from potnet.lattice.potentials import Kernel, Potential

# On a CPU, temporaries of about this many bytes stay in the cache.
_CACHE = 2.0**22
_DEFAULT_MEMORY_MIB = {"cpu": 64, "cuda": 4096}


class LatticeSums(NamedTuple):
    """Sums over all ordered pairs of atoms of each crystal.

    Attributes:
        pair_index: (2, M) int64, every ordered pair (a, b) of one crystal, a = b included, crystal by
            crystal, row-major.
        values: (M, P) float64, one column a potential, in the units of phi.
        bound: (B, P) float64, absolute error of every value of the crystal: a rigorous bound of the
            truncation, and an estimate of float64 rounding from above.
    """

    pair_index: Tensor
    values: Tensor
    bound: Tensor


def lattice_sums(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    potentials: Sequence[Potential],
    accuracy: float | Sequence[float] = 1e-8,
    *,
    eta: float | Tensor | None = None,
    memory_mib: float | None = None,
) -> LatticeSums:
    """Sum pair potentials over all periodic images, for every pair of atoms of every crystal.

    Differentiable twice in `cell` and `positions`.

    Args:
        cell: (B, 3, 3) rows are lattice vectors, Å; any shape and handedness.
        positions: (N, 3) Å; atoms need not lie inside the cell.
        batch: (N,) int64, sorted crystal index of each atom.
        potentials: P potentials.
        accuracy: Absolute error permitted in each value, one number or one for each potential. Truncation
            always stays within it; where float64 rounding does not (1e-12 with 60 Å between atoms, 1/r^12
            at 0.3 Å) the returned bound is larger and says so.
        eta: Splitting parameter in 1/Å², a number or (B,); chosen for speed by default. The result does
            not depend on it.
        memory_mib: Working memory to stay within, in MiB, beside the result and, where gradients are
            wanted, their graph (default 64 on a CPU, 4096 on a GPU).

    Returns:
        Index of pairs, values and error bounds.

    Raises:
        LatticeError: If a cell is singular or not finite, coordinates are not finite, or two atoms are
            closer than 0.01 Å; the message names the crystal and the sites.
        ValueError: If shapes don't fit, `batch` is not sorted integers, an accuracy, `eta` or `memory_mib`
            is not positive, or `eta` is so far from sensible that a sum needs over 1e6 lattice points.
    """
    cell, positions, num_atoms = checked(cell, positions, batch)
    tolerance = tolerances(accuracy, len(potentials), cell)
    with torch.no_grad():
        transform = cells.reduce(cell)
    reduced = transform @ cell
    volume = torch.linalg.det(reduced).abs()  # of a skewed cell it would cancel
    kernels, coefficients = _kernels(potentials, volume)
    coefficients = coefficients.to(cell.device)
    self_terms = cell.new_tensor([potential.self_term for potential in potentials])
    plan = make_plan(reduced.detach(), num_atoms, kernels, coefficients, tolerance, eta)

    atom_start = num_atoms.cumsum(0) - num_atoms
    pair_start = (num_atoms * num_atoms).cumsum(0) - num_atoms * num_atoms
    if memory_mib is None:
        memory_mib = _DEFAULT_MEMORY_MIB.get(cell.device.type, 64)
    if not memory_mib > 0:
        raise ValueError(f"memory_mib must be positive, got {memory_mib}")
    limit = 2**20 * memory_mib
    rows, pieces = [], []
    real, smooth = torch.zeros(2, len(cell), len(kernels), dtype=cell.dtype, device=cell.device)
    nearest = plan.heights[:, 0].clone()
    for index, n, group_eta in blocks(plan, num_atoms, len(kernels), limit):
        block = Block(
            cell=reduced[index],
            positions=positions[atom_start[index, None] + torch.arange(n, device=cell.device)],
            volume=volume[index],
            eta=group_eta,
            real_cutoff=plan.real_cutoff[index],
            reciprocal_cutoff=plan.reciprocal_cutoff[index],
            kernels=[kernel.select(index) for kernel in kernels],
            crystals=index,
            working_set=min(limit, _CACHE) if cell.device.type == "cpu" else limit,
        )
        sums, real[index], smooth[index] = block.sums()
        nearest[index] = torch.minimum(nearest[index], block.nearest)
        values = sums @ coefficients.T
        values = torch.cat([values[:, :-1], values[:, -1:] + self_terms], 1)
        pieces.append(values[:, _square_from_triangle(n, cell.device)].flatten(0, 1))
        rows.append((pair_start[index, None] + torch.arange(n * n, device=cell.device)).flatten())
    order = torch.empty(int((num_atoms * num_atoms).sum()), dtype=torch.int64, device=cell.device)
    where = torch.cat(rows)
    order[where] = torch.arange(len(where), device=cell.device)
    with torch.no_grad():
        edges = (transform.abs() @ cell.norm(dim=-1)[..., None]).amax((1, 2))
        farthest = torch.zeros_like(edges).scatter_reduce(0, batch, positions.norm(dim=-1), "amax")
        lost = rounding(
            [detached(kernel) for kernel in kernels],
            real,
            smooth,
            nearest,
            farthest + edges,
            edges,
            plan.eta,
            plan.real_cutoff,
            plan.heights,
        )
    return LatticeSums(
        complete_pairs(num_atoms), torch.cat(pieces)[order], plan.bound + lost @ coefficients.abs().T
    )


def _kernels(potentials: Sequence[Potential], volume: Tensor) -> tuple[list[Kernel], Tensor]:
    """The different kernels of all potentials, and the coefficients (P, Q) of their linear combinations."""
    kernels: list[Kernel] = []
    rows: list[dict[int, float]] = []
    for potential in potentials:
        row: dict[int, float] = {}
        for coefficient, kernel in potential.terms(volume):
            place = next((i for i, other in enumerate(kernels) if other == kernel), len(kernels))
            if place == len(kernels):
                kernels.append(kernel)
            row[place] = row.get(place, 0.0) + coefficient
        rows.append(row)
    matrix = [[row.get(i, 0.0) for i in range(len(kernels))] for row in rows]
    return kernels, torch.tensor(matrix, dtype=torch.float64)


def _square_from_triangle(n: int, device: torch.device) -> Tensor:
    """(n * n,) position of each ordered pair among the pairs a < b followed by the self pair."""
    square = torch.full((n, n), n * (n - 1) // 2, dtype=torch.int64, device=device)
    first, second = torch.triu_indices(n, n, 1, device=device)
    place = torch.arange(len(first), device=device)
    square[first, second] = place
    square[second, first] = place
    return square.flatten()
