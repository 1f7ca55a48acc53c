"""Batched sums of pair potentials over all periodic images, differentiable, with guaranteed accuracy.

    S(a, b) = sum over k in Z³ of phi(|x_a - x_b + k L|), the term at zero distance left out

(PotNet, Lin et al., ICML 2023, equation 3) is split at eta into a real-space and a reciprocal sum (Ewald
1921):

    S(a, b) = sum' R(|v + k L|) + sum over G of cos(G v) F(|G|) - [a = b] origin,    v = x_a - x_b.

Crystals of similar size form dense blocks (`plan`, `block`): distances, exponentials and structure factors
are shared by all kernels, half of the pairs and half of the wave vectors suffice. Distances, weights and sums
are in float64; what lies between is in float32 where 1e-4 or less is asked for and no gradient is (`task`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from potnet.lattice.eager import eager
from potnet.lattice.inputs import check_tensors, checked, checked_potentials, tolerances
from potnet.lattice.potentials import Potential
from potnet.lattice.slab import free_axis, without_free_vector
from potnet.lattice.slab_pairs import layers_of, long_cells, refuse_unknown
from potnet.lattice.task import Task, distinct_kernels

Bound = Literal["rigorous", "estimate"]


class LatticeSums(NamedTuple):
    """Sums over all ordered pairs of atoms of each crystal.

    Attributes:
        pair_index: (2, M) int64, every ordered pair (a, b) of one crystal, a = b included, crystal by
            crystal, row-major.
        values: (M, P) float64, one column a potential, in the units of phi.
        bound: (B, P) float64, absolute error of every value of the crystal: a rigorous bound of the
            truncation (an estimate of it where that was asked for), and an estimate of rounding from above,
            in float32 for those crystals that were computed in it.
    """

    pair_index: Tensor
    values: Tensor
    bound: Tensor


class LatticeDerivatives(NamedTuple):
    """Sums over all ordered pairs of atoms of each crystal, and their first derivatives.

    Attributes:
        pair_index: (2, M) int64, as in `LatticeSums`.
        values: (M, P) float64.
        by_vector: (M, P, 3) float64, dS(a, b) / dv, v = x_a - x_b, at fixed cell, in phi/Å.
        by_strain: (M, P, 6) float64, components xx yy zz yz xz xy of the symmetric W with
            dS = sum_ij W_ij e_ij for a strain e of atoms and cell together, x' = x (1 + e), L' = L (1 + e),
            in phi.
        bound: (B, P) float64, error of the values.
        derivative_bound: (B, P, 2) float64, error of every component of `by_vector` and of `by_strain`, of
            the same kind as `bound`.
    """

    pair_index: Tensor
    values: Tensor
    by_vector: Tensor
    by_strain: Tensor
    bound: Tensor
    derivative_bound: Tensor


@eager
def lattice_sums(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    potentials: Sequence[Potential],
    accuracy: float | Sequence[float] | Tensor = 1e-8,
    *,
    bound: Bound = "rigorous",
    relative: bool = False,
    eta: float | Tensor | None = None,
    memory_mib: float | None = None,
    periodic: tuple[bool, bool, bool] = (True, True, True),
) -> LatticeSums:
    """Sum pair potentials over all periodic images, for every pair of atoms of every crystal.

    Differentiable twice in `cell`, `positions` and in parameters of potentials that are tensors. The first
    derivative in cells and positions is computed together with the sums, unless a parameter needs one too.

    Args:
        cell: (B, 3, 3) rows are lattice vectors, Å; any shape and handedness.
        positions: (N, 3) Å; atoms need not lie inside the cell.
        batch: (N,) integers, sorted crystal index of each atom.
        potentials: P potentials.
        accuracy: Absolute error permitted in each value, one number or one for each potential. Truncation
            always stays within it; where float64 rounding does not (1e-12 with 60 Å between atoms, 1/r^12
            at 0.3 Å) the returned bound is larger and says so. From 1e-4 on, terms are computed in float32
            where no gradient is wanted and the bound permits it.
        bound: "rigorous" chooses cutoffs that guarantee the accuracy. "estimate" chooses them as if lattice
            points were as dense everywhere as on average, which is faster: on crystals it was not fitted to
            (`benchmarks/estimate_mode.py`) more than 99.9 % of the sums were within the accuracy, and the
            returned bound is that estimate.
        relative: Take the accuracy in units of the sum over kernels of |coefficient| phi(d), d half of the
            longest diagonal of the reduced cell. No atom is farther than d from the nearest image of another,
            so for a positive, decreasing potential every value has at least this relative accuracy (before
            rounding, which remains absolute).
        eta: Splitting parameter in 1/Å², a number or (B,); chosen for speed by default. The result does
            not depend on it.
        memory_mib: Working memory to stay within, in MiB, beside the result and, where gradients are
            wanted, what the backward pass needs (default 64 on a CPU, 4096 on a GPU).
        periodic: Which cell vectors are periods. With one False, crystals are slabs: that vector is not used,
            positions along the normal are taken as they are, and the sum runs over the two periods
            (`slab_pairs`). Powers must be 1/r or steeper than 1/r³.

    Returns:
        Index of pairs, values and error bounds.

    Raises:
        LatticeError: If a cell is singular or not finite, coordinates are not finite, a crystal has no atoms,
            or two atoms are closer than 0.01 Å; the message names the crystal and the sites.
        TypeError: If `potentials` is not a list of potentials.
        ValueError: If shapes don't fit, `batch` is not sorted integers, an accuracy, `eta` or `memory_mib`
            is not positive, `eta` is so far from sensible that a sum needs over 1e6 lattice points, or a
            potential is not known for slabs.
    """
    check_tensors(cell=cell, positions=positions, batch=batch)
    if (axis := free_axis(periodic)) is not None:
        if relative:
            raise ValueError("relative accuracy is for crystals: give slabs an absolute one, relative=False")
        return _slab_sums(cell, positions, batch, potentials, accuracy, axis, bound, eta, memory_mib)
    return _sums(cell, positions, batch, potentials, accuracy, bound, relative, eta, memory_mib)


def _sums(
    cell: Tensor, positions: Tensor, batch: Tensor, potentials: Sequence[Potential], *settings: Any
) -> LatticeSums:
    with torch.autocast(positions.device.type, enabled=False):
        task = Task.of(cell, positions, batch, potentials, *settings)
        rows = task.summed(task.values)
        place, index, _ = task.pairs()
        values = torch.cat(rows)[place] if rows else task.cell.new_zeros(0, len(task.self_terms))
        return LatticeSums(index, values, task.bound())


def _slab_sums(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    potentials: Sequence[Potential],
    accuracy: Any,
    axis: int,
    bound: Bound,
    eta: float | Tensor | None,
    memory_mib: float | None,
) -> LatticeSums:
    potentials = checked_potentials(potentials)
    with torch.autocast(positions.device.type, enabled=False):
        cell, positions, _ = checked(without_free_vector(cell, axis), positions, batch)
        if len(cell) == 0:
            return _sums(cell, positions, batch, potentials, accuracy, bound, False, eta, memory_mib)
        batch, wanted = batch.to(torch.int64), tolerances(accuracy, len(potentials), cell)
        kernels, coefficients, _ = distinct_kernels(potentials, cell.new_ones(len(cell)))
        refuse_unknown(potentials, kernels)
        weights = coefficients.detach().abs()
        weights = weights if weights.ndim == 2 else weights.amax(0)
        long = long_cells(cell, positions, batch, axis, kernels, weights, 0.1 * wanted)
        settings = (bound, False, eta, memory_mib)
        sums = _sums(long.cell, positions, batch, potentials, (0.9 * wanted).tolist(), *settings)
        first, second = sums.pair_index
        crystal = batch.index_select(0, first)
        height = long.plane.height
        layers = layers_of(kernels, height[first] - height[second], crystal, long)
        if coefficients.ndim == 2:
            layers = layers @ coefficients.T
        else:
            layers = (coefficients.index_select(0, crystal) @ layers[..., None])[..., 0]
        return LatticeSums(sums.pair_index, sums.values - layers, sums.bound + long.bound)


@eager
def lattice_sums_and_derivatives(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    potentials: Sequence[Potential],
    accuracy: float | Sequence[float] | Tensor = 1e-8,
    *,
    bound: Bound = "rigorous",
    relative: bool = False,
    eta: float | Tensor | None = None,
    memory_mib: float | None = None,
) -> LatticeDerivatives:
    """Sums and their first derivatives for every pair, in one pass and without a graph.

    For forces of fixed training frames, which can be cached: the gradient of any function of the sums follows
    by `backward_through`.

    Args:
        cell: As for `lattice_sums`, like all other arguments.
        positions: (N, 3) Å.
        batch: (N,) integers.
        potentials: P potentials.
        accuracy: Of the values. The error of the derivatives is returned.
        bound: "rigorous" or "estimate"; the bound of the derivatives is rigorous in truncation either way.
        relative: See `lattice_sums`.
        eta: 1/Å².
        memory_mib: MiB.

    Returns:
        Index of pairs, values, derivatives and bounds of both.

    Raises:
        LatticeError: As `lattice_sums`.
        TypeError: As `lattice_sums`.
        ValueError: As `lattice_sums`.
    """
    check_tensors(cell=cell, positions=positions, batch=batch)
    settings = bound, relative, eta, memory_mib
    with torch.no_grad(), torch.autocast(positions.device.type, enabled=False):
        task = Task.of(cell, positions, batch, potentials, accuracy, *settings)
        count = len(task.self_terms)
        rows = task.summed(task.derivatives)
        place, index, backwards = task.pairs()
        both = torch.cat(rows)[place] if rows else task.cell.new_zeros(0, count, 10)
        by_vector = torch.where(backwards[:, None, None], -both[..., 1:4], both[..., 1:4])
        return LatticeDerivatives(
            index, both[..., 0], by_vector, both[..., 4:], task.bound(), task.derivative_bound()
        )


def backward_through(
    sums: LatticeDerivatives, upstream: Tensor, batch: Tensor, num_crystals: int
) -> tuple[Tensor, Tensor]:
    """Gradients of a function f of the sums from those in the sums: a product with the derivatives.

    Args:
        sums: What `lattice_sums_and_derivatives` returned.
        upstream: (M, P), df/dS.
        batch: (N,) crystal of each atom.
        num_crystals: B.

    Returns:
        df/dx at fixed cell (N, 3), minus the forces if f is an energy, and df/de (B, 6) in Voigt order, for a
        strain of atoms and cell together: the stress times the volume.
    """
    first, second = sums.pair_index
    by_pair = (upstream[:, None] @ sums.by_vector)[:, 0]
    by_position = by_pair.new_zeros(len(batch), 3).index_add(0, first, by_pair).index_add(0, second, -by_pair)
    strain = (upstream[:, None] @ sums.by_strain)[:, 0]
    return by_position, strain.new_zeros(num_crystals, 6).index_add(0, batch[first], strain)
