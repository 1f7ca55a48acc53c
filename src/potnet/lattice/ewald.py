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

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.bounds import cutoffs, rounding
from potnet.lattice.potentials import Kernel, Potential, RealTerms

#: Atoms, or an atom and its own image, closer than this are an error, Å.
CLOSEST = 0.01

# Relative costs (ns on one CPU core; only their ratios matter, and the optimum is flat): a real-space term; a
# wave vector itself; its cosine for a pair; its phase for an atom; a product of structure factors.
_COST_TERM, _COST_WAVE, _COST_COSINE, _COST_PHASE, _COST_PRODUCT = 100.0, 130.0, 6.0, 30.0, 0.4
# A block ends where padding would pass this factor, unless it is still too small to pay for its overhead.
_PADDING, _SMALLEST_BLOCK = 1.3, 8
# Up to this many atoms, a cosine for each pair costs less than structure factors and their products.
_FEW_ATOMS = 20
# On a CPU, temporaries of about this many bytes stay in the cache.
_CACHE = 2.0**22
# A forced eta that needs more lattice points than this for a crystal is a mistake.
_MOST_POINTS = 1e6
_DEFAULT_MEMORY_MIB = {"cpu": 64, "cuda": 4096}


class LatticeError(ValueError):
    """A crystal that cannot be summed. `crystal` is its index in the batch, if one is to blame."""

    def __init__(self, message: str, crystal: int | None = None) -> None:
        super().__init__(message)
        self.crystal = crystal


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
    tolerance = _tolerances(accuracy, len(potentials), cell)
    with torch.no_grad():
        transform = cells.reduce(cell)
    reduced = transform @ cell
    volume = torch.linalg.det(reduced).abs()  # of a skewed cell it would cancel
    kernels, coefficients = _kernels(potentials, volume)
    coefficients = coefficients.to(cell.device)
    self_terms = cell.new_tensor([potential.self_term for potential in potentials])
    plan = _plan(reduced.detach(), num_atoms, kernels, coefficients, tolerance, eta)
    _refuse_short_vectors(plan)

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
    for index, n, group_eta in _blocks(plan, num_atoms, len(kernels), limit):
        block = _Block(
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
        detached = [_detached(kernel) for kernel in kernels]
        lost = rounding(
            detached, real, smooth, nearest, farthest + edges, edges, plan.eta, plan.real_cutoff, plan.heights
        )
    return LatticeSums(
        ordered_pairs(num_atoms), torch.cat(pieces)[order], plan.bound + lost @ coefficients.abs().T
    )


@dataclass
class _Plan:
    """Everything decided before the first term is summed; (B,) each unless said."""

    eta: Tensor
    real_cutoff: Tensor
    reciprocal_cutoff: Tensor
    bound: Tensor  # (B, P) truncation
    heights: Tensor  # (B, 3)


def _plan(
    cell: Tensor,
    num_atoms: Tensor,
    kernels: list[Kernel],
    coefficients: Tensor,
    tolerance: Tensor,
    eta: float | Tensor | None,
) -> _Plan:
    heights = cells.heights(cell)
    if eta is None:
        # Real terms cost ~ n² / (V eta^3/2), reciprocal ones ~ V eta^3/2 a wave: the optimum is where both
        # are equal. Rounding to powers of two loses less than a sixth and lets crystals share blocks.
        volume, n = heights.prod(-1), num_atoms.to(cell.dtype)
        pairs = 0.5 * n * n * _COST_COSINE
        factors = n * (_COST_PHASE + n * len(kernels) * _COST_PRODUCT)
        per_wave = _COST_WAVE + torch.where(num_atoms <= _FEW_ATOMS, pairs, factors)
        best = math.pi * (_COST_TERM * n * n / (per_wave * volume**2)) ** (1 / 3)
        split = torch.exp2(torch.log2(best).round())
    else:
        split = torch.as_tensor(eta, dtype=cell.dtype, device=cell.device)
        if split.shape not in ((), (len(cell),)):
            raise ValueError(f"give one eta or one for each of {len(cell)} crystals, got {len(split)}")
        split = split.expand(len(cell)).clone()
        if not bool((split > 0).all() & split.isfinite().all()):
            raise ValueError(f"eta must be positive, got {eta}")
    detached = [_detached(kernel) for kernel in kernels]
    # Leave a quarter of the accuracy for rounding.
    real, reciprocal, bound = cutoffs(detached, coefficients.abs(), 0.75 * tolerance, split, heights)
    if eta is not None:
        points = torch.maximum(_ball(real, heights), _ball(reciprocal, 2 * math.pi / heights))
        if float(points.amax()) > _MOST_POINTS:
            number = int(points.argmax())
            raise ValueError(
                f"eta={float(split[number]):.3g} is too far from sensible for crystal {number}: a sum would "
                f"take {float(points[number]):.1e} lattice points; leave eta=None"
            )
    return _Plan(split, real, reciprocal, bound, heights)


def _detached(kernel: Kernel) -> Kernel:
    alpha = getattr(kernel, "alpha", None)
    return type(kernel)(alpha.detach()) if isinstance(alpha, Tensor) else kernel  # type: ignore[call-arg]


def _blocks(
    plan: _Plan, num_atoms: Tensor, num_kernels: int, limit: float
) -> Iterator[tuple[Tensor, int, float]]:
    """Crystals of equal size and eta, as many at a time as the memory limit permits."""
    n = num_atoms.to(plan.eta.dtype)
    half_diagonal = 0.5 * plan.heights.norm(dim=-1)
    images = _ball(plan.real_cutoff + 1.2 * half_diagonal, plan.heights)
    waves = 0.5 * _ball(plan.reciprocal_cutoff, 2 * math.pi / plan.heights)
    pairs = n * (n + 1) / 2
    size = 8 * (images * (8 + 3 * pairs) + waves * (8 + n * (4 + 2 * num_kernels)) + 3 * pairs * num_kernels)
    # Sorted by the number of images, neighbours in a block need little padding.
    keys = torch.stack([n, plan.eta, images, size], 1).tolist()
    order = sorted(range(len(keys)), key=keys.__getitem__)
    start = 0
    while start < len(order):
        n_atoms, eta, fewest, _ = keys[order[start]]
        stop = start + 1
        while stop < len(order):
            key = keys[order[stop]]
            count = stop - start
            padded = count >= _SMALLEST_BLOCK and key[2] > _PADDING * fewest
            if key[:2] != [n_atoms, eta] or key[3] * (count + 1) > limit or padded:
                break
            stop += 1
        yield torch.tensor(order[start:stop], device=num_atoms.device), int(n_atoms), eta
        start = stop


def _ball(radius: Tensor, heights: Tensor) -> Tensor:
    """Upper bound of the number of lattice points in a ball, (B,).

    The lesser of two: points in layers (see `bounds`), and bricks of the cell's volume around the points.
    """
    volume = heights.prod(-1)
    bricks = 4 / 3 * math.pi * (radius + 0.5 * heights.norm(dim=-1)) ** 3 / volume
    return torch.minimum(bricks, (1 + 2 * radius[:, None] / heights).prod(-1))


@dataclass
class _Block:
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
        if fractional.shape[1] <= _FEW_ATOMS:
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


def checked(cell: Tensor, positions: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Refuse what cannot be summed; return float64 cells and positions, and the numbers of atoms (B,)."""
    if cell.ndim != 3 or cell.shape[1:] != (3, 3):
        raise ValueError(f"cell must be (B, 3, 3), got {tuple(cell.shape)}")
    if positions.ndim != 2 or positions.shape[1] != 3 or batch.shape != positions.shape[:1]:
        raise ValueError(
            f"positions must be (N, 3) and batch (N,), got {tuple(positions.shape)} and {tuple(batch.shape)}"
        )
    if batch.is_floating_point() or batch.dtype == torch.bool:
        raise ValueError(f"batch must hold integers, got {batch.dtype}")
    cell, positions = cell.to(torch.float64), positions.to(torch.float64)
    if len(batch) and (
        int(batch.amin()) < 0 or int(batch.amax()) >= len(cell) or bool((batch.diff() < 0).any())
    ):
        raise ValueError(f"batch must be sorted and lie in 0..{len(cell) - 1}")
    num_atoms = torch.bincount(batch, minlength=len(cell))
    if not bool((num_atoms > 0).all()) or len(cell) == 0:
        raise ValueError(
            "every crystal needs at least one atom" if len(cell) else "give at least one crystal"
        )
    with torch.no_grad():
        finite = cell.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            number = int((~finite).nonzero()[0])
            raise LatticeError(f"crystal {number}: the cell is not finite: {cell[number].tolist()}", number)
        finite = positions.isfinite().all(1)
        if not bool(finite.all()):
            site = int((~finite).nonzero()[0])
            number = int(batch[site])
            site -= int(num_atoms[:number].sum())
            raise LatticeError(f"crystal {number}: site {site} has coordinates that are not finite", number)
        singular = torch.linalg.det(cell).abs() <= 1e-9 * cell.norm(dim=-1).prod(-1)
        if bool(singular.any()):
            number = int(singular.nonzero()[0])
            raise LatticeError(
                f"crystal {number}: the cell is singular (zero volume): {cell[number].tolist()}", number
            )
    return cell, positions, num_atoms


def _tolerances(accuracy: float | Sequence[float], count: int, like: Tensor) -> Tensor:
    if count == 0:
        raise ValueError("give at least one potential")
    values = [float(accuracy)] * count if isinstance(accuracy, int | float) else [float(a) for a in accuracy]
    if len(values) != count:
        raise ValueError(f"give one accuracy or one for each of {count} potentials, got {len(values)}")
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"accuracy must be positive, got {accuracy}")
    return like.new_tensor(values)


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


def _refuse_short_vectors(plan: _Plan) -> None:
    shortest = plan.heights[:, 0]
    if bool((shortest < CLOSEST).any()):
        number = int(shortest.argmin())
        raise LatticeError(
            f"crystal {number}: every site is {float(shortest[number]):.2g} Å from its own image, "
            f"closer than {CLOSEST} Å: are the lattice vectors in Å?",
            number,
        )


def _square_from_triangle(n: int, device: torch.device) -> Tensor:
    """(n * n,) position of each ordered pair among the pairs a < b followed by the self pair."""
    square = torch.full((n, n), n * (n - 1) // 2, dtype=torch.int64, device=device)
    first, second = torch.triu_indices(n, n, 1, device=device)
    place = torch.arange(len(first), device=device)
    square[first, second] = place
    square[second, first] = place
    return square.flatten()


def ordered_pairs(num_atoms: Tensor) -> Tensor:
    """Every ordered pair of atoms of one crystal, row-major, (2, M), from the numbers of atoms (B,)."""
    squared = num_atoms * num_atoms
    n = num_atoms.repeat_interleave(squared)
    within = torch.arange(len(n), device=n.device) - (squared.cumsum(0) - squared).repeat_interleave(squared)
    start = (num_atoms.cumsum(0) - num_atoms).repeat_interleave(squared)
    return torch.stack([start + within // n, start + within % n])
