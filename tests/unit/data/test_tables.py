"""Tables of every kind hold the same crystals."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress
from crystal_tables import cubic, moduli, write_table

from potnet.crystals import Crystal, CrystalError, from_ase, from_serialized
from potnet.crystals.reading.check import closest_pair
from potnet.data import DataError, TableSource
from potnet.data.sources.labels import label_of
from potnet.data.sources.where import Where
from potnet.data.table import DUPLICATE, UNREADABLE

NACL = bulk("NaCl", "rocksalt", a=5.64)
SI = bulk("Si", a=5.43)


def cif(atoms: Atoms) -> str:
    text = io.BytesIO()
    ase.io.write(text, atoms, format="cif")
    return text.getvalue().decode()


def poscar(atoms: Atoms) -> str:
    text = io.StringIO()
    ase.io.write(text, atoms, format="vasp")
    return text.getvalue()


def jarvis(atoms: Atoms) -> dict[str, Any]:
    return {
        "lattice_mat": atoms.cell.tolist(),
        "coords": atoms.get_scaled_positions().tolist(),
        "elements": atoms.get_chemical_symbols(),
        "cartesian": False,
    }


def pymatgen(atoms: Atoms) -> dict[str, Any]:
    sites = zip(atoms.get_chemical_symbols(), atoms.get_scaled_positions().tolist(), strict=True)
    return {
        "@class": "Structure",
        "lattice": {"matrix": atoms.cell.tolist()},
        "sites": [{"species": [{"element": name, "occu": 1}], "abc": place} for name, place in sites],
    }


def ase_dictionary(atoms: Atoms) -> dict[str, Any]:
    return {key: np.asarray(value).tolist() for key, value in atoms.todict().items()}


WRITERS: dict[str, Callable[[Atoms], Any]] = {
    "cif": cif,
    "poscar": poscar,
    "jarvis": jarvis,
    "jarvis text": lambda atoms: json.dumps(jarvis(atoms)),
    "pymatgen": pymatgen,
    "pymatgen text": lambda atoms: json.dumps(pymatgen(atoms)),
    "ase": ase_dictionary,
    "ase text": lambda atoms: json.dumps(ase_dictionary(atoms)),
    "atoms": lambda atoms: atoms,
}


def same(one: Crystal, other: Crystal) -> None:
    np.testing.assert_allclose(one.volume, other.volume, rtol=1e-6)
    np.testing.assert_array_equal(sorted(one.z), sorted(other.z))


@pytest.mark.parametrize("kind", WRITERS)
def test_structures_in_any_form(kind: str):
    crystal = from_serialized(WRITERS[kind](NACL), "salt")
    assert crystal.id == "salt"
    assert crystal.properties == {}
    same(crystal, from_ase(NACL))


def test_pymatgen_writes_what_is_read():
    core = pytest.importorskip("pymatgen.core")
    structure = core.Structure(NACL.cell[:], ["Na", "Cl"], NACL.get_scaled_positions())
    same(from_serialized(structure.as_dict()), from_ase(NACL))
    same(from_serialized(structure), from_ase(NACL))


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (None, "a structure is wanted .* got nothing"),
        (3.5, "got a float"),
        ("hello", "got 'hello'"),
        ("{broken", "not valid JSON"),
        ({"a": 1}, "got a dictionary with a"),
        ({"numbers": [1], "positions": [[0, 0]], "cell": [1, 1, 1]}, "not a dictionary of ASE Atoms"),
        ({"sites": [], "lattice": {"matrix": np.eye(3).tolist()}}, "there is no atom"),
        ({"sites": [{"xyz": 1}], "lattice": {"matrix": np.eye(3).tolist()}}, "site 0 .* not understood"),
        ({"sites": []}, "has no lattice"),
        (cif(NACL) + cif(SI).replace("data_Si", "data_b"), "the CIF has 2"),
        ("data_x\n", "the CIF has 0"),
        (cif(NACL).replace("1.0000\n", "0.5000\n"), "partly occupied"),
        ("\n".join("abcdefgh"), "not a POSCAR: line 2: a scale other than zero is wanted"),
    ],
)
def test_structures_that_cannot_be_read(structure: Any, message: str):
    with pytest.raises(CrystalError, match=f"crystal 'a': .*{message}"):
        from_serialized(structure, "a")


def test_disorder_in_pymatgens_dictionary():
    structure = pymatgen(NACL)
    structure["sites"][1]["species"] = [{"element": "Cl", "occu": 0.5}, {"element": "Br", "occu": 0.5}]
    with pytest.raises(CrystalError, match=r"site 1 is disordered or partly occupied \(Cl0\.5 Br0\.5\)"):
        from_serialized(structure)
    structure["sites"][1]["species"] = [{"element": "Xx", "occu": 1}]
    with pytest.raises(CrystalError, match="site 1 is 'Xx', which is not an element"):
        from_serialized(structure)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    write_table(Table.from_pylist(rows), path)
    return path


ROWS = [
    {"material_id": "salt", "cif": cif(NACL), "bulk": 25.0, "note": "x", "split": "train"},
    {"material_id": "silicon", "cif": cif(SI), "bulk": None, "note": "y", "split": "test"},
    {"material_id": "third", "cif": cif(SI), "bulk": 98.0, "note": None, "split": None},
]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.jsonl"])
def test_columns_of_any_table(tmp_path: Path, name: str):
    writer = {".parquet": write_parquet, ".jsonl": write_table}.get(Path(name).suffix, write_csv)
    source = TableSource(writer(tmp_path / name, ROWS), targets={"k_vrh": "bulk"}, units={"k_vrh": "GPa"})
    data = source.load()
    assert data.name == "t"
    assert [crystal.id for crystal in data.crystals] == ["salt", "silicon", "third"]
    assert data.targets == {"k_vrh": "GPa", "note": ""}
    np.testing.assert_array_equal(data.table.values("k_vrh"), [25.0, np.nan, 98.0])
    assert data.table.values("note").tolist() == ["x", "y", None]
    assert data.split == {"salt": "train", "silicon": "test"}
    assert data.table.texts["formula"].to_pylist() == ["ClNa", "Si", "Si"]
    assert data.content_hash == source.content_hash()
    assert data.content_hash != TableSource(source.path).content_hash()
    same(data.crystals[0], from_ase(NACL))


def test_columns_by_name(tmp_path: Path):
    rows = [{"id": 1, "who": "a", "what": poscar(SI), "where": "train", "e": 1.5, "k": 2}]
    path = write_parquet(tmp_path / "t.parquet", rows)
    data = TableSource(path, id="who", structure="what", split="where", targets={"k": "e"}).load()
    assert data.crystals[0].id == "a"
    assert data.split == {"a": "train"}
    # The column k does not hide the one chosen for k; the number in `id` is a property like any other.
    assert data.crystals[0].properties == {"k": 1.5, "id": 1.0}


def frames(path: Path, ids: bool = True) -> Path:
    atoms = [NACL.copy(), SI.copy()]
    for number, frame in enumerate(atoms):
        frame.info = {"k_vrh": 10.0 + number, "split": "train"} | ({"id": f"a{number}"} if ids else {})
    ase.io.write(path, atoms, format="extxyz")
    return path


def test_extended_xyz(tmp_path: Path):
    data = TableSource(frames(tmp_path / "f.xyz")).load()
    assert [crystal.id for crystal in data.crystals] == ["a0", "a1"]
    assert data.table.values("k_vrh").tolist() == [10.0, 11.0]
    assert data.split == {"a0": "train", "a1": "train"}
    without = TableSource(frames(tmp_path / "g.extxyz", ids=False)).load()
    assert [crystal.id for crystal in without.crystals] == ["g:0", "g:1"]


def test_ase_database(tmp_path: Path):
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(NACL, name="salt", k_vrh=25.0)
        database.write(SI, name="silicon", k_vrh=98.0)
    data = TableSource(tmp_path / "a.db", id="name").load()
    assert [crystal.id for crystal in data.crystals] == ["salt", "silicon"]
    assert data.table.values("k_vrh").tolist() == [25.0, 98.0]
    assert [crystal.id for crystal in TableSource(tmp_path / "a.db").load().crystals] == ["1", "2"]


def test_a_database_of_another_program_is_left_alone(tmp_path: Path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table notes (id integer)")
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"ASE cannot read this database \(it has no table of systems"):
        TableSource(path).load()
    assert path.read_bytes() == before


def test_molecules_need_a_box(tmp_path: Path):
    ase.io.write(tmp_path / "m.xyz", Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), format="extxyz")
    with pytest.raises(DataError, match=r"m\.xyz, frame 0: .*no periodicity"):
        TableSource(tmp_path / "m.xyz").load()
    assert len(TableSource(tmp_path / "m.xyz", box=5.0).load().crystals[0]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("id,cif,k\n", "the table is empty"),
        ("id;cif;k\na;b;1\n", "one column only, 'id;cif;k'; separate columns by commas"),
        ("id,cif,id\n", "names 'id' twice"),
        ("id,cif,k\na,b\n", "line 2: 2 values for 3 columns"),
        ('id,cif,k\na,"b\n', "not valid CSV"),
        ("cif,k\nx,1\n", "line 2: the crystal has no id in columns cif, k"),
        ("id,k\nx,1\n", "line 2: no structure in columns id, k"),
        ("id,cif,k\nx,,1\n", "line 2: crystal 'x': a structure is wanted .* got nothing"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        TableSource(tmp_path / "t.csv").load()


def test_columns_that_are_not_there(tmp_path: Path):
    path = write_csv(tmp_path / "t.csv", ROWS)
    with pytest.raises(DataError, match=r"data\.source\.structure=cfi; did you mean cif"):
        TableSource(path, structure="cfi").load()
    with pytest.raises(DataError, match=r"data\.source\.targets\.k_vrh=bluk; did you mean bulk"):
        TableSource(path, targets={"k_vrh": "bluk"}).load()


def test_broken_binary_tables(tmp_path: Path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not a valid Parquet file"):
        TableSource(tmp_path / "t.parquet").load()
    (tmp_path / "t.db").write_bytes(b"hello")
    with pytest.raises(DataError, match="not a database of ASE"):
        TableSource(tmp_path / "t.db").load()
    (tmp_path / "u.db").write_bytes(b"SQLite format 3\x00" + b"x" * 100)
    with pytest.raises(DataError, match="ASE cannot read this database"):
        TableSource(tmp_path / "u.db").load()


def test_unreadable_rows_and_repeated_ids_are_listed(tmp_path: Path):
    records = [*moduli(2), cubic("c0", 5.0), {**cubic("bad"), "z": [999, 1]}]
    path = write_table(tmp_path / "t.jsonl", records)
    path.write_text(path.read_text() + "{broken\n[1]\n")
    data = TableSource(path).load(on_error="skip")
    assert [crystal.id for crystal in data.crystals] == ["c0", "c1"]
    assert [(entry.id, entry.reason) for entry in data.removed] == [
        ("c0", DUPLICATE),
        ("bad", UNREADABLE),
        ("t.jsonl, line 5", UNREADABLE),
        ("t.jsonl, line 6", UNREADABLE),
    ]
    assert "line 4: crystal 'bad': site 0 has atomic number 999" in data.removed[1].detail
    with pytest.raises(DataError, match=r"line 4: crystal 'bad'"):
        TableSource(path).load()


def test_nothing_readable(tmp_path: Path):
    path = write_table(tmp_path / "t.jsonl", [{**cubic("bad"), "z": [1]}])
    with pytest.raises(DataError, match=r"none of the 1 crystals can be read: .*line 1"):
        TableSource(path).load(on_error="skip")


FIXTURES = Path(__file__).parents[2] / "fixtures" / "structures"


def test_ids_in_extended_xyz_stay_apart():
    data = TableSource(FIXTURES / "ids.xyz").load()
    assert [crystal.id for crystal in data.crystals] == ["007", "7"]
    assert [crystal.properties for crystal in data.crystals] == [{"gap": 1.5}, {"gap": 2.5}]


def test_text_that_python_takes_for_a_number_is_none():
    data = TableSource(FIXTURES / "underscore.csv").load()
    assert [crystal.properties for crystal in data.crystals] == [{"gap": "1_5"}, {"gap": 2.5}]
    np.testing.assert_array_equal(data.table.values("gap"), [np.nan, 2.5])


def test_a_truth_value_as_text_is_understood():
    (crystal,) = TableSource(FIXTURES / "jsonl_cart_str.jsonl").load().crystals
    pair = closest_pair(crystal, 4.0)
    assert pair is not None
    assert pair[2] == pytest.approx(2.8)
    atoms = {**jarvis(NACL), "cartesian": "perhaps"}
    with pytest.raises(CrystalError, match="cartesian has to be true or false, got 'perhaps'"):
        from_serialized(atoms)


def test_a_dictionary_as_python_prints_it():
    (crystal,) = TableSource(FIXTURES / "jarvis_repr.csv").load().crystals
    assert (crystal.id, len(crystal), crystal.properties) == ("JVASP-1", 2, {"gap": 1.0})
    with pytest.raises(CrystalError, match=r"not valid JSON .* write it by json\.dumps"):
        from_serialized("{'lattice_mat': array([1])}")


def test_implausible_structures_in_a_table(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    row = {"id": "a", "atoms": {**jarvis(NACL), "coords": [[0, 0, 0], [0.05, 0, 0]], "cartesian": False}}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"line 1: crystal 'a': sites 0 and 1 \(Na-Cl\), or their im"):
        TableSource(tmp_path / "t.jsonl").load()
    warned = TableSource(tmp_path / "t.jsonl", plausibility="warn")
    assert len(warned.load().crystals) == 1
    assert "crystal 'a': sites 0 and 1" in caplog.text
    caplog.clear()
    ignored = TableSource(tmp_path / "t.jsonl", plausibility="ignore")
    assert len(ignored.load().crystals) == 1
    assert not caplog.records
    sources = (warned, ignored, TableSource(tmp_path / "t.jsonl"))
    assert len({source.content_hash() for source in sources}) == 3


def with_forces() -> Atoms:
    """Rock salt, displaced, as a calculation of ASE leaves it."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=1)
    forces = np.arange(24.0).reshape(8, 3) / 10
    stress = np.array([0.1, 0.2, 0.3, 0.04, 0.05, 0.06])
    atoms.calc = SinglePointCalculator(atoms, energy=-27.5, forces=forces, stress=stress)
    return atoms


@pytest.mark.parametrize("name", ["f.extxyz", "f.db"])
def test_energies_forces_and_stress_of_ase(tmp_path: Path, name: str):
    atoms = with_forces()
    if name.endswith(".db"):
        with ase.db.connect(tmp_path / name) as database:
            database.write(atoms)
    else:
        ase.io.write(tmp_path / name, [atoms])
    (crystal,) = TableSource(tmp_path / name).load().crystals
    assert crystal.properties["energy"] == pytest.approx(-27.5)
    np.testing.assert_allclose(crystal.properties["forces"], atoms.get_forces(), atol=1e-8)
    np.testing.assert_allclose(crystal.properties["stress"], atoms.get_stress(), atol=1e-8)


def test_stress_as_a_matrix():
    full = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    np.testing.assert_array_equal(label_of(full.tolist(), "stress"), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(label_of(full.reshape(-1), "dft_stress"), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(full, voigt_6_to_full_3x3_stress(label_of(full, "stress")))


def forces_record(id: str, kind: str, n: int, **more: Any) -> dict[str, Any]:
    """A line as in tables of forces, with Cartesian positions."""
    forces = [[0.1 * n, 0.0, float(atom)] for atom in range(n)]
    positions = [[2.5 * atom, 0.0, 0.0] for atom in range(n)]
    structure = {"lattice": [[2.5 * n, 0, 0], [0, 4, 0], [0, 0, 4]], "z": [14] * n, "positions": positions}
    labels = {"energy": -5.0 * n, "forces": forces, "stress": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    return {"id": id, "set": kind, **structure, **labels, "group": None, "split": "train", **more}


@pytest.mark.parametrize("where", ['set == "Si"', {"set": "Si"}, "energy < -12 and set in ['Si', 'Ge']"])
def test_a_table_of_forces_and_a_condition(tmp_path: Path, where: Any, caplog: pytest.LogCaptureFixture):
    rows = [forces_record("a", "Si", 3), forces_record("b", "Mo", 4), forces_record("c", "Si", 6)]
    source = TableSource(write_table(tmp_path / "f.jsonl.gz", rows), where=where)
    with caplog.at_level(logging.INFO):
        data = source.load()
    assert "2 of 3 rows are read" in caplog.text
    assert [crystal.id for crystal in data.crystals] == ["a", "c"]
    assert data.table.arrays == ("forces", "stress")
    assert data.crystals[1].properties["forces"].shape == (6, 3)
    assert data.crystals[1].properties["stress"].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    np.testing.assert_allclose(data.crystals[0].positions[2], [5.0, 0, 0])
    assert source.content_hash() != TableSource(source.path).content_hash()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("set = 'Si'", "not a condition"),
        ("open(1)", r"is not understood"),
        ("sett == 'Si'", "there is no column sett; did you mean set"),
        ({"sett": "Si"}, "there is no column sett; did you mean set"),
        ("set == 'Ge'", "holds for no row"),
        (3, "give a condition"),
    ],
)
def test_conditions_that_cannot_be_used(tmp_path: Path, where: Any, message: str):
    path = write_table(tmp_path / "f.jsonl", [forces_record("a", "Si", 3)])
    with pytest.raises(DataError, match=message):
        TableSource(path, where=where).load()


def test_missing_values_and_text_hold_no_comparison():
    row = {"gap": None, "kind": "metal", "k": "12.5"}
    assert not Where("gap < 1")(row)
    assert not Where("gap != 1")(row)
    assert not Where("kind < 1")(row)
    assert Where("k > 12 and k == 12.5 and not kind == 'x'")(row)
    assert Where("1 < k <= 12.5 or gap == 0")(row)
    assert Where("k not in [1, 2]")(row)


def test_forces_need_a_row_for_each_atom(tmp_path: Path):
    row = forces_record("a", "Si", 3, forces=[[0, 0, 0]] * 2)
    with pytest.raises(DataError, match=r"line 1: crystal 'a': forces .* each of the 3 atoms, .*\(2, 3\)"):
        TableSource(write_table(tmp_path / "f.jsonl", [row])).load()
