"""Radial functions split into a real-space and a reciprocal part.

A kernel is a radial function written as a mixture of Gaussians with non-negative weights,

    phi(r) = ∫_0^∞ w(t) exp(-t r²) dt,        w(t) >= 0,

split at the parameter eta (1/Å²): t > eta is summed in real space, t < eta in reciprocal space. Each
kernel has both parts in closed form (Ewald 1921 for 1/r; Nijboer and De Wette 1957 for 1/r^n; the
exponential and screened forms follow from the same integral). The summation, its cutoffs and its error
bounds (`ewald`, `bounds`) know a kernel through this interface alone.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice.special import exponential_integrals, gamma_q

# exp of more than this overflows; what it multiplies has then long been exactly zero.
_MAX_EXPONENT = {torch.float64: 700.0, torch.float32: 80.0}


class RealTerms(NamedTuple):
    """What all kernels share about real-space terms, in Å. All have one shape, or shapes that broadcast.

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

    A parameter that differs between crystals is a tensor (B,); `select` picks entries of it. The splitting
    parameter eta is a number or a tensor that broadcasts with the other arguments: (T,) for terms, (b, 1)
    for wave vectors, (b,) for `background` and `origin`.
    """

    #: Parameters are proportional to the volume to this power (published models: alpha V^(-1/6)).
    volume_exponent: float = 0.0

    @property
    def in_single(self) -> bool:
        """Whether `real` and `real_slope` lose no more than rounding for terms in float32."""
        return False

    def select(self, index: Tensor) -> Kernel:
        """The kernel with per-crystal parameters taken at `index` (any shape)."""
        changed = {
            name: value[index]
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and value.ndim > 0
        }
        return _with(self, changed) if changed else self

    def detached(self) -> Kernel:
        """The kernel with parameters that carry no gradient."""
        changed = {name: value.detach() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return _with(self, changed) if changed else self

    def following(self, ratio: Tensor) -> Kernel:
        """The kernel in cells whose volumes have grown by `ratio` (B,), see `volume_exponent`."""
        if not self.volume_exponent:
            return self
        factor = ratio**self.volume_exponent
        return _with(self, {k: v * factor for k, v in vars(self).items() if isinstance(v, Tensor)})

    def requires_grad(self) -> bool:
        """Whether a gradient is wanted of any parameter."""
        return any(isinstance(value, Tensor) and value.requires_grad for value in vars(self).values())

    @abstractmethod
    def value(self, r: Tensor) -> Tensor:
        """phi(r) at distances `r` in Å, any shape, positive."""

    @abstractmethod
    def real(self, terms: RealTerms, eta: float | Tensor) -> Tensor:
        """Real-space part R(r) = ∫_eta^∞ w(t) exp(-t r²) dt, (T,)."""

    def real_slope(self, terms: RealTerms, eta: float | Tensor) -> tuple[Tensor, Tensor]:
        """R(r) and R'(r) / r, (T,) each. Here by autograd; a closed form is faster."""
        with torch.enable_grad():
            r2 = terms.r2.detach().requires_grad_()
            x = eta * r2
            value = self.detached().real(RealTerms(r2.sqrt(), r2, x, torch.exp(-x), terms.crystal), eta)
            (slope,) = torch.autograd.grad(value.sum(), r2)
        return value.detach(), 2 * slope

    @abstractmethod
    def reciprocal(self, g2: Tensor, eta: float | Tensor, volume: Tensor) -> Tensor:
        """Reciprocal part F(G) at squared wave vectors `g2` (b, K) > 0 in 1/Å², volumes (b, 1) in Å³.

        Proportional to 1 / volume, as the background is.
        """

    def reciprocal_slope(self, g2: Tensor, eta: float | Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        """F and dF/d(G²), (b, K) each. Here by autograd; a closed form is faster."""
        with torch.enable_grad():
            g2 = g2.detach().requires_grad_()
            value = self.detached().reciprocal(g2, eta, volume)
            (slope,) = torch.autograd.grad(value.sum(), g2)
        return value.detach(), slope

    @abstractmethod
    def background(self, eta: float | Tensor, volume: Tensor) -> Tensor:
        """F(0), (b,). For Coulomb this is a uniform neutralising background."""

    @abstractmethod
    def origin(self, eta: float | Tensor) -> float | Tensor:
        """∫_0^eta w(t) dt: what the reciprocal part holds of the term at zero distance."""

    @abstractmethod
    def real_upper(self, r: Tensor, eta: Tensor) -> Tensor:
        """An upper bound of `real` at distances `r` (B,) for eta (B,), safe in floating point."""

    @abstractmethod
    def reciprocal_upper(self, g: Tensor, eta: Tensor, volume: Tensor) -> Tensor:
        """An upper bound of `reciprocal` at wave numbers `g` (B,), safe in floating point."""


def _with(kernel: Kernel, changed: dict[str, Tensor]) -> Kernel:
    """A copy with some attributes replaced, whatever the kernel's constructor looks like."""
    other = copy.copy(kernel)
    for name, value in changed.items():
        object.__setattr__(other, name, value)  # of a frozen dataclass too
    return other


def _root(eta: float | Tensor) -> float | Tensor:
    return eta.sqrt() if isinstance(eta, Tensor) else math.sqrt(eta)


def _erfc(x: float | Tensor) -> float | Tensor:
    return torch.erfc(x) if isinstance(x, Tensor) else math.erfc(x)


def _exp(x: float | Tensor) -> float | Tensor:
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)


@dataclass(frozen=True)
class PowerKernel(Kernel):
    """1 / r^(2p), the Epstein zeta function of order 2p; p < 3/2 by analytic continuation.

    Args:
        p: Half the power: positive, not 3/2. Integers and half-integers are fastest.
    """

    p: float

    @property
    def in_single(self) -> bool:
        return type(self) is PowerKernel and (2 * self.p) % 1 == 0 and self.p <= 6

    def value(self, r: Tensor) -> Tensor:
        return r ** (-2 * self.p)

    def real(self, terms: RealTerms, eta: float | Tensor) -> Tensor:
        numerator = gamma_q(self.p, terms.x, terms.gauss)
        if self.p == 0.5:
            return numerator / terms.r
        return numerator / terms.r2**self.p

    def real_slope(self, terms: RealTerms, eta: float | Tensor) -> tuple[Tensor, Tensor]:
        value = self.real(terms, eta)
        gaussian = 2 / math.gamma(self.p) * eta**self.p * terms.gauss
        return value, -(2 * self.p * value + gaussian) / terms.r2

    def _prefactor(self, eta: float | Tensor, volume: Tensor) -> Tensor:
        return math.pi**1.5 / math.gamma(self.p) * eta ** (self.p - 1.5) / volume

    def reciprocal(self, g2: Tensor, eta: float | Tensor, volume: Tensor) -> Tensor:
        # y^(p-3/2) Γ(3/2 - p, y) is the exponential integral of order p - 1/2.
        return self._prefactor(eta, volume) * exponential_integrals(self.p - 0.5, g2 / (4 * eta))[0]

    def reciprocal_slope(self, g2: Tensor, eta: float | Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        prefactor = self._prefactor(eta, volume)
        value, lower = exponential_integrals(self.p - 0.5, g2 / (4 * eta))
        return prefactor * value, -prefactor / (4 * eta) * lower

    def background(self, eta: float | Tensor, volume: Tensor) -> Tensor:
        return self._prefactor(eta, volume) / (self.p - 1.5)

    def origin(self, eta: float | Tensor) -> float | Tensor:
        return eta**self.p / math.gamma(self.p + 1)

    def real_upper(self, r: Tensor, eta: Tensor) -> Tensor:
        x = eta * r * r
        return gamma_q(self.p, x, torch.exp(-x)) / r ** (2 * self.p)

    def reciprocal_upper(self, g: Tensor, eta: Tensor, volume: Tensor) -> Tensor:
        # With n = p - 1/2: E_n(y) <= exp(-y) / (y + n - 1) for n >= 1, exp(-y) / y below (DLMF 8.19.21), and
        # E_n = (exp(-y) - n E_(n+1)) / y where n is negative.
        y = g * g / (4 * eta)
        bound = torch.exp(-y) / (y + max(self.p - 1.5, 0.0))
        if self.p < 0.5:
            bound = bound * (1 + (0.5 - self.p) / y)
        return self._prefactor(eta, volume) * bound


@dataclass(frozen=True, eq=False)
class ExponentialKernel(Kernel):
    """exp(-alpha r).

    Args:
        alpha: 1/Å, a number, a tensor () or one for each crystal (B,).
        volume_exponent: Of alpha in the volume, see `Kernel`.
    """

    alpha: float | Tensor
    volume_exponent: float = 0.0

    @property
    def in_single(self) -> bool:
        return type(self) is ExponentialKernel

    def value(self, r: Tensor) -> Tensor:
        return torch.exp(-self.alpha * r)

    def real(self, terms: RealTerms, eta: float | Tensor) -> Tensor:
        shrunk, grown = _screened_pair(_per_term(self.alpha, terms), terms.r, eta)
        return 0.5 * (shrunk - grown)

    def real_slope(self, terms: RealTerms, eta: float | Tensor) -> tuple[Tensor, Tensor]:
        alpha = _per_term(self.alpha, terms)
        shrunk, grown = _screened_pair(alpha, terms.r, eta)
        return 0.5 * (shrunk - grown), -0.5 * alpha * (shrunk + grown) / terms.r

    def reciprocal(self, g2: Tensor, eta: float | Tensor, volume: Tensor) -> Tensor:
        return self.reciprocal_slope(g2, eta, volume)[0]

    def reciprocal_slope(self, g2: Tensor, eta: float | Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        alpha = _per_crystal(self.alpha)
        c = g2 + alpha * alpha
        scaled = c / (4 * eta)
        common = 8 * math.pi * alpha / volume * torch.exp(-scaled) / (c * c)
        return common * (1 + scaled), -common * (scaled * scaled + 2 * (1 + scaled)) / c

    def background(self, eta: float | Tensor, volume: Tensor) -> Tensor:
        return _at_zero(self, eta, volume)

    def origin(self, eta: float | Tensor) -> float | Tensor:
        return _erfc(self.alpha / (2 * _root(eta)))

    def real_upper(self, r: Tensor, eta: Tensor) -> Tensor:
        root = eta.sqrt()
        return 0.5 * torch.exp(-self.alpha * r) * torch.erfc(root * r - self.alpha / (2 * root))

    def reciprocal_upper(self, g: Tensor, eta: Tensor, volume: Tensor) -> Tensor:
        c = g * g + self.alpha * self.alpha
        scaled = c / (4 * eta)
        return 8 * math.pi * self.alpha / volume * (1 + scaled) * torch.exp(-scaled) / (c * c)


@dataclass(frozen=True, eq=False)
class ScreenedKernel(Kernel):
    """exp(-alpha r) / r.

    Args:
        alpha: 1/Å, a number, a tensor () or one for each crystal (B,).
    """

    alpha: float | Tensor

    @property
    def in_single(self) -> bool:
        return type(self) is ScreenedKernel

    def value(self, r: Tensor) -> Tensor:
        return torch.exp(-self.alpha * r) / r

    def real(self, terms: RealTerms, eta: float | Tensor) -> Tensor:
        shrunk, grown = _screened_pair(_per_term(self.alpha, terms), terms.r, eta)
        return 0.5 * (shrunk + grown) / terms.r

    def real_slope(self, terms: RealTerms, eta: float | Tensor) -> tuple[Tensor, Tensor]:
        alpha, root = _per_term(self.alpha, terms), _root(eta)
        shrunk, grown = _screened_pair(alpha, terms.r, eta)
        value = 0.5 * (shrunk + grown) / terms.r
        c = alpha / (2 * root)
        gaussian = 2 / math.sqrt(math.pi) * root * _exp(-c * c) * terms.gauss
        return value, (0.5 * alpha * (grown - shrunk) - gaussian - value) / terms.r2

    def reciprocal(self, g2: Tensor, eta: float | Tensor, volume: Tensor) -> Tensor:
        return self.reciprocal_slope(g2, eta, volume)[0]

    def reciprocal_slope(self, g2: Tensor, eta: float | Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        alpha = _per_crystal(self.alpha)
        c = g2 + alpha * alpha
        scaled = c / (4 * eta)
        value = 4 * math.pi / volume * torch.exp(-scaled) / c
        return value, -value * (1 + scaled) / c

    def background(self, eta: float | Tensor, volume: Tensor) -> Tensor:
        return _at_zero(self, eta, volume)

    def origin(self, eta: float | Tensor) -> float | Tensor:
        root = _root(eta)
        c = self.alpha / (2 * root)
        return 2 / math.sqrt(math.pi) * root * _exp(-c * c) - self.alpha * _erfc(c)

    def real_upper(self, r: Tensor, eta: Tensor) -> Tensor:
        root, c = eta.sqrt(), self.alpha / (2 * eta.sqrt())
        grown = torch.exp((self.alpha * r).clamp(max=_MAX_EXPONENT[torch.float64])) * torch.erfc(root * r + c)
        return 0.5 * (torch.exp(-self.alpha * r) * torch.erfc(root * r - c) + grown) / r

    def reciprocal_upper(self, g: Tensor, eta: Tensor, volume: Tensor) -> Tensor:
        c = g * g + self.alpha * self.alpha
        return 4 * math.pi / volume * torch.exp(-c / (4 * eta)) / c


def _per_term(alpha: float | Tensor, terms: RealTerms) -> float | Tensor:
    return alpha[terms.crystal].to(terms.r.dtype) if isinstance(alpha, Tensor) and alpha.ndim else alpha


def _per_crystal(alpha: float | Tensor) -> float | Tensor:
    return alpha[:, None] if isinstance(alpha, Tensor) and alpha.ndim else alpha


def _at_zero(kernel: Kernel, eta: float | Tensor, volume: Tensor) -> Tensor:
    """F(0) of a kernel whose reciprocal part is finite there, (b,)."""
    column = eta[:, None] if isinstance(eta, Tensor) and eta.ndim else eta
    return kernel.reciprocal(torch.zeros_like(volume)[:, None], column, volume[:, None])[:, 0]


def _screened_pair(alpha: float | Tensor, r: Tensor, eta: float | Tensor) -> tuple[Tensor, Tensor]:
    """exp(-αr) erfc(√eta r - α/2√eta) and exp(αr) erfc(√eta r + α/2√eta), (T,) each.

    The second product is at most exp(-αr), by (√eta r + α/2√eta)² >= 2αr: below exp(-700), in float32
    below exp(-80), wherever the exponent has to be clamped, so the clamp loses nothing.
    """
    root = _root(eta)
    scaled, shift, exponent = root * r, alpha / (2 * root), alpha * r
    shrunk = torch.exp(-exponent) * torch.erfc(scaled - shift)
    grown = torch.exp(exponent.clamp(max=_MAX_EXPONENT[exponent.dtype])) * torch.erfc(scaled + shift)
    return shrunk, grown
