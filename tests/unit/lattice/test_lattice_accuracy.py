"""True error <= bound <= accuracy, against sums that share no formula with the package."""

import numpy as np
import pytest
import torch
from lattice_cases import (
    ACCURACIES,
    POTENTIALS,
    Case,
    named_cases,
    pick,
    random_cases,
    scattered,
    some_pairs,
    tensors,
    truth,
)
from lattice_reference import Real, brute_force, exponential, power, screened

from potnet.lattice import Coulomb, InversePower, London, Pauli, ScreenedCoulomb, lattice_sums

POTENTIAL, SPEC = zip(*POTENTIALS, strict=True)
# Rounding: what may lift a bound over the accuracy, in units of eps times the absolute terms (steep
# potentials of far-apart coordinates amplify theirs: (r / phi) dphi/dr = 12 for 1/r^12, times 60 Å / 0.8 Å).
ROUNDING = 3e4 * np.finfo(float).eps


def check(cases, truths, potentials, accuracy, rounding=ROUNDING, **settings):
    """Sum a batch and compare every chosen pair; `truths` hold the columns of `potentials`.

    The bound may be above the accuracy by no more than `rounding` times the absolute terms.
    """
    sums = lattice_sums(*tensors(cases), potentials, accuracy, **settings)
    wanted = np.broadcast_to(np.asarray(accuracy, float), (len(potentials),))
    for number, (case, true) in enumerate(zip(cases, truths, strict=True)):
        bound = sums.bound[number].numpy()
        error = abs(pick(sums, cases, number, true.pairs) - true.values)
        wrong = error > bound + true.error
        assert not wrong.any(), report(case, potentials, error, bound, wrong, accuracy)
        permitted = wanted + rounding * true.scale.max(0)
        assert np.all(bound <= permitted), f"{case}: bound {bound} for accuracy {accuracy}"
        calm = true.scale.max(0) * rounding < 0.1 * wanted
        assert np.all(bound[calm] <= wanted[calm]), f"{case}: bound {bound} for accuracy {accuracy}"


def report(case, potentials, error, bound, wrong, accuracy):
    pair, column = np.argwhere(wrong)[0]
    return (
        f"{case}, {potentials[column]}, accuracy {accuracy}: error {float(error[pair, column]):.3g}"
        f" > bound {bound[column]:.3g} at checked pair {pair}"
    )


def prepare(cases, seed, count=3, specs=SPEC):
    rng = np.random.default_rng(seed)
    return [truth(case, list(specs), some_pairs(case, count, rng)) for case in cases]


@pytest.fixture(scope="module")
def named():
    cases = named_cases()
    return cases, prepare(cases, 1)


@pytest.fixture(scope="module")
def random():
    cases = random_cases(30, seed=3)
    return cases, prepare(cases, 2)


@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_named_cells(named, accuracy):
    check(*named, POTENTIAL, accuracy)


@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_random_cells(random, accuracy):
    check(*random, POTENTIAL, accuracy)


@pytest.mark.parametrize("column", range(len(POTENTIAL)), ids=[str(p) for p in POTENTIAL])
def test_alone_a_potential_sets_the_cutoffs(named, column):
    """In company the most demanding potential sets them, and the others are better than asked."""
    cases, _ = named
    some = slice(None, None, 2)
    alone = prepare(cases[some], 1, specs=[SPEC[column]])
    for accuracy in (1e-4, 1e-8, 1e-12):
        check(cases[some], alone, [POTENTIAL[column]], accuracy)


def test_each_potential_has_its_accuracy(random):
    cases, truths = random
    accuracy = [ACCURACIES[i % 5] for i in range(len(POTENTIAL))]
    check(cases, truths, POTENTIAL, accuracy)


@pytest.mark.parametrize("factor", [1 / 64, 1 / 8, 8.0, 64.0])
def test_forced_eta_keeps_the_bound(named, factor):
    """Far from the optimum sums are slow, and a large eta loses digits of high powers to cancellation: the
    bound tells.
    """
    cases, truths = named
    chosen = [
        i for i, case in enumerate(cases) if len(case.positions) <= 5 and abs(np.linalg.det(case.cell)) < 1500
    ]
    volume = torch.tensor([abs(np.linalg.det(cases[i].cell)) for i in chosen], dtype=torch.float64)
    eta = factor * torch.pi / volume ** (2 / 3)
    rounding = ROUNDING if factor < 10 else np.inf
    check(
        [cases[i] for i in chosen], [truths[i] for i in chosen], POTENTIAL, 1e-9, rounding=rounding, eta=eta
    )


@pytest.mark.parametrize("alpha", [0.05, 0.2, 8.0, 20.0])
def test_extreme_decay(alpha):
    cases = [case for case in named_cases() if len(case.positions) < 12]
    potentials = [Pauli(alpha=alpha), ScreenedCoulomb(alpha=alpha)]
    truths = prepare(cases, 4, specs=[exponential(alpha), screened(alpha)])
    for accuracy in (1e-4, 1e-8, 1e-12):
        check(cases, truths, potentials, accuracy)


def test_steep_decay_agrees_with_brute_force():
    """alpha = 50: too sharp for quadrature, and a few images are all there is."""
    cases = named_cases()
    sums = lattice_sums(*tensors(cases), [Pauli(alpha=50.0), ScreenedCoulomb(alpha=50.0)], 1e-12)
    for number, case in enumerate(cases):
        pairs = some_pairs(case, 4, np.random.default_rng(0))
        found = pick(sums, cases, number, pairs)
        radius = np.linalg.norm(case.cell, axis=1).sum() + 2.0
        for (a, b), value in zip(pairs, found, strict=True):
            v = case.positions[a].astype(Real) - case.positions[b].astype(Real)
            exact, tail = brute_force(case.cell, v, [exponential(50.0), screened(50.0)], radius)
            assert np.all(tail < 1e-30)
            assert np.all(abs(value - exact) <= sums.bound[number].numpy() + 1e-24)


def test_published_pauli():
    """alpha V^(-1/6), and 1 for an atom with itself: it depends on the cell."""
    cases = named_cases()[:10]
    sums = lattice_sums(*tensors(cases), [Pauli(alpha=3.0, convention="published")], 1e-11)
    for number, case in enumerate(cases):
        alpha = 3.0 * abs(np.linalg.det(case.cell)) ** (-1 / 6)
        pairs = some_pairs(case, 3, np.random.default_rng(0))
        true = truth(case, [exponential(alpha, self_term=1.0)], pairs)
        error = abs(pick(sums, cases, number, pairs) - true.values)
        # alpha itself is rounded.
        assert np.all(error <= sums.bound[number].numpy() + true.error + 1e-14 * true.scale)


@pytest.mark.parametrize("n", [100, 250])
def test_many_atoms(n):
    rng = np.random.default_rng(n)
    cell = (n * 12.0) ** (1 / 3) * (np.eye(3) + 0.25 * rng.normal(size=(3, 3)))
    case = Case(f"{n} atoms", cell, scattered(cell, n, rng))
    assert len(case.positions) == n
    check([case], prepare([case], 5, 4, SPEC[:6]), POTENTIAL[:6], 1e-9)


def test_bound_tells_where_rounding_exceeds_the_accuracy():
    """1/r^12 at 0.3 Å is 1.9e6: float64 cannot hold it to 1e-12, and the bound says so."""
    case = Case("0.3 A", 4.0 * np.eye(3), np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.6]]))
    potentials, specs = [InversePower(6.0), London(), Coulomb()], [power(6), power(3), power(0.5)]
    true = truth(case, specs, [(0, 1), (0, 0)])
    sums = lattice_sums(*tensors([case]), potentials, 1e-12)
    bound = sums.bound[0].numpy()
    error = abs(pick(sums, [case], 0, true.pairs) - true.values)
    assert np.all(error <= bound + true.error)
    assert bound[0] > 1e-10
    assert bound[2] <= 1e-12


@pytest.mark.parametrize("shift", [1e2, 1e4, 1e6])
def test_far_coordinates_are_part_of_the_bound(shift):
    """The last digit of a coordinate at 1e6 Å is 1e-10 Å: sums cannot be better than that, nor need they be
    much worse.
    """
    case = named_cases()[5]
    images = np.round(shift / 10) * (np.arange(26)[:, None] % 3) * case.cell.sum(0)
    far = Case("far", case.cell, case.positions + images)
    check([far], prepare([far], 6), POTENTIAL, 1e-12, rounding=5e-15 * shift + ROUNDING)


@pytest.mark.parametrize("accuracy", [1e-8, 1e-12])
def test_far_coordinates_in_a_skewed_cell(accuracy):
    """Vectors are moved by the reduced cell, which is rounded, thousands of times."""
    inner = np.array([[4.1, 0.2, 0.3], [0.1, 5.2, 0.4], [0.5, 0.3, 6.1]])
    cell = np.array([[8, 3, 0], [5, 2, 0], [7, 9, 1]]) @ inner
    positions = np.array([[0, 0, 0], [0.25, 0.02, 0.01]]) @ inner
    positions[1] += 10_000 * inner[0]
    case = Case("far and skewed", cell, positions)
    potentials, specs = [Coulomb(), London(), Pauli(alpha=3.0)], [power(0.5), power(3.0), exponential(3.0)]
    check([case], [truth(case, specs, [(0, 1), (0, 0)])], potentials, accuracy, rounding=1e-9)


def test_usual_crystals_reach_the_finest_accuracy():
    """The three potentials of PotNet at 1e-12, and no excuse of rounding."""
    cases = [case for case in named_cases() if "60" not in case.name]
    sums = lattice_sums(*tensors(cases), [Coulomb(), London(), Pauli(alpha=3.0)], 1e-12)
    assert float(sums.bound.amax()) <= 1e-12


def test_bounds_hold_without_gradients_too():
    cases = named_cases()[:3]
    with torch.inference_mode():
        sums = lattice_sums(*tensors(cases), POTENTIAL, 1e-8)
    assert torch.equal(sums.bound, lattice_sums(*tensors(cases), POTENTIAL, 1e-8).bound)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_random_cells(seed):
    cases = random_cases(60, seed)
    truths = prepare(cases, seed, count=5)
    for accuracy in ACCURACIES:
        check(cases, truths, POTENTIAL, accuracy)


@pytest.mark.slow
def test_500_atoms():
    rng = np.random.default_rng(500)
    cell = 18.0 * (np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
    case = Case("500 atoms", cell, scattered(cell, 500, rng))
    true = prepare([case], 5, 20, SPEC[:6])
    for accuracy in (1e-4, 1e-8, 1e-12):
        check([case], true, POTENTIAL[:6], accuracy)
