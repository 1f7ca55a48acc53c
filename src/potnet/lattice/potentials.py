"""Pair potentials: what a user names. Each is a linear combination of kernels (`kernels`)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from potnet.lattice.kernels import (
    ExponentialKernel,
    Kernel,
    PowerKernel,
    RealTerms,
    ScreenedKernel,
)

__all__ = [
    "Coulomb",
    "ExponentialKernel",
    "InversePower",
    "Kernel",
    "LennardJones",
    "London",
    "Morse",
    "Pauli",
    "Potential",
    "PowerKernel",
    "RealTerms",
    "ScreenedCoulomb",
    "ScreenedKernel",
]


class Potential(ABC):
    """A pair potential: a linear combination of kernels."""

    #: Added to the sum of an atom with its own images (the term at zero distance is otherwise left out).
    self_term: float = 0.0

    @abstractmethod
    def terms(self, volume: Tensor) -> list[tuple[float | Tensor, Kernel]]:
        """Coefficients and kernels. A coefficient is a number, or a tensor () or (B,).

        Args:
            volume: (B,) cell volumes in Å³, for conventions that depend on them.
        """

    def value(self, r: Tensor, volume: Tensor) -> Tensor:
        """phi(r).

        Args:
            r: (T,) distances in Å.
            volume: (T,) volume of the cell each distance belongs to, Å³.
        """
        parts = [coefficient * kernel.value(r) for coefficient, kernel in self.terms(volume)]
        return torch.stack(parts).sum(0)


def _positive(name: str, value: float | Tensor) -> None:
    if isinstance(value, Tensor):
        if value.ndim > 1 or not bool((value > 0).all() & value.isfinite().all()):
            raise ValueError(f"{name} must be positive, one number or one a crystal, got {value}")
    elif not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value}")


def _double(value: float | Tensor) -> float | Tensor:
    """A learnable parameter may be float32; the sums are float64."""
    return value.double() if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class InversePower(Potential):
    """phi(r) = 1 / r^(2p).

    For p < 3/2 the sum is the analytic continuation, the same as a uniform neutralising background.

    Args:
        p: Positive, not 3/2 (where the continuation has its pole). Integers and half-integers are fastest.

    Raises:
        ValueError: If p is anything else.
    """

    p: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.p) and self.p > 0 and abs(self.p - 1.5) > 1e-6):
            raise ValueError(f"p must be positive and other than 3/2, got {self.p}")
        if self.p > 50:
            raise ValueError(f"p must be at most 50 (1/r^100), got {self.p}: float64 overflows beyond")

    def terms(self, volume: Tensor) -> list[tuple[float | Tensor, Kernel]]:
        return [(1.0, PowerKernel(float(self.p)))]


@dataclass(frozen=True)
class Coulomb(Potential):
    """phi(r) = 1 / r, with a uniform neutralising background (PotNet, equation 4)."""

    def terms(self, volume: Tensor) -> list[tuple[float | Tensor, Kernel]]:
        return [(1.0, PowerKernel(0.5))]


@dataclass(frozen=True)
class London(Potential):
    """phi(r) = 1 / r^6, London dispersion (PotNet, equation 5)."""

    def terms(self, volume: Tensor) -> list[tuple[float | Tensor, Kernel]]:
        return [(1.0, PowerKernel(3.0))]


@dataclass(frozen=True)
class Pauli(Potential):
    """phi(r) = exp(-alpha r), Pauli repulsion (PotNet, equation 6).

    Args:
        alpha: 1/Å, a number, or a tensor () or (B,), which may require a gradient.
        convention: "physical", or "published" for the feature of published PotNet models: alpha is
            replaced by alpha V^(-1/6), V in Å³, and the sum of an atom with its own images includes the
            term at zero distance. That feature depends on the unit of length and on the choice of cell.

    Raises:
        ValueError: If alpha is not positive or the convention is unknown.
    """

    alpha: float | Tensor = 3.0
    convention: Literal["physical", "published"] = "physical"

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)
        if self.convention not in ("physical", "published"):
            raise ValueError(f"convention must be 'physical' or 'published', got {self.convention!r}")

    @property
    def self_term(self) -> float:  # type: ignore[override]
        return 1.0 if self.convention == "published" else 0.0

    def terms(self, volume: Tensor) -> list[tuple[float | Tensor, Kernel]]:
        alpha = _double(self.alpha)
        if self.convention == "published":
            return [(1.0, ExponentialKernel(alpha * volume ** (-1 / 6), volume_exponent=-1 / 6))]
        return [(1.0, ExponentialKernel(alpha))]


@dataclass(frozen=True)
class LennardJones(Potential):
    """phi(r) = (sigma/r)^12 - (sigma/r)^6, without the customary factor 4 epsilon.

    Args:
        sigma: Å, a number, or a tensor () or (B,), which may require a gradient.
    """

    sigma: float | Tensor = 1.0

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def terms(self, volume: Tensor) -> list[tuple[float | Tensor, Kernel]]:
        sixth = _double(self.sigma) ** 6
        return [(sixth * sixth, PowerKernel(6.0)), (-sixth, PowerKernel(3.0))]


@dataclass(frozen=True)
class Morse(Potential):
    """phi(r) = exp(-2 alpha (r - r_e)) - 2 exp(-alpha (r - r_e)).

    Args:
        alpha: 1/Å, a number, or a tensor () or (B,), which may require a gradient.
        r_e: Equilibrium distance, Å, as alpha.
    """

    alpha: float | Tensor = 1.0
    r_e: float | Tensor = 1.0

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)
        _positive("r_e", self.r_e)
        product = float(torch.as_tensor(self.alpha * self.r_e).detach().max())
        if product > 100:
            raise ValueError(f"alpha * r_e must be at most 100, got {product:g}: exp of twice it is a factor")

    def terms(self, volume: Tensor) -> list[tuple[float | Tensor, Kernel]]:
        alpha = _double(self.alpha)
        exponent = alpha * _double(self.r_e)
        growth = exponent.exp() if isinstance(exponent, Tensor) else math.exp(exponent)
        return [(growth**2, ExponentialKernel(2 * alpha)), (-2 * growth, ExponentialKernel(alpha))]


@dataclass(frozen=True)
class ScreenedCoulomb(Potential):
    """phi(r) = exp(-alpha r) / r (Yukawa).

    Args:
        alpha: 1/Å, a number, or a tensor () or (B,), which may require a gradient.
    """

    alpha: float | Tensor = 1.0

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)

    def terms(self, volume: Tensor) -> list[tuple[float | Tensor, Kernel]]:
        return [(1.0, ScreenedKernel(_double(self.alpha)))]
