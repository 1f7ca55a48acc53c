"""What sums may not depend on: eta, the choice of cell, the order and company of crystals, rotation,
memory.
"""

import numpy as np
import pytest
import torch
from lattice_cases import POTENTIALS, Case, named_cases, random_cases, rotation, tensors, unimodular
from torch import Tensor

from potnet import lattice
from potnet.lattice import Coulomb, InversePower, London, Pauli, ScreenedCoulomb, lattice_sums

POTENTIAL = [potential for potential, _ in POTENTIALS]
CASES = [
    case for case in [*named_cases(), *random_cases(10, seed=51, most_atoms=12)] if len(case.positions) <= 12
]
ACCURACY = 1e-10


def sums_of(cases, potentials=POTENTIAL, accuracy=ACCURACY, **settings):
    return lattice_sums(*tensors(cases), potentials, accuracy, **settings)


def assert_close(first, second, cases):
    """Two results for the same crystals, atoms in the same order, differ by no more than their bounds."""
    sizes = [len(case.positions) ** 2 for case in cases]
    permitted = (first.bound + second.bound).repeat_interleave(torch.tensor(sizes), 0)
    excess = (first.values - second.values).abs() - permitted
    assert float(excess.amax()) <= 0


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_eta_does_not_matter(factor):
    cases = [case for case in CASES if len(case.positions) <= 6]
    volume = torch.tensor([abs(np.linalg.det(case.cell)) for case in cases], dtype=torch.float64)
    assert_close(sums_of(cases), sums_of(cases, eta=factor * torch.pi / volume ** (2 / 3)), cases)


def test_eta_may_be_one_number():
    cases = CASES[:2]
    whole = sums_of(cases, eta=torch.tensor([0.2, 0.2], dtype=torch.float64))
    assert torch.equal(sums_of(cases, eta=0.2).values, whole.values)


def test_choice_of_cell_does_not_matter():
    """Another basis, other images of the atoms, the other handedness."""
    rng = np.random.default_rng(1)
    moved = []
    for case in CASES:
        images = rng.integers(-3, 4, case.positions.shape) @ case.cell
        cell = unimodular(rng) @ case.cell
        moved.append(
            Case(case.name, cell[rng.permutation(3)] * rng.choice([-1, 1], (3, 1)), case.positions + images)
        )
    assert_close(sums_of(CASES), sums_of(moved), CASES)


def test_rotation_reflection_and_translation_do_not_matter():
    rng = np.random.default_rng(2)
    moved = []
    for number, case in enumerate(CASES):
        turn = rotation(rng) * (-1 if number % 2 else 1)
        moved.append(Case(case.name, case.cell @ turn, case.positions @ turn + rng.normal(size=3)))
    assert_close(sums_of(CASES), sums_of(moved), CASES)


def test_permutation_of_atoms_and_axes():
    rng = np.random.default_rng(3)
    case = next(case for case in CASES if len(case.positions) >= 8)
    n, order = len(case.positions), rng.permutation(len(case.positions))
    first = sums_of([case])
    second = sums_of([Case("permuted", case.cell[[2, 0, 1]], case.positions[order])])
    before = first.values.view(n, n, -1)[order][:, order]
    assert bool(((before - second.values.view(n, n, -1)).abs() <= first.bound + second.bound).all())


@pytest.mark.parametrize("multiples", [(1, 1, 2), (2, 2, 1)])
def test_supercells_add_up(multiples):
    """The sum over the copies b' of b of S(a, b') is S(a, b)."""
    shifts = np.array(list(np.ndindex(*multiples)))
    copies = len(shifts)
    for case in [case for case in CASES if len(case.positions) <= 5]:
        n = len(case.positions)
        big = Case(
            case.name,
            case.cell * np.array(multiples)[:, None],
            (case.positions[None] + (shifts @ case.cell)[:, None]).reshape(-1, 3),
        )
        small, large = sums_of([case]), sums_of([big])
        added = large.values.view(copies, n, copies, n, -1).sum(2)
        expected = small.values.view(1, n, n, -1)
        assert bool(((added - expected).abs() <= copies * large.bound + small.bound).all()), case.name


def test_symmetric_and_equal_on_the_diagonal():
    """S(a, b) = S(b, a), and every atom sees the same images of itself."""
    sums = sums_of(CASES)
    start = 0
    for case in CASES:
        n = len(case.positions)
        values = sums.values[start : start + n * n].view(n, n, -1)
        start += n * n
        assert torch.equal(values, values.transpose(0, 1))
        diagonal = values.diagonal().T
        assert torch.equal(diagonal, diagonal[:1].expand_as(diagonal))


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_scaling(scale):
    """Everything `scale` times larger: 1/r^2p by scale^-2p, decays with alpha / scale as they were."""
    cases = [case for case in CASES if np.linalg.norm(case.cell, axis=1).max() < 20]
    larger = [Case(case.name, case.cell * scale, case.positions * scale) for case in cases]
    powers = [0.5, 1.0, 2.5, 3.0, 6.0]
    decays = [
        (1.0, Pauli(3.0), Pauli(3.0 / scale)),
        (scale, ScreenedCoulomb(0.8), ScreenedCoulomb(0.8 / scale)),
    ]
    before = sums_of(cases, [*[InversePower(p) for p in powers], *[d[1] for d in decays]])
    after = sums_of(larger, [*[InversePower(p) for p in powers], *[d[2] for d in decays]])
    factor = torch.tensor([*[scale ** (2 * p) for p in powers], *[d[0] for d in decays]], dtype=torch.float64)
    assert_close(before, after._replace(values=after.values * factor, bound=after.bound * factor), cases)


def test_potentials_are_linear_combinations():
    """Lennard-Jones and Morse are what their terms add up to; Coulomb and London are inverse powers."""
    sums = sums_of(
        CASES,
        [
            lattice.LennardJones(1.2),
            InversePower(6),
            InversePower(3),
            lattice.Morse(1.0, 1.5),
            Pauli(2.0),
            Pauli(1.0),
            Coulomb(),
            InversePower(0.5),
            London(),
        ],
    )
    lj, p6, p3, morse, steep, flat, coulomb, half, london = sums.values.unbind(1)
    assert torch.allclose(lj, 1.2**12 * p6 - 1.2**6 * p3, rtol=1e-12, atol=1e-11)
    assert torch.allclose(morse, np.exp(3.0) * steep - 2 * np.exp(1.5) * flat, rtol=1e-12, atol=1e-11)
    assert torch.equal(coulomb, half)
    assert torch.equal(london, p3)


def test_coulomb_and_other_continuations_average_to_zero():
    """The neutralising background: over all of a fine grid of positions 1/r sums to almost nothing."""
    cell = np.array([[3.0, 0.2, 0.0], [0.5, 3.3, 0.1], [0.0, 0.4, 2.8]])
    grid = np.array(list(np.ndindex(6, 6, 6))) / 6
    case = Case("grid", cell, grid @ cell)
    sums = sums_of([case], [Coulomb(), InversePower(1.0)])
    # The sum over a grid of N³ is that of a cell N times smaller, of its self pair: it scales as N.
    n = len(grid)
    fine = sums_of([Case("fine", cell / 6, np.zeros((1, 3)))], [Coulomb(), InversePower(1.0)])
    assert torch.allclose(sums.values.view(n, n, 2)[0].sum(0), fine.values[0], rtol=0, atol=n * 2e-10)


def rows(sums, cases):
    return sums.values.split([len(case.positions) ** 2 for case in cases])


def test_a_batch_equals_a_loop():
    together = sums_of(CASES)
    for case, values, bound in zip(CASES, rows(together, CASES), together.bound, strict=True):
        alone = sums_of([case])
        assert bool(((values - alone.values).abs() <= 1e-13 + 1e-13 * values.abs()).all())
        assert torch.allclose(bound, alone.bound[0], rtol=1e-6, atol=1e-30)


def test_pair_index_is_row_major():
    cases = CASES[:4]
    sums = sums_of(cases, [Coulomb()], 1e-4)
    start, expected = 0, []
    for case in cases:
        n = len(case.positions)
        expected += [(start + a, start + b) for a in range(n) for b in range(n)]
        start += n
    assert sums.pair_index.T.tolist() == [list(pair) for pair in expected]
    assert sums.pair_index.dtype == torch.int64
    assert sums.values.shape == (len(expected), 1)
    assert sums.bound.shape == (4, 1)
    assert sums.values.dtype == sums.bound.dtype == torch.float64


@pytest.mark.parametrize("memory_mib", [1e-4, 0.05, 1.0])
def test_chunks_do_not_matter(memory_mib):
    cases = [*CASES, named_cases()[5]]
    whole, parts = sums_of(cases, memory_mib=1024), sums_of(cases, memory_mib=memory_mib)
    assert bool(((whole.values - parts.values).abs() <= 1e-12 + 1e-12 * whole.values.abs()).all())
    assert_close(whole, parts, cases)


def test_float32_input_is_summed_in_float64():
    cell, positions, batch = tensors(CASES[:5])
    low = lattice_sums(cell.float(), positions.float(), batch, POTENTIAL, ACCURACY)
    same = lattice_sums(cell.float().double(), positions.float().double(), batch, POTENTIAL, ACCURACY)
    assert low.values.dtype == torch.float64
    assert torch.equal(low.values, same.values)


def test_inputs_stay_as_they_were():
    cell, positions, batch = tensors(CASES[:5])
    before: list[Tensor] = [x.clone() for x in (cell, positions, batch)]
    lattice_sums(cell, positions, batch, POTENTIAL, ACCURACY)
    assert all(torch.equal(x, y) for x, y in zip((cell, positions, batch), before, strict=True))


def test_repeated_calls_agree_to_the_last_bit():
    assert torch.equal(sums_of(CASES).values, sums_of(CASES).values)
