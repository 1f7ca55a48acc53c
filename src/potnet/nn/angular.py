"""Angles around an atom, without a list of them: invariants of angular moments of its neighbours.

The idea of SOAP's power spectrum and of the atomic cluster expansion (Bartók et al., Phys. Rev. B 87, 184115,
2013; Drautz, Phys. Rev. B 99, 014104, 2019), with learned radial functions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from potnet.nn.aggregate import aggregate
from potnet.nn.equivariant import mlp


def harmonics(unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Real spherical harmonics of degree l = 1, 2 and 3, normalised to sum_m Y_m(u) Y_m(v) = P_l(u . v).

    Args:
        unit: (E, 3), unit vectors.

    Returns:
        (E, 3), (E, 5) and (E, 7).
    """
    x, y, z = unit.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    root3, root6, root10, root15 = (n**0.5 for n in (3, 6, 10, 15))
    second = torch.stack(
        [root3 * x * y, root3 * y * z, (2 * zz - xx - yy) / 2, root3 * x * z, root3 / 2 * (xx - yy)], -1
    )
    third = torch.stack(
        [
            root10 / 4 * y * (3 * xx - yy),
            root15 * x * y * z,
            root6 / 4 * y * (4 * zz - xx - yy),
            z * (2 * zz - 3 * xx - 3 * yy) / 2,
            root6 / 4 * x * (4 * zz - xx - yy),
            root15 / 2 * z * (xx - yy),
            root10 / 4 * x * (xx - 3 * yy),
        ],
        -1,
    )
    return unit, second, third


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
        directions = harmonics(unit)
        moments = aggregate(torch.cat(directions, -1)[:, :, None] * radial[:, None], target, len(s))
        found = []
        for part, mix in zip(moments.split([3, 5, 7], 1), self.mix, strict=True):
            first, second = mix(part).chunk(2, -1)
            found.append((first * second).sum(1))
        return s + self.output(torch.cat(found, -1))
