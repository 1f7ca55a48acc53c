"""Slow and obvious lattice sums, against which `potnet.lattice` is proven.

Nothing here uses the package or its formulas: plain numpy in extended precision (`numpy.longdouble`, 80
bits on x86; where it is no wider than float64, `REFERENCE_EPS` says so and the tests' tolerances follow),
one pair of atoms at a time.

- `quadrature_sums`: every potential as a numerical integral over Gaussians. Exponential integrals, error
  functions and incomplete gamma functions, on which the fast code rests, do not occur.
- `brute_force`: images in a ball, for potentials that fall fast enough.
- `coulomb_by_planes`: 1/r by lattice planes, in which no Gaussian and no splitting parameter occur.

A potential is a `Spec`: a list of coefficients and elementary functions, such as `("power", 0.5)`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Real = np.longdouble
Array = NDArray[np.longdouble]

REFERENCE_EPS = float(np.finfo(Real).eps)
PI = Real("3.14159265358979323846264338327950288")
# exp(-_NEGLIGIBLE) = 2e-26 is beyond what any comparison here can see.
_NEGLIGIBLE = 59.0


@dataclass(frozen=True)
class Spec:
    """A potential as a sum of coefficient * function.

    Attributes:
        terms: (coefficient, kind, parameter); kind is "power" (r^-2p, parameter p), "exponential"
            (exp(-alpha r)) or "screened" (exp(-alpha r) / r), parameter alpha in 1/Å.
        self_term: Added for an atom with itself.
    """

    terms: tuple[tuple[float, str, float], ...]
    self_term: float = 0.0


def power(p: float) -> Spec:
    """1 / r^(2p)."""
    return Spec(((1.0, "power", p),))


def exponential(alpha: float, self_term: float = 0.0) -> Spec:
    """exp(-alpha r)."""
    return Spec(((1.0, "exponential", alpha),), self_term)


def screened(alpha: float) -> Spec:
    """exp(-alpha r) / r."""
    return Spec(((1.0, "screened", alpha),))


def lennard_jones(sigma: float) -> Spec:
    """(sigma/r)^12 - (sigma/r)^6."""
    return Spec(((sigma**12, "power", 6.0), (-(sigma**6), "power", 3.0)))


def morse(alpha: float, r_e: float) -> Spec:
    """exp(-2 alpha (r - r_e)) - 2 exp(-alpha (r - r_e))."""
    growth = np.exp(Real(alpha) * Real(r_e))
    return Spec(
        ((growth**2, "exponential", 2 * alpha), (-2 * growth, "exponential", alpha))  # type: ignore[arg-type]
    )


def value(kind: str, parameter: float, r: Array) -> Array:
    """An elementary function at distances r in Å."""
    if kind == "power":
        return r ** (-2 * Real(parameter))
    decay = np.exp(-Real(parameter) * r)
    return decay / r if kind == "screened" else decay


def gaussian_weight(kind: str, parameter: float, t: Array) -> Array:
    """w(t) of phi(r) = ∫_0^∞ w(t) exp(-t r²) dt.

    Powers: the definition of Γ(p). The others, with a = r² and b = alpha²/4 (Gradshteyn and Ryzhik 3.471.9):
    ∫ t^(-1/2) exp(-a t - b/t) dt = √(π/a) exp(-2 √(a b)), and with t^(-3/2) the same with √(π/b).
    """
    if kind == "power":
        return t ** (Real(parameter) - 1) / _gamma(parameter)
    alpha = Real(parameter)
    decay = np.exp(-alpha * alpha / (4 * t)) / np.sqrt(PI)
    return decay / np.sqrt(t) if kind == "screened" else decay * alpha / (2 * t * np.sqrt(t))


def _gamma(p: float) -> Real:
    """Γ(p), for integer and half-integer p > 0 in extended precision, else in float64."""
    if (2 * p) % 1:
        return Real(math.gamma(p))
    result, q = (Real(1), 1.0) if p == int(p) else (np.sqrt(PI), 0.5)
    while q < p:
        result, q = result * Real(q), q + 1
    return result


# -------------------------------------------------------------------- lattices


def _inverse(cell: Array) -> Array:
    a, b, c = cell
    columns = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], 1)
    return columns / np.dot(a, np.cross(b, c))


def shortened(cell: Array) -> Array:
    """The same lattice with shorter vectors: subtract multiples of one from another while that helps.

    Only for speed: `points` is right for any basis.
    """
    cell = np.array(cell, dtype=Real)
    improved = True
    while improved:
        improved = False
        for i, j in itertools.permutations(range(3), 2):
            step = np.rint(np.dot(cell[i], cell[j]) / np.dot(cell[j], cell[j]))
            shorter = cell[i] - step * cell[j]
            if np.dot(shorter, shorter) < np.dot(cell[i], cell[i]) * (1 - Real(1e-12)):
                cell[i], improved = shorter, True
    return cell


def points(cell: Array, centre: Array, radius: float) -> Array:
    """All x = centre + k cell with |x| <= radius, nearest first, (K, 3)."""
    inverse = _inverse(cell)
    middle = -(centre @ inverse)
    reach = radius * np.sqrt((inverse**2).sum(0))
    # One more than needed on each side, for rounding.
    ranges = [
        np.arange(math.floor(m - r) - 1, math.ceil(m + r) + 2) for m, r in zip(middle, reach, strict=True)
    ]
    kept = []
    for i in ranges[0]:  # slice by slice, so that memory stays small
        grid = np.stack(np.meshgrid([i], ranges[1], ranges[2], indexing="ij"), -1).reshape(-1, 3)
        # A quick look in float64 first.
        rough = centre.astype(float) + grid @ cell.astype(float)
        grid = grid[(rough**2).sum(1) <= (radius * (1 + 1e-9) + 1e-9) ** 2]
        kept.append(centre + grid.astype(Real) @ cell)
    found = np.concatenate(kept)
    squared = (found**2).sum(1)
    inside = squared <= Real(radius) ** 2
    return found[inside][np.argsort(squared[inside], kind="stable")]


def _wrapped(v: Array, cell: Array) -> Array:
    return v - np.rint(v @ _inverse(cell)) @ cell


# ----------------------------------------------------------------- brute force


def brute_force(cell: Array, v: Array, specs: Sequence[Spec], radius: float) -> tuple[Array, Array]:
    """Sums over the images within `radius`, and a bound of what lies beyond, (P,) each.

    The tail: each image is the centre of a copy of the cell, no point of which is farther from it than half
    the sum d of the edges; so a decreasing phi summed beyond R is at most (1/V) ∫ over |y| > R - d of
    phi(|y| - d), done numerically.

    Args:
        cell: (3, 3) Å, rows.
        v: (3,) x_a - x_b in Å; zero for an atom with itself.
        specs: P potentials.
        radius: Å.
    """
    cell = shortened(np.asarray(cell, Real))
    v = _wrapped(np.asarray(v, Real), cell)
    itself = bool(np.all(v == 0))
    r = np.sqrt((points(cell, v, radius) ** 2).sum(1))
    r = r[r > 0] if itself else r
    volume = abs(np.dot(cell[0], np.cross(cell[1], cell[2])))
    radius_of_cell = np.sqrt((cell**2).sum(1)).sum() / 2
    s = np.geomspace(max(radius - 2 * radius_of_cell, Real(radius) / 10), 1e4 * radius, 20001, dtype=Real)
    sums, tails = [], []
    for spec in specs:
        sums.append(
            sum(Real(c) * value(kind, q, r).sum() for c, kind, q in spec.terms)
            + itself * Real(spec.self_term)
        )
        integrand = (
            sum(abs(Real(c)) * value(kind, q, s) for c, kind, q in spec.terms) * (s + radius_of_cell) ** 2
        )
        tails.append(4 * PI / volume * np.sum(integrand[:-1] * np.diff(s)))
    return np.array(sums, Real), np.array(tails, Real)


# --------------------------------------------------- theta-function quadrature


def _gauss_legendre(count: int) -> tuple[Array, Array]:
    """Nodes and weights on [-1, 1] in extended precision: numpy's nodes, polished by Newton steps."""
    x = np.polynomial.legendre.leggauss(count)[0].astype(Real)
    for _ in range(3):
        previous, current = np.ones_like(x), x.copy()
        for k in range(2, count + 1):
            previous, current = current, ((2 * k - 1) * x * current - (k - 1) * previous) / k
        derivative = count * (x * current - previous) / (x * x - 1)
        x = x - current / derivative
    return x, 2 / ((1 - x * x) * derivative**2)


def quadrature_sums(
    cell: Array, vectors: Array, specs: Sequence[Spec], nodes: int = 18, panel: float = 0.5
) -> tuple[Array, Array]:
    """S(v) = ∫_0^∞ w(t) [Θ(t, v) - (v = 0)] dt with Θ = sum over k of exp(-t |v + k L|²), by Gauss-Legendre
    panels in log t.

    Θ is summed as it stands for large t, and by Poisson's formula, (π/t)^(3/2) / V sum over G of cos(G v)
    exp(-G²/4t), for small t. Below the first panel only G = 0 is left; for powers that part is integrated
    by hand, which for p < 3/2 is the analytic continuation (a uniform neutralising background).

    Args:
        cell: (3, 3) Å, rows; any basis of the lattice.
        vectors: (m, 3) x_a - x_b, Å; exactly zero for an atom with itself.
        specs: P potentials.
        nodes: Points in each panel.
        panel: Width of the panels in log t.

    Returns:
        Sums (m, P) and their scale (m, P): the integral of absolute values, times which `REFERENCE_EPS` is
        the order of the error by rounding.
    """
    cell = shortened(np.asarray(cell, Real))
    vectors = np.atleast_2d(np.asarray(vectors, Real))
    volume = abs(np.dot(cell[0], np.cross(cell[1], cell[2])))
    dual = shortened(2 * PI * _inverse(cell).T)
    zero = np.zeros(3, Real)
    reciprocal_shortest = math.sqrt(float((dual**2).sum(1).min()))
    alphas = [q for spec in specs for _, kind, q in spec.terms if kind != "power"]

    low = reciprocal_shortest**2 / (4 * _NEGLIGIBLE)
    for alpha in alphas:  # the weights of the others vanish here
        low = min(low, alpha**2 / (4 * _NEGLIGIBLE + 40))
    # Where both forms of the sum need about as many terms.
    switch = math.pi / float(volume) ** (2 / 3)
    low = min(low, switch / 4)
    waves = points(dual, zero, math.sqrt(4 * switch * math.exp(panel) * _NEGLIGIBLE))
    g2 = (waves**2).sum(1)

    x, weight = _gauss_legendre(nodes)
    kinds = sorted({(kind, q) for spec in specs for _, kind, q in spec.terms})
    results, scales = [], []
    for v in vectors:
        itself = bool(np.all(v == 0))
        v = v if itself else _wrapped(v, cell)
        images = points(cell, v, math.sqrt(_NEGLIGIBLE / switch * math.exp(panel)))
        r2 = (images**2).sum(1)
        r2 = r2[r2 > 0] if itself else r2
        nearest = float(r2[0]) if len(r2) else float((cell**2).sum(1).min())
        high = max(_NEGLIGIBLE / nearest, 2 * switch)
        panels = math.ceil((math.log(high) - math.log(low)) / panel)
        edges = np.linspace(Real(math.log(low)), Real(math.log(high)), panels + 1)
        phases = np.cos(waves @ v)
        sums = dict.fromkeys(kinds, Real(0))
        absolute = dict.fromkeys(kinds, Real(0))
        for left, right in itertools.pairwise(edges):
            t = np.exp((left + right) / 2 + (right - left) / 2 * x)
            if t[0] > switch:
                near = r2[: np.searchsorted(r2, _NEGLIGIBLE / t[0], side="right")]
                theta = np.exp(-t[:, None] * near).sum(1)
            else:
                used = np.searchsorted(g2, 4 * t[-1] * _NEGLIGIBLE, side="right")
                theta = (
                    (PI / t) ** Real(1.5) / volume * (np.exp(-g2[:used] / (4 * t[:, None])) @ phases[:used])
                )
                theta = theta - itself
            measure = weight * (right - left) / 2 * t
            for kind, q in kinds:
                terms = gaussian_weight(kind, q, t) * theta * measure
                sums[kind, q] += terms.sum()
                absolute[kind, q] += abs(terms).sum()
        start = np.exp(edges[0])
        for kind, q in kinds:
            if kind == "power":
                background = PI ** Real(1.5) / volume / _gamma(q) * start ** Real(q - 1.5) / Real(q - 1.5)
                origin = start ** Real(q) / _gamma(q + 1) if itself else Real(0)
                sums[kind, q] += background - origin
                absolute[kind, q] += abs(background) + origin
        for spec in specs:
            results.append(
                sum(Real(c) * sums[kind, q] for c, kind, q in spec.terms) + itself * Real(spec.self_term)
            )
            scales.append(sum(abs(Real(c)) * absolute[kind, q] for c, kind, q in spec.terms))
    shape = (len(vectors), len(specs))
    return np.array(results, Real).reshape(shape), np.array(scales, Real).reshape(shape)


# -------------------------------------------------------------- lattice planes


def coulomb_by_planes(cell: Array, v: Array, decay: float = 46.0) -> Real:
    """1/r with a uniform neutralising background, summed over lattice planes.

    The planes are spanned by two lattice vectors (area A, distance h). With z in (0, h) the height of v
    over its plane and s the shift of the next plane, a plane's potential is a sum over its in-plane
    reciprocal vectors g (Parry 1975; Heyes 1977):

        g ≠ 0:  2π / (A |g|) cos(g ρ) exp(-|g| |z|), a geometric series over the planes
        g = 0:  2π / A (h/6 - z + z²/h) for all planes and the background, whose mean over the cell is zero

    For v = 0, where the series does not converge, scaling helps: S_2L(0) = S_L(0) / 2, and the lattice is
    the union of eight shifted ones twice as coarse, so S_L(0) = 2 sum over t in {0,1}³, t ≠ 0, of S_2L(t L).

    Args:
        cell: (3, 3) Å, rows.
        v: (3,) Å.
        decay: In-plane vectors are summed while |g| times the distance from the nearest plane is below this.
    """
    cell = shortened(np.asarray(cell, Real))
    v = np.asarray(v, Real)
    fractional = v @ _inverse(cell)
    if np.all(abs(fractional - np.rint(fractional)) < 1e-15):
        steps = [np.array(t, Real) for t in itertools.product((0, 1), repeat=3) if any(t)]
        return 2 * sum(coulomb_by_planes(2 * cell, t @ cell, decay) for t in steps)  # type: ignore[return-value]

    def distance(axis: int) -> Real:
        """Of v from the nearest of the planes spanned by the other two vectors."""
        part = abs(fractional[axis] - np.rint(fractional[axis]))
        return part / np.sqrt((_inverse(cell)[:, axis] ** 2).sum())

    axis = max(range(3), key=distance)
    a, b, c = cell[(axis + 1) % 3], cell[(axis + 2) % 3], cell[axis]
    normal = np.cross(a, b)
    area = np.sqrt((normal**2).sum())
    normal = normal / area
    if np.dot(c, normal) < 0:
        normal = -normal
    h, v = np.dot(c, normal), v - np.floor(fractional[axis]) * c
    z = np.dot(v, normal)
    frame = np.stack([a, b, normal])
    dual = 2 * PI * _inverse(frame).T[:2]
    largest = decay / float(min(z, h - z))
    reach = [int(largest * float(np.sqrt(np.dot(w, w))) / (2 * math.pi)) + 1 for w in (a, b)]
    total = 2 * PI / area * (h / 6 - z + z * z / h)
    for i in range(-reach[0], reach[0] + 1):
        g = np.array([[i, j] for j in range(-reach[1], reach[1] + 1) if (i, j) != (0, 0)], Real) @ dual
        length = np.sqrt((g**2).sum(1))
        g, length = g[length <= largest], length[length <= largest]
        decayed, along, shift = np.exp(-length * h), g @ v, g @ c
        # Planes at and below: the image at height z + k h, k >= 0; above: at h - z + k h.
        below = _geometric(np.exp(-length * z), along, decayed, shift, first=0)
        above = _geometric(np.exp(-length * (h - z)), along, decayed, -shift, first=1)
        total = total + (2 * PI / (area * length) * (below + above)).sum()
    return total


def _geometric(amplitude: Array, angle: Array, ratio: Array, shift: Array, first: int) -> Array:
    """Re of sum over k >= 0 of amplitude exp(i (angle + (k + first) shift)) ratio^k."""
    start = angle + first * shift
    real, imaginary = 1 - ratio * np.cos(shift), -ratio * np.sin(shift)
    return amplitude * (np.cos(start) * real + np.sin(start) * imaginary) / (real**2 + imaginary**2)
