import importlib
import logging

import numpy as np
import pytest
from crystal_examples import NAMES, PRIMITIVE_ATOMS, environments, in_other_cell, named, variants

from potnet.crystals import Crystal, local_edges, local_vectors, standardize


def niggli_conditions(cell: np.ndarray) -> bool:
    """a <= b <= c, and no angle's cosine exceeds half the ratio of the shorter edge to the longer."""
    a, b, c = np.linalg.norm(cell, axis=1)
    ordered = a <= b * (1 + 1e-9) and b <= c * (1 + 1e-9)
    short = all(
        abs(cell[i] @ cell[j]) <= 0.5 * (1 + 1e-9) * min(cell[i] @ cell[i], cell[j] @ cell[j])
        for i, j in ((0, 1), (0, 2), (1, 2))
    )
    return bool(ordered and short)


@pytest.mark.parametrize("name", NAMES)
def test_every_description_gives_the_same_crystal(name):
    crystal = named(name)
    reference = standardize(crystal)
    assert len(reference) == PRIMITIVE_ATOMS[name]
    assert reference.formula == crystal.formula
    expected = environments(reference)
    np.testing.assert_allclose(expected, environments(crystal)[:: len(crystal) // len(reference)], atol=1e-9)
    for description, variant in variants(crystal).items():
        result = standardize(variant)
        assert len(result) == len(reference), description
        assert niggli_conditions(result.cell), description
        assert result.volume == pytest.approx(
            reference.volume, rel=1e-5 if description == "rounded" else 1e-10
        )
        tolerance = 2e-5 if description == "rounded" else 1e-8
        np.testing.assert_allclose(environments(result), expected, atol=tolerance, err_msg=description)
        np.testing.assert_allclose(
            np.linalg.norm(result.cell, axis=1), np.linalg.norm(reference.cell, axis=1), atol=1e-5
        )


def random_crystal(rng: np.random.Generator, n: int) -> Crystal:
    cell = rng.normal(size=(3, 3)) * 3 + np.eye(3) * 6
    sites = []
    while len(sites) < n:  # no two atoms closer than 1 Å
        candidate = rng.random(3)
        difference = np.array([candidate - s for s in sites]).reshape(-1, 3)
        difference -= np.rint(difference)
        if not len(sites) or np.linalg.norm(difference @ cell, axis=1).min() > 1.0:
            sites.append(candidate)
    return Crystal.from_fractional(cell, sites, rng.choice([3, 8, 26], n), "random")


@pytest.mark.parametrize("seed", range(12))
def test_crystals_without_symmetry_too(seed):
    rng = np.random.default_rng(seed)
    crystal = random_crystal(rng, int(rng.integers(1, 6)))
    expected = environments(standardize(crystal))
    np.testing.assert_allclose(expected, environments(crystal), atol=1e-9)
    for description, variant in variants(crystal).items():
        result = standardize(variant)
        assert len(result) == len(crystal), description
        tolerance = 1e-4 if description == "rounded" else 1e-8
        np.testing.assert_allclose(environments(result), expected, atol=tolerance, err_msg=description)


def handedness(crystal: Crystal) -> float:
    """Triple product of the bonds of the hydrogen atom with lithium, carbon and nitrogen, Å³."""
    index, shift = local_edges(crystal, cutoff=2.0)
    vector = local_vectors(crystal, index, shift)
    bonds = {crystal.z[j]: v for j, i, v in zip(*index, vector, strict=True) if crystal.z[i] == 1}
    return float(np.linalg.det([bonds[3], bonds[6], bonds[7]]))


def test_a_crystal_does_not_become_its_mirror_image():
    """Not even in a left-handed cell, which Niggli reduction makes right-handed."""
    cell = np.diag([9.0, 10.0, 11.0])
    positions = np.array([[0, 0, 0], [1.5, 0, 0], [0, 1.6, 0], [0, 0, 1.7]])
    right = Crystal(cell, positions, [1, 3, 6, 7])
    left = Crystal(cell, -positions, [1, 3, 6, 7])
    assert handedness(right) == pytest.approx(1.5 * 1.6 * 1.7)
    for description, variant in variants(right).items():
        assert handedness(standardize(variant)) == pytest.approx(1.5 * 1.6 * 1.7, rel=1e-4), description
    for description, variant in variants(left).items():
        assert handedness(standardize(variant)) == pytest.approx(-1.5 * 1.6 * 1.7, rel=1e-4), description


def test_id_properties_and_idempotence():
    salt = named("NaCl")
    salt = Crystal(salt.cell, salt.positions, salt.z, "mp-22862", {"k_vrh": 24.0})
    once = standardize(salt)
    assert (once.id, once.properties) == ("mp-22862", {"k_vrh": 24.0})
    twice = standardize(once)
    np.testing.assert_allclose(twice.cell, once.cell, atol=1e-12)
    np.testing.assert_allclose(environments(twice), environments(once), atol=1e-12)
    fractional = once.fractional
    assert (fractional > -1e-12).all()
    assert (fractional < 1).all()


def test_as_given_is_as_given():
    salt = named("NaCl")
    assert standardize(salt, cell="as_given") is salt


def test_symprec_decides_what_is_equivalent():
    cell = in_other_cell(named("NaCl"), np.diag([2, 1, 1]))
    moved = cell.positions.copy()
    moved[0, 0] += 0.05
    almost = Crystal(cell.cell, moved, cell.z)
    assert len(standardize(almost, symprec=0.01)) == len(almost)
    assert len(standardize(almost, symprec=0.2)) == 2


def test_equivalent_atoms_become_their_mean():
    """Twice an almost equal cell: neither copy is preferred."""
    cell = np.diag([3.0, 4.0, 10.0])
    z = [11, 11]
    a = standardize(Crystal(cell, [[0, 0, 0], [0.004, 0, 5]], z))
    assert len(a) == 1
    assert a.positions[0, 0] == pytest.approx(0.002)
    assert a.volume == pytest.approx(60.0)


def test_nothing_else_is_idealised():
    """A cube that is not quite one stays so."""
    cell = np.diag([4.0, 4.003, 4.001])
    result = standardize(Crystal(cell, [[0, 0, 0], [2.001, 2, 2]], [55, 17]))
    assert sorted(np.linalg.norm(result.cell, axis=1)) == pytest.approx([4.0, 4.001, 4.003])
    assert result.volume == pytest.approx(4.0 * 4.003 * 4.001)


def test_a_failed_search_is_told_and_keeps_the_cell(monkeypatch, caplog):
    import moyopy

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("too small tolerance")

    monkeypatch.setattr(moyopy, "MoyoDataset", fail)
    salt = named("NaCl")
    with caplog.at_level(logging.WARNING):
        result = standardize(salt)
    assert len(result) == len(salt)
    assert "NaCl: no symmetry found (too small tolerance)" in caplog.text


def test_large_cells_and_vacuum():
    layer = Crystal(np.diag([2.5, 2.5, 60.0]), [[0, 0, 30.0]], [79])
    big = in_other_cell(layer, np.diag([6, 6, 1]))
    assert len(standardize(big)) == 1
    assert standardize(big).volume == pytest.approx(layer.volume)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "conventional"}, "'primitive' or 'as_given'"),
        ({"symprec": 0.0}, "positive"),
        ({"symprec": -1}, "-1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        standardize(named("NaCl"), **options)


def test_crystals_that_are_primitive_need_no_search(monkeypatch):
    import moyopy

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(moyopy, "MoyoDataset", fail)
    diamond = Crystal.from_fractional(
        3.57 * 0.5 * (np.ones((3, 3)) - np.eye(3)), [[0, 0, 0], [0.25, 0.25, 0.25]], [6, 6]
    )
    assert len(standardize(diamond)) == 2


@pytest.mark.parametrize("seed", range(8))
def test_no_search_is_spared_that_would_find_a_translation(seed, monkeypatch):
    """Repeated cells whose atoms are off by about the tolerance, in skewed cells too."""
    module = importlib.import_module("potnet.crystals.standardize")
    rng = np.random.default_rng(seed)
    symprec = 0.02
    spared = merged = 0
    for _ in range(12):
        small = random_crystal(rng, int(rng.integers(1, 4)))
        change = np.diag(rng.integers(1, 3, 3)) + np.triu(rng.integers(-3, 4, (3, 3)), 1)
        large = in_other_cell(small, change)
        moves = rng.normal(size=large.positions.shape)
        moves *= symprec * rng.choice([0.3, 0.6, 0.9, 1.3, 2.5]) / np.linalg.norm(moves, axis=1).max()
        moved = Crystal(large.cell, large.positions + moves, large.z, "moved")
        found = len(standardize(moved, symprec=symprec))
        spared += not module._may_repeat(moved, symprec)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_may_repeat", lambda crystal, symprec: True)
            assert len(standardize(moved, symprec=symprec)) == found
        merged += found < len(moved)
    assert spared
    assert merged
