"""Pairs of atoms within a cutoff, over all periodic images, of a batch of crystals of mixed sizes.

Where all crystals are small, on a CPU, each atom is compared with all images of atoms that are within reach
of the cell, by a matrix product in single precision. That costs n² with a small factor.

Otherwise a linked-cell search without loops: each crystal is divided into bins along its own lattice vectors,
each bin is combined with the bins within reach, and only those pairs are looked at. Cost and memory grow with
the number of atoms. The stencil of bins reaches over as many periodic images as the cutoff needs, so small
cells are no special case.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from potnet.lattice import cells

# Candidate pairs looked at together, about 100 bytes each: what stays in a CPU's cache.
_CANDIDATES_AT_ONCE = {"cpu": 2**15, "cuda": 2**23}
# A bin holds about so many atoms at least, if there are enough.
_ATOMS_PER_BIN = 3.0
# Up to so many atoms, all of them and their images are compared on a CPU: bins cost more.
_FEW_ATOMS = 400
# Numbers of a matrix product in single precision that stay in the cache.
_PRODUCTS_AT_ONCE = 2**19
# A group of crystals ends where padding would make it cost so much more than they do alone.
_PADDING, _GROUP_COSTS = 1.4, 2.0e4
# Å², farther than any cutoff.
_FAR = 1e12


@dataclass
class Pairs:
    """Every pair of atoms once, as from `first` to one image of `second`.

    Attributes:
        first: (T,) int64, index of an atom.
        second: (T,) int64, the other atom, or the same for an atom and its own image.
        image: (T,) int64, row of `images`.
        images: (K, 3) float64 integers k: `second` is shifted by k @ cell.
        owner: (K,) int64, the crystal of each row of `images`.
    """

    first: Tensor
    second: Tensor
    image: Tensor
    images: Tensor
    owner: Tensor

    def __len__(self) -> int:
        return len(self.first)

    def part(self, start: int, stop: int) -> Pairs:
        """The pairs start..stop."""
        some = slice(start, stop)
        return Pairs(self.first[some], self.second[some], self.image[some], self.images, self.owner)

    def vectors(self, cell: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Components of the vectors from first to second, (T,) each, Å, differentiable.

        Args:
            cell: (B, 3, 3) rows are lattice vectors.
            positions: (N, 3).
        """
        shifts = (self.images[:, None] @ cell.index_select(0, self.owner))[:, 0]
        x, y, z = (  # component by component: gathering numbers is far cheaper than gathering rows
            p.index_select(0, self.second) - p.index_select(0, self.first) + s.index_select(0, self.image)
            for p, s in zip(positions.T.contiguous(), shifts.T.contiguous(), strict=True)
        )
        return x, y, z


@torch.no_grad()
def find_pairs(cell: Tensor, fractional: Tensor, batch: Tensor, cutoff: Tensor, exact: bool = True) -> Pairs:
    """All pairs closer than a cutoff, each once.

    Args:
        cell: (B, 3, 3) float64, best reduced.
        fractional: (N, 3) coordinates in units of the cell, within [0, 1).
        batch: (N,) int64, sorted.
        cutoff: (B,) Å.
        exact: Whether pairs just beyond the cutoff, by less than 1e-4 Å or so, are left out.
    """
    num_atoms = torch.bincount(batch, minlength=len(cell))
    if cell.device.type == "cpu" and len(batch) and int(num_atoms.amax()) <= _FEW_ATOMS:
        pairs = _compared(cell, fractional, batch, cutoff, num_atoms)
        return _within(pairs, cell, fractional, batch, cutoff) if exact else pairs
    return _binned(cell, fractional, batch, cutoff, num_atoms)


def _compared(cell: Tensor, fractional: Tensor, batch: Tensor, cutoff: Tensor, num_atoms: Tensor) -> Pairs:
    """The pairs, and maybe a few more, from a comparison of each atom with every image near the cell."""
    images, owner = _half_of_images(cell, cutoff)
    # Ghosts: images of atoms that are no farther from any face of the cell than the cutoff.
    margin = (cutoff[:, None] * cells.inverse(cell).norm(dim=1)).index_select(0, owner)  # (K, 3)
    start = num_atoms.cumsum(0) - num_atoms
    image, atom = _ragged(num_atoms.index_select(0, owner), start.index_select(0, owner))
    keep: Tensor | None = None
    for f, k, m in zip(fractional.T.contiguous(), images.T, margin.T, strict=True):
        place = f.index_select(0, atom)
        inside = (place >= (-m - k).index_select(0, image)) & (place <= (1 + m - k).index_select(0, image))
        keep = inside if keep is None else keep & inside
    assert keep is not None
    chosen = cells.nonzero(keep)
    image, atom = image.index_select(0, chosen), atom.index_select(0, chosen)
    of_crystal = owner.index_select(0, image)
    num_ghosts = torch.bincount(of_crystal, minlength=len(cell))
    first_ghost = num_ghosts.cumsum(0) - num_ghosts

    # Relative to the middle of the cell, where single precision loses least.
    middle = 0.5 * cell.sum(1)
    x = (fractional[:, None] @ cell.index_select(0, batch))[:, 0] - middle.index_select(0, batch)
    shift = (images[:, None] @ cell.index_select(0, owner))[:, 0]
    y = x.index_select(0, atom) + shift.index_select(0, image)
    limit = cutoff * cutoff
    # An atom, and what its distances are compared with; a ghost, and its squared length.
    left = torch.cat([x, cells.squared_norm(x)[:, None] - limit.index_select(0, batch)[:, None]], 1)
    length2 = cells.squared_norm(y)
    farthest2 = torch.zeros_like(limit).scatter_reduce_(0, of_crystal, length2, "amax")
    right = torch.cat([-2 * y, torch.ones_like(length2)[:, None], length2[:, None]], 1)
    # Single precision does, unless somebody has traded the precision of its products for speed.
    coarse = torch.get_float32_matmul_precision() != "highest" or torch.is_autocast_enabled("cpu")
    left, right = (t.to(torch.float64 if coarse else torch.float32) for t in (left, right))

    firsts, seconds = [], []
    for members, n, width in _groups(num_atoms, num_ghosts):
        slots, ghosts = torch.arange(n), torch.arange(width)
        sizes = num_atoms.index_select(0, members)[:, None]
        counts = num_ghosts.index_select(0, members)[:, None]
        site = start.index_select(0, members)[:, None] + torch.minimum(slots, sizes - 1)
        ghost = first_ghost.index_select(0, members)[:, None] + torch.minimum(ghosts, counts - 1)
        a = left.index_select(0, site.flatten()).view(len(members), n, 4)
        g = right.index_select(0, ghost.flatten()).view(len(members), width, 5)
        a[..., 3].masked_fill_(slots >= sizes, _FAR)
        # More than what rounding may take away.
        base = g[..., 4] - (1e-5 * farthest2.index_select(0, members)).to(g.dtype)[:, None]
        base.masked_fill_(ghosts >= counts, _FAR)
        step = max(1, _PRODUCTS_AT_ONCE // (len(members) * width))
        for low in range(0, n, step):
            rows = a[:, low : low + step]
            near = torch.baddbmm(base[:, None], rows, g[..., :4].transpose(1, 2)) <= 0
            # The first ghosts are the atoms themselves, of which each pair is met twice.
            near[..., :n] &= (slots > slots[low : low + step, None]) | (slots >= sizes)[:, None]
            flat = cells.nonzero(near.view(-1))
            row = cells.quotient(flat, width)
            block = cells.quotient(row, rows.shape[1])
            firsts.append(site[:, low : low + step].flatten().index_select(0, row))
            seconds.append(ghost.flatten().index_select(0, flat + (block - row) * width))
    second = torch.cat(seconds)
    return Pairs(
        torch.cat(firsts), atom.index_select(0, second), image.index_select(0, second), images, owner
    )


def _within(pairs: Pairs, cell: Tensor, fractional: Tensor, batch: Tensor, cutoff: Tensor) -> Pairs:
    """Those pairs that are within the cutoff."""
    x, y, z = pairs.vectors(cell, (fractional[:, None] @ cell.index_select(0, batch))[:, 0])
    limit = (cutoff * cutoff).index_select(0, batch).index_select(0, pairs.first)
    chosen = cells.nonzero(x * x + y * y + z * z <= limit)
    first, second, image = (t.index_select(0, chosen) for t in (pairs.first, pairs.second, pairs.image))
    return Pairs(first, second, image, pairs.images, pairs.owner)


def _half_of_images(cell: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Integer coordinates (K, 3) of cells within reach, and the crystal of each.

    The first of each crystal is the cell itself; of two opposite ones one is there.
    """
    reach = (cutoff[:, None] * cells.inverse(cell).norm(dim=1)).ceil()
    points, _ = cells.half_box([int(most) for most in reach.amax(0).tolist()], cell)
    points = torch.cat([points.new_zeros(1, 3), points])
    within: Tensor | None = None
    for column, most in zip(points.abs().T, reach.T, strict=True):
        inside = column <= most[:, None]
        within = inside if within is None else within & inside
    assert within is not None
    flat = cells.nonzero(within.view(-1))
    owner = cells.quotient(flat, len(points))
    return points.index_select(0, flat - owner * len(points)), owner


def _groups(num_atoms: Tensor, num_ghosts: Tensor) -> list[tuple[Tensor, int, int]]:
    """Crystals that are compared together: their numbers, and the atoms and ghosts to pad to."""
    rows = list(zip(num_atoms.tolist(), num_ghosts.tolist(), strict=True))
    order = sorted(range(len(rows)), key=lambda i: (rows[i][0] * rows[i][1], rows[i]))
    found, start = [], 0
    while start < len(order):
        n, width = rows[order[start]]
        alone, stop = 0, start
        while stop < len(order):
            one, other = rows[order[stop]]
            most, widest = max(n, one), max(width, other)
            padded = (stop + 1 - start) * most * widest
            cost = alone + one * other
            if stop > start and (padded > _PADDING * cost + _GROUP_COSTS or padded > _PRODUCTS_AT_ONCE):
                break
            n, width, alone, stop = most, widest, cost, stop + 1
        found.append((torch.tensor(order[start:stop]), n, width))
        start = stop
    return found


def _binned(cell: Tensor, fractional: Tensor, batch: Tensor, cutoff: Tensor, num_atoms: Tensor) -> Pairs:
    """The pairs from a search in linked cells."""
    device, num_crystals = cell.device, len(cell)
    spacing = 1 / cells.inverse(cell).norm(dim=1)  # (B, 3) distances between opposite faces
    # Bins of half the cutoff, but not so small that most are empty.
    crowd = (num_atoms / _ATOMS_PER_BIN).clamp(min=1.0) / spacing.prod(-1)
    width = torch.maximum(0.5 * cutoff, crowd ** (-1 / 3))
    bins = (spacing / width[:, None]).floor().clamp(min=1)
    reach = (cutoff[:, None] * bins / spacing).ceil()  # bins farther than this are beyond the cutoff
    per_crystal = bins.prod(-1).long()
    first_bin = per_crystal.cumsum(0) - per_crystal

    # The atoms of each bin, one after the other.
    place = torch.minimum((fractional * bins[batch]).floor(), bins[batch] - 1)
    of_atom = first_bin[batch] + _flat(place, bins[batch]).long()
    of_atom, order = of_atom.sort()
    total = int(per_crystal.sum())
    count = torch.bincount(of_atom, minlength=total)
    start = count.cumsum(0) - count

    # The stencil of each crystal: offsets of bins, one of each two opposite ones.
    extent = 2 * reach + 1
    size = ((extent.prod(-1) + 1) / 2).long()
    crystal, step = _ragged(size)
    offset = _unflat(step + size[crystal] - 1, extent[crystal]) - reach[crystal]
    edges = cell / bins[..., None]
    signs = torch.cartesian_prod(*[cell.new_tensor([-1.0, 1.0])] * 3)
    diagonal = (signs @ edges).norm(dim=-1).amax(1)
    near = torch.einsum("sd,sdc->sc", offset, edges[crystal]).norm(dim=-1) <= (cutoff + diagonal)[crystal]
    crystal, offset = crystal[near], offset[near]
    size = torch.bincount(crystal, minlength=num_crystals)
    first_step = size.cumsum(0) - size

    # Rows: a bin and another bin in its stencil, both with atoms. Column by column from here on: gathering
    # numbers is several times faster than gathering rows.
    occupied = count.nonzero()[:, 0]
    owner = torch.arange(num_crystals, device=device).repeat_interleave(per_crystal).index_select(0, occupied)
    row, move = _ragged(size.index_select(0, owner), first_step.index_select(0, owner))
    home = _unflat(occupied - first_bin.index_select(0, owner), bins.index_select(0, owner))
    here, owner = occupied.index_select(0, row), owner.index_select(0, row)
    there = torch.zeros(len(row), dtype=cell.dtype, device=device)
    image = torch.zeros_like(there)
    # Numbers for the images, crystal by crystal.
    most = (reach / bins).ceil() + 1
    widths = 2 * most + 1
    per_crystal = widths.prod(-1).long()
    image_owner, step = _ragged(per_crystal)
    images = _unflat(step, widths[image_owner]) - most[image_owner]
    for axis in range(3):
        some_bins = bins[:, axis].index_select(0, owner)
        target = home[:, axis].index_select(0, row) + offset[:, axis].index_select(0, move)
        wrapped = (target / some_bins).floor()
        there = there * some_bins + (target - wrapped * some_bins)
        image = image * widths[:, axis].index_select(0, owner) + (
            wrapped + most[:, axis].index_select(0, owner)
        )
    there = there.long() + first_bin.index_select(0, owner)
    same = (offset == 0).all(1).index_select(0, move)
    image_id = image.long() + (per_crystal.cumsum(0) - per_crystal).index_select(0, owner)
    full = (count.index_select(0, there) > 0).nonzero()[:, 0]
    here, there, image_id, same, owner = (
        column.index_select(0, full) for column in (here, there, image_id, same, owner)
    )

    shifts = torch.einsum("kd,kdc->kc", images, cell[image_owner])
    positions = torch.einsum("nd,ndc->nc", fractional, cell[batch])[order].T.contiguous()
    shifts = shifts.T.contiguous()
    limits = (cutoff * cutoff).index_select(0, owner)
    here_count, here_start = count.index_select(0, here), start.index_select(0, here)
    there_count, there_start = count.index_select(0, there), start.index_select(0, there)
    pieces = []
    for low, high in _chunks((here_count * there_count).cumsum(0)):
        # Lines: an atom of the first bin with all atoms of the second.
        row, atom = _ragged(here_count[low:high], here_start[low:high])
        row += low
        shift = image_id.index_select(0, row)
        line, other = _ragged(there_count.index_select(0, row), there_start.index_select(0, row))
        distance2 = torch.zeros(len(line), dtype=cell.dtype, device=device)
        for p, s in zip(positions, shifts, strict=True):
            base = p.index_select(0, atom) - s.index_select(0, shift)
            difference = p.index_select(0, other).sub_(base.index_select(0, line))
            distance2.addcmul_(difference, difference)
        within = distance2 <= limits.index_select(0, row).index_select(0, line)
        # Within one bin each pair is met twice, and each atom meets itself.
        lowest = torch.where(same.index_select(0, row), atom, -1)
        within &= other > lowest.index_select(0, line)
        chosen = within.nonzero()[:, 0]
        line = line.index_select(0, chosen)
        pieces.append(
            (atom.index_select(0, line), other.index_select(0, chosen), shift.index_select(0, line))
        )
    if not pieces:
        none = order.new_zeros(0)
        return Pairs(none, none, none, images, image_owner)
    first, second, shift = (torch.cat(part) for part in zip(*pieces, strict=True))
    return Pairs(order.index_select(0, first), order.index_select(0, second), shift, images, image_owner)


def _flat(place: Tensor, shape: Tensor) -> Tensor:
    """Number of a place (T, 3) in a row-major grid of `shape` (T, 3); all floats holding integers. (T,)."""
    return (place[:, 0] * shape[:, 1] + place[:, 1]) * shape[:, 2] + place[:, 2]


def _unflat(number: Tensor, shape: Tensor) -> Tensor:
    """The inverse of `_flat`, (T, 3) as floats."""
    number = number.to(shape.dtype)
    rest = (number / shape[:, 2]).floor()
    first = (rest / shape[:, 1]).floor()
    return torch.stack([first, rest - first * shape[:, 1], number - rest * shape[:, 2]], -1)


def _ragged(size: Tensor, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows of `size` (R,) int64 places each: the row of every place, and its number (sum of size,).

    Numbers count from `first` (R,) in each row, by default from zero.
    """
    row = torch.repeat_interleave(size)
    begin = size - size.cumsum(0)  # minus where each row starts
    if first is not None:
        begin = begin + first
    return row, torch.arange(len(row), device=size.device).add_(begin.index_select(0, row))


def _chunks(cumulative: Tensor) -> list[tuple[int, int]]:
    """Ranges of rows whose work, given as its cumulative sum (R,), stays near `_CANDIDATES_AT_ONCE`."""
    if not len(cumulative):
        return []
    total, step = int(cumulative[-1]), _CANDIDATES_AT_ONCE.get(cumulative.device.type, 2**15)
    if total <= step:
        return [(0, len(cumulative))]
    marks = torch.arange(step, total, step, device=cumulative.device)
    cuts = torch.searchsorted(cumulative, marks).add(1).tolist()
    cuts = sorted({0, *cuts, len(cumulative)})
    return list(itertools.pairwise(cuts))
