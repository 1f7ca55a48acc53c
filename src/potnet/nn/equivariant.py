"""Layers on scalars (N, h) and vectors (N, 3, h) of atoms, which turn with the crystal.

Message and update are those of PaiNN (Schütt, Unke and Gastegger, ICML 2021) as LEIGNN writes them (Yang et
al., arXiv 2311.02869, section 4). Every operation on vectors is a sum of vectors times scalars, so a
rotation of the crystal rotates them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from potnet.nn.aggregate import aggregate


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


def vector_norm(vectors: Tensor, dim: int = 1) -> Tensor:
    """Lengths with a gradient that is finite at zero.

    Args:
        vectors: (..., 3, ...), components along `dim`.
    """
    return (vectors.square().sum(dim) + 1e-8).sqrt()


class VectorMessage(nn.Module):
    """Messages along the edges j -> i with unit vector u, from x_i to x_j:

    (a, b, c) = phi(s_j) * W rbf(r) / sqrt 3,  dv_i = sum_j (a v_j + b u) / sqrt h,  ds_i = sum_j c,
    s <- (s + ds) / sqrt 2,  v <- v + dv.

    Args:
        width: h, an even number.
        basis: Features of a distance, which vanish smoothly at the cutoff.
    """

    def __init__(self, width: int, basis: int) -> None:
        super().__init__()
        self.width = width
        self.sender = mlp(width, width // 2, 3 * width)
        self.filter = nn.Linear(basis, 3 * width, bias=False)

    def forward(
        self, s: Tensor, v: Tensor, edge_index: Tensor, basis: Tensor, unit: Tensor, first: bool = False
    ) -> tuple[Tensor, Tensor]:
        """New scalars and vectors.

        Args:
            s: (N, h).
            v: (N, 3, h).
            edge_index: (2, E), source j and target i.
            basis: (E, basis), of the lengths.
            unit: (E, 3), from i to j.
            first: Whether v is zero, as in the first layer: a v_j is then left out, a third of the time.
        """
        source, target = edge_index
        # The factor is applied to atoms, of which there are fewer than edges.
        mixed = (self.sender(s) * 3**-0.5).index_select(0, source) * self.filter(basis)
        a, b, c = mixed.chunk(3, -1)
        vectors = b[:, None] * unit[:, :, None]
        if not first:
            vectors = vectors + a[:, None] * v.index_select(0, source)
        s = (s + aggregate(c, target, len(s))) * 2**-0.5
        return s, v + aggregate(vectors, target, len(v)) / math.sqrt(self.width)


class VectorUpdate(nn.Module):
    """Scalars and vectors of one atom meet: (V1, V2) = W v, (p, q, g) = MLP([s, |V2|]),

    s <- s tanh g + q / sqrt 2 + s,  v <- v + p V1.

    Args:
        width: h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 2 * width, bias=False)
        self.gates = mlp(2 * width, width, 3 * width)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """New scalars (N, h) and vectors (N, 3, h)."""
        first, second = self.mix(v).chunk(2, -1)
        p, q, g = self.gates(torch.cat([s, vector_norm(second)], -1)).chunk(3, -1)
        return s + q * 2**-0.5 + s * torch.tanh(g), v + p[:, None] * first


class VectorHead(nn.Module):
    """One vector an atom: a linear map of its vectors.

    Args:
        width: h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.output = nn.Linear(width, 1, bias=False)

    def forward(self, v: Tensor) -> Tensor:
        """(N, 3, h) to (N, 3)."""
        return self.output(v).squeeze(-1)
