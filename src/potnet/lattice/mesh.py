"""The reciprocal half of energies on a mesh: smooth particle-mesh Ewald, n log n.

Essmann et al. (1995), J. Chem. Phys. 103, 8577: charges are spread on a regular mesh with cardinal B-splines
of even order p, fast Fourier transforms give the structure factors, and the same splines bring potentials and
their derivatives back to the atoms. With F(G) of any kernel in place of the Coulomb one it serves them all.
Positions enter through polynomials, so that energies are smooth and forces are exact derivatives of the mesh
energy.

Accuracy. On a mesh of K points, e^(2πi m u/K) becomes the sum over j of (m/(m + j K))^p e^(2πi (m + j K) u/K)
and little else (u the coordinate in units of the mesh). The relative error eps = 2 (m/(K - m))^p of each wave
is therefore known, but how the errors of all waves and atoms add up is not: `mesh_error` takes their phases
as independent, as Kolafa and Perram (1992), Mol. Simul. 9, 351, do for truncation, and allows for five
standard deviations. That is an estimate, not a bound.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from potnet.lattice.kernels import Kernel
from potnet.lattice.structure_factors import Field

#: Order of the B-splines.
ORDER = 8
# Atoms spread together where no graph is recorded.
_ATOMS_AT_ONCE = {"cpu": 2**9, "cuda": 2**14}
# Independent errors of many atoms: this many standard deviations are allowed for.
_DEVIATIONS = 5.0
# A finer mesh than this (2 GiB) is a mistake.
_MOST_POINTS = 2**28
# Nodes of the radial and angular quadrature of the estimate.
_RADIAL, _ANGULAR = 48, 16


def mesh_error(
    kernels: list[Kernel],
    weights: Tensor,
    eta: Tensor,
    volume: Tensor,
    largest: Tensor,
    squares: Tensor,
    spacing: Tensor,
) -> tuple[Tensor, Tensor]:
    """Estimates of the errors of energies of atoms and of forces from meshes of some spacing.

    Args:
        kernels: Q kernels.
        weights: (P, Q) absolute coefficients.
        eta: (b,) 1/Å².
        volume: (b,) Å³.
        largest: (b, P) largest |charge|.
        squares: (b, P) sum of squared charges.
        spacing: (H,) or (H, b) Å.

    Returns:
        Two (H, b, P).
    """
    # The sum over waves as V/(2π)³ ∫ 4π G² dG, and over directions as over the cosine with one axis, three
    # times.
    nodes = torch.arange(1, _RADIAL + 1, dtype=eta.dtype, device=eta.device) / _RADIAL
    g = nodes * (4 * eta * 40).sqrt()[:, None]  # (b, R), up to exponents of 40
    cosine = (torch.arange(_ANGULAR, dtype=eta.dtype, device=eta.device) + 0.5) / _ANGULAR
    spread = torch.stack([kernel.reciprocal(g * g, eta[:, None], volume[:, None]) for kernel in kernels])
    spread = torch.einsum("pq,qbr->bpr", weights, spread).square()
    measure = g * g * (g[:, :1] * volume[:, None] / (2 * math.pi**2))  # (b, R)
    spread = spread * measure[:, None]
    # In units of the mesh's own wave number 2π/h: m / K.
    share = (g[..., None] * cosine)[None] * (
        spacing.reshape(len(spacing), -1, 1, 1) / (2 * math.pi)
    )  # (H, b, R, A)
    ratio = (share / (1 - share.clamp(max=0.5))).clamp(max=1.0)
    wave = (2 * ratio**ORDER).square()
    steep = (ratio ** (ORDER - 1)).square()  # derivative: the alias is steeper by (1 - m/K) / (m/K)
    component = (g[..., None] * cosine)[None].square()
    energy = 3 * (2 * wave).mean(-1)
    force = 3 * (wave * g[None, ..., None].square() / 3 + 2 * steep * component).mean(-1)
    scale = _DEVIATIONS * largest * squares.sqrt()
    energies = 0.5 * scale * torch.einsum("bpr,hbr->hbp", spread, energy).sqrt()
    return energies, scale * torch.einsum("bpr,hbr->hbp", spread, force).sqrt()


def mesh_spacings(
    kernels: list[Kernel],
    weights: Tensor,
    eta: Tensor,
    volume: Tensor,
    largest: Tensor,
    squares: Tensor,
    tolerance: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Widest spacings (b,) Å with estimated errors within half of the tolerance (P,), and those errors (b,
    P)."""
    steps = torch.linspace(0.05, 1.2, 93, dtype=eta.dtype, device=eta.device)  # of h √eta
    spacing = steps[:, None] / eta.sqrt()
    energy, force = mesh_error(kernels, weights, eta, volume, largest, squares, spacing)
    fits = ((energy <= 0.5 * tolerance) & (force <= 0.5 * tolerance)).all(-1).to(torch.int64)
    chosen = (fits.cumprod(0).sum(0) - 1).clamp(min=0)
    crystal = torch.arange(len(eta), device=eta.device)
    return spacing[chosen, crystal], energy[chosen, crystal], force[chosen, crystal]


def mesh_shape(cell: Tensor, spacing: float) -> tuple[int, int, int]:
    """Numbers of mesh points, products of 2, 3 and 5 and even, for one cell (3, 3).

    Raises:
        ValueError: If there are over 2^28.
    """
    sizes = [max(2 * ORDER, math.ceil(length / spacing)) for length in cell.norm(dim=-1).tolist()]
    first, second, third = (_smooth(size) for size in sizes)
    if first * second * third > _MOST_POINTS:
        raise ValueError(
            f"this accuracy needs a mesh of {first} x {second} x {third} points: "
            "use method='ewald' or a looser one"
        )
    return first, second, third


def _smooth(size: int) -> int:
    """The next even number without prime factors beyond 5."""
    size += size % 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def splines(place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cardinal B-splines at coordinates in units of the mesh, by their recursion (Essmann, equation 4.1).

    Args:
        place: (...) coordinates.

    Returns:
        Number of the first mesh point (...) int64, weights (..., p) of it and those after it, and their
        derivatives.
    """
    first = place.detach().floor()
    t = (place - first)[..., None]
    weights = torch.cat([1 - t, t], -1)  # order 2, at the points first and first + 1
    steps = torch.arange(ORDER, dtype=place.dtype, device=place.device)
    slope = weights
    for order in range(3, ORDER + 1):
        if order == ORDER:
            slope = _padded(weights, before=True) - _padded(weights, before=False)
        # M_n(v) = [v M_(n-1)(v) + (n - v) M_(n-1)(v - 1)] / (n - 1), with v = t + n - 1 - j at the j-th
        # point.
        v = t + (order - 1 - steps[:order])
        weights = (v * _padded(weights, before=True) + (order - v) * _padded(weights, before=False)) / (
            order - 1
        )
    return first.long() - ORDER // 2 + 1, weights, slope


def _padded(weights: Tensor, before: bool) -> Tensor:
    """Weights of the points of the next order: M(v) has lost its first point, M(v - 1) its last."""
    zero = torch.zeros_like(weights[..., :1])
    return torch.cat([zero, weights] if before else [weights, zero], -1)


def _moduli(size: int, like: Tensor) -> Tensor:
    """|b(m)|² of one axis, (size,) in the order of fft (Essmann, equation 4.4)."""
    _, weights, _ = splines(like.new_zeros(1))
    padded = like.new_zeros(size)
    padded[:ORDER] = weights[0]
    return 1 / torch.fft.fft(padded).abs().square()


def mesh_field(
    cell: Tensor,
    positions: Tensor,
    columns: Tensor,
    kernels: list[Kernel],
    coefficients: Tensor,
    eta: Tensor,
    shape: tuple[int, int, int],
    derivatives: bool,
) -> Field:
    """The field of one crystal, as `structure_factors.reciprocal_field` gives it for many.

    Args:
        cell: (1, 3, 3) Å.
        positions: (A, 3) Å.
        columns: (A, C), see `Field`.
        kernels: Q kernels.
        coefficients: (P, Q).
        eta: (1,) 1/Å².
        shape: Points of the mesh along the three vectors.
        derivatives: Also gradients and strain.
    """
    count, num_potentials, device = columns.shape[1], len(coefficients), cell.device
    inverse = torch.linalg.inv(cell[0])
    sizes = torch.tensor(shape, dtype=cell.dtype, device=device)
    place = (positions @ inverse) * sizes
    step = _ATOMS_AT_ONCE.get(device.type, 2**9) if not torch.is_grad_enabled() else len(positions)
    mesh = cell.new_zeros(count, math.prod(shape))
    for s in range(0, len(positions), step):
        index, weights, _ = _spread(place[s : s + step], shape)
        outer = torch.einsum("ai,aj,ak->aijk", *weights).flatten(1)
        for c in range(count):
            mesh[c].index_add_(0, index, (outer * columns[s : s + step, c, None]).flatten())

    transform = torch.fft.rfftn(mesh.view(count, *shape), dim=(1, 2, 3))
    weight, slope, miller, basis = _influence(cell, inverse, kernels, coefficients, eta, shape)
    both = weight if count == num_potentials else torch.cat([weight, weight])
    back = torch.fft.irfftn(transform * both, s=shape, dim=(1, 2, 3)).flatten(1) * math.prod(shape)

    potentials, gradients = [], []
    for s in range(0, len(positions), step):
        index, (one, two, three), slopes = _spread(place[s : s + step], shape)
        atoms = len(one)
        rows = []
        for c in range(count):
            values = back[c].index_select(0, index).view(atoms, ORDER * ORDER, ORDER)
            last = torch.stack([three, slopes[2]], -1) if derivatives else three[..., None]
            plane = (values @ last).view(atoms, ORDER, ORDER, -1)
            line = (two[:, None, :, None] * plane).sum(2)  # (A, p, 1 or 2)
            rows.append((one * line[..., 0]).sum(1))
            if derivatives:
                other = (slopes[1][:, None] * plane[..., 0]).sum(2)
                gradients.append(
                    torch.stack(
                        [
                            (slopes[0] * line[..., 0]).sum(1),
                            (one * other).sum(1),
                            (one * line[..., 1]).sum(1),
                        ],
                        -1,
                    )
                )
        potentials.append(torch.stack(rows, 1))
    potential = torch.cat(potentials)
    if not derivatives:
        return Field(potential, None, None)
    parts = [torch.cat(gradients[c::count]) for c in range(count)]
    held = torch.stack(parts, 1) * columns.roll(num_potentials, 1)[..., None]
    gradient = (held[:, :num_potentials] + held[:, count - num_potentials :]) * sizes @ inverse.T
    power = (transform[:num_potentials] * transform[count - num_potentials :].conj()).real.flatten(1)
    # Half of the waves stand for both G and -G.
    third = miller[:, 2]
    twice = torch.where((third > 0) & (2 * third < shape[2]), 2.0, 1.0).to(cell)
    power = power * twice
    moments = torch.einsum("pk,ki,kj->pij", power * slope.flatten(1), miller, miller)
    strain = -2 * (basis.T @ moments @ basis)
    total = (power * weight.flatten(1)).sum(-1)
    strain = strain - total[:, None, None] * torch.eye(3, dtype=cell.dtype, device=device)
    return Field(potential, gradient, strain[None])


def _spread(place: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Mesh points (A p³,) and one-dimensional weights and slopes, three (A, p) each, of atoms at `place` (A,
    3)."""
    first, weights, slope = splines(place)
    steps = torch.arange(ORDER, device=place.device)
    x, y, z = ((first[:, axis, None] + steps) % shape[axis] for axis in range(3))
    index = (x[:, :, None, None] * shape[1] + y[:, None, :, None]) * shape[2] + z[:, None, None, :]
    return index.flatten(), list(weights.unbind(1)), list(slope.unbind(1))


def _influence(
    cell: Tensor,
    inverse: Tensor,
    kernels: list[Kernel],
    coefficients: Tensor,
    eta: Tensor,
    shape: tuple[int, int, int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """F |b|² (P, K1, K2, K3 / 2 + 1), the same with dF/d(G²), Miller indices (K, 3) and reciprocal basis (3,
    3)."""
    axes = [
        torch.fft.fftfreq(shape[0], 1 / shape[0], dtype=cell.dtype, device=cell.device),
        torch.fft.fftfreq(shape[1], 1 / shape[1], dtype=cell.dtype, device=cell.device),
        torch.arange(shape[2] // 2 + 1, dtype=cell.dtype, device=cell.device),
    ]
    grid = torch.meshgrid(*axes, indexing="ij")
    miller = torch.stack([axis.flatten() for axis in grid], -1)
    basis = 2 * math.pi * inverse.T
    g2 = (miller @ basis).square() @ miller.new_ones(3)
    zero = (miller == 0).all(1)
    g2 = g2.masked_fill(zero, 1.0)[None]
    volume = torch.linalg.det(cell).abs()
    values, slopes = [], []
    for kernel in kernels:
        value, slope = kernel.reciprocal_slope(g2, eta[:, None], volume[:, None])
        values.append(torch.where(zero, kernel.background(eta, volume)[:, None], value)[0])
        slopes.append(slope[0])
    first, second, third = (_moduli(size, cell) for size in shape)
    moduli = first[:, None, None] * second[:, None] * third[: shape[2] // 2 + 1]
    complete = (len(coefficients), *moduli.shape)
    weight = (coefficients @ torch.stack(values)).view(complete) * moduli
    slope = (coefficients @ torch.stack(slopes)).view(complete) * moduli
    return weight, slope, miller, basis
