"""Pair potentials cut at a radius: what a complete sum leaves out is what this leaves out.

For the ablation "radius-only potentials" and, where a potential falls fast enough, as a plain check of
`lattice_sums`. One crystal at a time, nothing shared with the Ewald code but the potentials and the list
of lattice points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.eager import eager
from potnet.lattice.ewald import LatticeSums
from potnet.lattice.inputs import CLOSEST, LatticeError, checked, complete_pairs
from potnet.lattice.potentials import Potential

#: Added to the cutoff, so that equivalent images that differ by the rounding of coordinates are all
#: counted, Å.
CUTOFF_TOLERANCE = 1e-4

# Distances held at a time: 16 MiB.
_DISTANCES_AT_ONCE = 2**21


@eager
def truncated_sums(
    cell: Tensor, positions: Tensor, batch: Tensor, potentials: Sequence[Potential], cutoff: float
) -> LatticeSums:
    """Sum pair potentials over the periodic images within a cutoff.

    S(a, b) = sum over |x_a - x_b + k L| <= cutoff of phi, the term at zero distance left out (unless the
    potential's convention includes it).

    Args:
        cell: (B, 3, 3) rows are lattice vectors, Å.
        positions: (N, 3) Å.
        batch: (N,) int64, sorted crystal index of each atom.
        potentials: P potentials.
        cutoff: Å; images up to 1e-4 Å farther count too.

    Returns:
        As `lattice_sums`; the bound is zero, since the cut is part of the definition.

    Raises:
        LatticeError: If a cell is singular, anything is not finite, or two atoms are closer than 0.01 Å;
            the message names the crystal and the sites.
        ValueError: If shapes don't fit or the cutoff is not positive.
    """
    if not cutoff > 0:
        raise ValueError(f"cutoff must be positive (Å), got {cutoff}")
    cell, positions, num_atoms = checked(cell, positions, batch)
    reduced = cells.reduce(cell.detach()) @ cell
    volume = torch.linalg.det(reduced).abs()
    self_terms = cell.new_tensor([potential.self_term for potential in potentials])
    pieces = []
    for b, x in enumerate(positions.split(num_atoms.tolist())):
        n = len(x)
        fractional = x @ torch.linalg.inv(reduced[b])
        fractional = (fractional[:, None] - fractional[None]).reshape(n * n, 3)
        vectors = (fractional - fractional.detach().round()) @ reduced[b]
        reach = cutoff + CUTOFF_TOLERANCE + vectors.detach().norm(dim=-1).amax()
        images = cells.points_within(reduced[b : b + 1].detach(), reach[None])[0][0] @ reduced[b]
        step = max(1, _DISTANCES_AT_ONCE // len(images))
        parts = [
            _within(
                vectors, images, potentials, volume[b], cutoff + CUTOFF_TOLERANCE, (b, n, start, start + step)
            )
            for start in range(0, n * n, step)
        ]
        itself = torch.eye(n, dtype=cell.dtype, device=cell.device).reshape(n * n, 1) * self_terms
        pieces.append(torch.cat(parts) + itself)
    bound = cell.new_zeros(len(cell), len(potentials))
    return LatticeSums(complete_pairs(num_atoms), torch.cat(pieces), bound)


def _within(
    vectors: Tensor,
    images: Tensor,
    potentials: Sequence[Potential],
    volume: Tensor,
    cutoff: float,
    part: tuple[int, int, int, int],
) -> Tensor:
    """Sums over the translations `images` (K, 3) for some pairs (m, P).

    `part` is the number of the crystal, its n atoms, and the first and last + 1 of the pairs among
    `vectors` (n², 3).
    """
    crystal, n, start, stop = part
    some = vectors[start:stop]
    with torch.no_grad():
        distance = torch.cdist(some, -images, compute_mode="donot_use_mm_for_euclid_dist")
        # An atom with itself is at exactly zero.
        itself = torch.arange(start, start + len(some), device=some.device) % (n + 1) == 0
        distance.masked_fill_(itself[:, None] & (distance == 0), math.inf)
        if float(distance.amin()) < CLOSEST:
            site, other = divmod(start + int(distance.amin(1).argmin()), n)
            raise LatticeError(
                f"crystal {crystal}: sites {site} and {other} are {float(distance.amin()):.2g} Å apart, "
                f"closer than {CLOSEST} Å: remove the duplicate site",
                crystal,
            )
        pair, image = (distance <= cutoff).nonzero(as_tuple=True)
    r = (some[pair] + images[image]).norm(dim=-1)
    terms = torch.stack([potential.value(r, volume.expand_as(r)) for potential in potentials], -1)
    return some.new_zeros(len(some), len(potentials)).index_add(0, pair, terms)
