"""Pairs of atoms within a cutoff, over all periodic images, of a batch of crystals of mixed sizes.

A linked-cell search without loops: each crystal is divided into bins along its own lattice vectors, each bin
is combined with the bins within reach, and only those pairs are looked at. Cost and memory grow with the
number of atoms. The stencil of bins reaches over as many periodic images as the cutoff needs, so small cells
are no special case.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

# Candidate pairs looked at together, about 100 bytes each: what stays in a CPU's cache.
_CANDIDATES_AT_ONCE = {"cpu": 2**15, "cuda": 2**23}
# A bin holds about so many atoms at least, if there are enough.
_ATOMS_PER_BIN = 3.0


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
        shifts = torch.einsum("kd,kdc->kc", self.images, cell.index_select(0, self.owner))
        x, y, z = (  # component by component: gathering numbers is far cheaper than gathering rows
            p.index_select(0, self.second) - p.index_select(0, self.first) + s.index_select(0, self.image)
            for p, s in zip(positions.T.contiguous(), shifts.T.contiguous(), strict=True)
        )
        return x, y, z


@torch.no_grad()
def find_pairs(cell: Tensor, fractional: Tensor, batch: Tensor, cutoff: Tensor) -> Pairs:
    """All pairs closer than a cutoff, each once.

    Args:
        cell: (B, 3, 3) float64, best reduced.
        fractional: (N, 3) coordinates in units of the cell, within [0, 1).
        batch: (N,) int64, sorted.
        cutoff: (B,) Å.
    """
    device, num_crystals = cell.device, len(cell)
    num_atoms = torch.bincount(batch, minlength=num_crystals)
    spacing = 1 / torch.linalg.inv(cell).norm(dim=1)  # (B, 3) distances between opposite faces
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
