"""Special functions that torch lacks, written in differentiable torch operations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_EULER_GAMMA = 0.57721566490153286061
_SERIES_TERMS = 34
_FRACTION_TERMS = 40
_SPLIT = 2.0


def gamma_q(p: float, x: Tensor, gauss: Tensor) -> Tensor:
    """Regularised upper incomplete gamma function Γ(p, x) / Γ(p).

    Finite sums for integer p (DLMF 8.4.10) and half-integer p (8.8.9 with 8.4.6), all of positive terms;
    torch's own function for any other p.

    Args:
        p: Positive.
        x: Any shape, positive.
        gauss: exp(-x), which callers have at hand.

    Returns:
        Same shape as `x`.
    """
    if (2 * p) % 1:
        return torch.special.gammaincc(torch.full_like(x, p), x)
    if p == int(p):
        polynomial = torch.ones_like(x) / math.gamma(p)
        for k in range(int(p) - 2, -1, -1):
            polynomial = polynomial * x + 1.0 / math.factorial(k)
        return gauss * polynomial
    root = x.sqrt()
    terms = int(p - 0.5)
    if terms == 0:
        return torch.erfc(root)
    polynomial = torch.full_like(x, 1.0 / math.gamma(terms + 0.5))
    for j in range(terms - 2, -1, -1):
        polynomial = polynomial * x + 1.0 / math.gamma(j + 1.5)
    return torch.erfc(root) + gauss * root * polynomial


def exponential_integral(n: float, y: Tensor) -> Tensor:
    """Generalised exponential integral E_n(y) = ∫_1^∞ exp(-y t) t^-n dt.

    Args:
        n: Above -1.
        y: Any shape, positive.

    Returns:
        Same shape as `y`.
    """
    return exponential_integrals(n, y)[0]


def exponential_integrals(n: float, y: Tensor) -> tuple[Tensor, Tensor]:
    """E_n(y) and E_(n-1)(y), which is -dE_n/dy.

    Upward recursion E_(n+1) = (exp(-y) - y E_n) / n (DLMF 8.19.12) from E_1, or from the order in (-1, 1)
    that differs from n by an integer. The recursion keeps the absolute error near rounding; the relative
    error grows like y/n a step.

    Args:
        n: Above -1.
        y: Any shape, positive.

    Returns:
        Two tensors with the shape of `y`.
    """
    gauss = torch.exp(-y)
    if n == int(n):
        if n == 0:
            value = gauss / y
            return value, value * (1 + 1 / y)
        order, value, lower = 1.0, _e1(y), gauss / y
    elif (2 * n) % 1 == 0 and n > 0:
        order = 0.5
        value = math.sqrt(math.pi) * torch.erfc(y.sqrt()) / y.sqrt()
        lower = (gauss + 0.5 * value) / y
    else:
        order = n - math.floor(n) if n > 0 else n
        shape = 1.0 - order  # E_n(y) = y^(n-1) Γ(1 - n, y), DLMF 8.19.1
        value = y ** (-shape) * math.gamma(shape) * torch.special.gammaincc(torch.full_like(y, shape), y)
        lower = (gauss + shape * value) / y
    while order < n - 0.25:
        value, lower = (gauss - y * value) / order, value
        order += 1.0
    return value, lower


def _e1(y: Tensor) -> Tensor:
    """E_1(y): power series (DLMF 6.6.2) below 2, continued fraction (DLMF 6.9.1) above."""
    # Each branch sees arguments of its own range only, so that neither spoils the other's gradient.
    small = y.clamp(max=_SPLIT)
    series = -_EULER_GAMMA - small.log()
    term = torch.ones_like(small)
    for k in range(1, _SERIES_TERMS):
        term = term * (-small / k)
        series = series - term / k
    large = y.clamp(min=_SPLIT)
    fraction = large + (2 * _FRACTION_TERMS + 1)
    for k in range(_FRACTION_TERMS, 0, -1):
        fraction = large + (2 * k - 1) - k * k / fraction
    return torch.where(y < _SPLIT, series, torch.exp(-large) / fraction)
