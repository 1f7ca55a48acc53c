"""Bases that turn a scalar (a distance, a potential) into features on evenly spaced centers."""

from __future__ import annotations

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
