"""Bases that turn a scalar (a distance, a potential) into features, and an envelope to end them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class _EvenlySpaced(nn.Module):
    centers: Tensor

    def __init__(self, start: float, stop: float, bins: int) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"a basis needs at least 2 bins, got {bins}")
        if not start < stop:
            raise ValueError(f"a basis needs start < stop, got start={start} and stop={stop}")
        self.bins = bins
        self.scale = (bins - 1) / (stop - start)
        # Derived from the arguments, so not part of a checkpoint.
        self.register_buffer("centers", torch.linspace(start, stop, bins), persistent=False)

    def _distance(self, s: Tensor) -> Tensor:
        return (s.unsqueeze(-1) - self.centers) * self.scale

    def extra_repr(self) -> str:
        return f"start={self.centers[0]:g}, stop={self.centers[-1]:g}, bins={self.bins}"


class GaussianBasis(_EvenlySpaced):
    """exp(-((s - c) / width)²) for every center c.

    Args:
        start: First center, in the unit of the scalar.
        stop: Last center.
        bins: Number of centers, at least 2.
        width: In the unit of the scalar; None is the spacing of the centers.

    Raises:
        ValueError: Fewer than 2 bins, or a range or width that is not positive.
    """

    def __init__(self, start: float, stop: float, bins: int, width: float | None = None) -> None:
        super().__init__(start, stop, bins)
        if width is not None:
            if not width > 0:
                raise ValueError(f"Gaussians need a positive width, got {width}")
            self.scale = 1 / width

    def forward(self, s: Tensor) -> Tensor:
        """(...) scalars to (..., bins) features between 0 and 1."""
        return self._distance(s).square_().neg_().exp_()


class MultiquadricBasis(_EvenlySpaced):
    """sqrt(1 + ((s - c) / spacing)²) for every center c.

    Unlike a Gaussian it grows without limit away from its center, so scalars outside the range of
    the centers are still told apart.

    Args:
        start: First center, in the unit of the scalar.
        stop: Last center.
        bins: Number of centers, at least 2.
    """

    def forward(self, s: Tensor) -> Tensor:
        """(...) scalars to (..., bins) features of at least 1."""
        return self._distance(s).square_().add_(1.0).sqrt_()


class Envelope(nn.Module):
    """Polynomial that falls from 1 at r = 0 to 0 at the cutoff, with two continuous derivatives there.

    u(d) = 1 - (p + 1)(p + 2) / 2 d^p + p (p + 2) d^(p + 1) - p (p + 1) / 2 d^(p + 2), d = r / cutoff, and 0
    from the cutoff on: eq. 8 of Gasteiger, Groß and Günnemann, "Directional message passing for molecular
    graphs" (DimeNet), ICLR 2020. A message times u(r) comes and goes without a jump in energy, forces or
    their derivatives.

    Args:
        cutoff: Å.
        p: At least 2: the larger, the longer u stays near 1. DimeNet has 6, LEIGNN 5.

    Raises:
        ValueError: A cutoff that is not positive, or a smaller p.
    """

    def __init__(self, cutoff: float, p: int = 6) -> None:
        super().__init__()
        if not 0 < cutoff < math.inf or p < 2:
            raise ValueError(f"an envelope needs a positive cutoff and p of at least 2, got {cutoff} and {p}")
        self.cutoff, self.p = float(cutoff), p

    def forward(self, r: Tensor) -> Tensor:
        """(...) Å to (...) between 0 and 1."""
        p = self.p
        # Beyond the cutoff the polynomial is not zero: there it is that of the cutoff, with no gradient.
        d = (r / self.cutoff).clamp(max=1.0)
        inner = (p + 1) * (p + 2) / 2 - d * (p * (p + 2) - d * (p * (p + 1) / 2))
        return torch.where(r < self.cutoff, 1.0 - d.pow(p) * inner, torch.zeros_like(d))

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff:g}, p={self.p}"


class BesselBasis(nn.Module):
    """sqrt(2 / cutoff) sin(n pi r / cutoff) / r for n = 1 to bins: eq. 7 of the same paper.

    Orthonormal functions in a sphere that vanish at its surface. Smooth for r > 0; only with an `Envelope`
    do their derivatives vanish at the cutoff, too.

    Args:
        cutoff: Å.
        bins: Number of functions, at least 1.
    """

    frequencies: Tensor

    def __init__(self, cutoff: float, bins: int) -> None:
        super().__init__()
        if not 0 < cutoff < math.inf or bins < 1:
            raise ValueError(f"a basis needs a positive cutoff and at least 1 bin, got {cutoff} and {bins}")
        self.cutoff, self.bins = float(cutoff), bins
        frequencies = torch.arange(1, bins + 1) * (math.pi / cutoff)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        """(...) Å, positive, to (..., bins)."""
        r = r.unsqueeze(-1)
        return math.sqrt(2 / self.cutoff) * torch.sin(self.frequencies * r) / r

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff:g}, bins={self.bins}"


class SmoothBasis(nn.Module):
    """A basis times an envelope: features of a distance that vanish smoothly at the cutoff.

    Args:
        basis: Of distances, such as `BesselBasis` or `GaussianBasis`.
        envelope: Ends it.
    """

    def __init__(self, basis: nn.Module, envelope: Envelope) -> None:
        super().__init__()
        self.basis, self.envelope = basis, envelope

    def forward(self, r: Tensor) -> Tensor:
        """(...) Å to (..., bins)."""
        return self.basis(r) * self.envelope(r).unsqueeze(-1)
