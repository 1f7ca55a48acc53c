"""The many-body tensor representation of one atom and its neighbours, smooth, with derivatives.

Huo and Rupp's representation (`potnet.descriptors.mbtr`) is of a whole crystal. Kept apart for each atom i,
the vertex of its tuples, and with weights that end with two continuous derivatives at a cutoff, it describes
surroundings of atoms, from which extensive energies with forces can be learned:

    f_2(x; A)          = sum over j of A:               w_x(r_ij)
    f_3(x, y, c; A, B) = sum over pairs j of A, k of B: w_x(r_ij) w_y(r_ik) N(cos jik - c)
    w_x(r)             = u(r) N(r - x)

for elements A, B and points x, y (distances) and c (cosines) of grids; N is a Gaussian of height 1, u the
envelope. The element of i itself (k = 1) is left to the model. Other than there, triples keep both lengths
beside their angle, and the distance of the two ends has no weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from potnet.nn.radial import Envelope


class LocalMBTR(nn.Module):
    """f_2 and f_3 of atoms from the vectors to their neighbours, float64.

    Args:
        cutoff: Å.
        pair_points: Grid of distances of f_2.
        triple_points: Grid of distances of f_3.
        angle_points: Grid of cosines.
        nearest: Å, first point of the grids of distances, about the shortest distance there is.
        elements: S, number of elements of neighbours.

    Raises:
        ValueError: Fewer than two points, no element, or `nearest` not between 0 and the cutoff.
    """

    pairs: Tensor
    lengths: Tensor
    cosines: Tensor
    channels: Tensor

    def __init__(
        self,
        cutoff: float,
        pair_points: int,
        triple_points: int,
        angle_points: int,
        nearest: float = 1.5,
        elements: int = 1,
    ) -> None:
        super().__init__()
        if min(pair_points, triple_points, angle_points) < 2 or elements < 1:
            raise ValueError(
                "the grids of a local MBTR need at least 2 points each, and at least one element"
            )
        if not 0 < nearest < cutoff:
            raise ValueError(f"nearest={nearest}: give a distance between 0 and the cutoff, {cutoff:g} Å")
        self.envelope, self.elements = Envelope(cutoff, 3), elements
        grids = {
            "pairs": torch.linspace(nearest, cutoff, pair_points, dtype=torch.float64),
            # At the cutoff itself the envelope leaves nothing.
            "lengths": torch.linspace(nearest, cutoff, triple_points + 1, dtype=torch.float64)[:-1],
            "cosines": torch.linspace(-1, 1, angle_points, dtype=torch.float64),
            # f_3 is the same with both neighbours exchanged.
            "channels": torch.triu_indices(elements * triple_points, elements * triple_points),
        }
        for name, grid in grids.items():
            self.register_buffer(name, grid, persistent=False)

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of features of f_2 and f_3."""
        return self.elements * len(self.pairs), self.channels.shape[1] * len(self.cosines)

    def forward(self, vectors: Tensor, element: Tensor) -> Tensor:
        """(N, F) features; gradients reach `vectors`.

        Args:
            vectors: (N, K, 3) Å, to the neighbours of each atom. Those beyond the cutoff count nothing, and
                fill the rows of atoms with fewer than K.
            element: (N, K) int64 from 0, of the neighbours.
        """
        r = torch.linalg.vector_norm(vectors, dim=-1)
        u = self.envelope(r)[..., None]
        two = self._by_element(u * gaussian(r[..., None] - self.pairs, spacing(self.pairs)), element).sum(1)
        weight = self._by_element(u * gaussian(r[..., None] - self.lengths, spacing(self.lengths)), element)
        unit = vectors / r[..., None]
        angles = gaussian((unit @ unit.mT)[..., None] - self.cosines, spacing(self.cosines))
        angles = angles * self._others(angles)
        beside = torch.einsum("njkx,nkb->njbx", angles, weight)
        three = torch.einsum("nja,njbx->nabx", weight, beside) / 2
        return torch.cat([two, self._distinct(three)], 1)

    def derivative(self, vectors: Tensor, element: Tensor) -> tuple[Tensor, Tensor]:
        """The same features, (N, F), and their derivative in the vectors, (N, K, 3, F), by formulas.

        One gradient of each feature by automatic differentiation would cost F times as much.
        """
        r = torch.linalg.vector_norm(vectors, dim=-1)
        unit = vectors / r[..., None]
        u, slope = (part[..., None] for part in self._envelope_and_slope(r))

        def radial(grid: Tensor) -> tuple[Tensor, Tensor]:
            t, width = r[..., None] - grid, spacing(grid)
            g = gaussian(t, width)
            return (
                self._by_element(u * g, element),
                self._by_element((slope - u * t / width**2) * g, element),
            )

        pair, pair_slope = radial(self.pairs)
        weight, weight_slope = radial(self.lengths)
        cosine = unit @ unit.mT
        t, width = cosine[..., None] - self.cosines, spacing(self.cosines)
        angles = gaussian(t, width)
        angles = angles * self._others(angles)
        beside = torch.einsum("njkx,nkb->njbx", angles, weight)
        three = torch.einsum("nja,njbx->nabx", weight, beside) / 2
        turning = -angles * t / width**2
        # d cos / d v_j = (u_k - cos u_j) / r_j
        across = torch.einsum("njkx,nkbi->njbxi", turning, weight[..., None] * unit[:, :, None, :])
        along = torch.einsum("njkx,nkb->njbx", turning * cosine[..., None], weight)
        bent = (across - along[..., None] * unit[:, :, None, None, :]) / r[:, :, None, None, None]
        stretched = beside[..., None] * unit[:, :, None, None, :]
        first, second = self.channels
        parts = [
            weight_slope[:, :, a, None, None] * stretched[:, :, b]
            + weight[:, :, a, None, None] * bent[:, :, b]
            for a, b in ((first, second), (second, first))
        ]
        both = ((parts[0] + parts[1]) / 2).flatten(2, 3)
        moved = torch.cat([pair_slope[..., None] * unit[:, :, None, :], both], 2)
        return torch.cat([pair.sum(1), self._distinct(three)], 1), moved.mT.contiguous()

    def _by_element(self, values: Tensor, element: Tensor) -> Tensor:
        """(N, K, P) to (N, K, S P): zero for other elements than that of the neighbour."""
        if self.elements == 1:
            return values
        chosen = nn.functional.one_hot(element, self.elements).to(values.dtype)
        return (chosen[..., None] * values[:, :, None, :]).flatten(2)

    def _others(self, angles: Tensor) -> Tensor:
        """(K, K, 1): zero for a neighbour and itself."""
        return 1 - torch.eye(angles.shape[1], dtype=angles.dtype, device=angles.device)[..., None]

    def _distinct(self, three: Tensor) -> Tensor:
        """(N, P, P, X), symmetric, to (N, P (P + 1) / 2 X)."""
        return three[:, self.channels[0], self.channels[1]].flatten(1)

    def _envelope_and_slope(self, r: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            r = r.detach().requires_grad_()
            u = self.envelope(r)
            (slope,) = torch.autograd.grad(u.sum(), r)
        return u.detach(), slope


def spacing(grid: Tensor) -> float:
    """Of the points, and the standard deviation of the Gaussians on them."""
    return float(grid[1] - grid[0])


def gaussian(t: Tensor, width: float) -> Tensor:
    """exp(-t² / 2 width²)."""
    return (-0.5 * (t / width) ** 2).exp()
