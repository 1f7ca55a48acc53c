"""The real-space sum of a block of crystals: sum over k of R(|v + k L|) for pairs v."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.kernels import Kernel, RealTerms

#: Rows and columns of a symmetric tensor in Voigt order: xx yy zz yz xz xy.
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
# Å², farther than any cutoff, and harmless in float32 products.
_FAR = 1e18


# Pairs, places of terms in (b, m, K) and rows in (b, m), and R'/r of each kernel at the terms.
Slopes = tuple[slice, Tensor, Tensor, list[Tensor]]


@dataclass
class RealSum:
    """Images and cutoffs of b crystals; the pair at index 0 is an atom with itself."""

    eta: Tensor  # (b,)
    cutoff: Tensor  # (b,)
    kernels: list[Kernel]
    images: Tensor  # (b, K, 3) integer coordinates as floats
    mask: Tensor  # (b, K), False for padding
    pairs: Tensor | None  # (b, m), False for padding; None if there is none
    working_set: float  # bytes
    dense: bool
    dtype: torch.dtype = torch.float64  # of what follows from the distances; results are float64

    def __post_init__(self) -> None:
        #: (b,) squared shortest distance seen, Å²; infinite if none was within reach.
        self.nearest2 = torch.full_like(self.cutoff, math.inf)

    def values(self, vectors: Tensor, cell: Tensor, kernels: list[Kernel]) -> Tensor:
        """Sums for pairs `vectors` (b, m, 3) Å in cells (b, 3, 3), (b, m, Q). Differentiable."""
        wanted = torch.is_grad_enabled() and (vectors.requires_grad or cell.requires_grad)
        if not wanted and not any(kernel.requires_grad() for kernel in kernels):
            together = self._by_triton(vectors, cell)
            if together is not None:
                return together[..., 0]
        part = self._dense_values if self.dense else self._picked_values
        return self._joined(self._in_slices(vectors, cell, partial(part, kernels)))

    def derivatives(self, vectors: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (b, m, Q), and their derivatives (b, m, Q, 9) by the vector (3) and by strain (6, Voigt)."""
        with torch.no_grad():
            total = self._by_triton(vectors, cell)
            if total is None:
                part = self._dense_slopes if self.dense else self._picked_slopes
                total = self._joined(self._in_slices(vectors, cell, part))
        return total[..., 0], total[..., 1:]

    def _by_triton(self, vectors: Tensor, cell: Tensor) -> Tensor | None:
        """Sums and derivatives (b, m, Q, 10) from one kernel, where there is one that runs here."""
        if not self.dense or not (vectors.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
            return None
        from potnet.lattice import triton_kernels

        if not triton_kernels.applies(self.kernels, vectors.device):
            return None
        found = triton_kernels.real_terms(
            vectors,
            self.images @ cell,
            self.mask,
            self.pairs,
            self.eta,
            self.cutoff,
            self.kernels,
            single=self.dtype == torch.float32,
        )
        if found is None:
            return None
        self.nearest2 = torch.minimum(self.nearest2, found[1].amin(1))
        return found[0]

    def with_slopes(self, vectors: Tensor, cell: Tensor) -> tuple[Tensor, list[Slopes]]:
        """Sums (b, m, Q), and the slopes of all terms, for `pull_back`. Not for `dense` terms."""
        saved: list[Slopes] = []
        with torch.no_grad():
            values = self._joined(self._in_slices(vectors, cell, partial(self._picked_with_slopes, saved)))
        return values, saved

    def pull_back(
        self, vectors: Tensor, cell: Tensor, saved: list[Slopes], upstream: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Derivatives of f by the vectors (b, m, 3) and by strain (b, 3, 3), from df/dS (b, m, Q)."""
        t = self.images @ cell
        b, num_images = t.shape[:2]
        ones = torch.cat([torch.ones_like(t[..., :1]), t], -1)
        by_vector, strain = torch.empty_like(vectors), torch.zeros_like(cell)
        for some, chosen, row, slopes in saved:
            part, m = vectors[:, some], some.stop - some.start
            wanted = upstream[:, some].reshape(b * m, -1)
            weight = torch.zeros_like(slopes[0])
            for q, slope in enumerate(slopes):
                weight.addcmul_(wanted[:, q].contiguous().index_select(0, row), slope)
            # Back in their places, so that matrix products add them up.
            placed = vectors.new_zeros(b * m * num_images).scatter_(0, chosen, weight).view(b, m, num_images)
            moments = placed @ ones
            first = moments[..., 1:]
            by_vector[:, some] = first + moments[..., :1] * part
            # s s of s = v + t, in parts.
            strain += part.transpose(1, 2) @ by_vector[:, some] + first.transpose(1, 2) @ part
            strain += (placed.sum(1)[..., None] * t).transpose(1, 2) @ t
        return by_vector, strain

    def _in_slices(
        self, vectors: Tensor, cell: Tensor, part: Callable[[Tensor, Tensor, slice], Tensor]
    ) -> Iterator[Tensor]:
        """Pairs in slices that fit the working set."""
        translations = self.images @ cell
        step = max(1, int(min(self.working_set / (8 * max(1, self.mask.numel())), 2**40)))
        for start in range(0, vectors.shape[1], step):
            yield part(vectors, translations, slice(start, min(start + step, vectors.shape[1])))

    @staticmethod
    def _joined(parts: Iterator[Tensor]) -> Tensor:
        listed = list(parts)
        return (listed[0] if len(listed) == 1 else torch.cat(listed, 1)).to(torch.float64)

    # ------------------------------------------------------- terms picked first, as a CPU likes it

    def _picked(
        self, vectors: Tensor, translations: Tensor, some: slice
    ) -> tuple[Tensor, Tensor, RealTerms, Tensor]:
        """Place of each term in (b, m, K) and (b * m), what kernels need, and eta (T,)."""
        num_images, m = translations.shape[1], some.stop - some.start
        part = vectors[:, some].contiguous()
        with torch.no_grad():
            chosen = self._chosen(part, translations, some.start)
            row = cells.quotient(chosen, num_images)  # crystal * m + pair
            crystals = torch.arange(len(part), device=part.device).repeat_interleave(
                m, output_size=len(part) * m
            )
            crystal = crystals.index_select(0, row)
            image = chosen + (crystal - row) * num_images  # crystal * num_images + image
        separation = part.flatten(0, 1).index_select(0, row)
        separation = separation + translations.flatten(0, 1).index_select(0, image)
        r2 = cells.squared_norm(separation)
        with torch.no_grad():
            self.nearest2 = self.nearest2.scatter_reduce(0, crystal, r2.detach(), "amin")
        r2 = r2.to(self.dtype)
        eta = self.eta.to(self.dtype).index_select(0, crystal)
        x = eta * r2
        return chosen, row, RealTerms(r2.sqrt(), r2, x, torch.exp(-x), crystal), eta

    def _picked_values(
        self, kernels: list[Kernel], vectors: Tensor, translations: Tensor, some: slice
    ) -> Tensor:
        b, m = len(vectors), some.stop - some.start
        _, row, terms, eta = self._picked(vectors, translations, some)
        columns = [terms.r.new_zeros(b * m).index_add(0, row, kernel.real(terms, eta)) for kernel in kernels]
        return torch.stack(columns, -1).view(b, m, -1)

    def _picked_with_slopes(
        self, saved: list[Slopes], vectors: Tensor, translations: Tensor, some: slice
    ) -> Tensor:
        b, m = len(vectors), some.stop - some.start
        chosen, row, terms, eta = self._picked(vectors, translations, some)
        both = [kernel.real_slope(terms, eta) for kernel in self.kernels]
        saved.append((some, chosen, row, [slope for _, slope in both]))
        columns = [value.new_zeros(b * m).index_add_(0, row, value) for value, _ in both]
        return torch.stack(columns, -1).view(b, m, -1)

    def _picked_slopes(self, vectors: Tensor, translations: Tensor, some: slice) -> Tensor:
        b, m, num_images = len(vectors), some.stop - some.start, translations.shape[1]
        chosen, row, terms, eta = self._picked(vectors, translations, some)
        columns = []
        for kernel in self.kernels:
            value, slope = kernel.real_slope(terms, eta)
            total = vectors.new_zeros(b * m).index_add_(0, row, value.to(vectors.dtype))
            # Back in their places, so that a matrix product adds them up: cheaper than ten columns a term.
            placed = vectors.new_zeros(b * m * num_images).scatter_(0, chosen, slope.to(vectors.dtype))
            columns.append((total.view(b, m), placed.view(b, m, num_images)))
        return _with_moments(columns, vectors[:, some], translations)

    def _chosen(self, part: Tensor, translations: Tensor, start: int) -> Tensor:
        """Places in (b, m, K) of the terms within the cutoff, and maybe of a few just beyond it, (T,)."""
        # Squared distances by a matrix product; those kept are computed again, without cancellation. Single
        # precision does, unless somebody has traded the precision of float32 products for speed.
        exact = torch.get_float32_matmul_precision() == "highest" and part.device.type == "cpu"
        dtype = torch.float32 if exact else torch.float64
        length2, image2 = cells.squared_norm(part), cells.squared_norm(translations)
        image2 = image2.masked_fill(~self.mask, 0.0)
        farthest2 = image2.amax(1) if image2.shape[1] else self.cutoff
        limit = (self.cutoff**2 + 1e-5 * farthest2)[:, None] - length2
        if self.pairs is not None:
            limit = limit.masked_fill(~self.pairs[:, start : start + part.shape[1]], -_FAR)
        base = image2.masked_fill(~self.mask, _FAR).to(dtype)[:, None]
        # |v + t|² - cutoff² as one product of (v, -limit) and (2 t, 1).
        left = torch.cat([part, -limit[..., None]], -1).to(dtype)
        right = torch.cat([2 * translations, torch.ones_like(translations[..., :1])], -1).to(dtype)
        product = torch.baddbmm(base, left, right.transpose(1, 2))
        if start == 0:  # an atom is not its own neighbour
            product[:, 0].masked_fill_((image2 == 0) & self.mask, _FAR)
        return cells.nonzero((product <= 0).view(-1))

    # ------------------------------------------- all pairs and images, as a GPU likes it: no sizes to read

    def _all(self, vectors: Tensor, translations: Tensor, some: slice) -> tuple[Tensor, RealTerms, Tensor]:
        """Which terms count (b, m, K), what kernels need of them, and eta (b, 1, 1)."""
        part = vectors[:, some]
        separation = part[:, :, None] + translations[:, None]
        r2 = cells.squared_norm(separation)
        with torch.no_grad():
            counts = (r2 <= (self.cutoff**2)[:, None, None]) & self.mask[:, None]
            if self.pairs is not None:
                counts = counts & self.pairs[:, some, None]
            if some.start == 0:  # an atom is not its own neighbour
                itself = (self.images == 0).all(-1)
                counts = torch.cat([counts[:, :1] & ~itself[:, None], counts[:, 1:]], 1)
            if counts.shape[2]:
                nearest2 = r2.detach().masked_fill(~counts, math.inf).amin((1, 2))
                self.nearest2 = torch.minimum(self.nearest2, nearest2)
        eta = self.eta.to(self.dtype)[:, None, None]
        r2 = torch.where(counts, r2, (self.cutoff**2)[:, None, None]).to(self.dtype)
        x = eta * r2
        crystal = torch.arange(len(part), device=part.device)[:, None, None]
        return counts, RealTerms(r2.sqrt(), r2, x, torch.exp(-x), crystal), eta

    def _dense_values(
        self, kernels: list[Kernel], vectors: Tensor, translations: Tensor, some: slice
    ) -> Tensor:
        counts, terms, eta = self._all(vectors, translations, some)
        columns = [kernel.real(terms, eta).masked_fill(~counts, 0.0).sum(-1) for kernel in kernels]
        return torch.stack(columns, -1)

    def _dense_slopes(self, vectors: Tensor, translations: Tensor, some: slice) -> Tensor:
        counts, terms, eta = self._all(vectors, translations, some)
        columns = []
        for kernel in self.kernels:
            value, slope = kernel.real_slope(terms, eta)
            value, slope = value.masked_fill(~counts, 0.0).sum(-1), slope.masked_fill(~counts, 0.0)
            columns.append((value.to(vectors.dtype), slope.to(vectors.dtype)))
        return _with_moments(columns, vectors[:, some], translations)


def _with_moments(columns: list[tuple[Tensor, Tensor]], part: Tensor, translations: Tensor) -> Tensor:
    """Sums and derivatives (b, m, Q, 10) from sums (b, m) and slopes R'/r (b, m, K) of each kernel.

    The derivatives are sums of slope * s and slope * s s with s = v + t; they follow from those of t, which
    all pairs share.
    """
    t = torch.cat([torch.ones_like(translations[..., :1]), translations, _products(translations)], -1)
    products = _products(part)
    result = []
    for total, slope in columns:
        moments = slope @ t
        zeroth, first, second = moments[..., :1], moments[..., 1:4], moments[..., 4:]
        cross = [part[..., i] * first[..., j] + part[..., j] * first[..., i] for i, j in VOIGT]
        strain = second + torch.stack(cross, -1) + zeroth * products
        result.append(torch.cat([total[..., None], first + zeroth * part, strain], -1))
    return torch.stack(result, 2)


def _products(vectors: Tensor) -> Tensor:
    """Products of components in Voigt order, (..., 6)."""
    return torch.stack([vectors[..., i] * vectors[..., j] for i, j in VOIGT], -1)
