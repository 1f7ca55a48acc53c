"""What is decided before the first term is summed: splitting parameters, cutoffs, the order of work."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.bounds import FEW_CALLS, FEW_POINTS, cutoffs
from potnet.lattice.inputs import CLOSEST, LatticeError
from potnet.lattice.kernels import Kernel

# Up to this many atoms, a cosine for each pair costs less than structure factors and their products; and the
# same where derivatives are computed along.
FEW_ATOMS, FEW_ATOMS_WITH_SLOPES = 7, 20
# Relative costs (ns on one CPU core; only their ratios matter, and the optimum is flat): a real-space term; a
# wave vector itself; its cosine for a pair; its phase for an atom; a product of structure factors. The same
# on all devices, so that results are.
_COST_TERM, _COST_WAVE, _COST_COSINE, _COST_PHASE, _COST_PRODUCT = 200.0, 130.0, 6.0, 30.0, 0.4
# A forced eta that needs more lattice points than this for a crystal is a mistake.
_MOST_POINTS = 1e6
# Crystals are counted in a table of size classes: atoms exactly up to 12, then in steps of a fifth, and
# lattice points in steps of two.
_EXACT, _STEPS, _CLASSES, _BUCKETS = 12, 4, 96, 24
# Where the cost of operators outweighs that of starting them on a CPU.
_LARGE_BATCH = 256
# ns a pair and lattice point that padding adds.
_COST_PADDING = 3.0


@dataclass(frozen=True)
class Style:
    """How a kind of device likes its work.

    Attributes:
        overhead: ns that one more block costs. Blocks are merged where padding costs less; None merges by
            size class alone, so that the number of blocks does not depend on the number of crystals.
        dense: Evaluate every pair and image and mask what is beyond the cutoff, so that no size has to be
            read back; else pick the terms first.
        cache: Temporaries of about this many bytes stay in the cache.
        memory_mib: Default working memory.
    """

    overhead: float | None
    dense: bool
    cache: float
    memory_mib: float


STYLES = {"cpu": Style(3e6, False, 2.0**22, 64), "cuda": Style(None, True, math.inf, 4096)}


def style_of(device: torch.device) -> Style:
    """The style of a device; one that is not known works as a GPU does."""
    return STYLES.get(device.type, STYLES["cuda"])


@dataclass
class Plan:
    """How each crystal of a batch is summed; (B,) each unless said."""

    eta: Tensor
    real_cutoff: Tensor
    reciprocal_cutoff: Tensor
    bound: Tensor  # (B, P) truncation
    heights: Tensor  # (B, 3)


@dataclass
class Chunk:
    """Crystals that are summed together, padded to `atoms`.

    Attributes:
        index: (b,) int64.
        atoms: Most atoms of a crystal.
        equal: Whether all have as many.
        images: Largest integer coordinates of real-space lattice points, for `cells.points_within`.
        waves: The same in reciprocal space.
        widths: Counts of both in half a ball, where they are known beforehand.
        single: Whether terms are computed in float32.
    """

    index: Tensor
    atoms: int
    equal: bool
    images: list[int]
    waves: list[int]
    widths: tuple[int, int] | None = None
    single: bool = False


def make_plan(
    cell: Tensor,
    num_atoms: Tensor,
    kernels: list[Kernel],
    coefficients: Tensor,
    tolerance: Tensor,
    eta: float | Tensor | None,
    *,
    likely: bool = False,
    strictest: float | None = None,
) -> Plan:
    """Choose eta where none is given, and the cutoffs that keep each potential within its tolerance.

    Args:
        cell: (B, 3, 3) reduced cells, Å.
        num_atoms: (B,) int64.
        kernels: Q kernels.
        coefficients: (P, Q) of the kernels in each potential.
        tolerance: (P,) or (B, P) permitted errors.
        eta: 1/Å², a number, (B,), or None.
        likely: Estimate what the cutoffs leave out, in place of bounding it.
        strictest: See `bounds.cutoffs`.

    Raises:
        ValueError: If eta is not positive, has a wrong shape, or is far from sensible.
    """
    heights = cells.heights(cell)
    if eta is None:
        # Real terms cost ~ n² / (V eta^3/2), reciprocal ones ~ V eta^3/2 a wave: the optimum is where both
        # are equal.
        volume, n = heights.prod(-1), num_atoms.to(cell.dtype)
        pairs = 0.5 * n * n * _COST_COSINE
        factors = n * (_COST_PHASE + n * len(kernels) * _COST_PRODUCT)
        per_wave = _COST_WAVE + torch.where(num_atoms <= FEW_ATOMS, pairs, factors)
        split = math.pi * (_COST_TERM * n * n / (per_wave * volume**2)) ** (1 / 3)
    else:
        split = torch.as_tensor(eta, dtype=cell.dtype, device=cell.device)
        if split.shape not in ((), (len(cell),)):
            raise ValueError(f"give one eta or one for each of {len(cell)} crystals, got {len(split)}")
        split = split.expand(len(cell)).clone()
        if not bool((split > 0).all() & split.isfinite().all()):
            raise ValueError(f"eta must be positive, got {eta}")
    small = len(cell) < _LARGE_BATCH or style_of(cell.device).overhead is None
    # Leave a quarter of the accuracy for rounding.
    real, reciprocal, bound = cutoffs(
        [kernel.detached() for kernel in kernels],
        coefficients.abs(),
        0.75 * tolerance,
        split,
        heights,
        likely=likely,
        strictest=None if strictest is None else strictest / 0.75,
        grid=FEW_CALLS if small else FEW_POINTS,
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


def chunks(
    plan: Plan, cell: Tensor, num_atoms: Tensor, num_kernels: int, limit: float, single: bool
) -> tuple[list[Chunk], int]:
    """Crystals of similar size, as many at a time as `limit` (bytes) permits, with one transfer from a GPU.

    Args:
        plan: What `make_plan` returned.
        cell: (B, 3, 3) reduced cells, Å.
        num_atoms: (B,) int64.
        num_kernels: Q.
        limit: Bytes of working memory.
        single: Whether terms are computed in float32.

    Returns:
        The chunks, and the number of ordered pairs of all crystals.

    Raises:
        LatticeError: If a lattice vector is shorter than 0.01 Å.
    """
    if len(cell) == 0:
        return [], 0
    style = style_of(cell.device)
    n = num_atoms.to(plan.eta.dtype)
    radius = plan.real_cutoff + torch.where(num_atoms > 1, cells.farthest_corner(cell), 0.0)
    images = _ball(radius, plan.heights)
    waves = 0.5 * _ball(plan.reciprocal_cutoff, 2 * math.pi / plan.heights)
    dual = 2 * math.pi * cells.inverse(cell).transpose(1, 2)
    reach = torch.cat([cells.reach(cell, radius), cells.reach(dual, plan.reciprocal_cutoff)], 1)
    level = torch.where(n <= _EXACT, n, _EXACT + (_STEPS * torch.log2(n / _EXACT)).ceil())
    bucket = torch.log2(images).floor().clamp(0, _BUCKETS - 1)
    slot = (level.clamp(max=_CLASSES - 1) * _BUCKETS + bucket).long()
    measures = torch.cat([torch.stack([n, -n, images, waves, -plan.heights[:, 0]], 1), reach], 1)
    table = measures.new_full((_CLASSES * _BUCKETS, measures.shape[1]), -math.inf)
    table.scatter_reduce_(0, slot[:, None].expand_as(measures), measures, "amax")
    added = torch.stack([torch.ones_like(n), n * n], 1)
    added = torch.zeros_like(table[:, :2]).index_add_(0, slot, added)
    order = (slot.to(n.dtype) * 1e9 + images).argsort(stable=True)
    table = torch.cat([added[:, :1], table, added[:, 1:]], 1).cpu()
    table = table[table[:, 0] > 0]
    num_pairs = int(table[:, -1].sum())
    rows = table[:, :-1].tolist()
    if min(-row[5] for row in rows) < CLOSEST:
        _refuse_short_vectors(plan.heights[:, 0])
    found = _split(_merged(rows, style, 0.5 if single else 1.0), order, num_kernels, limit, style)
    for chunk in found:
        chunk.single = single
    return found, num_pairs


# A row of the table, or several merged: number of crystals, and the largest number of atoms, negated smallest
# number of atoms, images, waves, negated shortest vector, and six integer coordinates.
_Row = list[float]


def _merged(rows: list[_Row], style: Style, share: float) -> list[_Row]:
    """Neighbouring rows of the table together where that is cheaper; padding costs `share` of what it does in
    float64.
    """
    merged = [rows[0]]
    for row in rows[1:]:
        both = [merged[-1][0] + row[0], *(max(a, b) for a, b in zip(merged[-1][1:], row[1:], strict=True))]
        if style.overhead is None:
            together = _coarse(merged[-1]) == _coarse(row)
        else:
            padding = _padded(both) - _padded(merged[-1]) - _padded(row)
            together = share * padding <= style.overhead
        if together:
            merged[-1] = both
        else:
            merged.append(row)
    return merged


def _coarse(row: _Row) -> tuple[int, int]:
    """Twice as many pairs, or sixteen times as many images, make another class."""
    return math.ceil(2 * math.log2(row[1]) - 1e-9), int(math.log2(row[3]) / 4)


def _padded(row: _Row) -> float:
    """ns for everything that is done to a padded block for each pair and lattice point."""
    count, n, images, waves = row[0], row[1], row[3], row[4]
    pairs = n * (n + 1) / 2
    smooth = pairs * waves if n <= FEW_ATOMS else 0.3 * n * n * waves
    return _COST_PADDING * count * (pairs * images + smooth + 10 * (images + waves))


def _split(rows: list[_Row], order: Tensor, num_kernels: int, limit: float, style: Style) -> list[Chunk]:
    """Each row in parts that fit into memory."""
    result, start = [], 0
    for row in rows:
        count, n, fewest, images, waves = int(row[0]), row[1], -row[2], row[3], row[4]
        pairs = n * (n + 1) / 2
        # What is held for each crystal, and what is made slice by slice where slices are small.
        held = 16 * (images + waves) + 2 * num_kernels * waves + (8 + 6 * num_kernels) * pairs
        sliced = 3 * images * pairs + waves * n * (4 + 2 * num_kernels)
        if style.dense:
            held, sliced = held + sliced, 0.0
        parts = min(count, math.ceil(8 * count * held / (limit - min(0.5 * limit, 8 * count * sliced))))
        largest = [int(value) for value in row[6:]]
        for part in range(parts):
            index = order[start + part * count // parts : start + (part + 1) * count // parts]
            result.append(Chunk(index, int(n), n == fewest, largest[:3], largest[3:]))
        start += count
    return result


def count_points(found: list[Chunk], plan: Plan, cell: Tensor) -> None:
    """Fill in the widths of all chunks (points in half a ball), with one transfer from a GPU for all."""
    counts = []
    for chunk in found:
        basis = cell[chunk.index]
        radius = plan.real_cutoff[chunk.index]
        if chunk.atoms > 1:
            radius = radius + cells.farthest_corner(basis)
        dual = 2 * math.pi * cells.inverse(basis).transpose(1, 2)
        for lattice, reach, largest in (
            (basis, radius, chunk.images),
            (dual, plan.reciprocal_cutoff[chunk.index], chunk.waves),
        ):
            _, products = cells.half_box(largest, lattice)
            # A column of False, for a box without points.
            within = torch.nn.functional.pad(cells.inside(products, lattice, reach), (0, 1))
            counts.append(within.sum(1).amax())
    widths = torch.stack(counts).tolist()
    for i, chunk in enumerate(found):
        chunk.widths = (widths[2 * i], widths[2 * i + 1])


def _ball(radius: Tensor, heights: Tensor) -> Tensor:
    """Upper bound of the number of lattice points in a ball, (B,).

    The lesser of two: points in layers (see `bounds`), and bricks of the cell's volume around the points.
    """
    volume = heights.prod(-1)
    bricks = 4 / 3 * math.pi * (radius + 0.5 * heights.norm(dim=-1)) ** 3 / volume
    return torch.minimum(bricks, (1 + 2 * radius[:, None] / heights).prod(-1))


def _refuse_short_vectors(shortest: Tensor) -> None:
    number = int(shortest.argmin())
    raise LatticeError(
        f"crystal {number}: every site is {float(shortest[number]):.2g} Å from its own image, "
        f"closer than {CLOSEST} Å: are the lattice vectors in Å?",
        number,
    )
