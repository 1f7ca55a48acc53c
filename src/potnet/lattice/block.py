"""The two sums for a block of crystals with the same number of atoms and the same splitting parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.inputs import CLOSEST, LatticeError
from potnet.lattice.plan import FEW_ATOMS
from potnet.lattice.potentials import Kernel, RealTerms


@dataclass
class Block:
    """b crystals with n atoms each and one eta; pairs a < b come first, the self pair last (m in all)."""

    cell: Tensor  # (b, 3, 3), reduced
    positions: Tensor  # (b, n, 3)
    volume: Tensor  # (b,)
    eta: float
    real_cutoff: Tensor  # (b,)
    reciprocal_cutoff: Tensor  # (b,)
    kernels: list[Kernel]
    crystals: Tensor  # (b,), for messages
    working_set: float  # bytes

    def __post_init__(self) -> None:
        #: (b,) shortest distance seen, Å; infinite if none was within reach.
        self.nearest = torch.full_like(self.real_cutoff, math.inf)

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Kernel sums (b, m, Q), and the sums of absolute terms in real space and of all others (b, Q)."""
        n, device = self.positions.shape[1], self.cell.device
        first, second = torch.triu_indices(n, n, 1, device=device)
        inverse = torch.linalg.inv(self.cell)
        fractional = self.positions @ inverse
        inverse = inverse.detach()
        fractional = fractional - fractional.detach().floor()
        difference = fractional[:, first] - fractional[:, second]
        # Distances from differences of positions: through fractional coordinates they would lose digits.
        vectors = self.positions[:, first] - self.positions[:, second]
        vectors = vectors - (vectors.detach() @ inverse).round() @ self.cell
        difference = difference - difference.detach().round()
        itself = torch.zeros_like(fractional[:, :1])
        real = self._real(torch.cat([vectors, itself], 1))
        reciprocal, waves = self._reciprocal(fractional, difference)
        background = torch.stack([kernel.background(self.eta, self.volume) for kernel in self.kernels], -1)
        origin = torch.stack(
            [
                torch.as_tensor(k.origin(self.eta), dtype=torch.float64, device=device).expand_as(self.volume)
                for k in self.kernels
            ],
            -1,
        )
        total = real + reciprocal + background[:, None]
        total = torch.cat([total[:, :-1], total[:, -1:] - origin[:, None]], 1)
        with torch.no_grad():
            smooth = waves + background.abs() + origin
        return total, real.detach().amax(1), smooth

    def _real(self, vectors: Tensor) -> Tensor:
        """Real-space sums (b, m, Q) for pairs `vectors` (b, m, 3) in Å."""
        with torch.no_grad():
            reach = self.real_cutoff + cells.squared_norm(vectors).amax(1).sqrt()
            images, mask = cells.points_within(self.cell, reach)
        translations = images @ self.cell  # (b, K, 3)
        m = vectors.shape[1]
        step = max(1, int(self.working_set / (8 * max(1, mask.numel()))))
        slices = [
            self._real_pairs(vectors, translations, mask, s, min(s + step, m)) for s in range(0, m, step)
        ]
        return slices[0] if len(slices) == 1 else torch.cat(slices, 1)

    def _real_pairs(
        self, vectors: Tensor, translations: Tensor, mask: Tensor, start: int, stop: int
    ) -> Tensor:
        """Sums of the real parts for the pairs start..stop, (b, stop - start, Q)."""
        b, m, num_images = len(vectors), stop - start, translations.shape[1]
        some = vectors[:, start:stop].contiguous()
        with torch.no_grad():
            chosen = self._chosen(some, translations, mask, stop == vectors.shape[1])
            slot = chosen // num_images  # crystal * m + pair
            crystal = slot // m
            image = chosen + (crystal - slot) * num_images  # crystal * num_images + image
        separation = some.flatten(0, 1).index_select(0, slot)
        separation = separation + translations.flatten(0, 1).index_select(0, image)
        r2 = cells.squared_norm(separation)
        self._look_for_overlap(r2.detach(), crystal, slot - crystal * m + start)
        x = self.eta * r2
        terms = RealTerms(r2.sqrt(), r2, x, torch.exp(-x), crystal)
        columns = [
            torch.zeros(b * m, dtype=r2.dtype, device=r2.device).index_add(
                0, slot, kernel.real(terms, self.eta)
            )
            for kernel in self.kernels
        ]
        return torch.stack(columns, -1).view(b, m, -1)

    def _chosen(self, some: Tensor, translations: Tensor, mask: Tensor, with_self: bool) -> Tensor:
        """Places in (b, m, K) of the terms within the cutoff, and maybe of a few just beyond it, (T,)."""
        # Squared distances by a matrix product; those kept are computed again, without cancellation. Single
        # precision does, unless somebody has traded the precision of float32 products for speed.
        exact = torch.get_float32_matmul_precision() == "highest" and some.device.type == "cpu"
        dtype = torch.float32 if exact else torch.float64
        length2, image2 = cells.squared_norm(some), cells.squared_norm(translations)
        farthest2 = image2.masked_fill(~mask, 0.0).amax(1) if mask.shape[1] else self.real_cutoff
        limit = (self.real_cutoff**2 + 1e-5 * farthest2)[:, None] - length2
        base = image2.masked_fill(~mask, math.inf).to(dtype)[:, None]
        product = torch.baddbmm(base, some.to(dtype), translations.to(dtype).transpose(1, 2), alpha=2)
        if with_self:  # an atom is not its own neighbour
            product[:, -1].masked_fill_(image2 == 0, math.inf)
        return (product <= limit.to(dtype)[..., None]).view(-1).nonzero()[:, 0]

    def _look_for_overlap(self, r2: Tensor, crystal: Tensor, pair: Tensor) -> None:
        """Keep the shortest distances, and refuse atoms that are closer than `CLOSEST`."""
        nearest2 = self.nearest.square().scatter_reduce(0, crystal, r2, "amin")
        self.nearest = nearest2.sqrt()
        if float(self.nearest.amin()) >= CLOSEST:
            return
        where = int(r2.argmin())
        n = self.positions.shape[1]
        first, second = torch.triu_indices(n, n, 1)
        number, distance = int(self.crystals[crystal[where]]), math.sqrt(float(r2[where]))
        a, b = int(first[pair[where]]), int(second[pair[where]])
        raise LatticeError(
            f"crystal {number}: sites {a} and {b} are {distance:.2g} Å apart, closer than {CLOSEST} Å: "
            "remove the duplicate",
            number,
        )

    def _reciprocal(self, fractional: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
        """Reciprocal sums without G = 0.

        Args:
            fractional: (b, n, 3) coordinates of the atoms in units of the cell.
            difference: (b, m - 1, 3) the same for the pairs a < b.

        Returns:
            Sums for all pairs (b, m, Q), and for the self pair alone (b, Q).
        """
        basis = 2 * math.pi * torch.linalg.inv(self.cell).transpose(1, 2)
        miller, mask = cells.points_within(basis.detach(), self.reciprocal_cutoff, half=True)
        # Padding repeats G = 0; a harmless value stands in for its square, and the weight is then zero.
        g2 = cells.squared_norm(miller @ basis).masked_fill(~mask, 1.0)
        weight = torch.stack([k.reciprocal(g2, self.eta, self.volume[:, None]) for k in self.kernels], -1)
        weight = 2 * weight.masked_fill(~mask[..., None], 0.0)  # (b, K, Q), G and -G together
        itself = weight.sum(1)
        if fractional.shape[1] <= FEW_ATOMS:
            pairs = self._cosines(difference, miller, weight)
        else:
            pairs = self._structure_factors(fractional, miller, weight)
        return torch.cat([pairs, itself[:, None]], 1), itself.detach()

    def _cosines(self, difference: Tensor, miller: Tensor, weight: Tensor) -> Tensor:
        """Sum over G of weight cos(G v), pair by pair: cheapest for few atoms. (b, m - 1, Q)."""
        b, pairs = difference.shape[:2]
        total = difference.new_zeros(b, pairs, weight.shape[-1])
        step = max(1, int(self.working_set / (16 * b * max(1, pairs))))
        for s in range(0, miller.shape[1], step):
            phase = difference @ (2 * math.pi * miller[:, s : s + step].transpose(1, 2))
            total = torch.baddbmm(total, phase.cos(), weight[:, s : s + step])
        return total

    def _structure_factors(self, fractional: Tensor, miller: Tensor, weight: Tensor) -> Tensor:
        """The same from cos(G(x - x')) = cos cos + sin sin: matrix products, cheapest for many atoms."""
        b, n = fractional.shape[:2]
        num_kernels = weight.shape[-1]
        step = max(1, int(self.working_set / (16 * b * n * (2 + num_kernels))))
        product = fractional.new_zeros(b, num_kernels * n, n)
        for s in range(0, miller.shape[1], step):
            phase = fractional @ (2 * math.pi * miller[:, s : s + step].transpose(1, 2))
            part = weight[:, s : s + step].transpose(1, 2)[:, :, None]
            for factor in (phase.cos(), phase.sin()):
                weighted = (part * factor[:, None]).flatten(1, 2)  # (b, Q n, K)
                product = torch.baddbmm(product, weighted, factor.transpose(1, 2))
        first, second = torch.triu_indices(n, n, 1, device=fractional.device)
        return product.view(b, num_kernels, n, n)[:, :, first, second].transpose(1, 2)
