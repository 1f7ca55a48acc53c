"""What is decided before energies are summed: splitting, cutoffs, lists of pairs; kept while atoms move
little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.energy_bounds import EnergyBound, choose_cutoffs
from potnet.lattice.energy_terms import Work
from potnet.lattice.inputs import CLOSEST
from potnet.lattice.mesh import mesh_shape, mesh_spacings
from potnet.lattice.neighbours import find_pairs
from potnet.lattice.plan import _refuse_short_vectors
from potnet.lattice.potentials import Potential
from potnet.lattice.structure_factors import make_boxes
from potnet.lattice.task import _weights, distinct_kernels

# Costs of a real-space pair, with finding it, and of a wave vector itself, in units of an atom's share of a
# wave vector; measured on a CPU core. The optimum is flat: a factor of two costs a tenth.
_COST_PAIR, _COST_WAVE = 100.0, 15.0
# A forced eta that needs more neighbours of an atom, or waves, than this is a mistake.
_MOST_POINTS = 1e7
# Atoms from which on a mesh is cheaper than structure factors, for method="auto".
MESH_PAYS = 1_500
# Splitting parameter for a mesh, in units of the density^(2/3).
_MESH_ETA = 2.0


@dataclass
class EnergyPlan:
    """A batch made ready: what `lattice_energies` computes at each call.

    Attributes:
        work: What is summed.
        transform: (B, 3, 3) integers, reduced = transform @ cell.
        wraps: (N, 3) integers, wrapped = positions - wraps @ reduced.
        bound: Bounds of the truncation errors.
        skin: Å by which the list of pairs reaches beyond the cutoff.
        real_cutoff: (B,) Å.
        wave_cutoff: (B,) 1/Å.
        cell: (B, 3, 3) reduced, at the time of planning.
        positions: (N, 3) wrapped, at the time of planning.
        charges_max: (B, P) largest |charge| at the time of planning.
        charges_sum: (B, P) sum of |charges|.
    """

    work: Work
    transform: Tensor
    wraps: Tensor
    bound: EnergyBound
    skin: float
    real_cutoff: Tensor
    wave_cutoff: Tensor
    cell: Tensor
    positions: Tensor
    charges_max: Tensor
    charges_sum: Tensor

    def reduced(self, cell: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Reduced cells (B, 3, 3) and wrapped positions (N, 3) of a batch like the planned one."""
        reduced = self.transform @ cell
        shift = (self.wraps[:, None] @ reduced.index_select(0, self.work.batch))[:, 0]
        return reduced, positions - shift

    @torch.no_grad()
    def fits(self, cell: Tensor, positions: Tensor, batch: Tensor, charges: Tensor) -> bool:
        """Whether the lists still hold every pair and wave within the cutoffs, and the bounds still hold.

        Pairs are at |d| >= s |d0| - 2 u, s the smallest stretch of the cell and u the largest move of an atom
        beside it: the list holds all within R if (R + 2 u) / s <= R + skin.
        """
        if cell.shape != self.cell.shape or positions.shape != self.positions.shape:
            return False
        if cell.device != self.cell.device or not torch.equal(batch, self.work.batch):
            return False
        reduced, wrapped = self.reduced(cell, positions)
        deformation = torch.linalg.solve(self.cell, reduced)
        stretch = torch.linalg.svdvals(deformation)[:, -1]
        moved = wrapped - torch.einsum("nd,ndc->nc", self.positions, deformation.index_select(0, batch))
        farthest = torch.zeros_like(stretch).scatter_reduce(0, batch, moved.norm(dim=-1), "amax")
        near = (self.real_cutoff + 2 * farthest) / stretch <= self.real_cutoff + self.skin
        waves = (make_boxes(reduced, self.wave_cutoff) <= self.work.boxes).all(1)
        largest, total = charge_norms(charges, batch, len(cell))
        # Cutoffs depend on charges through logarithms: a little more changes the bound by as little.
        charged = (largest <= 1.2 * self.charges_max) & (total <= 1.2 * self.charges_sum)
        return bool((near & waves).all() & charged.all())


def charge_norms(charges: Tensor, batch: Tensor, num_crystals: int) -> tuple[Tensor, Tensor]:
    """Largest and summed absolute charges of each crystal, (B, P) each."""
    size = charges.detach().abs()
    zero = size.new_zeros(num_crystals, charges.shape[1])
    index = batch[:, None].expand_as(size)
    return zero.scatter_reduce(0, index, size, "amax"), zero.scatter_add(0, index, size)


@torch.no_grad()
def make_energy_plan(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    num_atoms: Tensor,
    charges: Tensor,
    potentials: Sequence[Potential],
    tolerance: Tensor,
    eta: float | Tensor | None,
    method: str,
    skin: float,
    likely: bool = False,
) -> EnergyPlan:
    """Choose eta and cutoffs for each crystal and list the pairs.

    Args:
        cell: (B, 3, 3) Å.
        positions: (N, 3) Å.
        batch: (N,) int64.
        num_atoms: (B,) int64.
        charges: (N, P).
        potentials: P potentials.
        tolerance: (P,) permitted errors of energies of atoms and of forces.
        eta: 1/Å², a number, (B,), or None.
        method: "auto", "ewald" or "mesh".
        skin: Å.
        likely: Estimate what is left out, in place of bounding it.

    Raises:
        LatticeError: If a lattice vector is shorter than 0.01 Å.
        ValueError: If eta is not positive, has a wrong shape, or is far from sensible.
    """
    transform = cells.reduce(cell)
    reduced = transform @ cell
    heights = cells.heights(reduced)
    if bool((heights[:, 0] < CLOSEST).any()):
        _refuse_short_vectors(heights[:, 0])
    volume = heights.prod(-1)
    fractional = (positions[:, None] @ cells.inverse(reduced).index_select(0, batch))[:, 0]
    wraps = fractional.floor()
    fractional = fractional - wraps
    kernels, coefficients, _ = distinct_kernels(potentials, volume)
    kernels, weights = [kernel.detached() for kernel in kernels], _weights(coefficients)
    if method == "auto":
        meshed = (num_atoms >= MESH_PAYS).nonzero()[:, 0]
    else:
        meshed = torch.arange(len(cell) if method == "mesh" else 0, device=cell.device)
    if eta is None:
        # Pairs cost ~ n² (s / eta)^1.5 / V, waves ~ (n + 15) V (s eta)^1.5 times the box around the sphere.
        skew = reduced.norm(dim=-1).prod(-1) / volume
        n = num_atoms.to(cell.dtype)
        split = (16.2 * _COST_PAIR * n * n / (n + _COST_WAVE) / skew).pow(1 / 3) * volume ** (-2 / 3)
        split[meshed] = (_MESH_ETA * (n / volume) ** (2 / 3))[meshed]
    else:
        split = torch.as_tensor(eta, dtype=cell.dtype, device=cell.device)
        if split.shape not in ((), (len(cell),)):
            raise ValueError(
                f"give one eta or one for each of {len(cell)} crystals, got {tuple(split.shape)}"
            )
        split = split.expand(len(cell)).clone()
        if not bool((split > 0).all() & split.isfinite().all()):
            raise ValueError(f"eta must be positive, got {eta}")
    largest, total = charge_norms(charges, batch, len(cell))
    squares = torch.zeros_like(total).index_add(0, batch, charges.detach().square())
    # Leave a tenth of the accuracy for rounding.
    real, wave, beyond, missed = choose_cutoffs(
        kernels, weights, largest, total, squares, 0.9 * tolerance, split, heights, likely
    )
    mesh: dict[int, tuple[int, int, int]] = {}
    if len(meshed):
        spacing, energy, force = mesh_spacings(
            [kernel.select(meshed) for kernel in kernels],
            weights,
            split[meshed],
            volume[meshed],
            largest[meshed],
            squares[meshed],
            0.9 * tolerance,
        )
        for number, width in zip(meshed.tolist(), spacing.tolist(), strict=True):
            mesh[number] = mesh_shape(reduced[number], width)
        missed.energy[meshed], missed.force[meshed] = energy, force
    bound = EnergyBound(
        beyond.energy + missed.energy, beyond.force + missed.force, beyond.virial + missed.virial
    )
    boxes = make_boxes(reduced, wave)
    if eta is not None:
        neighbours = num_atoms / volume * 4 / 3 * math.pi * real**3
        points = torch.maximum(neighbours, (2 * boxes + 1).prod(-1).to(real.dtype))
        if float(points.amax()) > _MOST_POINTS:
            raise ValueError(
                f"eta = {float(split[points.argmax()]):.3g} 1/Å² needs sums of {float(points.amax()):.2g} "
                "terms: leave it out, or take one nearer to 0.3"
            )
    pairs = find_pairs(reduced, fractional, batch, real + skin, exact=False)
    if skin > 0:
        boxes = boxes + 1  # room for a cell that grows a little
    work = Work(potentials, batch, num_atoms, split, pairs, real * real if skin > 0 else None, boxes, mesh)
    wrapped = positions - (wraps[:, None] @ reduced.index_select(0, batch))[:, 0]
    return EnergyPlan(work, transform, wraps, bound, skin, real, wave, reduced, wrapped, largest, total)
