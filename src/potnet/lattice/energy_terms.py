"""Bilinear forms sum over a, b of l_a S(a, b) r_b of a batch, with first derivatives in closed form.

Energies are half of them with l = r; the derivatives of energies of single atoms need l and r to differ.
Everything is made of differentiable operations, in chunks where no graph is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.inputs import CLOSEST, LatticeError
from potnet.lattice.kernels import Kernel, RealTerms
from potnet.lattice.mesh import mesh_field
from potnet.lattice.neighbours import Pairs
from potnet.lattice.potentials import Potential
from potnet.lattice.structure_factors import Field, make_blocks, reciprocal_field
from potnet.lattice.task import distinct_kernels

# Pairs summed together where no graph is recorded: what stays in a CPU's cache.
_PAIRS_AT_ONCE = {"cpu": 2**15, "cuda": 2**22}


@dataclass
class Work:
    """All that is decided, and listed, before energies are summed; no gradient flows through it.

    Attributes:
        potentials: P potentials.
        batch: (N,) int64.
        num_atoms: (B,) int64.
        eta: (B,) 1/Å².
        pairs: All pairs within the cutoff, or a few more.
        limit: (B,) Å² that squared distances of pairs must not pass, or None if none does.
        boxes: (B, 3) largest Miller indices.
        mesh: Mesh points along the cell vectors, for those crystals (by number) that use a mesh.
    """

    potentials: Sequence[Potential]
    batch: Tensor
    num_atoms: Tensor
    eta: Tensor
    pairs: Pairs
    limit: Tensor | None
    boxes: Tensor
    mesh: dict[int, tuple[int, int, int]]

    def __post_init__(self) -> None:
        keep = torch.ones(len(self.num_atoms), dtype=torch.bool, device=self.batch.device)
        keep[list(self.mesh)] = False
        summed = keep.nonzero()[:, 0]
        self.blocks = [
            (summed.index_select(0, members), n, box)
            for members, n, box in make_blocks(self.num_atoms[summed], self.boxes[summed])
        ]
        self.start = self.num_atoms.cumsum(0) - self.num_atoms


def bilinear(
    work: Work,
    cell: Tensor,
    positions: Tensor,
    right: Tensor,
    left: Tensor | None = None,
    derivatives: bool = False,
) -> Field:
    """Potentials of charges, and derivatives of the bilinear forms.

    Args:
        work: What is summed.
        cell: (B, 3, 3) reduced, Å.
        positions: (N, 3) wrapped, Å.
        right: (N, P) charges r.
        left: (N, P) charges l, by default the same.
        derivatives: Also gradients and strains.

    Returns:
        Field with the columns [l, r], or r alone.

    Raises:
        LatticeError: If two atoms are closer than 0.01 Å.
    """
    columns = right if left is None else torch.cat([left, right], 1)
    volume = cells.volume(cell)
    kernels, coefficients, _ = distinct_kernels(work.potentials, volume)
    field = _real_field(work, cell, positions, columns, kernels, coefficients, derivatives)
    for block in work.blocks:
        atoms, part = reciprocal_field(
            block,
            cell,
            positions,
            work.start,
            work.num_atoms,
            columns,
            kernels,
            coefficients,
            work.eta,
            derivatives,
        )
        _add(field, part, atoms, block[0])
    for number, shape in work.mesh.items():
        crystal = torch.tensor([number], device=cell.device)
        start = int(work.start[number])
        atoms = torch.arange(start, start + int(work.num_atoms[number]), device=cell.device)
        part = mesh_field(
            cell.index_select(0, crystal),
            positions[atoms],
            columns[atoms],
            [kernel.select(crystal) for kernel in kernels],
            coefficients if coefficients.ndim == 2 else coefficients[number],
            work.eta.index_select(0, crystal),
            shape,
            derivatives,
        )
        _add(field, part, atoms, crystal)
    # A term at zero distance is in the waves but not in the sum, unless the potential's convention has it.
    self_terms = cell.new_tensor([potential.self_term for potential in work.potentials])
    origins = torch.stack(
        [torch.as_tensor(kernel.origin(work.eta)).expand_as(work.eta) for kernel in kernels], -1
    )
    origins = (coefficients @ origins[..., None])[..., 0]  # (B, P)
    itself = (self_terms - origins).index_select(0, work.batch)
    field.potential = field.potential + columns * (itself if left is None else torch.cat([itself, itself], 1))
    return field


def _add(field: Field, part: Field, atoms: Tensor, crystals: Tensor) -> None:
    field.potential = field.potential.index_add(0, atoms, part.potential)
    if part.gradient is not None and field.gradient is not None:
        field.gradient = field.gradient.index_add(0, atoms, part.gradient)
    if part.strain is not None and field.strain is not None:
        field.strain = field.strain.index_add(0, crystals, part.strain)


def _real_field(
    work: Work,
    cell: Tensor,
    positions: Tensor,
    columns: Tensor,
    kernels: list[Kernel],
    coefficients: Tensor,
    derivatives: bool,
) -> Field:
    """The real-space half of `bilinear`."""
    num_atoms, count, num_potentials = len(positions), columns.shape[1], coefficients.shape[-2]
    pairs = work.pairs
    step = len(pairs) if torch.is_grad_enabled() else _PAIRS_AT_ONCE.get(cell.device.type, 2**15)
    potential = cell.new_zeros(count, num_atoms)
    gradient = cell.new_zeros(num_potentials, 3, num_atoms)
    strain = cell.new_zeros(num_potentials, 6, len(cell))
    charges = columns.T.contiguous()
    fixed = coefficients.ndim == 2 and not coefficients.requires_grad
    one = coefficients.tolist() if fixed else None
    sums = ([row.clone() for row in potential], [[c.clone() for c in row] for row in gradient])
    virials = [[c.clone() for c in row] for row in strain]
    for start in range(0, len(pairs), max(1, step)):
        some = pairs.part(start, start + step)
        vector, some, at, eta = _distances(work, some, cell, positions)
        parts: list[tuple[Tensor, ...]]
        if derivatives:
            parts = [kernel.real_slope(at, eta) for kernel in kernels]
        else:
            parts = [(kernel.real(at, eta),) for kernel in kernels]
        mixture = coefficients if coefficients.ndim == 2 else coefficients.index_select(0, at.crystal)
        for p in range(num_potentials):
            # One kernel for one potential, as often as not: no product with one.
            mixed = [
                parts[q]
                if one is not None and one[p][q] == 1
                else tuple(part * mixture[..., p, q] for part in parts[q])
                for q in range(len(kernels))
                if one is None or one[p][q]
            ]
            value, *slopes = (sum(some_parts) for some_parts in zip(*mixed, strict=True))
            ends = [
                (charges[c].index_select(0, some.first), charges[c].index_select(0, some.second))
                for c in range(p, count, num_potentials)
            ]
            for c, (near, far) in zip(range(p, count, num_potentials), ends, strict=True):
                sums[0][c].index_add_(0, some.first, far * value).index_add_(0, some.second, near * value)
            if not derivatives:
                continue
            near, far = ends[0]
            strength = (near * ends[-1][1] + far * ends[-1][0]) * slopes[0]  # l_a r_b + l_b r_a
            pull = [strength * component for component in vector]
            for total, component in zip(sums[1][p], pull, strict=True):
                total.index_add_(0, some.second, component)
                total.index_add_(0, some.first, component, alpha=-1)
            if len(cell) == 1:
                square = torch.stack(pull) @ torch.stack(vector).T
                for place, (i, j) in enumerate(_TRIANGLE):
                    virials[p][place] = virials[p][place] + square[i, j]
                continue
            for place, (i, j) in enumerate(_TRIANGLE):
                virials[p][place].index_add_(0, at.crystal, pull[i] * vector[j])
    field = Field(torch.stack(sums[0], 1), None, None)
    if derivatives:
        field.gradient = torch.stack([torch.stack(row, -1) for row in sums[1]], 1)
        full = torch.stack([torch.stack([row[k] for k in _SQUARE], -1) for row in virials], 1)
        field.strain = full.unflatten(-1, (3, 3))
    return field


_TRIANGLE = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_SQUARE = (0, 5, 4, 5, 1, 3, 4, 3, 2)


def _distances(
    work: Work, pairs: Pairs, cell: Tensor, positions: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], Pairs, RealTerms, Tensor]:
    """Components, pairs, what kernels need, and eta, of those pairs that are within the limit."""
    x, y, z = pairs.vectors(cell, positions)
    r2 = x * x + y * y + z * z
    crystal = work.batch.index_select(0, pairs.first)
    if work.limit is not None:
        near = (r2 <= work.limit.index_select(0, crystal)).nonzero()[:, 0]
        x, y, z, r2, crystal = (t.index_select(0, near) for t in (x, y, z, r2, crystal))
        first, second, image = (t.index_select(0, near) for t in (pairs.first, pairs.second, pairs.image))
        pairs = Pairs(first, second, image, pairs.images, pairs.owner)
    if len(r2) and float(r2.detach().amin()) < CLOSEST * CLOSEST:
        _refuse_overlap(work, pairs, r2.detach())
    eta = work.eta[0] if len(work.eta) == 1 else work.eta.index_select(0, crystal)
    scaled = eta * r2
    return (x, y, z), pairs, RealTerms(r2.sqrt(), r2, scaled, torch.exp(-scaled), crystal), eta


def _refuse_overlap(work: Work, pairs: Pairs, r2: Tensor) -> None:
    where = int(r2.argmin())
    number = int(work.batch[pairs.first[where]])
    a, b = sorted(int(side[where] - work.start[number]) for side in (pairs.first, pairs.second))
    raise LatticeError(
        f"crystal {number}: sites {a} and {b} are {math.sqrt(float(r2[where])):.2g} Å apart, closer than "
        f"{CLOSEST} Å: remove the duplicate",
        number,
    )
