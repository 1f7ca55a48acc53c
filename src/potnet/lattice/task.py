"""One call of `lattice_sums`: its checked inputs, its plan, and what is gathered from its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from potnet.lattice import bounds, cells
from potnet.lattice.block import Block
from potnet.lattice.inputs import (
    CLOSEST,
    LatticeError,
    accuracies,
    checked,
    checked_potentials,
    ordered_pairs,
)
from potnet.lattice.kernels import Kernel
from potnet.lattice.plan import Chunk, Plan, chunks, count_points, make_plan, style_of
from potnet.lattice.potentials import Potential

# From this accuracy on, terms are computed in float32.
SINGLE_FROM = 1e-4


@dataclass
class Task:
    """Inputs and plan of a batch of B crystals, N atoms, P potentials and Q kernels."""

    cell: Tensor  # (B, 3, 3)
    positions: Tensor  # (N, 3)
    batch: Tensor  # (N,)
    num_atoms: Tensor  # (B,)
    transform: Tensor  # (B, 3, 3) integers
    reduced: Tensor  # (B, 3, 3)
    kernels: list[Kernel]
    coefficients: Tensor  # (P, Q) or (B, P, Q)
    self_terms: Tensor  # (P,)
    plan: Plan
    chunks: list[Chunk]
    num_pairs: int
    limit: float  # bytes
    accuracy: Tensor  # (P,) or (B, P)
    single: bool  # terms in float32, where that keeps the accuracy

    def __post_init__(self) -> None:
        self._in_single = torch.full_like(self.num_atoms, self.single, dtype=torch.bool)  # (B,)
        shape = (2, len(self.cell), len(self.kernels))
        self._real, self._smooth = self.cell.new_zeros(shape, requires_grad=False)
        self._nearest = self.plan.heights[:, 0].clone()
        self._base = torch.zeros_like(self.num_atoms)  # (B,) first row of each crystal's pairs

    @classmethod
    def of(
        cls,
        cell: Tensor,
        positions: Tensor,
        batch: Tensor,
        potentials: Sequence[Potential],
        accuracy: Any,
        bound: str,
        relative: bool,
        eta: float | Tensor | None,
        memory_mib: float | None,
    ) -> Task:
        """Check everything and plan the work; see `lattice_sums` for the arguments and errors."""
        potentials = checked_potentials(potentials)
        cell, positions, num_atoms = checked(cell, positions, batch)
        batch = batch.to(torch.int64)
        wanted = accuracies(accuracy, len(potentials))
        if bound not in ("rigorous", "estimate"):
            raise ValueError(f"bound must be 'rigorous' or 'estimate', got {bound!r}")
        style = style_of(cell.device)
        memory_mib = style.memory_mib if memory_mib is None else memory_mib
        if not memory_mib > 0:
            raise ValueError(f"memory_mib must be positive, got {memory_mib}")
        with torch.no_grad():
            transform = cells.reduce(cell)
        reduced = transform @ cell
        # Of a skewed cell it would cancel. What depends on it follows in `Block`.
        volume = cells.volume(reduced.detach())
        kernels, coefficients, largest = distinct_kernels(potentials, volume)
        tolerance = cell.new_tensor(wanted)
        learns = torch.is_grad_enabled() and (
            cell.requires_grad or positions.requires_grad or any(kernel.requires_grad() for kernel in kernels)
        )
        # With gradients in float64, so that they are those of the sums.
        single = not (relative or learns) and min(wanted) >= SINGLE_FROM
        single = single and all(kernel.in_single for kernel in kernels)
        strictest = None if largest is None else max(c / a for c, a in zip(largest, wanted, strict=True))
        with torch.no_grad():
            weights = _weights(coefficients)
            if relative:
                farthest = cells.farthest_corner(reduced)
                size = torch.stack([kernel.value(farthest) for kernel in kernels], -1) @ weights.T
                tolerance, strictest = tolerance * size, None
            plan = make_plan(
                reduced.detach(),
                num_atoms,
                kernels,
                weights,
                tolerance,
                eta,
                likely=bound == "estimate",
                strictest=strictest,
            )
            limit = 2**20 * memory_mib
            found, num_pairs = chunks(plan, reduced.detach(), num_atoms, len(kernels), limit, single)
            if style.dense:
                count_points(found, plan, reduced.detach())
        return cls(
            cell,
            positions,
            batch,
            num_atoms,
            transform,
            reduced,
            kernels,
            coefficients,
            cell.new_tensor([potential.self_term for potential in potentials]),
            plan,
            found,
            num_pairs,
            limit,
            tolerance,
            single,
        )

    def summed(self, part: Callable[[Chunk], Tensor]) -> list[Tensor]:
        """`values` or `derivatives` of all chunks, each in parts that fit into memory.

        Raises:
            LatticeError: If two atoms are too close.
        """
        rows, row = [], 0
        for chunk in self.chunks:
            m = chunk.atoms * (chunk.atoms - 1) // 2 + 1
            self._base[chunk.index] = row + m * torch.arange(len(chunk.index), device=self._base.device)
            row += len(chunk.index) * m
            rows.append(part(chunk))
        self._refuse_overlap()
        if self.single and rows:
            # Where float32 is too coarse, after all, float64.
            coarse = ~(self.bound() <= self.accuracy).all(1)
            again = torch.stack([coarse[chunk.index].any() for chunk in self.chunks]).tolist()
            for number in (i for i, wrong in enumerate(again) if wrong):
                chunk = dataclasses.replace(self.chunks[number], single=False)
                self._in_single[chunk.index] = False
                rows[number] = part(chunk)
        return rows

    def _block(self, chunk: Chunk) -> Block:
        style, index = style_of(self.cell.device), chunk.index
        start = self.num_atoms.cumsum(0) - self.num_atoms
        some = torch.arange(chunk.atoms, device=index.device)
        sizes = self.num_atoms[index, None]
        site = start[index, None] + (some if chunk.equal else torch.minimum(some, sizes - 1))
        return Block(
            cell=self.reduced[index],
            positions=self.positions[site],
            num_atoms=None if chunk.equal else sizes[:, 0],
            eta=self.plan.eta[index],
            real_cutoff=self.plan.real_cutoff[index],
            reciprocal_cutoff=self.plan.reciprocal_cutoff[index],
            kernels=[kernel.select(index) for kernel in self.kernels],
            working_set=min(self.limit, style.cache),
            dense=style.dense,
            images=chunk.images if chunk.widths else None,
            waves=chunk.waves,
            widths=chunk.widths,
            dtype=torch.float32 if chunk.single else torch.float64,
        )

    def values(self, chunk: Chunk) -> Tensor:
        """Values of all padded pairs of a chunk, (b * m, P)."""
        block = self._block(chunk)
        sums, real, smooth = block.sums()
        self._note(chunk, block, real, smooth)
        values = sums @ self._coefficients(chunk)
        return torch.cat([values[:, :1] + self.self_terms, values[:, 1:]], 1).flatten(0, 1)

    def derivatives(self, chunk: Chunk) -> Tensor:
        """Values and nine derivatives of all padded pairs of a chunk, (b * m, P, 10)."""
        block = self._block(chunk)
        sums, slopes = block.derivatives()
        self._note(chunk, block, *block.sizes())
        both = torch.cat([sums[..., None], slopes], -1)
        both = (both.transpose(2, 3) @ self._coefficients(chunk).unsqueeze(-3)).transpose(2, 3)
        both[:, 0, :, 0] += self.self_terms
        return both.flatten(0, 1)

    def _coefficients(self, chunk: Chunk) -> Tensor:
        """(Q, P), or (b, Q, P) where they differ between crystals."""
        some = self.coefficients if self.coefficients.ndim == 2 else self.coefficients[chunk.index]
        return some.transpose(-1, -2)

    @torch.no_grad()
    def _note(self, chunk: Chunk, block: Block, real: Tensor, smooth: Tensor) -> None:
        self._real[chunk.index], self._smooth[chunk.index] = real, smooth
        nearest = torch.minimum(self._nearest[chunk.index], block.real_sum.nearest2.sqrt())
        self._nearest[chunk.index] = nearest

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row of each ordered pair, (M,); the atoms of all pairs, (2, M); and which are a > b, (M,)."""
        first, second = ordered_pairs(self.num_atoms, self.batch, self.num_pairs)
        # Half of a square, column by column: what a pair adds to the row depends on its higher atom alone,
        # beside the lower one's number.
        start = (self.num_atoms.cumsum(0) - self.num_atoms).index_select(0, self.batch)
        high = torch.arange(len(self.batch), device=first.device) - start
        base = self._base.index_select(0, self.batch)
        column = base + 1 + high * (high - 1) // 2 - start
        place = column.index_select(0, torch.maximum(first, second)) + torch.minimum(first, second)
        place = torch.where(first == second, base.index_select(0, first), place)
        return place, torch.stack([first, second]), first > second

    def _refuse_overlap(self) -> None:
        """Raise the error for atoms that are too close: one transfer from a GPU, at the end."""
        if len(self.cell) == 0 or not bool((self._nearest < CLOSEST).any()):
            return
        number = int(self._nearest.argmin())
        start = int(self.num_atoms[:number].sum())
        x = self.positions[start : start + int(self.num_atoms[number])].detach()
        cell = self.reduced[number].detach()
        first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
        vectors = x[first] - x[second]
        vectors = vectors - (vectors @ torch.linalg.inv(cell)).round() @ cell
        distance = vectors.norm(dim=-1)
        nearest = int(distance.argmin())
        raise LatticeError(
            f"crystal {number}: sites {int(first[nearest])} and {int(second[nearest])} are "
            f"{float(distance[nearest]):.2g} Å apart, closer than {CLOSEST} Å: remove the duplicate",
            number,
        )

    @torch.no_grad()
    def bound(self) -> Tensor:
        """Error bound of the values, (B, P)."""
        return self.plan.bound + self._lost() @ _weights(self.coefficients).T

    @torch.no_grad()
    def derivative_bound(self) -> Tensor:
        """Error bounds of the derivatives by vector and by strain, (B, P, 2)."""
        plan, weights = self.plan, _weights(self.coefficients)
        kernels = [kernel.detached() for kernel in self.kernels]
        tails = bounds.derivative_tails(
            kernels, weights, plan.eta, plan.heights, plan.real_cutoff, plan.reciprocal_cutoff
        )
        steep = bounds.steepness(kernels, self._nearest)
        # Each term is multiplied by its slope, and for strain by its length too.
        force = self._lost() * (steep + 2 * plan.eta.sqrt()[:, None])
        stress = self._lost() * (4 + steep * self._nearest[:, None])
        return tails + torch.stack([force @ weights.T, stress @ weights.T], -1)

    def _lost(self) -> Tensor:
        """Rounding errors, (B, Q)."""
        cell, positions = self.cell.detach(), self.positions.detach()
        # Rows of the reduced cell are rounded unless they are rows of the cell; vectors that are wrapped
        # lose that as many times as they are moved.
        rounded = self.transform.abs() @ cell.norm(dim=-1)[..., None]
        edges = rounded.amax((1, 2))
        rounded = rounded[..., 0] * (self.transform.abs().sum(-1) > 1)
        inverse = cells.inverse(self.reduced.detach())
        fractional = (positions[:, None] @ inverse.index_select(0, self.batch))[:, 0]
        spread = fractional.new_zeros(2, len(cell), 3)
        where = self.batch[:, None].expand(-1, 3)
        for row, sign in enumerate((1, -1)):
            spread[row].scatter_reduce_(0, where, sign * fractional, "amax", include_self=False)
        moved = (rounded * spread.sum(0).round()).norm(dim=-1)
        farthest = torch.zeros_like(edges).scatter_reduce(0, self.batch, positions.norm(dim=-1), "amax")
        kernels = [kernel.detached() for kernel in self.kernels]
        double = bounds.rounding(
            kernels,
            self._real,
            self._smooth,
            self._nearest,
            farthest + edges + 0.4 * moved,
            edges,
            self.plan.eta,
            self.plan.real_cutoff,
            self.plan.heights,
        )
        if not self.single:
            return double
        single = bounds.rounding_in_single(
            kernels,
            self._real,
            self._smooth,
            self._nearest,
            cells.farthest_corner(self.reduced.detach()),
            self.plan.eta,
            self.plan.real_cutoff,
            self.plan.heights,
        )
        return double + single * self._in_single[:, None]


def distinct_kernels(
    potentials: Sequence[Potential], volume: Tensor
) -> tuple[list[Kernel], Tensor, list[float] | None]:
    """The different kernels of all potentials, the coefficients of their linear combinations, and the sums of
    their absolute values, where they are numbers.
    """
    kernels: list[Kernel] = []
    rows: list[dict[int, float | Tensor]] = []
    for potential in potentials:
        row: dict[int, float | Tensor] = {}
        for coefficient, kernel in potential.terms(volume):
            place = next((i for i, other in enumerate(kernels) if other == kernel), len(kernels))
            if place == len(kernels):
                kernels.append(kernel)
            row[place] = row[place] + coefficient if place in row else coefficient
        rows.append(row)
    entries = [[row.get(i, 0.0) for i in range(len(kernels))] for row in rows]
    if not any(isinstance(entry, Tensor) for row in entries for entry in row):
        largest = [sum(abs(float(entry)) for entry in row) for row in entries]
        return kernels, volume.new_tensor(entries), largest
    flat = [
        torch.as_tensor(entry, dtype=volume.dtype, device=volume.device) for row in entries for entry in row
    ]
    if any(entry.ndim for entry in flat):
        flat = [entry.expand_as(volume) for entry in flat]
    return kernels, torch.stack(flat, -1).unflatten(-1, (len(rows), len(kernels))), None


def _weights(coefficients: Tensor) -> Tensor:
    """Largest absolute coefficients of any crystal, (P, Q)."""
    weights = coefficients.detach().abs()
    return weights if weights.ndim == 2 else weights.amax(0)
