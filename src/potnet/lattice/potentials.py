"""The mathematics of pair potentials, and nothing else.

A kernel is a radial function written as a mixture of Gaussians with non-negative weights,

    phi(r) = ∫_0^∞ w(t) exp(-t r²) dt,        w(t) >= 0,

split at the parameter eta (1/Å²): t > eta is summed in real space, t < eta in reciprocal space. Each
kernel has both parts in
closed form (Ewald 1921 for 1/r; Nijboer and De Wette 1957 for 1/r^n; the exponential and screened forms
follow from
the same integral). A potential is a linear combination of kernels. The summation, its cutoffs and its
error bounds (`ewald`, `bounds`) know a potential through these interfaces alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from potnet.lattice.special import exponential_integral, gamma_q

# exp of more than this overflows; what it multiplies has then long been exactly zero.
_MAX_EXPONENT = 700.0


class RealTerms(NamedTuple):
    """What all kernels share about T real-space terms, in Å.

    Attributes:
        r: (T,) distances.
        r2: (T,) squared distances.
        x: (T,) eta r².
        gauss: (T,) exp(-eta r²).
        crystal: (T,) int64, the crystal of each term, for parameters that differ between crystals.
    """

    r: Tensor
    r2: Tensor
    x: Tensor
    gauss: Tensor
    crystal: Tensor


class Kernel(ABC):
    """A radial function with closed forms for both halves of the split at eta.

    A parameter that differs between crystals is a tensor (B,); `select` picks entries of it.
    """

    def select(self, index: Tensor) -> Kernel:
        """The kernel with per-crystal parameters taken at `index` (any shape)."""
        return self

    @abstractmethod
    def value(self, r: Tensor) -> Tensor:
        """phi(r) at distances `r` in Å, any shape, positive."""

    @abstractmethod
    def real(self, terms: RealTerms, eta: float) -> Tensor:
        """Real-space part ∫_eta^∞ w(t) exp(-t r²) dt, (T,)."""

    @abstractmethod
    def reciprocal(self, g2: Tensor, eta: float, volume: Tensor) -> Tensor:
        """Reciprocal part F(G) at squared wave vectors `g2` (b, K) > 0 in 1/Å², volumes (b, 1) in Å³."""

    @abstractmethod
    def background(self, eta: float, volume: Tensor) -> Tensor:
        """F(0), (b,). For Coulomb this is a uniform neutralising background."""

    @abstractmethod
    def origin(self, eta: float) -> float | Tensor:
        """∫_0^eta w(t) dt: what the reciprocal part holds of the term at zero distance."""

    @abstractmethod
    def real_upper(self, r: Tensor, eta: Tensor) -> Tensor:
        """An upper bound of `real` at distances `r` (B,) for eta (B,), safe in floating point."""

    @abstractmethod
    def reciprocal_upper(self, g: Tensor, eta: Tensor, volume: Tensor) -> Tensor:
        """An upper bound of `reciprocal` at wave numbers `g` (B,), safe in floating point."""


@dataclass(frozen=True)
class PowerKernel(Kernel):
    """1 / r^(2p), the Epstein zeta function of order 2p; p < 3/2 by analytic continuation.

    Args:
        p: Half the power: integer or half-integer, at least 1/2, not 3/2.
    """

    p: float

    def value(self, r: Tensor) -> Tensor:
        return r ** (-2 * self.p)

    def real(self, terms: RealTerms, eta: float) -> Tensor:
        numerator = gamma_q(self.p, terms.x, terms.gauss)
        if self.p == 0.5:
            return numerator / terms.r
        return numerator / terms.r2**self.p

    def _prefactor(self, eta: float | Tensor, volume: Tensor) -> Tensor:
        return math.pi**1.5 / math.gamma(self.p) * eta ** (self.p - 1.5) / volume

    def reciprocal(self, g2: Tensor, eta: float, volume: Tensor) -> Tensor:
        # y^(p-3/2) Γ(3/2 - p, y) is the exponential integral of order p - 1/2.
        return self._prefactor(eta, volume) * exponential_integral(self.p - 0.5, g2 / (4 * eta))

    def background(self, eta: float, volume: Tensor) -> Tensor:
        return self._prefactor(eta, volume) / (self.p - 1.5)

    def origin(self, eta: float) -> float:
        return eta**self.p / math.gamma(self.p + 1)

    def real_upper(self, r: Tensor, eta: Tensor) -> Tensor:
        x = eta * r * r
        return gamma_q(self.p, x, torch.exp(-x)) / r ** (2 * self.p)

    def reciprocal_upper(self, g: Tensor, eta: Tensor, volume: Tensor) -> Tensor:
        # E_n(y) <= exp(-y) / (y + n - 1) for n >= 1, exp(-y) / y below (DLMF 8.19.21).
        y = g * g / (4 * eta)
        return self._prefactor(eta, volume) * torch.exp(-y) / (y + max(self.p - 1.5, 0.0))


@dataclass(frozen=True, eq=False)
class ExponentialKernel(Kernel):
    """exp(-alpha r).

    Args:
        alpha: 1/Å, a number or one for each crystal (B,).
    """

    alpha: float | Tensor

    def select(self, index: Tensor) -> Kernel:
        return ExponentialKernel(self.alpha[index]) if isinstance(self.alpha, Tensor) else self

    def value(self, r: Tensor) -> Tensor:
        return torch.exp(-self.alpha * r)

    def real(self, terms: RealTerms, eta: float) -> Tensor:
        alpha = self._per_term(terms)
        shrunk, grown = _screened_pair(alpha, terms.r, eta)
        return 0.5 * (shrunk - grown)

    def _per_term(self, terms: RealTerms) -> float | Tensor:
        return self.alpha[terms.crystal] if isinstance(self.alpha, Tensor) else self.alpha

    def reciprocal(self, g2: Tensor, eta: float, volume: Tensor) -> Tensor:
        alpha = self.alpha[:, None] if isinstance(self.alpha, Tensor) else self.alpha
        c = g2 + alpha * alpha
        scaled = c / (4 * eta)
        return 8 * math.pi * alpha / volume * (1 + scaled) * torch.exp(-scaled) / (c * c)

    def background(self, eta: float, volume: Tensor) -> Tensor:
        return self.reciprocal(torch.zeros_like(volume)[:, None], eta, volume[:, None])[:, 0]

    def origin(self, eta: float) -> float | Tensor:
        c = self.alpha / (2 * math.sqrt(eta))
        return torch.erfc(c) if isinstance(c, Tensor) else math.erfc(c)

    def real_upper(self, r: Tensor, eta: Tensor) -> Tensor:
        root = eta.sqrt()
        return 0.5 * torch.exp(-self.alpha * r) * torch.erfc(root * r - self.alpha / (2 * root))

    def reciprocal_upper(self, g: Tensor, eta: Tensor, volume: Tensor) -> Tensor:
        c = g * g + self.alpha * self.alpha
        scaled = c / (4 * eta)
        return 8 * math.pi * self.alpha / volume * (1 + scaled) * torch.exp(-scaled) / (c * c)


@dataclass(frozen=True)
class ScreenedKernel(Kernel):
    """exp(-alpha r) / r.

    Args:
        alpha: 1/Å.
    """

    alpha: float

    def value(self, r: Tensor) -> Tensor:
        return torch.exp(-self.alpha * r) / r

    def real(self, terms: RealTerms, eta: float) -> Tensor:
        shrunk, grown = _screened_pair(self.alpha, terms.r, eta)
        return 0.5 * (shrunk + grown) / terms.r

    def reciprocal(self, g2: Tensor, eta: float, volume: Tensor) -> Tensor:
        c = g2 + self.alpha * self.alpha
        return 4 * math.pi / volume * torch.exp(-c / (4 * eta)) / c

    def background(self, eta: float, volume: Tensor) -> Tensor:
        return self.reciprocal(torch.zeros_like(volume), eta, volume)

    def origin(self, eta: float) -> float:
        c = self.alpha / (2 * math.sqrt(eta))
        return 2 * math.sqrt(eta / math.pi) * math.exp(-c * c) - self.alpha * math.erfc(c)

    def real_upper(self, r: Tensor, eta: Tensor) -> Tensor:
        root, c = eta.sqrt(), self.alpha / (2 * eta.sqrt())
        grown = torch.exp((self.alpha * r).clamp(max=_MAX_EXPONENT)) * torch.erfc(root * r + c)
        return 0.5 * (torch.exp(-self.alpha * r) * torch.erfc(root * r - c) + grown) / r

    def reciprocal_upper(self, g: Tensor, eta: Tensor, volume: Tensor) -> Tensor:
        c = g * g + self.alpha * self.alpha
        return 4 * math.pi / volume * torch.exp(-c / (4 * eta)) / c


def _screened_pair(alpha: float | Tensor, r: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """exp(-αr) erfc(√eta r - α/2√eta) and exp(αr) erfc(√eta r + α/2√eta), (T,) each.

    The second product is at most exp(-αr/2 ...): by (√eta r + α/2√eta)² >= 2αr it is below exp(-350)
    wherever the exponent has to be clamped, so the clamp loses nothing.
    """
    root = math.sqrt(eta)
    scaled, shift, exponent = root * r, alpha / (2 * root), alpha * r
    shrunk = torch.exp(-exponent) * torch.erfc(scaled - shift)
    grown = torch.exp(exponent.clamp(max=_MAX_EXPONENT)) * torch.erfc(scaled + shift)
    return shrunk, grown


class Potential(ABC):
    """A pair potential: a linear combination of kernels."""

    #: Added to the sum of an atom with its own images (the term at zero distance is otherwise left out).
    self_term: float = 0.0

    @abstractmethod
    def terms(self, volume: Tensor) -> list[tuple[float, Kernel]]:
        """Coefficients and kernels.

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


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value}")


@dataclass(frozen=True)
class InversePower(Potential):
    """phi(r) = 1 / r^(2p).

    For p < 3/2 the sum is the analytic continuation, the same as a uniform neutralising background.

    Args:
        p: Integer or half-integer, at least 1/2, not 3/2 (where the continuation has its pole).

    Raises:
        ValueError: If p is anything else.
    """

    p: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.p) and self.p >= 0.5 and self.p != 1.5 and (2 * self.p) % 1 == 0):
            raise ValueError(f"p must be an integer or half-integer >= 1/2 other than 3/2, got {self.p}")
        if self.p > 50:
            raise ValueError(f"p must be at most 50 (1/r^100), got {self.p}: float64 overflows beyond")

    def terms(self, volume: Tensor) -> list[tuple[float, Kernel]]:
        return [(1.0, PowerKernel(float(self.p)))]


@dataclass(frozen=True)
class Coulomb(Potential):
    """phi(r) = 1 / r, with a uniform neutralising background (PotNet, equation 4)."""

    def terms(self, volume: Tensor) -> list[tuple[float, Kernel]]:
        return [(1.0, PowerKernel(0.5))]


@dataclass(frozen=True)
class London(Potential):
    """phi(r) = 1 / r^6, London dispersion (PotNet, equation 5)."""

    def terms(self, volume: Tensor) -> list[tuple[float, Kernel]]:
        return [(1.0, PowerKernel(3.0))]


@dataclass(frozen=True)
class Pauli(Potential):
    """phi(r) = exp(-alpha r), Pauli repulsion (PotNet, equation 6).

    Args:
        alpha: 1/Å.
        convention: "physical", or "published" for the feature of published PotNet models: alpha is
            replaced by alpha V^(-1/6), V in Å³, and the sum of an atom with its own images includes the
            term at zero distance. That feature depends on the unit of length and on the choice of cell.

    Raises:
        ValueError: If alpha is not positive or the convention is unknown.
    """

    alpha: float = 3.0
    convention: Literal["physical", "published"] = "physical"

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)
        if self.convention not in ("physical", "published"):
            raise ValueError(f"convention must be 'physical' or 'published', got {self.convention!r}")

    @property
    def self_term(self) -> float:  # type: ignore[override]
        return 1.0 if self.convention == "published" else 0.0

    def terms(self, volume: Tensor) -> list[tuple[float, Kernel]]:
        if self.convention == "published":
            return [(1.0, ExponentialKernel(self.alpha * volume ** (-1 / 6)))]
        return [(1.0, ExponentialKernel(self.alpha))]


@dataclass(frozen=True)
class LennardJones(Potential):
    """phi(r) = (sigma/r)^12 - (sigma/r)^6, without the customary factor 4 epsilon.

    Args:
        sigma: Å.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def terms(self, volume: Tensor) -> list[tuple[float, Kernel]]:
        return [(self.sigma**12, PowerKernel(6.0)), (-(self.sigma**6), PowerKernel(3.0))]


@dataclass(frozen=True)
class Morse(Potential):
    """phi(r) = exp(-2 alpha (r - r_e)) - 2 exp(-alpha (r - r_e)).

    Args:
        alpha: 1/Å.
        r_e: Equilibrium distance, Å.
    """

    alpha: float = 1.0
    r_e: float = 1.0

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)
        _positive("r_e", self.r_e)
        if self.alpha * self.r_e > 100:
            raise ValueError(
                f"alpha * r_e must be at most 100, got {self.alpha * self.r_e:g}: exp of twice it is a factor"
            )

    def terms(self, volume: Tensor) -> list[tuple[float, Kernel]]:
        growth = math.exp(self.alpha * self.r_e)
        return [(growth**2, ExponentialKernel(2 * self.alpha)), (-2 * growth, ExponentialKernel(self.alpha))]


@dataclass(frozen=True)
class ScreenedCoulomb(Potential):
    """phi(r) = exp(-alpha r) / r (Yukawa).

    Args:
        alpha: 1/Å.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)

    def terms(self, volume: Tensor) -> list[tuple[float, Kernel]]:
        return [(1.0, ScreenedKernel(self.alpha))]
