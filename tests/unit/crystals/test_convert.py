import numpy as np
import pytest
from crystal_examples import named

from potnet.crystals import CrystalError, from_ase, from_jarvis, from_pymatgen, from_record
from potnet.crystals.reading.objects import _say_periodic

ase = pytest.importorskip("ase")


def salt_atoms(**options):
    return ase.Atoms("NaCl", [[0, 0, 0], [2.8, 0, 0]], cell=[5.6, 5.6, 5.6], pbc=True, **options)


def test_ase_and_back():
    crystal = named("Al2O3")
    again = from_ase(crystal.to_ase(), id="corundum")
    np.testing.assert_array_equal(again.positions, crystal.positions)
    np.testing.assert_array_equal(again.cell, crystal.cell)
    assert again.z.tolist() == crystal.z.tolist()
    assert again.id == "corundum"


def test_numbers_that_ase_carries_become_properties():
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = salt_atoms(info={"k_vrh": np.float64(24), "sites": 2, "name": "salt", "stable": True, "v": [1.0]})
    atoms.calc = SinglePointCalculator(atoms, energy=-6.5)
    assert from_ase(atoms).properties == {"k_vrh": 24.0, "sites": 2.0, "energy": -6.5}


def test_a_slab_is_periodic_in_its_cell_which_is_said_once(caplog):
    _say_periodic.cache_clear()
    from_ase(salt_atoms())
    assert not caplog.messages
    atoms = salt_atoms()
    atoms.pbc = [True, True, False]
    for _ in range(2):
        np.testing.assert_array_equal(from_ase(atoms).cell, np.eye(3) * 5.6)
    (message,) = caplog.messages
    assert "count as periodic" in message


@pytest.mark.parametrize("cell", [None, [20.0, 20.0, 20.0]])
def test_a_molecule_goes_into_a_box_only_if_asked(cell):
    water = ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=cell)
    with pytest.raises(CrystalError, match=r"crystal 'water': it has no periodicity.* box=10"):
        from_ase(water, id="water")
    boxed = from_ase(water, box=8.0)
    np.testing.assert_allclose(np.diag(boxed.cell), [1.2 + 16, 0.93 + 16, 16])
    assert boxed.positions.min() == pytest.approx(8.0)
    assert np.linalg.norm(boxed.positions[1] - boxed.positions[0]) == pytest.approx(0.96)


def test_a_layer_without_a_third_vector():
    atoms = ase.Atoms("C2", [[0, 0, 3], [1.42, 0, 3.5]], pbc=[True, True, False])
    atoms.cell = [[2.13, 1.23, 0.3], [2.13, -1.23, 0.1], [0, 0, 0]]
    with pytest.raises(CrystalError, match="fewer than three lattice vectors"):
        from_ase(atoms)
    boxed = from_ase(atoms, box=10)
    normal = np.cross(atoms.cell[0], atoms.cell[1])
    np.testing.assert_allclose(boxed.cell[:2], atoms.cell[:2])
    assert abs(boxed.cell[2] @ normal) == pytest.approx(
        np.linalg.norm(boxed.cell[2]) * np.linalg.norm(normal)
    )
    thickness = abs((atoms.positions[1] - atoms.positions[0]) @ normal) / np.linalg.norm(normal)
    assert np.linalg.norm(boxed.cell[2]) == pytest.approx(20 + thickness)
    np.testing.assert_allclose(boxed.positions[1] - boxed.positions[0], [1.42, 0, 0.5])


def test_a_wire():
    atoms = ase.Atoms("C", [[1, 2, 3]], pbc=[True, False, False])
    atoms.cell = [[2.0, 1.0, 0.0], [0, 0, 0], [0, 0, 0]]
    boxed = from_ase(atoms, box=6)
    assert boxed.volume == pytest.approx(np.sqrt(5) * 12 * 12)


@pytest.mark.parametrize("box", [0.0, -1.0, float("nan")])
def test_a_box_without_vacuum_is_refused(box):
    with pytest.raises(ValueError, match="box must be a positive"):
        from_ase(ase.Atoms("H"), box=box)


@pytest.mark.parametrize(
    ("occupancy", "message"),
    [
        (
            {"0": {"Na": 0.5, "K": 0.5}, "1": {"Cl": 1.0}},
            r"site 0 is disordered or partly occupied \(Na0.5 K0.5\)",
        ),
        ({"0": {"Na": 1.0}, "1": {"Cl": 0.9}}, r"site 1 .*\(Cl0.9\)"),
    ],
)
def test_ase_occupancies_are_not_overlooked(occupancy, message):
    with pytest.raises(CrystalError, match=message):
        from_ase(salt_atoms(info={"occupancy": occupancy}))


def test_full_occupancies_and_foreign_notes_are_fine():
    assert len(from_ase(salt_atoms(info={"occupancy": {"0": {"Na": 1.0}, "1": {"Cl": 1}}}))) == 2
    assert len(from_ase(salt_atoms(info={"occupancy": "full"}))) == 2


def test_no_atoms_and_the_dummy_element():
    with pytest.raises(CrystalError, match="there is no atom"):
        from_ase(ase.Atoms())
    with pytest.raises(CrystalError, match="site 1 has atomic number 0"):
        from_ase(ase.Atoms("NaX", [[0, 0, 0], [2, 0, 0]], cell=[5, 5, 5], pbc=True))


JARVIS = {
    "lattice_mat": [[5.6, 0, 0], [0, 5.6, 0], [0, 0, 5.6]],
    "coords": [[0, 0, 0], [0.5, 0, 0]],
    "elements": ["Na", "Cl"],
    "abc": [5.6, 5.6, 5.6],
    "angles": [90, 90, 90],
    "cartesian": False,
    "props": ["", ""],
}


def test_jarvis_dictionaries():
    crystal = from_jarvis(JARVIS, id="JVASP-1")
    np.testing.assert_allclose(crystal.positions[1], [2.8, 0, 0])
    assert (crystal.id, crystal.formula) == ("JVASP-1", "ClNa")
    cartesian = from_jarvis({**JARVIS, "coords": [[0, 0, 0], [2.8, 0, 0]], "cartesian": True})
    np.testing.assert_allclose(cartesian.positions, crystal.positions)


class JarvisAtoms:
    def to_dict(self):
        return JARVIS


def test_jarvis_objects():
    assert from_jarvis(JarvisAtoms()).formula == "ClNa"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elements": ["Na", "Xx"]}, "crystal 'J': site 1 is 'Xx', which is not an element"),
        ({"elements": ["Na"]}, "2 positions need as many atomic numbers"),
        ({"coords": [[0, 0, 0], [0.5, None, 0]]}, "site 1 .* no finite position|plain"),
    ],
)
def test_wrong_jarvis_dictionaries(change, message):
    with pytest.raises(CrystalError, match=message):
        from_jarvis({**JARVIS, **change}, id="J")


def test_what_is_no_jarvis_dictionary():
    with pytest.raises(CrystalError, match="needs coords, elements; it has lattice_mat"):
        from_jarvis({"lattice_mat": []})
    with pytest.raises(CrystalError, match="wanted, got list"):
        from_jarvis([1, 2])


RECORD = {"id": "mp-1", "lattice": np.eye(3).tolist(), "z": [3], "frac": [[0, 0, 0]]}


def test_records():
    crystal = from_record(
        {**RECORD, "k_vrh": 12, "g_vrh": None, "split": "train", "forces": [[0, 0, 0]], "ok": True}
    )
    assert crystal.id == "mp-1"
    assert crystal.properties == {"k_vrh": 12.0}
    assert from_record({**RECORD, "id": 17}).id == "17"
    assert len(from_record({**RECORD, "positions": [[0, 0, 0]]})) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": None}, "crystal 'mp-1': the record has no z; it has id, lattice, z, frac"),
        ({"z": [200]}, "crystal 'mp-1': site 0 has atomic number 200"),
        ({"lattice": [1, 2, 3]}, "crystal 'mp-1': "),
        ({"frac": "abc"}, "crystal 'mp-1': "),
        ({"frac": {}}, "crystal 'mp-1': "),
        ({"positions": [[0.5, 0, 0]]}, "crystal 'mp-1': the record has frac and positions"),
        ({"positions": "x"}, "crystal 'mp-1': the record has frac and positions"),
    ],
)
def test_wrong_records(change, message):
    with pytest.raises(CrystalError, match=message):
        from_record({**RECORD, **change})
    with pytest.raises(CrystalError, match="got list"):
        from_record([1])


def test_pymatgen_structures():
    core = pytest.importorskip("pymatgen.core")
    lattice = core.Lattice.from_parameters(4, 5, 6, 70, 80, 100)
    crystal = from_pymatgen(core.Structure(lattice, ["Na+", "D"], [[0, 0, 0], [0.5, 0.4, 0.3]]), id="x")
    np.testing.assert_allclose(crystal.cell, lattice.matrix)
    np.testing.assert_allclose(crystal.fractional, [[0, 0, 0], [0.5, 0.4, 0.3]], atol=1e-14)
    assert crystal.z.tolist() == [11, 1]
    mixed = core.Structure(lattice, ["Na", {"Fe": 0.5, "Mg": 0.5}], [[0, 0, 0], [0.5, 0.4, 0.3]])
    with pytest.raises(CrystalError, match=r"crystal 'm': site 1 is disordered \(.*Fe"):
        from_pymatgen(mixed, id="m")
    partial = core.Structure(lattice, [{"Na": 0.9}], [[0, 0, 0]])
    with pytest.raises(CrystalError, match="site 0 is disordered"):
        from_pymatgen(partial)
    dummy = core.Structure(lattice, [core.DummySpecies("X")], [[0, 0, 0]])
    with pytest.raises(CrystalError, match=r"site 0 is .*not an element"):
        from_pymatgen(dummy)
    with pytest.raises(CrystalError, match="Molecule has no lattice"):
        from_pymatgen(core.Molecule(["H"], [[0, 0, 0]]))
