"""Angles around an atom, without a list of them: invariants of angular moments of its neighbours.

The idea of SOAP's power spectrum and of the atomic cluster expansion (Bartók et al., Phys. Rev. B 87, 184115,
2013; Drautz, Phys. Rev. B 99, 014104, 2019), with fixed radial functions (`PowerSpectrum`) or learned ones
(`AngularMoments`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch, edge_vectors
from potnet.nn.aggregate import aggregate
from potnet.nn.elements import check_elements, element_weights
from potnet.nn.equivariant import mlp
from potnet.nn.radial import Envelope, GaussianBasis, SmoothBasis


def harmonics(unit: Tensor, degree: int) -> list[Tensor]:
    """Real spherical harmonics of degree l = 0 ... `degree`, with sum_m Y_lm(u) Y_lm(v) = P_l(u . v).

    Associated Legendre functions of z, by their recursion, times the real and imaginary part of (x + i y)^m.

    Args:
        unit: (E, 3), unit vectors.
        degree: The largest l.

    Returns:
        (E, 2 l + 1) for each l, m = -l ... l.
    """
    x, y, z = unit.unbind(-1)
    cosine, sine = [torch.ones_like(x)], [torch.zeros_like(x)]
    legendre: list[list[Tensor]] = []  # by m, then l - m
    factor = 1.0
    for m in range(degree + 1):
        if m:
            factor *= 2 * m - 1
            real, imaginary = cosine[-1], sine[-1]
            cosine.append(real * x - imaginary * y)
            sine.append(imaginary * x + real * y)
        column = [torch.full_like(z, factor)]
        if m < degree:
            column.append((2 * m + 1) * factor * z)
        for n in range(m + 2, degree + 1):
            column.append(((2 * n - 1) * z * column[-1] - (n + m - 1) * column[-2]) / (n - m))
        legendre.append(column)

    def one(n: int, m: int) -> Tensor:
        k = abs(m)
        norm = math.sqrt((2 if k else 1) * math.factorial(n - k) / math.factorial(n + k))
        return norm * legendre[k][n - k] * (cosine[k] if m >= 0 else sine[k])

    return [torch.stack([one(n, m) for m in range(-n, n + 1)], -1) for n in range(degree + 1)]


class AngularMoments(nn.Module):
    """Scalars of atoms from their neighbours' directions, up to degree 3:

    A_lm = sum_j R(s_j, r_ij) Y_lm(u_ij),  s_i <- s_i + MLP(concat_l sum_m (A_lm W1_l) * (A_lm W2_l)).

    One layer of it knows the angles between all pairs of neighbours, at the cost of a sum over neighbours.

    Args:
        width: h.
        basis: Features of a distance, which vanish smoothly at the cutoff.
        channels: Radial functions R.
    """

    def __init__(self, width: int, basis: int, channels: int) -> None:
        super().__init__()
        self.sender = nn.Linear(width, channels)
        self.filter = nn.Linear(basis, channels, bias=False)
        self.mix = nn.ModuleList(nn.Linear(channels, 2 * channels, bias=False) for _ in range(3))
        self.output = mlp(3 * channels, width, width)

    def forward(self, s: Tensor, edge_index: Tensor, basis: Tensor, unit: Tensor) -> Tensor:
        """New scalars (N, h).

        Args:
            s: (N, h).
            edge_index: (2, E), source j and target i.
            basis: (E, basis), of the lengths.
            unit: (E, 3), from i to j.
        """
        source, target = edge_index
        radial = self.sender(s).index_select(0, source) * self.filter(basis)
        directions = torch.cat(harmonics(unit, 3)[1:], -1)
        moments = aggregate(directions[:, :, None] * radial[:, None], target, len(s))
        found = []
        for part, mix in zip(moments.split([3, 5, 7], 1), self.mix, strict=True):
            first, second = mix(part).chunk(2, -1)
            found.append((first * second).sum(1))
        return s + self.output(torch.cat(found, -1))


class PowerSpectrum(nn.Module):
    """Invariants of the surroundings of each atom that know its angles; nothing in them is learned.

    p_l,cd = sum_m A_c,lm A_d,lm,  A_c,lm = sum_j w_k(z_j) f_n(r_ij) Y_lm(u_ij),  c = (n, k), c <= d,

    with `radial` Gaussians f_n that end smoothly at the cutoff, and w_k the three `element_weights`: how many
    neighbours, how electronegative, how large. Given as asinh(4 p), since p spans orders of magnitude.

    Args:
        cutoff: Å. Edges that are longer do not count; those of the batch should reach as far.
        radial: Gaussians, at least 2, the first at 1.5 Å.
        degree: The largest l.

    Raises:
        ValueError: A cutoff below 2 Å, too few Gaussians, or a negative degree.
    """

    FIRST = 1.5
    """Å."""

    weights: Tensor
    pairs: Tensor

    def __init__(self, cutoff: float = 4.0, radial: int = 4, degree: int = 3) -> None:
        super().__init__()
        if not 2.0 <= cutoff < math.inf or radial < 2 or degree < 0:
            raise ValueError(
                "a power spectrum needs a cutoff of at least 2 Å, 2 radial functions and degree 0 or more, "
                f"got {cutoff}, {radial} and {degree}"
            )
        self.degree = degree
        last = cutoff - 0.3
        spacing = (last - self.FIRST) / (radial - 1)
        gaussians = GaussianBasis(self.FIRST, last, radial, width=math.sqrt(2) * spacing)
        self.basis = SmoothBasis(gaussians, Envelope(cutoff, p=3))
        weights = element_weights()
        # The same for every model, so not part of a checkpoint.
        self.register_buffer("weights", weights, persistent=False)
        densities = radial * weights.shape[1]
        self.register_buffer("pairs", torch.triu_indices(densities, densities), persistent=False)

    @property
    def features(self) -> int:
        """Number of invariants."""
        return (self.degree + 1) * self.pairs.shape[1]

    def forward(self, batch: CrystalBatch, model: str = "the network") -> Tensor:
        """(N, features), in the dtype of networks.

        Args:
            batch: With local edges.
            model: Name of the network, for messages.

        Raises:
            ValueError: An element beyond Z = 100, or a batch without local edges.
        """
        if not torch.compiler.is_compiling():
            check_elements(batch)
        vectors = edge_vectors(batch, model)
        assert batch.edge_index is not None
        source, target = batch.edge_index
        length = torch.linalg.vector_norm(vectors, dim=-1)
        weights = self.weights[batch.z].to(vectors.dtype).index_select(0, source)
        densities = (self.basis(length).unsqueeze(2) * weights.unsqueeze(1)).flatten(1)
        first, second = self.pairs
        found = []
        for part in harmonics(vectors / length.unsqueeze(1), self.degree):
            moments = aggregate(part.unsqueeze(2) * densities.unsqueeze(1), target, len(batch.z))
            found.append((moments[:, :, first] * moments[:, :, second]).sum(1))
        return torch.asinh(4 * torch.cat(found, -1))
