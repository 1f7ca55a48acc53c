"""The reciprocal half of energies: sum over G of F(G) |sum over atoms of q e^(iGx)|², and its derivatives.

The wave vectors are a box of Miller indices |k1| <= M1, |k2| <= M2, 0 <= k3 <= M3 (G and -G are alike), so
that cosines and sines of Gx are sums of products of three short factors, cos or sin of 2π f k for each axis.
Their sums over atoms are one matrix product in real numbers,

    T(s3 k3, s1 k1 s2 k2) = sum over atoms of [q e3(s3, k3)] [e1(s1, k1) e2(s2, k2)],

with s = cos or sin and k >= 0, from which addition theorems, a product with signs, make the structure factors
of the four combinations (±k1, ±k2, k3); the way back to the atoms is the transpose of all that. A box that
holds the sphere of the cutoff sums more terms than it must, never fewer, so crystals of different boxes share
a block without masks: all get the largest.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.kernels import Kernel

# Numbers of one block of phases, (atoms, s1 k1 s2 k2): what stays in a CPU's cache.
_CACHE = {"cpu": 2**16, "cuda": 2**27}
# Boxes up to this many waves are kept from call to call.
_KEPT_WAVES = 2**17
# A block ends where padding would make it cost so much more than its crystals alone.
_PADDING = 1.5


@dataclass
class Field:
    """What C vectors of charges make of A atoms, and derivatives of P bilinear forms.

    The columns are the P vectors r, or [l, r] with another P vectors l; without them l = r. The forms are
    sum over a, b of l_a S(a, b) r_b.

    Attributes:
        potential: (A, C), sum over b of S(a, b) c_b.
        gradient: (A, P, 3), derivative of the forms with respect to positions, or None.
        strain: (b, P, 3, 3), derivative with respect to a strain of positions and cell, or None.
    """

    potential: Tensor
    gradient: Tensor | None
    strain: Tensor | None


def make_boxes(cell: Tensor, cutoff: Tensor) -> Tensor:
    """Largest Miller indices (B, 3), int64, of wave vectors up to `cutoff` (B,) 1/Å."""
    return (cutoff[:, None] * cell.norm(dim=-1) / (2 * math.pi)).floor().long()


def make_blocks(num_atoms: Tensor, boxes: Tensor) -> list[tuple[Tensor, int, tuple[int, int, int]]]:
    """Crystals summed together: their numbers, atoms to pad to, and the box of Miller indices.

    Args:
        num_atoms: (B,) int64.
        boxes: (B, 3) int64.
    """
    cache = _CACHE.get(num_atoms.device.type, 2**16)
    table = torch.cat([num_atoms[:, None], boxes], 1).tolist()
    order = sorted(range(len(table)), key=lambda i: (_waves(table[i][1:]) * table[i][0], table[i]))
    blocks: list[tuple[Tensor, int, tuple[int, int, int]]] = []
    start = 0
    while start < len(order):
        largest = list(table[order[start]])
        alone, stop = 0.0, start
        while stop < len(order):
            row = table[order[stop]]
            grown = [max(pair) for pair in zip(largest, row, strict=True)]
            cost = alone + _waves(row[1:]) * row[0]
            count = stop + 1 - start
            padded = count * _waves(grown[1:]) * grown[0]
            phases = count * grown[0] * (2 * grown[1] + 1) * (2 * grown[2] + 1)
            if stop > start and (
                padded > _PADDING * cost + 2 * cache
                or phases > 4 * cache
                or count * _waves(grown[1:]) > 16 * cache
            ):
                break
            largest, alone, stop = grown, cost, stop + 1
        members = torch.tensor(order[start:stop], device=num_atoms.device)
        blocks.append((members, largest[0], (largest[1], largest[2], largest[3])))
        start = stop
    return blocks


def _waves(box: list[int]) -> int:
    return (2 * box[0] + 1) * (2 * box[1] + 1) * (box[2] + 1)


def reciprocal_field(
    block: tuple[Tensor, int, tuple[int, int, int]],
    cell: Tensor,
    positions: Tensor,
    batch_start: Tensor,
    num_atoms: Tensor,
    columns: Tensor,
    kernels: list[Kernel],
    coefficients: Tensor,
    eta: Tensor,
    derivatives: bool,
) -> tuple[Tensor, Field]:
    """Fields of one block.

    Args:
        block: As from `make_blocks`, with b crystals.
        cell: (B, 3, 3) of the whole batch, Å.
        positions: (N, 3), wrapped into the cell.
        batch_start: (B,) first atom of each crystal.
        num_atoms: (B,).
        columns: (N, C), see `Field`.
        kernels: Q kernels.
        coefficients: (P, Q) of the kernels in each potential, or (B, P, Q).
        eta: (B,) 1/Å².
        derivatives: Also gradients and strains.

    Returns:
        Indices of the block's atoms (A,), and their field.
    """
    members, n, box = block
    device = cell.device
    lattice, eta = cell.index_select(0, members), eta.index_select(0, members)
    slots = torch.arange(n, device=device)
    inside = slots < num_atoms.index_select(0, members)[:, None]  # (b, n)
    index = batch_start.index_select(0, members)[:, None] + torch.minimum(
        slots, num_atoms.index_select(0, members)[:, None] - 1
    )
    b, count = len(members), columns.shape[1]
    inverse, volume = cells.inverse(lattice), cells.volume(lattice)
    fractional = positions.index_select(0, index.flatten()).view(b, n, 3) @ inverse
    charges = columns.index_select(0, index.flatten()).view(b, n, count) * inside[..., None]

    basis = 2 * math.pi * inverse.transpose(1, 2)
    kept = _waves([*box]) * 2 <= _KEPT_WAVES
    waves = (_waves_of if kept else _waves_of.__wrapped__)(box, cell.dtype, device)
    some = [kernel.select(members) for kernel in kernels]
    if coefficients.ndim == 3:
        coefficients = coefficients.index_select(0, members)
    weight, slope = _weights(some, coefficients, basis, waves, eta, volume, derivatives)
    weights = weight if count == weight.shape[1] else torch.cat([weight, weight], 1)
    lengths = [m + 1 for m in box]
    octant, plane = math.prod(lengths), 4 * lengths[0] * lengths[1]

    cache = _CACHE.get(device.type, 2**16)
    step = max(1, cache // (b * plane)) if not torch.is_grad_enabled() else n
    parts = [(s, min(s + step, n)) for s in range(0, n, step)]
    total: Tensor | None = None
    for s, e in parts:
        first, second, third = factors = _trigonometry(fractional[:, s:e], box)
        left = (charges[:, s:e].transpose(1, 2)[:, :, None] * third.transpose(1, 2)[:, None]).flatten(1, 2)
        product = left @ (first[..., :, None] * second[..., None, :]).flatten(2)
        total = product if total is None else total + product
    assert total is not None
    total = total.view(b, count, 2, lengths[2], 2, lengths[0], 2, lengths[1])
    rho = waves.signs @ total.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(b, count, 8, octant)
    rho = rho.view(b, count, 2, 4 * octant)  # real and imaginary parts
    weighted = waves.signs.T @ (weights[:, :, None] * rho).view(b, count, 8, octant)
    weighted = weighted.view(b, count, 2, 2, 2, lengths[2], lengths[0], lengths[1])
    weighted = weighted.permute(0, 2, 5, 1, 3, 6, 4, 7).reshape(b, 2 * lengths[2], count * plane)

    # Back to the atoms, one axis after the other, and with each factor's derivative in its place.
    potentials, gradients = [], []
    for s, e in parts:
        first, second, third = factors if len(parts) == 1 else _trigonometry(fractional[:, s:e], box)
        sides = torch.cat([third, _derivative(third)], 1) if derivatives else third
        back = (sides @ weighted).view(b, -1, count, 2 * lengths[0], 2 * lengths[1])
        if not derivatives:
            line = (back @ second[:, :, None, :, None])[..., 0]
            potentials.append((first[:, :, None] * line).sum(-1))
            continue
        pair = torch.stack([second, _derivative(second)], -1)
        line = back @ torch.cat([pair, pair], 1)[:, :, None]  # (b, 2 a, C, s1 k1, 2)
        ends = torch.stack([first, _derivative(first)], -1)
        point = line.transpose(-1, -2) @ torch.cat([ends, ends], 1)[:, :, None]  # (b, 2 a, C, 2, 2)
        near = point[:, : e - s]
        potentials.append(near[..., 0, 0])
        gradients.append(torch.stack([near[..., 0, 1], near[..., 1, 0], point[:, e - s :, :, 0, 0]], -1))
    select = inside.flatten().nonzero()[:, 0]
    potential = torch.cat(potentials, 1).flatten(0, 1).index_select(0, select)
    atoms = index.flatten().index_select(0, select)
    if not derivatives:
        return atoms, Field(potential, None, None)
    num_potentials = coefficients.shape[-2]
    held = torch.cat(gradients, 1) * charges.roll(num_potentials, -1)[..., None]  # at a, sources held
    gradient = held[:, :, :num_potentials] + held[:, :, count - num_potentials :]
    gradient = (gradient @ inverse.transpose(1, 2)[:, None]).flatten(0, 1).index_select(0, select)
    power = (rho[:, :num_potentials] * rho[:, count - num_potentials :]).sum(2)  # (b, P, K)
    strain = _strain(power, weight[:, :num_potentials], slope, basis, waves)
    return atoms, Field(potential, gradient, strain)


class _Waves(NamedTuple):
    """The wave vectors of a box: signs of k1 and k2 slowest, then k3, k1, k2 >= 0.

    Attributes:
        products: (6, K) of their Miller indices, 11 12 13 22 23 33.
        multiplicity: (K,) how often each counts: k3 > 0 stands for -G too; where k1 or k2 is 0, both signs
            are the same wave and count half; 0 for G = 0.
        origin: (K,) how often G = 0 counts.
        signs: (8, 8), see `_signs`.
        upper: (6,) places of those products in a flat symmetric (3, 3) tensor,
        place: (9,) and the way back.
        twice: (6,) how often each is there.
    """

    products: Tensor
    multiplicity: Tensor
    origin: Tensor
    signs: Tensor
    upper: Tensor
    place: Tensor
    twice: Tensor


@functools.lru_cache(maxsize=32)
def _waves_of(box: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> _Waves:
    # Kept from call to call, so also by calls that need gradients.
    with torch.inference_mode(False), torch.no_grad():
        third, first, second = torch.meshgrid(
            *[torch.arange(m + 1, dtype=dtype, device=device) for m in (box[2], box[0], box[1])],
            indexing="ij",
        )
        signs = torch.tensor(_SIGNS, dtype=dtype, device=device)
        k1 = (signs[:, :1] * first.flatten()).flatten()
        k2 = (signs[:, 1:] * second.flatten()).flatten()
        k3 = third.flatten().repeat(4)
        products = torch.stack([k1 * k1, k1 * k2, k1 * k3, k2 * k2, k2 * k3, k3 * k3])
        count = (1 + (k3 > 0)) * (1 - 0.5 * (k1 == 0)) * (1 - 0.5 * (k2 == 0))
        zero = (products.sum(0) == 0).to(dtype)
        count = count.to(dtype)
        upper, place = (
            torch.tensor(places, device=device)
            for places in ((0, 1, 2, 4, 5, 8), (0, 1, 2, 1, 3, 4, 2, 4, 5))
        )
        twice = signs.new_tensor([1.0, 2.0, 2.0, 1.0, 2.0, 1.0])
        return _Waves(products, count * (1 - zero), count * zero, _signs(signs), upper, place, twice)


_SIGNS = ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))


def _signs(like: Tensor) -> Tensor:
    """(8, 8) from products of cos and sin, (s3, s1, s2), to real and imaginary parts for the four signs of
    k1, k2.

    (c3 + i s3) (c1 + i a s1) (c2 + i b s2), multiplied out.
    """
    rows = []
    for a, b in _SIGNS:
        rows.append([1, 0, 0, -a * b, 0, -b, -a, 0])
    for a, b in _SIGNS:
        rows.append([0, b, a, 0, 1, 0, 0, -a * b])
    return like.new_tensor(rows)


def _trigonometry(fractional: Tensor, box: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """cos(2π f k) for k = 0..M, then sin: (b, a, 2 (M + 1)) for each axis, of coordinates (b, a, 3)."""
    factors = []
    for axis in range(3):
        numbers = torch.arange(box[axis] + 1, dtype=fractional.dtype, device=fractional.device)
        angle = fractional[..., axis, None] * (2 * math.pi * numbers)
        factors.append(torch.cat([angle.cos(), angle.sin()], -1))
    first, second, third = factors
    return first, second, third


def _derivative(factor: Tensor) -> Tensor:
    """Derivative of what `_trigonometry` gives with respect to f: 2π k (-sin, cos)."""
    cosine, sine = factor.chunk(2, -1)
    rate = 2 * math.pi * torch.arange(cosine.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.cat([-rate * sine, rate * cosine], -1)


def _weights(
    kernels: list[Kernel],
    coefficients: Tensor,
    basis: Tensor,
    waves: _Waves,
    eta: Tensor,
    volume: Tensor,
    derivatives: bool,
) -> tuple[Tensor, Tensor | None]:
    """F(G) of each potential times how often G counts, F(0) in its place: (b, P, K), and its slope in G²."""
    gram = (basis @ basis.transpose(1, 2)).flatten(1)
    twice = waves.twice * gram.index_select(1, waves.upper)
    # A harmless value stands in for G = 0; products with zero are far cheaper than `where`.
    g2 = twice @ waves.products + (waves.origin > 0)
    eta, volume = eta[:, None], volume[:, None]
    weight = slope = None
    for kernel, column in zip(kernels, coefficients.unbind(-1), strict=True):
        if derivatives:
            value, change = kernel.reciprocal_slope(g2, eta, volume)
            slope = _accumulate(slope, column, change * waves.multiplicity)
        else:
            value = kernel.reciprocal(g2, eta, volume)
        background = kernel.background(eta[:, 0], volume[:, 0])
        value = value * waves.multiplicity + background[:, None] * waves.origin
        weight = _accumulate(weight, column, value)
    assert weight is not None
    return weight, slope


def _accumulate(total: Tensor | None, column: Tensor, value: Tensor) -> Tensor:
    """total + column * value, (b, P, K), for coefficients (P,) or (b, P) and values (b, K)."""
    part = value[:, None] * column[..., None]
    return part if total is None else total + part


def _strain(power: Tensor, weight: Tensor, slope: Tensor | None, basis: Tensor, waves: _Waves) -> Tensor:
    """d/d(strain) of sum of F |rho|² at fixed fractional coordinates: (b, P, 3, 3).

    Under a strain e, G becomes G (1 - e) and 1/V, which every F carries, 1/V (1 - tr e).
    """
    assert slope is not None
    moments = (slope * power) @ waves.products.T  # (b, P, 6)
    square = moments.index_select(-1, waves.place).unflatten(-1, (3, 3))
    tensor = -2 * (basis.transpose(1, 2)[:, None] @ square @ basis[:, None])
    total = (weight * power).sum(-1)
    return tensor - total[..., None, None] * torch.eye(3, dtype=basis.dtype, device=basis.device)
