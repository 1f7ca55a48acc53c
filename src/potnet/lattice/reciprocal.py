"""The reciprocal sum of a block of crystals without G = 0: sum over G of cos(G v) F(|G|) for pairs v."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.kernels import Kernel
from potnet.lattice.real import VOIGT


@dataclass
class ReciprocalSum:
    """Wave vectors of b crystals, one of each pair G and -G."""

    eta: Tensor  # (b,)
    kernels: list[Kernel]
    miller: Tensor  # (b, K, 3) integer coordinates as floats
    mask: Tensor  # (b, K), False for padding
    working_set: float  # bytes
    dtype: torch.dtype = torch.float64  # of phases, cosines and their products

    def __post_init__(self) -> None:
        #: (b, Q) what an atom sees of itself, once sums are known.
        self.itself = self.eta.new_zeros(len(self.eta), len(self.kernels))

    def weights(self, cell: Tensor, inverse: Tensor, kernels: list[Kernel]) -> Tensor:
        """F of all kernels, G and -G together, (b, K, Q). Differentiable in `cell` (b, 3, 3)."""
        g2, volume = self._squares(cell, inverse)
        # Side by side in memory for each kernel, which is cheaper to fill and to sum.
        columns = [kernel.reciprocal(g2, self.eta[:, None], volume) for kernel in kernels]
        weight = torch.stack(columns, 1).transpose(1, 2)
        self.itself = weight.detach().sum(1)
        return weight

    def _squares(self, cell: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Squared wave vectors (b, K), and volumes (b, K) that make F what is to be summed.

        F is proportional to 1 / volume: half of it counts G and -G, an infinite one leaves padding out.
        """
        basis = 2 * math.pi * inverse.transpose(1, 2)
        g2 = cells.squared_norm(self.miller @ basis).masked_fill(~self.mask, 1.0)
        half = 0.5 * cells.volume(cell)[:, None]
        return g2, torch.where(self.mask, half, math.inf)

    def cosines(self, vectors: Tensor, cell: Tensor, kernels: list[Kernel]) -> Tensor:
        """Pair by pair: cheapest for few atoms. The pair at index 0 is an atom with itself. (b, m, Q)."""
        inverse = cells.inverse(cell)
        weight = self.weights(cell, inverse, kernels)
        b, pairs = vectors.shape[0], vectors.shape[1] - 1
        fractional, waves = (vectors[:, 1:] @ inverse).to(self.dtype), self._waves()
        single = weight.to(self.dtype)
        rows = []
        for block, slices in self._slices(b, pairs):
            total = fractional.new_zeros(block.stop - block.start, pairs, weight.shape[-1])
            for some in slices:
                phase = fractional[block] @ waves[block, some].transpose(1, 2)
                total = torch.baddbmm(total, phase.cos(), single[block, some])
            rows.append(total.to(weight.dtype))
        return torch.cat([weight.sum(1)[:, None], torch.cat(rows)], 1)

    def structure_factors(self, positions: Tensor, cell: Tensor, kernels: list[Kernel]) -> Tensor:
        """The same from cos(G(x - x')) = cos cos + sin sin: matrix products, cheapest for many atoms.

        Args:
            positions: (b, n, 3) Å.
            cell: (b, 3, 3) Å.
            kernels: Q kernels.

        Returns:
            (b, m, Q): an atom with itself, then the pairs in the order of `pairs_of`.
        """
        inverse = cells.inverse(cell)
        weight = self.weights(cell, inverse, kernels)
        fractional = positions @ inverse
        fractional = (fractional - fractional.detach().round()).to(self.dtype)
        waves, single = self._waves(), weight.to(self.dtype)
        b, n = fractional.shape[:2]
        num_kernels = weight.shape[-1]
        first, second = pairs_of(n, fractional.device)
        place = first * n + second
        rows = []
        for block, slices in self._slices(b, n * (2 + num_kernels)):
            product = fractional.new_zeros(block.stop - block.start, num_kernels * n, n)
            for some in slices:
                phase = fractional[block] @ waves[block, some].transpose(1, 2)
                part = single[block, some].transpose(1, 2)[:, :, None]
                for factor in (phase.cos(), phase.sin()):
                    weighted = (part * factor[:, None]).flatten(1, 2)  # (b, Q n, K)
                    product = torch.baddbmm(product, weighted, factor.transpose(1, 2))
            rows.append(product.to(weight.dtype).unflatten(1, (num_kernels, n)))
        product = torch.cat(rows).flatten(2)
        pairs = product.index_select(2, place).transpose(1, 2)
        return torch.cat([weight.sum(1)[:, None], pairs], 1)

    def derivatives(self, vectors: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (b, m, Q), and their derivatives (b, m, Q, 9) by the vector (3) and by strain (6, Voigt).

        Under strain G v stays and G² changes by -2 G e G, the volume by its trace.
        """
        with torch.no_grad():
            inverse = cells.inverse(cell)
            g2, volume = self._squares(cell, inverse)
            vectors_g = self.miller @ (2 * math.pi * inverse.transpose(1, 2))
            even, odd = [], []
            products = torch.stack([vectors_g[..., i] * vectors_g[..., j] for i, j in VOIGT], -1)
            trace = vectors_g.new_tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
            for kernel in self.kernels:
                value, slope = kernel.reciprocal_slope(g2, self.eta[:, None], volume)
                value, slope = value[..., None], slope[..., None]
                even.append(torch.cat([value, -2 * slope * products - value * trace], -1))
                odd.append(-value * vectors_g)
            b, pairs, num_kernels = vectors.shape[0], vectors.shape[1] - 1, len(self.kernels)
            even_weight, odd_weight = torch.cat(even, -1), torch.cat(odd, -1)  # (b, K, 7 Q), (b, K, 3 Q)
            fractional, waves = (vectors[:, 1:] @ inverse).to(self.dtype), self._waves()
            even_single, odd_single = even_weight.to(self.dtype), odd_weight.to(self.dtype)
            cosine = fractional.new_zeros(b, pairs, 7 * num_kernels)
            sine = fractional.new_zeros(b, pairs, 3 * num_kernels)
            for block, slices in self._slices(b, 2 * pairs):
                for some in slices:
                    phase = fractional[block] @ waves[block, some].transpose(1, 2)
                    cosine[block].baddbmm_(phase.cos(), even_single[block, some])
                    sine[block].baddbmm_(phase.sin(), odd_single[block, some])
            cosine, sine = cosine.to(cell.dtype), sine.to(cell.dtype)
            self.itself = even_weight[..., ::7].sum(1)
            cosine = torch.cat([even_weight.sum(1)[:, None], cosine], 1).unflatten(-1, (num_kernels, 7))
            sine = torch.cat([sine.new_zeros(b, 1, 3 * num_kernels), sine], 1)
            sine = sine.unflatten(-1, (num_kernels, 3))
        return cosine[..., 0], torch.cat([sine, cosine[..., 1:]], -1)

    def _waves(self) -> Tensor:
        """Wave vectors for fractional coordinates, (b, K, 3)."""
        return (2 * math.pi * self.miller).to(self.dtype)

    def _slices(self, num_crystals: int, numbers: int) -> list[tuple[slice, list[slice]]]:
        """Crystals and wave vectors in slices, where so many `numbers` are held for each of both."""
        waves = self.miller.shape[1]
        room = self.working_set / (16 * max(1, numbers))
        crystals = max(1, int(min(room / max(1, waves), 2**40)))
        step = waves if crystals > 1 else max(1, int(min(room, 2**40)))
        some_waves = [slice(start, start + step) for start in range(0, waves, max(1, step))]
        return [
            (slice(start, min(start + crystals, num_crystals)), some_waves)
            for start in range(0, num_crystals, crystals)
        ]


def pairs_of(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pairs a < b of n atoms, ordered by b, then a: those of fewer atoms come first, (n(n-1)/2,) each."""
    second, first = torch.tril_indices(n, n, -1, device=device)
    return first, second
