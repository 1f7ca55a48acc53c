"""Edges of many crystals at once against vesin's, crystal by crystal."""

import numpy as np
import pytest
import torch
from crystal_examples import NAMES, in_other_cell, named

from potnet.crystals import Crystal, batched_edges, local_edges

SKEWED = [[1, 0, 0], [2, 1, 0], [-1, 3, 1]]


def crystals():
    """Of 1 to 30 atoms; skewed, left-handed, nearly empty; atoms far outside the cell."""
    rng = np.random.default_rng(0)
    found = [named(name) for name in NAMES]
    found += [in_other_cell(named("quartz"), SKEWED)]
    for seed in range(12):
        n = 1 + seed % 7
        cell = np.diag(rng.uniform(3, 6, 3)) @ (np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
        cell = np.array(SKEWED) @ cell if seed % 3 == 0 else cell[[1, 0, 2]]
        places = rng.permutation(27)[:n]
        grid = np.stack(np.unravel_index(places, (3, 3, 3)), 1) / 3 + rng.uniform(-0.05, 0.05, (n, 3))
        found.append(Crystal.from_fractional(cell, grid + rng.integers(-2, 3, (n, 3)), np.full(n, 6)))
    found.append(Crystal(np.diag([4.0, 4.0, 30.0]), [[0.1, 0, 0], [2.0, 2, 0.3]], [6, 6]))
    return found


def batched(some, **options):
    """Edges of each crystal, as (E, 5) arrays of integers."""
    sizes = [len(crystal) for crystal in some]
    index, shift = batched_edges(
        torch.tensor(np.stack([c.cell for c in some])),
        torch.tensor(np.concatenate([c.positions for c in some])),
        torch.arange(len(some)).repeat_interleave(torch.tensor(sizes)),
        **options,
    )
    assert index.dtype == shift.dtype == torch.int64
    assert bool((index[1].diff() >= 0).all())  # sorted by target
    first = np.cumsum([0, *sizes])
    rows = torch.cat([index.T, shift], 1).numpy()
    crystal = np.searchsorted(first, rows[:, 1], side="right") - 1
    rows[:, :2] -= first[crystal, None]
    return [rows[crystal == number] for number in range(len(some))]


def ordered(rows):
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize(
    "options",
    [
        {"cutoff": 4.0},
        {"cutoff": 7.5},
        {"cutoff": 0.5},
        {"cutoff": None, "k": 12},
        {"cutoff": None, "k": 5, "symmetric": True},
        {"cutoff": 3.2, "k": 8},
        {"cutoff": None, "k": 3, "shell_tolerance": 0.0401},
    ],
    ids=str,
)
def test_the_edges_of_vesin(options):
    some = crystals()
    for crystal, found in zip(some, batched(some, **options), strict=True):
        index, shift = local_edges(crystal, **options)
        expected = np.concatenate([index.T, shift], 1)
        assert np.array_equal(ordered(found), ordered(expected)), crystal.id
        source, target = found[:, 0], found[:, 1]
        ends = crystal.positions[source] - crystal.positions[target] + found[:, 2:] @ crystal.cell
        distance = np.linalg.norm(ends, axis=1)
        same = np.diff(target) == 0
        assert bool((np.diff(distance)[same] > -1e-5).all())  # then by distance


def test_what_makes_no_sense():
    cell, positions, batch = torch.eye(3).double()[None], torch.zeros(1, 3).double(), torch.zeros(1).long()
    with pytest.raises(ValueError, match="neighbours need a cutoff"):
        batched_edges(cell, positions, batch, cutoff=None)
    index, shift = batched_edges(cell[:0], positions[:0], batch[:0], cutoff=4.0)
    assert index.shape == (2, 0)
    assert shift.shape == (0, 3)


def test_atoms_without_edges():
    lonely = Crystal(20.0 * np.eye(3), [[0.0, 0, 0], [9.0, 9, 9]], [6, 6])
    pair = Crystal(20.0 * np.eye(3), [[0.0, 0, 0], [1.5, 0, 0], [9.0, 9, 9]], [6, 6, 6])
    found = batched([lonely, pair, lonely], cutoff=4.0, k=2)
    assert [len(rows) for rows in found] == [0, 2, 0]
    assert batched([lonely], cutoff=None, k=1)[0].shape == (len(local_edges(lonely, None, 1)[1]), 5)
