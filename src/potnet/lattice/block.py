"""All kernel sums of a block of crystals, padded to one number of atoms, as one function of pairs and cells.

The sum S(v, L) of a pair v in a cell L is differentiated by v at fixed L, and by a strain e that is applied
to both. By L at fixed v it changes with what remains: with dL = L A,

    dS = sum_ij (W_ij - v_i dS/dv_j) A_ij,      W = dS/de.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.kernels import Kernel
from potnet.lattice.plan import FEW_ATOMS, FEW_ATOMS_WITH_SLOPES
from potnet.lattice.real import VOIGT, RealSum, Slopes
from potnet.lattice.reciprocal import ReciprocalSum, pairs_of


@dataclass
class Block:
    """b crystals of up to n atoms.

    Pairs are an atom with itself (index 0), then a < b ordered by b and a (`pairs_of`), m in all; of a
    crystal with fewer atoms than n the first ones count.
    """

    cell: Tensor  # (b, 3, 3), reduced
    positions: Tensor  # (b, n, 3), anything where there is no atom
    num_atoms: Tensor | None  # (b,), None if all have n
    eta: Tensor  # (b,)
    real_cutoff: Tensor  # (b,)
    reciprocal_cutoff: Tensor  # (b,)
    kernels: list[Kernel]
    working_set: float  # bytes
    dense: bool = False
    images: list[int] | None = None  # largest integer coordinates of images, where known
    waves: list[int] | None = None  # and of wave vectors
    widths: tuple[int, int] | None = None  # counts of both, where known
    dtype: torch.dtype = torch.float64  # of most of the arithmetic of terms; results are float64

    def __post_init__(self) -> None:
        n, device = self.positions.shape[1], self.cell.device
        first, second = pairs_of(n, device)
        vectors = self.positions[:, first] - self.positions[:, second]
        inverse = cells.inverse(self.cell.detach())
        # Distances from differences of positions: through fractional coordinates they would lose digits.
        wraps = (vectors.detach() @ inverse).round()
        vectors = vectors - wraps @ self.cell
        #: (b, m, 3) shortest or nearly shortest vectors of the pairs.
        self.vectors = torch.cat([torch.zeros_like(self.positions[:, :1]), vectors], 1)
        self.pairs: Tensor | None = None
        if self.num_atoms is not None:
            some = torch.cat([second.new_zeros(1), second]) < self.num_atoms[:, None]
            self.pairs = some
        with torch.no_grad():
            self._find_points(inverse)

    def _find_points(self, inverse: Tensor) -> None:
        cell, vectors = self.cell.detach(), self.vectors.detach()
        if self.widths is None:
            lengths = cells.squared_norm(vectors)
            if self.pairs is not None:
                lengths = lengths.masked_fill(~self.pairs, 0.0)
            radius = self.real_cutoff + lengths.amax(1).sqrt()
        else:
            radius = self.real_cutoff
            if self.positions.shape[1] > 1:
                radius = radius + cells.farthest_corner(cell)
        known = self.widths or (None, None)
        largest = self.images or cells.reach_of(inverse, radius).amax(0).int().tolist()
        images, mask = cells.points_within(cell, radius, largest=largest, width=known[0])
        self.real_sum = RealSum(
            self.eta,
            self.real_cutoff,
            self.kernels,
            images,
            mask,
            self.pairs,
            self.working_set,
            self.dense,
            self.dtype,
        )
        dual = 2 * math.pi * inverse.transpose(1, 2)
        miller, mask = cells.points_within(
            dual, self.reciprocal_cutoff, half=True, largest=self.waves, width=known[1]
        )
        self.reciprocal_sum = ReciprocalSum(
            self.eta, self.kernels, miller, mask, self.working_set, self.dtype
        )

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Kernel sums (b, m, Q), and the sums of absolute terms in real space and of all others (b, Q).

        Where gradients in positions or cells are wanted, but none in a parameter, the derivatives are
        computed in the same pass.
        """
        wanted = torch.is_grad_enabled() and (self.cell.requires_grad or self.vectors.requires_grad)
        few = self.positions.shape[1] <= (FEW_ATOMS_WITH_SLOPES if wanted else FEW_ATOMS)
        fused = wanted and not any(kernel.requires_grad() for kernel in self.kernels)
        # How a sum changes with a parameter that follows the volume is known for the sum as a whole only.
        fused = fused and (few or not any(kernel.volume_exponent for kernel in self.kernels))
        if fused:
            total: Tensor = _Fused.apply(self.vectors, self.cell, self, few)
        else:
            total = self.plain(self.vectors, self.cell, few)
        if not few:
            total = total + self._structure_factors()
        return total, *self.sizes()

    def plain(self, vectors: Tensor, cell: Tensor, reciprocal: bool) -> Tensor:
        """Sums in torch operations, (b, m, Q), with or without the reciprocal part."""
        volume = cells.volume(cell)
        kernels = [kernel.following(volume / volume.detach()) for kernel in self.kernels]
        total = self.real_sum.values(vectors, cell, kernels)
        background, origin = self._background(volume, kernels), self._origin(kernels)
        self._real, self._rest = total.detach(), background.detach().abs() + origin.detach()
        total = total + background[:, None]
        if reciprocal:
            total = total + self.reciprocal_sum.cosines(vectors, cell, kernels)
        return torch.cat([total[:, :1] - origin[:, None], total[:, 1:]], 1)

    def derivatives(self, reciprocal: bool = True, real: bool = True) -> tuple[Tensor, Tensor]:
        """Sums (b, m, Q), and derivatives (b, m, Q, 9) by the vector (3) and by strain (6, Voigt).

        Args:
            reciprocal: With the reciprocal part,
            real: with the real-space part. Without both, dimensions may be 1 in place of m.
        """
        with torch.no_grad():
            vectors, cell = self.vectors.detach(), self.cell.detach()
            total = self._background(cells.volume(cell), self.kernels)[:, None]
            slopes = total.new_zeros(*total.shape, 9)
            slopes[..., 3:6] -= total[..., None]
            origin = self._origin(self.kernels)
            self._rest = total[:, 0].abs() + origin
            if reciprocal:
                values, more = self.reciprocal_sum.derivatives(vectors, cell)
                total, slopes = total + values, slopes + more
            if real:
                self._real, more = self.real_sum.derivatives(vectors, cell)
                total, slopes = total + self._real, slopes + more
            if total.shape[1] < vectors.shape[1]:
                total = total.repeat(1, vectors.shape[1], 1)
            total[:, 0] -= origin
            for i, kernel in enumerate(self.kernels):
                if kernel.volume_exponent:
                    # A parameter that follows the volume: a function of alpha r changes with alpha as it
                    # does with all lengths.
                    trace = slopes[:, :, i, 3:6].sum(-1, keepdim=True)
                    slopes[:, :, i, 3:6] += kernel.volume_exponent * trace
        return total, slopes

    def for_backward(self, reciprocal: bool) -> tuple[Tensor, Tensor, list[Slopes] | None]:
        """Sums (b, m, Q), derivatives (b, m or 1, Q, 9), and the slopes of real-space terms.

        The slopes are there where terms are picked first; they cost less than derivatives of all pairs, which
        then leave the real-space part out.
        """
        if self.dense or any(kernel.volume_exponent for kernel in self.kernels):
            return *self.derivatives(reciprocal), None
        values, slopes = self.derivatives(reciprocal, real=False)
        self._real, terms = self.real_sum.with_slopes(self.vectors.detach(), self.cell.detach())
        return values + self._real, slopes, terms

    def _background(self, volume: Tensor, kernels: list[Kernel]) -> Tensor:
        return torch.stack([kernel.background(self.eta, volume) for kernel in kernels], -1)

    def _origin(self, kernels: list[Kernel]) -> Tensor:
        """What an atom sees of itself, (b, Q)."""
        origins = [torch.as_tensor(k.origin(self.eta), dtype=torch.float64) for k in kernels]
        return torch.stack([o.to(self.eta.device).expand_as(self.eta) for o in origins], -1)

    def _structure_factors(self) -> Tensor:
        volume = cells.volume(self.cell)
        kernels = [kernel.following(volume / volume.detach()) for kernel in self.kernels]
        return self.reciprocal_sum.structure_factors(self.positions, self.cell, kernels)

    @torch.no_grad()
    def sizes(self) -> tuple[Tensor, Tensor]:
        """Largest real-space sums, and sums of all other absolute terms, (b, Q) each, once sums are known."""
        real = self._real
        if self.pairs is not None:
            real = real.masked_fill(~self.pairs[..., None], 0.0)
        return real.amax(1), self.reciprocal_sum.itself + self._rest


class _Fused(torch.autograd.Function):
    """`Block.plain` with the derivatives computed in the forward pass.

    The backward pass multiplies by them. Where it is itself to be differentiated, the sums are computed
    once more in torch operations.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, cell: Tensor, block: Block, reciprocal: bool) -> Tensor:
        values, slopes, ctx.terms = block.for_backward(reciprocal)
        ctx.save_for_backward(vectors, cell, slopes)
        ctx.block, ctx.reciprocal = block, reciprocal
        return values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        vectors, cell, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_again(ctx.block, ctx.reciprocal, vectors, cell, upstream), None, None
        if slopes.shape[1] == 1:  # the same for all pairs
            weighted = (upstream.sum(1, keepdim=True)[:, :, None] @ slopes)[:, :, 0]
        else:
            weighted = (upstream[:, :, None] @ slopes)[:, :, 0]  # (b, m, 9)
        by_vector, virial = weighted[..., :3], symmetric(weighted[..., 3:].sum(1))
        if ctx.terms is not None:
            more, strain = ctx.block.real_sum.pull_back(vectors, cell, ctx.terms, upstream)
            by_vector, virial = by_vector + more, virial + strain
        by_deformation = virial - vectors.transpose(1, 2) @ by_vector
        by_cell = cells.inverse(cell).transpose(1, 2) @ by_deformation
        return by_vector, by_cell, None, None


def _again(
    block: Block, reciprocal: bool, vectors: Tensor, cell: Tensor, upstream: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients that can be differentiated again."""
    with torch.enable_grad():
        # Aliases, so that the gradient stops here even where one input is a function of the other.
        inputs = (vectors.view_as(vectors), cell.view_as(cell))
        wanted = [x for x in inputs if x.requires_grad]
        values = block.plain(*inputs, reciprocal)
        found = iter(torch.autograd.grad(values, wanted, upstream, create_graph=True))
    first, second = (next(found) if x.requires_grad else None for x in inputs)
    return first, second


def symmetric(voigt: Tensor) -> Tensor:
    """(..., 3, 3) from (..., 6) in Voigt order."""
    order = [VOIGT.index((min(i, j), max(i, j))) for i in range(3) for j in range(3)]
    return voigt[..., order].unflatten(-1, (3, 3))
