"""What is decided before the first term is summed: splitting parameters, cutoffs, the order of work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.bounds import cutoffs
from potnet.lattice.inputs import CLOSEST, LatticeError
from potnet.lattice.potentials import Kernel

# Up to this many atoms, a cosine for each pair costs less than structure factors and their products.
FEW_ATOMS = 20
# Relative costs (ns on one CPU core; only their ratios matter, and the optimum is flat): a real-space term; a
# wave vector itself; its cosine for a pair; its phase for an atom; a product of structure factors.
_COST_TERM, _COST_WAVE, _COST_COSINE, _COST_PHASE, _COST_PRODUCT = 100.0, 130.0, 6.0, 30.0, 0.4
# A block ends where padding would pass this factor, unless it is still too small to pay for its overhead.
_PADDING, _SMALLEST_BLOCK = 3.0, 32
# A forced eta that needs more lattice points than this for a crystal is a mistake.
_MOST_POINTS = 1e6


@dataclass
class Plan:
    """How each crystal of a batch is summed; (B,) each unless said."""

    eta: Tensor
    real_cutoff: Tensor
    reciprocal_cutoff: Tensor
    bound: Tensor  # (B, P) truncation
    heights: Tensor  # (B, 3)


def make_plan(
    cell: Tensor,
    num_atoms: Tensor,
    kernels: list[Kernel],
    coefficients: Tensor,
    tolerance: Tensor,
    eta: float | Tensor | None,
) -> Plan:
    """Choose eta where none is given, and the cutoffs that keep each potential within its tolerance.

    Args:
        cell: (B, 3, 3) reduced cells, Å.
        num_atoms: (B,) int64.
        kernels: Q kernels.
        coefficients: (P, Q) of the kernels in each potential.
        tolerance: (P,) permitted errors.
        eta: 1/Å², a number, (B,), or None.

    Raises:
        LatticeError: If a lattice vector is shorter than 0.01 Å.
        ValueError: If eta is not positive, has a wrong shape, or is far from sensible.
    """
    heights = cells.heights(cell)
    _refuse_short_vectors(heights[:, 0])
    if eta is None:
        # Real terms cost ~ n² / (V eta^3/2), reciprocal ones ~ V eta^3/2 a wave: the optimum is where both
        # are equal. Rounding to powers of two loses less than a sixth and lets crystals share blocks.
        volume, n = heights.prod(-1), num_atoms.to(cell.dtype)
        pairs = 0.5 * n * n * _COST_COSINE
        factors = n * (_COST_PHASE + n * len(kernels) * _COST_PRODUCT)
        per_wave = _COST_WAVE + torch.where(num_atoms <= FEW_ATOMS, pairs, factors)
        best = math.pi * (_COST_TERM * n * n / (per_wave * volume**2)) ** (1 / 3)
        split = torch.exp2(torch.log2(best).round())
    else:
        split = torch.as_tensor(eta, dtype=cell.dtype, device=cell.device)
        if split.shape not in ((), (len(cell),)):
            raise ValueError(f"give one eta or one for each of {len(cell)} crystals, got {len(split)}")
        split = split.expand(len(cell)).clone()
        if not bool((split > 0).all() & split.isfinite().all()):
            raise ValueError(f"eta must be positive, got {eta}")
    # Leave a quarter of the accuracy for rounding.
    real, reciprocal, bound = cutoffs(
        [detached(kernel) for kernel in kernels], coefficients.abs(), 0.75 * tolerance, split, heights
    )
    if eta is not None:
        points = torch.maximum(_ball(real, heights), _ball(reciprocal, 2 * math.pi / heights))
        if float(points.amax()) > _MOST_POINTS:
            number = int(points.argmax())
            raise ValueError(
                f"eta={float(split[number]):.3g} is too far from sensible for crystal {number}: a sum would "
                f"take {float(points[number]):.1e} lattice points; leave eta=None"
            )
    return Plan(split, real, reciprocal, bound, heights)


def detached(kernel: Kernel) -> Kernel:
    """The kernel with parameters that carry no gradient."""
    alpha = getattr(kernel, "alpha", None)
    return type(kernel)(alpha.detach()) if isinstance(alpha, Tensor) else kernel  # type: ignore[call-arg]


def blocks(
    plan: Plan, num_atoms: Tensor, num_kernels: int, limit: float
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


def _refuse_short_vectors(shortest: Tensor) -> None:
    if bool((shortest < CLOSEST).any()):
        number = int(shortest.argmin())
        raise LatticeError(
            f"crystal {number}: every site is {float(shortest[number]):.2g} Å from its own image, "
            f"closer than {CLOSEST} Å: are the lattice vectors in Å?",
            number,
        )
