import pickle
import re

import numpy as np
import pytest

from potnet.crystals import Crystal, CrystalError

CUBE = np.eye(3) * 4.0


def test_fields_are_checked_copies_in_double_precision():
    cell = CUBE.astype(np.float32)
    properties = {"k_vrh": 24.0}
    crystal = Crystal(cell, [[0, 0, 0], [2, 2, 2]], [11, 17], "salt", properties)
    assert crystal.cell.dtype == crystal.positions.dtype == np.float64
    assert crystal.z.dtype == np.int64
    assert len(crystal) == 2
    assert crystal.volume == pytest.approx(64.0)
    properties["k_vrh"] = 0.0
    assert crystal.properties == {"k_vrh": 24.0}
    cell[0, 0] = 9
    assert crystal.cell[0, 0] == 4
    with pytest.raises(ValueError, match="read-only"):
        crystal.positions[0] = 1


def test_fractional_coordinates_go_both_ways_in_a_skewed_left_handed_cell():
    cell = np.array([[0.3, 4.0, 0.1], [5.0, 0.0, -2.0], [1.0, 1.0, 6.0]])
    assert np.linalg.det(cell) < 0
    fractional = np.array([[0.1, 0.2, 0.3], [-1.5, 2.5, 0.7]])
    crystal = Crystal.from_fractional(cell, fractional, [1, 2])
    np.testing.assert_allclose(crystal.fractional, fractional, atol=1e-14)
    np.testing.assert_allclose(crystal.positions[0], 0.1 * cell[0] + 0.2 * cell[1] + 0.3 * cell[2])
    assert crystal.volume > 0


@pytest.mark.parametrize(
    ("z", "formula"),
    [
        ([11, 17] * 4, "ClNa"),
        ([38, 22, 8, 8, 8], "O3SrTi"),
        ([6] * 8, "C"),
        ([6, 1, 1, 1, 1, 8], "CH4O"),
        ([8, 1, 1], "H2O"),
    ],
)
def test_formula_is_reduced_and_in_hill_order(z, formula):
    positions = np.arange(len(z))[:, None] * [1.0, 0, 0]
    assert Crystal(np.eye(3) * 20, positions, z).formula == formula


def test_to_ase_and_pickle_keep_everything():
    crystal = Crystal(CUBE, [[0, 0, 0], [2, 2, 2]], [11, 17], "salt", {"k_vrh": 24.0})
    atoms = crystal.to_ase()
    assert atoms.get_chemical_formula() == "ClNa"
    assert atoms.pbc.all()
    assert atoms.info == {"id": "salt", "k_vrh": 24.0}
    again = pickle.loads(pickle.dumps(crystal))
    np.testing.assert_array_equal(again.positions, crystal.positions)
    assert (again.id, again.properties) == (crystal.id, crystal.properties)


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CrystalError("site 3 is wrong", "a.cif")))
    assert str(error) == "a.cif: site 3 is wrong"
    assert (error.reason, error.source) == ("site 3 is wrong", "a.cif")


BAD = {
    "no atom": (CUBE, np.empty((0, 3)), [], "there is no atom"),
    "flat positions": (CUBE, [0, 0, 0], [1], r"positions must be \(n, 3\), got \(3,\)"),
    "too few numbers": (CUBE, [[0, 0, 0], [1, 1, 1]], [1], "2 positions need as many atomic numbers"),
    "half an element": (CUBE, [[0, 0, 0]], [1.5], "whole numbers"),
    "element 0": (CUBE, [[0, 0, 0], [1, 1, 1]], [1, 0], "site 1 has atomic number 0: elements are 1 to 118"),
    "element 119": (CUBE, [[0, 0, 0]], [119], "site 0 has atomic number 119"),
    "symbols": (CUBE, [[0, 0, 0]], ["Na"], "whole numbers"),
    "words": (CUBE, [["a", "b", "c"]], [1], "plain arrays of numbers"),
    "ragged": (CUBE, [[0, 0, 0], [1, 1]], [1, 1], "plain arrays of numbers"),
    "NaN position": (CUBE, [[0, 0, 0], [1, np.nan, 1]], [1, 8], r"site 1 \(O\) has no finite position"),
    "infinite position": (CUBE, [[np.inf, 0, 0]], [1], r"site 0 \(H\)"),
    "cell of 6": ([4, 4, 4, 90, 90, 90], [[0, 0, 0]], [1], r"the cell must be \(3, 3\)"),
    "NaN cell": (CUBE * np.nan, [[0, 0, 0]], [1], "not finite"),
    "no cell": (np.zeros((3, 3)), [[0, 0, 0]], [1], "lattice vector 0 is zero"),
    "two vectors": (np.diag([4.0, 4.0, 0.0]), [[0, 0, 0]], [1], "lattice vector 2 is zero"),
    "flat cell": ([[1, 0, 0], [0, 1, 0], [1, 1, 0]], [[0, 0, 0]], [1], "no volume"),
    "flat but for rounding": ([[1, 0, 0], [0, 1, 0], [1, 1, 1e-12]], [[0, 0, 0]], [1], "no volume"),
    "metres": (CUBE * 1e-10, [[0, 0, 0]], [1], "lengths are in Å"),
    "same place": (
        CUBE,
        [[0, 0, 0], [1, 1, 1], [1, 1, 1.009]],
        [1, 11, 17],
        r"sites 1 \(Na\) and 2 \(Cl\) overlap",
    ),
    "same place, other image": (
        CUBE,
        [[0, 0, 0.001], [4, -4, 7.996]],
        [1, 11],
        r"sites 0 \(H\) and 1 \(Na\) overlap",
    ),
    "many": (CUBE, [[0, 0, 0]] * 3, [1] * 3, "and 2 more pairs"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_crystal_is_refused(name):
    cell, positions, z, message = BAD[name]
    with pytest.raises(CrystalError, match=message) as caught:
        Crystal(cell, positions, z, "mp-1")
    assert str(caught.value).startswith("crystal 'mp-1': ")


def test_bad_fractional_coordinates_are_refused():
    with pytest.raises(CrystalError, match="crystal 'x': "):
        Crystal.from_fractional(CUBE, [[0, 0]], [1], "x")
    with pytest.raises(CrystalError, match="fractional"):
        Crystal.from_fractional("cubic", [[0, 0, 0]], [1])


def test_tiny_and_long_cells_are_no_errors():
    assert len(Crystal(np.diag([0.8, 0.8, 0.8]), [[0, 0, 0]], [1])) == 1
    assert len(Crystal(np.diag([2.0, 2.0, 900.0]), [[0, 0, 0]], [1])) == 1
    assert len(Crystal(CUBE, [[0, 0, 0], [0.011, 0, 0]], [1, 1])) == 2


def test_overlap_is_found_in_extremely_skewed_cells():
    """The planes of this cell are 3 mÅ apart, although the crystal is an ordinary one."""
    change = np.array([[1, 0, 0], [1000, 1, 0], [-700, 300, 1]])
    cell = change @ CUBE
    good = Crystal(cell, [[0, 0, 0], [2, 2, 2]], [11, 17])
    assert good.volume == pytest.approx(64, rel=1e-6)
    with pytest.raises(CrystalError, match="overlap"):
        Crystal(cell, [[0, 0, 0], [4, 8, 0.005]], [11, 17])


@pytest.mark.parametrize("n", [2, 40, 1500])
def test_every_overlap_is_found(n):
    rng = np.random.default_rng(n)
    side = round(n ** (1 / 3) + 1)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3)[: n - 1] * 2.0
    cell = np.eye(3) * 2 * side
    for _ in range(3):
        a = int(rng.integers(n - 1))
        image = rng.integers(-2, 3, 3) @ cell
        positions = np.concatenate([grid, grid[a : a + 1] + image + 0.005])
        with pytest.raises(CrystalError, match=re.escape(f"sites {a} (H) and {n - 1} (H) overlap")):
            Crystal(cell, positions, np.ones(n, dtype=int))


def test_overlaps_by_pairs_and_by_a_list_of_neighbours_agree():
    from potnet.crystals.crystal import _overlaps_of_many, overlaps

    rng = np.random.default_rng(1)
    for n in (2, 30, 150):
        cell = np.diag([6.0, 7.0, 8.0]) + rng.normal(0, 0.8, (3, 3))
        positions = rng.uniform(-1, 2, (n, 3)) @ cell
        for distance in (0.1, 0.5, 1.0):
            few = overlaps(cell, positions, distance)
            many = _overlaps_of_many(cell, positions, distance)
            np.testing.assert_array_equal(few[np.lexsort(few.T[::-1])], many)
    assert len(many)
