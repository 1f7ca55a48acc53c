"""Closed forms of the kernels and special functions, against mpmath and against numerical integrals."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from lattice_cases import POTENTIALS
from lattice_reference import _gauss_legendre, gaussian_weight, value

from potnet.lattice import potentials, special
from potnet.lattice.potentials import ExponentialKernel, PowerKernel, RealTerms, ScreenedKernel

KERNELS = [
    *((PowerKernel(p), "power", p) for p in (0.5, 1.0, 2.0, 2.5, 3.0, 3.5, 6.0, 7.5, 12.0)),
    *((ExponentialKernel(a), "exponential", a) for a in (0.05, 1.0, 3.0, 50.0)),
    *((ScreenedKernel(a), "screened", a) for a in (0.05, 1.0, 3.0, 50.0)),
]
IDS = [str(kernel) for kernel, _, _ in KERNELS]


def integral(kind, parameter, low, high, function):
    """∫ w(t) f(t) dt over [low, high] by panels in log t."""
    x, weight = _gauss_legendre(20)
    edges = np.linspace(np.log(np.longdouble(low)), np.log(np.longdouble(high)), 120)
    total = 0
    for a, b in itertools.pairwise(edges):
        t = np.exp((a + b) / 2 + (b - a) / 2 * x)
        total += (weight * (b - a) / 2 * t * gaussian_weight(kind, parameter, t) * function(t)).sum()
    return float(total)


def terms(r, eta):
    r = torch.tensor(r, dtype=torch.float64)
    return RealTerms(r, r * r, eta * r * r, torch.exp(-eta * r * r), torch.zeros(len(r), dtype=torch.int64))


@pytest.mark.parametrize(("kernel", "kind", "parameter"), KERNELS, ids=IDS)
def test_values(kernel, kind, parameter):
    r = np.geomspace(0.3, 15.0, 40)
    expected = value(kind, parameter, r.astype(np.longdouble)).astype(float)
    assert np.allclose(kernel.value(torch.from_numpy(r)).numpy(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("eta", [0.01, 0.3, 4.0])
@pytest.mark.parametrize(("kernel", "kind", "parameter"), KERNELS, ids=IDS)
def test_real_part(kernel, kind, parameter, eta):
    """∫_eta^∞ w(t) exp(-t r²) dt"""
    for r in (0.4, 1.0, 2.5, 6.0):
        expected = integral(
            kind, parameter, eta, 60 / r**2 + 2 * eta + 60 / r, lambda t, r=r: np.exp(-t * r * r)
        )
        found = float(kernel.real(terms([r], eta), eta))
        # Where alpha is small the difference of two numbers near 1/2 is exact to rounding, not to its own
        # digits.
        assert found == pytest.approx(expected, rel=1e-11, abs=1e-16)


@pytest.mark.parametrize("eta", [0.01, 0.3, 4.0])
@pytest.mark.parametrize(("kernel", "kind", "parameter"), KERNELS, ids=IDS)
def test_reciprocal_part(kernel, kind, parameter, eta):
    """∫_0^eta w(t) (π/t)^(3/2) / V exp(-G²/4t) dt"""
    volume = torch.tensor([[37.0]], dtype=torch.float64)
    size = abs(float(kernel.background(eta, volume[0])))
    for g in (0.1, 0.5, 1.3, 4.0):
        low = min(g * g / 240, eta / 2)
        if kind != "power":
            low = min(low, parameter**2 / 400)
        expected = integral(
            kind, parameter, low, eta, lambda t, g=g: (np.pi / t) ** 1.5 / 37.0 * np.exp(-(g * g) / (4 * t))
        )
        found = float(kernel.reciprocal(torch.tensor([[g * g]], dtype=torch.float64), eta, volume))
        assert found == pytest.approx(expected, rel=1e-11, abs=1e-14 * size)


@pytest.mark.parametrize(("kernel", "kind", "parameter"), KERNELS, ids=IDS)
def test_background_and_origin(kernel, kind, parameter):
    """F(0), and ∫_0^eta w(t) dt; both integrals converge at 0 for p > 3/2 and p > 0."""
    eta, volume = 0.4, torch.tensor([37.0], dtype=torch.float64)
    low = 1e-30 if kind == "power" else parameter**2 / 600
    if kind != "power" and low >= eta:
        return
    # Below `low` a power leaves low^p / Γ(p + 1); for p = 1/2 that is not nothing.
    rest = low**parameter / math.gamma(parameter + 1) if kind == "power" else 0.0
    expected = integral(kind, parameter, low, eta, np.ones_like) + rest
    assert float(kernel.origin(eta)) == pytest.approx(expected, rel=1e-11)
    if kind != "power" or parameter > 1.5:
        expected = integral(kind, parameter, low, eta, lambda t: (np.pi / t) ** 1.5 / 37.0)
        assert float(kernel.background(eta, volume)) == pytest.approx(expected, rel=1e-11)
    else:
        # By analytic continuation: -∫_eta^∞, which converges.
        expected = -integral(kind, parameter, eta, 1e60, lambda t: (np.pi / t) ** 1.5 / 37.0)
        assert float(kernel.background(eta, volume)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("kernel", [k for k, _, _ in KERNELS], ids=IDS)
def test_far_and_steep_terms_are_finite(kernel):
    """exp(alpha r) overflows long before its product with erfc matters; gradients included."""
    r = torch.tensor([0.02, 5.0, 30.0, 200.0], dtype=torch.float64, requires_grad=True)
    for eta in (1e-4, 0.1, 100.0):
        found = kernel.real(
            RealTerms(r, r * r, eta * r * r, torch.exp(-eta * r * r), torch.zeros(4).long()), eta
        )
        (slope,) = torch.autograd.grad(found.sum(), r, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), r)
        assert bool(found.isfinite().all() & slope.isfinite().all() & curvature.isfinite().all())
        assert bool((found >= -1e-16).all())


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 6, 7.5, 12, 20])
def test_incomplete_gamma(p):
    x = torch.from_numpy(np.geomspace(1e-6, 300.0, 60))
    found = special.gamma_q(p, x, torch.exp(-x))
    expected = [float(mpmath.gammainc(p, mpmath.mpf(float(v)), regularized=True)) for v in x]
    assert np.allclose(found.numpy(), expected, rtol=2e-13, atol=1e-300)


@pytest.mark.parametrize("n", [0, 0.5, 1, 1.5, 2, 3, 4.5, 5, 6.5, 11.5])
def test_exponential_integral(n):
    """To rounding of its largest value in absolute terms, which is what sums need."""
    y = torch.from_numpy(np.concatenate([np.geomspace(1e-8, 60.0, 80), [1.9999999, 2.0, 2.0000001]]))
    found = special.exponential_integral(n, y)
    expected = np.array([float(mpmath.expint(n, mpmath.mpf(float(v)))) for v in y])
    assert np.all(abs(found.numpy() - expected) <= 2e-15 + 1e-14 * expected)


@pytest.mark.parametrize("n", [0.5, 1, 2, 4.5])
def test_exponential_integral_differentiates(n):
    y = torch.tensor([1e-3, 0.4, 1.999, 2.0, 2.001, 9.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(special.exponential_integral(n, y).sum(), y, create_graph=True)
    expected = [-float(mpmath.expint(n - 1, mpmath.mpf(float(v)))) for v in y.detach()]
    assert np.allclose(slope.detach().numpy(), expected, rtol=1e-9)
    (curvature,) = torch.autograd.grad(slope.sum(), y)
    expected = [float(mpmath.expint(n - 2, mpmath.mpf(float(v)))) for v in y.detach()]
    assert np.allclose(curvature.numpy(), expected, rtol=1e-7)


def test_potentials_are_their_formulas():
    r = np.geomspace(0.5, 12.0, 30)
    volume = torch.full((30,), 50.0, dtype=torch.float64)
    for potential, spec in POTENTIALS:
        parts = [np.longdouble(c) * value(kind, q, r.astype(np.longdouble)) for c, kind, q in spec.terms]
        found = potential.value(torch.from_numpy(r), volume).numpy()
        size = sum(abs(part) for part in parts).astype(float)
        assert np.all(abs(found - sum(parts).astype(float)) <= 1e-12 * size)


def test_published_alpha_depends_on_the_volume():
    volume = torch.tensor([1.0, 64.0, 729.0], dtype=torch.float64)
    found = potentials.Pauli(3.0, convention="published").value(torch.ones(3, dtype=torch.float64), volume)
    assert torch.allclose(found, torch.exp(-3.0 * volume ** (-1 / 6)), rtol=1e-14)
    assert potentials.Pauli(3.0, convention="published").self_term == 1.0
    assert potentials.Pauli(3.0).self_term == 0.0
