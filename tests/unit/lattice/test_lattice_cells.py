"""Lattice reduction, heights, and lists of lattice points."""

import itertools

import numpy as np
import pytest
import torch
from lattice_cases import from_parameters, named_cases, random_cases, unimodular
from lattice_reference import Real, points, shortened

from potnet.lattice import cells

CELLS = [case.cell for case in [*named_cases(), *random_cases(20, seed=31, most_atoms=1)]]


def batch_of(arrays):
    return torch.from_numpy(np.stack(arrays))


def skewed(count, seed, steps, largest):
    rng = np.random.default_rng(seed)
    return [unimodular(rng, steps, largest) @ CELLS[int(rng.integers(len(CELLS)))] for _ in range(count)]


def check_reduced(cell, tolerance):
    transform = cells.reduce(cell)
    assert torch.equal(transform, transform.round())
    # Determinants of small integers in int64: no rounding to hide behind.
    for matrix in transform.to(torch.int64).tolist():
        (a, b, c), (d, e, f), (g, h, i) = matrix
        assert a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) in (1, -1)
    short = transform @ cell
    lengths = short.norm(dim=-1)
    assert bool((lengths.diff(dim=1) >= -tolerance * lengths[:, 1:]).all())
    # Minkowski: b_i is no longer than b_i plus any integers times the vectors before it.
    for i in (1, 2):
        for steps in itertools.product((-2, -1, 0, 1, 2), repeat=i):
            other = short[:, i] + sum(s * short[:, j] for j, s in enumerate(steps))
            assert bool((other.norm(dim=-1) >= lengths[:, i] * (1 - tolerance)).all())
    return short


def test_reduced_cells_are_minkowski_short():
    check_reduced(batch_of(CELLS), 1e-9)


@pytest.mark.parametrize(("steps", "largest", "tolerance"), [(4, 2, 1e-9), (6, 5, 1e-8), (12, 3, 1e-4)])
def test_skewed_cells_are_found_again(steps, largest, tolerance):
    cell = batch_of(skewed(60, 41, steps, largest))
    short = check_reduced(cell, tolerance)
    # Same volume, and the same shortest vectors as another algorithm finds.
    volume = torch.linalg.det(short).abs()
    for number in range(0, 60, 7):
        reference = np.sort(
            np.linalg.norm(shortened(cell[number].numpy().astype(Real)), axis=1).astype(float)
        )
        assert np.all(short[number].norm(dim=-1).numpy() <= reference * (1 + tolerance))
    assert bool((volume > 0).all())


def test_cells_with_angles_of_10_and_170_degrees():
    angles = [
        (10, 90, 90),
        (90, 10, 92),
        (88, 91, 10),
        (170, 90, 90),
        (90, 170, 91),
        (89, 90, 170),
        (10, 15, 12),
    ]
    cell = batch_of([from_parameters(3.0, 20.0, 57.0, *angle) for angle in angles])
    short = check_reduced(cell, 1e-9)
    assert float((torch.linalg.det(short).abs() / torch.linalg.det(cell).abs() - 1).abs().max()) < 1e-12


def test_ties_end():
    """Lattices with many equally short vectors, also rounded ones."""
    cubic = np.eye(3)
    fcc, bcc = 1 - cubic, 1 - 2 * cubic
    hexagonal = from_parameters(1, 1, 1, 90, 90, 120)
    rng = np.random.default_rng(0)
    lattices = [cubic, fcc, bcc, hexagonal, from_parameters(1, 1, 1, 60, 60, 60)]
    wobbly = [lattice + 1e-15 * rng.normal(size=(3, 3)) for lattice in lattices for _ in range(20)]
    check_reduced(batch_of([3.7 * lattice for lattice in [*lattices, *wobbly]]), 1e-9)


def test_one_bad_cell_does_not_change_the_others():
    alone = cells.reduce(batch_of(CELLS[:3]))
    together = cells.reduce(batch_of([*CELLS[:3], *skewed(4, 3, 10, 4)]))
    assert torch.equal(alone, together[:3])


def test_heights():
    cell = batch_of(CELLS)
    heights = cells.heights(cell)
    r = torch.linalg.qr(cell.transpose(1, 2)).R
    assert torch.allclose(heights, r.diagonal(dim1=1, dim2=2).abs(), rtol=1e-10)
    assert torch.allclose(heights.prod(-1), torch.linalg.det(cell).abs(), rtol=1e-12)


@pytest.mark.parametrize("half", [False, True])
def test_points_within(half):
    rng = np.random.default_rng(9)
    basis = torch.cat([cells.reduce(c[None]) @ c for c in batch_of(CELLS)])[:24]
    radius = torch.from_numpy(rng.uniform(0.1, 9.0, len(basis)))
    index, mask = cells.points_within(basis, radius, half=half)
    for number in range(len(basis)):
        found = {tuple(k) for k in index[number][mask[number]].to(torch.int64).tolist()}
        cell = basis[number].numpy().astype(Real)
        all_points = points(cell, np.zeros(3, Real), float(radius[number]))
        wanted = {
            tuple(k)
            for k in np.rint((all_points @ np.linalg.inv(basis[number].numpy())).astype(float))
            .astype(int)
            .tolist()
        }
        assert len(found) == int(mask[number].sum())  # none twice
        if half:
            wanted.discard((0, 0, 0))
            assert not found & {tuple(-i for i in k) for k in found}
            assert found | {tuple(-i for i in k) for k in found} == wanted
        else:
            assert found == wanted


def test_no_points_in_a_small_ball():
    basis = batch_of(CELLS[:2])
    index, mask = cells.points_within(basis, torch.full((2,), 1e-3, dtype=torch.float64), half=True)
    assert index.shape == (2, 0, 3)
    assert mask.shape == (2, 0)
    index, mask = cells.points_within(basis, torch.full((2,), 1e-3, dtype=torch.float64))
    assert index.tolist() == [[[0, 0, 0]], [[0, 0, 0]]]


def test_inverse_and_volume():
    generator = torch.Generator().manual_seed(5)
    cell = torch.randn(40, 3, 3, dtype=torch.float64, generator=generator)
    assert torch.allclose(cells.inverse(cell), torch.linalg.inv(cell), rtol=1e-10, atol=1e-12)
    assert torch.allclose(cells.volume(cell), torch.linalg.det(cell).abs(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("half", [False, True])
def test_points_are_the_same_whether_counts_are_known(half):
    """Cells of very different size in one batch, one of them without a point but the origin."""
    scale = torch.tensor([1.0, 0.3, 40.0, 2.0], dtype=torch.float64)[:, None, None]
    skewed = torch.tensor([[1.0, 0.2, 0.1], [0.3, 1.4, 0.2], [0.5, 0.1, 2.0]], dtype=torch.float64)
    basis, radius = scale * skewed, torch.tensor([2.5, 1.0, 3.0, 4.0], dtype=torch.float64)
    found, mask = cells.points_within(basis, radius, half)
    largest = [int(x) + 1 for x in cells.reach(basis, radius).amax(0)]
    known, others = cells.points_within(basis, radius, half, largest=largest, width=90)
    grid = torch.cartesian_prod(*[torch.arange(-12.0, 13, dtype=torch.float64)] * 3)
    for i in range(4):
        expected = set(map(tuple, grid[(grid @ basis[i]).norm(dim=-1) <= radius[i]].tolist()))
        if half:
            expected = {k for k in expected if k > (0.0, 0.0, 0.0)}
        for coordinates, counts in ((found, mask), (known, others)):
            listed = [tuple(0.0 + x for x in k) for k in coordinates[i][counts[i]].tolist()]
            assert len(listed) == len(expected)
            assert set(listed) == expected
