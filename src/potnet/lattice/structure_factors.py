"""The reciprocal half of energies: sum over G of F(G) |sum over atoms of q e^(iGx)|², and its derivatives.

The wave vectors are a box of Miller indices, so that e^(iGx) is a product of three short factors and the structure
factors are matrix products (half of the box along the third vector, since G and -G are alike):

    rho(k3, k12) = sum over atoms of [q e3(k3)] [e1(k1) e2(k2)],

and so is the way back to the atoms. A box that holds the sphere of the cutoff sums more terms than it must, never
fewer, so crystals of different boxes share a block without masks: all get the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from potnet.lattice.potentials import Kernel
from potnet.lattice.radial import background, reciprocal_part

# Complex numbers of one block of phases, (atoms, k1 k2): what stays in a CPU's cache.
_CACHE = 2**15
# A block ends where padding would make it cost so much more than its crystals alone.
_PADDING = 1.5
# Structure factors of a block: 256 MiB.
_MOST_WAVES = 2**24


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
                padded > _PADDING * cost + 2**17
                or phases > 2**18
                or count * _waves(grown[1:]) > _MOST_WAVES
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
        coefficients: (P, Q) of the kernels in each potential.
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
    inverse = torch.linalg.inv(lattice)
    volume = torch.linalg.det(lattice).abs()
    fractional = positions.index_select(0, index.flatten()).view(b, n, 3) @ inverse
    charges = columns.index_select(0, index.flatten()).view(b, n, count) * inside[..., None]

    basis = 2 * math.pi * inverse.transpose(1, 2)
    miller = _miller(box, cell)  # (K, 3), k3 slowest
    some = [kernel.select(members) for kernel in kernels]
    weight, slope = _weights(some, coefficients, basis, miller, eta, volume, derivatives)
    if count > weight.shape[1]:
        weight = torch.cat([weight, weight], 1)
    thirds, plane = box[2] + 1, (2 * box[0] + 1) * (2 * box[1] + 1)

    step = max(1, _CACHE // (b * plane)) if not torch.is_grad_enabled() else n
    parts = [(s, min(s + step, n)) for s in range(0, n, step)]
    rho: Tensor | None = None
    for s, e in parts:
        first, second, third = phases = _phases(fractional[:, s:e], box)
        left = (charges[:, s:e].transpose(1, 2)[:, :, None] * third.transpose(1, 2)[:, None]).flatten(1, 2)
        product = left @ (first[..., :, None] * second[..., None, :]).flatten(2)
        rho = product if rho is None else rho + product
    assert rho is not None
    rho = rho.view(b, count, thirds, plane)
    weighted = (weight.view(b, count, thirds, plane) * rho.conj()).transpose(1, 2).flatten(2)

    # Back to the atoms, one axis after the other: sum over k3, then k2, then k1, each also times its index.
    k1, k2, k3 = (
        torch.arange(low, high + 1, dtype=cell.dtype, device=device)
        for low, high in ((-box[0], box[0]), (-box[1], box[1]), (0, box[2]))
    )
    potentials, gradients = [], []
    for s, e in parts:
        first, second, third = phases if len(parts) == 1 else _phases(fractional[:, s:e], box)
        sides = torch.cat([third, third * k3], 1) if derivatives else third
        back = (sides @ weighted).view(b, -1, count, len(k1), len(k2))
        if not derivatives:
            line = (back @ second[:, :, None, :, None])[..., 0]
            potentials.append((first[:, :, None] * line).real.sum(-1))
            continue
        pair = torch.stack([second, second * k2], -1)
        line = back @ torch.cat([pair, pair], 1)[:, :, None]  # (b, 2 a, C, k1, 2)
        line = line * torch.cat([first, first], 1)[:, :, None, :, None]
        plain, mixed = line[:, : e - s, ..., 0], line[:, : e - s, ..., 1]
        last = line[:, e - s :, ..., 0]
        potentials.append(plain.real.sum(-1))
        slopes = [plain.imag @ k1, mixed.imag.sum(-1), last.imag.sum(-1)]
        gradients.append(-2 * math.pi * torch.stack(slopes, -1))
    select = inside.flatten().nonzero()[:, 0]
    potential = torch.cat(potentials, 1).flatten(0, 1).index_select(0, select)
    atoms = index.flatten().index_select(0, select)
    if not derivatives:
        return atoms, Field(potential, None, None)
    num_potentials = len(coefficients)
    held = torch.cat(gradients, 1) * charges.roll(num_potentials, -1)[..., None]  # at a, sources held
    gradient = held[:, :, :num_potentials] + held[:, :, count - num_potentials :]
    gradient = (gradient @ inverse.transpose(1, 2)[:, None]).flatten(0, 1).index_select(0, select)
    one, other = rho[:, :num_potentials].flatten(2), rho[:, count - num_potentials :].flatten(2)
    power = one.real * other.real + one.imag * other.imag  # (b, P, K)
    strain = _strain(power, weight[:, :num_potentials], slope, basis, miller)
    return atoms, Field(potential, gradient, strain)


def _miller(box: tuple[int, int, int], like: Tensor) -> Tensor:
    """(K, 3) Miller indices with k3 >= 0, in the order k3, k1, k2."""
    ranges = [
        torch.arange(low, high + 1, dtype=like.dtype, device=like.device)
        for low, high in ((0, box[2]), (-box[0], box[0]), (-box[1], box[1]))
    ]
    third, first, second = (axis.flatten() for axis in torch.meshgrid(*ranges, indexing="ij"))
    return torch.stack([first, second, third], -1)


def _phases(fractional: Tensor, box: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """e^(2πi f k) of each axis, (b, a, K1), (b, a, K2) and (b, a, K3), of coordinates (b, a, 3)."""
    factors = []
    for axis, lowest in ((0, -box[0]), (1, -box[1]), (2, 0)):
        numbers = torch.arange(lowest, box[axis] + 1, dtype=fractional.dtype, device=fractional.device)
        angle = (2 * math.pi) * fractional[..., axis, None] * numbers
        factors.append(torch.complex(angle.cos(), angle.sin()))
    first, second, third = factors
    return first, second, third


def _weights(
    kernels: list[Kernel],
    coefficients: Tensor,
    basis: Tensor,
    miller: Tensor,
    eta: Tensor,
    volume: Tensor,
    derivatives: bool,
) -> tuple[Tensor, Tensor | None]:
    """F(G) of each potential, G and -G together, F(0) in its place: (b, P, K), and its slope in G²."""
    first, second = torch.triu_indices(3, 3, device=basis.device)
    gram = basis @ basis.transpose(1, 2)
    twice = torch.where(first == second, 1.0, 2.0).to(basis)
    g2 = (gram[:, first, second] * twice) @ (miller[:, first] * miller[:, second]).T  # (b, K)
    zero = (miller == 0).all(1)
    g2 = g2.masked_fill(zero, 1.0)
    factor = torch.where(miller[:, 2] > 0, 2.0, 1.0).to(basis)
    values, slopes = [], []
    for kernel in kernels:
        value, slope = reciprocal_part(kernel, g2, eta, volume)
        value = torch.where(zero, background(kernel, eta, volume)[:, None], value)
        values.append(value * factor)
        slopes.append(slope * factor)
    weight = torch.einsum("pq,qbk->bpk", coefficients, torch.stack(values))
    if not derivatives:
        return weight, None
    return weight, torch.einsum("pq,qbk->bpk", coefficients, torch.stack(slopes))


def _strain(power: Tensor, weight: Tensor, slope: Tensor | None, basis: Tensor, miller: Tensor) -> Tensor:
    """d/d(strain) of sum of F |rho|² at fixed fractional coordinates: (b, P, 3, 3).

    Under a strain e, G becomes G (1 - e) and 1/V, which every F carries, 1/V (1 - tr e).
    """
    assert slope is not None
    first, second = torch.triu_indices(3, 3, device=basis.device)
    moments = (slope * power) @ (miller[:, first] * miller[:, second])  # (b, P, 6)
    place = torch.zeros(3, 3, dtype=torch.int64, device=basis.device)
    place[first, second] = place[second, first] = torch.arange(6, device=basis.device)
    square = moments[..., place.flatten()].unflatten(-1, (3, 3))
    tensor = -2 * (basis.transpose(1, 2)[:, None] @ square @ basis[:, None])
    total = (weight * power).sum(-1)
    return tensor - total[..., None, None] * torch.eye(3, dtype=basis.dtype, device=basis.device)
