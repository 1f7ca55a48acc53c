import numpy as np
import pytest
from structure_references import formula

from potnet.crystals import CrystalError, read_crystals
from potnet.crystals.reading.poscar import crystal_from_poscar

HEAD = "salt\n1.0\n0 2.82 2.82\n2.82 0 2.82\n2.82 2.82 0\n"
SALT = HEAD + "Na Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n"


def change(old, new):
    assert old in SALT
    return SALT.replace(old, new, 1)


@pytest.mark.parametrize(
    "text",
    [
        SALT,
        SALT.replace("\n", "\r\n"),
        change("Na Cl", "  Na_pv   Cl/0f3c2a "),
        change("Na Cl", "NA CL ! from a Fortran program"),
        change("1 1", "1 1 # atoms"),
        change("Direct", "Selective dynamics\nDirect").replace("0 0 0", "0 0 0 T F T"),
        change("Direct", "d"),
        change("Direct", "Cartesian").replace(".5 .5 .5", "2.82 2.82 2.82"),
        change("1.0", "2.0").replace("2.82", "1.41"),
        change("1.0", "-44.851536"),
        change("1.0", "1.0 1.0 1.0"),
        change("1.0", "0.1D+01"),
        SALT + "\n0.1 0.2 0.3\n0.1 0.2 0.3\n",
        SALT + "Cartesian\n0.1 0.2 0.3\n",
        SALT + "\n# written by a converter\n",
        change("0 0 0", "0 0 0 Na").replace(".5 .5 .5", ".5 .5 .5 Cl"),
        HEAD + "1 1\nDirect\n0 0 0 Na1+\n.5 .5 .5 Cl1-\n",
        change("Na Cl", "Na\nCl").replace("1 1", "1\n1"),
    ],
)
def test_salt_in_many_spellings(text):
    crystal = crystal_from_poscar(text)
    assert formula(crystal) == "ClNa"
    np.testing.assert_allclose(crystal.volume, 44.851536, rtol=1e-6)
    offset = crystal.fractional[1] - crystal.fractional[0]
    np.testing.assert_allclose(offset[crystal.z.argsort()[0] :], 0.5, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (change("Na Cl\n", ""), "it does not state its elements, as in files of VASP 4"),
        (change("Na Cl", "Na Qq"), "'Qq' is not an element"),
        (change("Na Cl", "NH4 Cl"), "'NH4' is not an element"),
        (change("Na Cl", "Na H.75"), "'H.75' is not an element"),
        (change("Na Cl", "Na"), r"line 7: 1 elements \(Na\), but 2 numbers of atoms"),
        (change("1 1", "1 1_0"), "line 7: the number of atoms of each element is wanted, got '1 1_0'"),
        (change("1 1", "0 0"), "line 7: there is no atom"),
        (change("1 1", "1 2"), "it breaks off: 3 atoms announced, 2 there"),
        (change("1 1", "1"), "line 7: 2 elements"),
        (SALT + ".25 .25 .25\n", "2 atoms announced, but line 11 has one more"),
        (change("Direct\n", ""), "line 8: `Direct` or `Cartesian` is wanted, got '0 0 0'"),
        (change(".5 .5 .5", ".5 .5"), "line 10: site 1 has no position"),
        (change(".5 .5 .5", ".5 1_5 .5"), "line 10: site 1 has no position: '.5 1_5 .5'"),
        (change(".5 .5 .5", ".5 nan .5"), "line 10: site 1 has no position"),
        (change("0 2.82 2.82", "0 2.82"), "line 3: lattice vector a: 3 numbers are wanted"),
        (change("1.0", "0"), "line 2: a scale other than zero"),
        (change("1 1\n", "1 99999999999\n"), "it breaks off: 100000000000 atoms announced, 2 there"),
        (HEAD, "it breaks off after line 5: the symbols of the elements is missing"),
        (change("0 0 0", "0 0 0 Cl").replace(".5 .5 .5", ".5 .5 .5 Na"), "site 0 is 'Cl' by the word behind"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(CrystalError, match=message):
        crystal_from_poscar(text)


def test_no_potcar_of_the_working_folder_names_the_elements(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "POTCAR").write_text("  PAW_PBE Fe 06Sep2000\n   TITEL  = PAW_PBE Fe 06Sep2000\n")
    (tmp_path / "POSCAR").write_text(HEAD.replace("salt", "Fe O") + "1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    with pytest.raises(CrystalError, match="does not state its elements"):
        read_crystals("POSCAR")


def test_as_ase_and_pymatgen_write_and_read_it(tmp_path):
    from ase.io import read, write

    core = pytest.importorskip("pymatgen.core")
    vasp = pytest.importorskip("pymatgen.io.vasp")
    rng = np.random.default_rng(5)
    for number in range(5):
        n = int(rng.integers(2, 9))
        lattice = np.diag(rng.uniform(6, 9, 3)) + rng.uniform(-1, 1, (3, 3))
        places = (np.arange(n)[:, None] + rng.uniform(0, 0.2, (n, 3))) / n
        elements = sorted(rng.choice(["O", "Fe", "La", "H"], n).tolist())
        structure = core.Structure(lattice, elements, places)
        file = tmp_path / f"{number}.vasp"
        vasp.Poscar(structure).write_file(str(file))
        (one,) = read_crystals(file)
        np.testing.assert_allclose(one.positions, structure.cart_coords, atol=1e-6)
        np.testing.assert_array_equal(one.z, structure.atomic_numbers)
        atoms = read(file, format="vasp")
        np.testing.assert_allclose(one.positions, atoms.positions, atol=1e-6)
        write(file, atoms, format="vasp", direct=False)
        (two,) = read_crystals(file)
        np.testing.assert_allclose(two.positions, atoms.positions, atol=1e-6)
        np.testing.assert_array_equal(two.z, atoms.numbers)
