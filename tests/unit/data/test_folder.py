from __future__ import annotations

import gzip
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from potnet.data import DataError, FolderSource
from potnet.data.sources.folder import NOT_LISTED
from potnet.data.table import UNREADABLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three crystals, a.cif, b.vasp and below/c.xyz, without a table."""
    path = tmp_path / "mine"
    (path / "below").mkdir(parents=True)
    for name, constant, format in (
        ("a.cif", 5.4, "cif"),
        ("b.vasp", 5.5, "vasp"),
        ("below/c.xyz", 5.6, "extxyz"),
    ):
        ase.io.write(path / name, bulk("Si", a=constant), format=format)
    (path / "atom_init.json").write_text("{}")
    return path


def with_table(folder: Path, text: str) -> Path:
    (folder / "id_prop.csv").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("a,1\nb,2\nbelow/c,3\n", ["k_vrh"]),
        ("a.cif,1\nb.vasp,2\nbelow/c.xyz,3\n", ["k_vrh"]),
        ("id,k_vrh\na, 1.0\nb, 2e0\n\n# note,\nbelow/c,3\n", None),
        ("\ufeffname,bulk\r\na,1\r\nb,2\r\nbelow/c,3\r\n", {"k_vrh": "bulk"}),
    ],
)
def test_layouts(folder: Path, text: str, targets: list[str] | dict[str, str] | None):
    source = FolderSource(with_table(folder, text), targets=targets, units={"k_vrh": "GPa"})
    data = source.load()
    assert data.name == "mine"
    assert data.targets == {"k_vrh": "GPa"}
    assert data.table.values("k_vrh").tolist() == [1.0, 2.0, 3.0]
    assert [Path(crystal.id).stem for crystal in data.crystals] == ["a", "b", "c"]
    np.testing.assert_allclose(
        [crystal.volume for crystal in data.crystals], np.array([5.4, 5.5, 5.6]) ** 3 / 4, rtol=1e-6
    )
    assert data.split is None
    assert data.removed == ()
    assert data.content_hash == source.content_hash()


def test_several_targets_missing_values_and_a_split(folder: Path):
    text = "id,k_vrh,split,g_vrh\na,1,train,4\nb,,val,nan\nbelow/c,3,,6\n"
    data = FolderSource(with_table(folder, text)).load()
    assert data.targets == {"k_vrh": "", "g_vrh": ""}
    np.testing.assert_array_equal(data.table.values("k_vrh"), [1, np.nan, 3])
    np.testing.assert_array_equal(data.table.values("g_vrh"), [4, np.nan, 6])
    assert data.table.split.to_pylist() == ["train", "val", None]


def test_files_that_are_not_named_are_listed(folder: Path):
    data = FolderSource(with_table(folder, "a,1\n"), targets=["k"]).load()
    assert [(entry.id, entry.reason) for entry in data.removed] == [
        ("b.vasp", NOT_LISTED),
        ("below/c.xyz", NOT_LISTED),
    ]


def test_compressed_files(folder: Path):
    (folder / "a.cif.gz").write_bytes(gzip.compress((folder / "a.cif").read_bytes()))
    (folder / "a.cif").unlink()
    for name in ("a", "a.cif", "a.cif.gz"):
        assert len(FolderSource(with_table(folder, f"{name},1\n"), targets=["k"]).load()) == 1


def test_content_decides_the_hash(folder: Path):
    source = FolderSource(with_table(folder, "a,1\nb,2\n"), targets=["k"])
    before = source.content_hash()
    (folder / "atom_init.json").write_text("{ }")
    assert source.content_hash() == before
    ase.io.write(folder / "b.vasp", bulk("Ge", a=5.5), format="vasp")
    changed = source.content_hash()
    assert changed != before
    with_table(folder, "a,1\nb,3\n")
    assert source.content_hash() not in (before, changed)


@pytest.mark.parametrize(
    ("text", "targets", "message"),
    [
        ("", ["k"], "the table is empty"),
        ("id,k\n", None, "there is a header and no crystal below it"),
        ("a\n", ["k"], "line 1: one column only .*write `name,value`"),
        ("a 1.5\n", ["k"], r"one column only \('a 1\.5'\)"),
        ("a,1\n", None, r"has no header: name its 1 value column, such as 'data\.source\.targets=\[k_vrh\]'"),
        ("a,1,2\n", ["k"], "has 2 columns of values, but the names are k"),
        ("a,1\n", {"k": "x"}, "has no header, so data.source.targets cannot map columns"),
        ("id,bulk\na,1\n", {"k": "bluk"}, r"data\.source\.targets\.k=bluk; did you mean bulk"),
        ("a,1\nb,2,3\n", ["k"], r"id_prop\.csv, line 2: 2 values are given, wanted are 1: k"),
        ("a,1\nz,2\n", ["k"], r"line 2: there is no file z \(.*\) in"),
        ("a,1\na,2\n", ["k"], "1 ids stand for several crystals: a"),
        ('a,"1\n', ["k"], "not valid CSV"),
    ],
)
def test_bad_tables(folder: Path, text: str, targets: list[str] | dict[str, str] | None, message: str):
    with pytest.raises(DataError, match=message):
        FolderSource(with_table(folder, text), targets=targets).load()


def test_bad_folders_and_files(folder: Path):
    with pytest.raises(DataError, match=r"there is no id_prop\.csv in this folder"):
        FolderSource(folder).content_hash()
    with pytest.raises(DataError, match="no such folder"):
        FolderSource(folder / "none").load()
    with pytest.raises(DataError, match="is not a folder"):
        FolderSource(folder / "a.cif").load()
    ase.io.write(folder / "a.vasp", bulk("Si", a=5.4), format="vasp")
    with pytest.raises(DataError, match=r"a may be a\.cif or a\.vasp: write the ending too"):
        FolderSource(with_table(folder, "a,1\n"), targets=["k"]).load()
    ase.io.write(folder / "d.xyz", [bulk("Si", a=5.4)] * 2, format="extxyz")
    with pytest.raises(DataError, match=r"d\.xyz holds 2 structures"):
        FolderSource(with_table(folder, "d,1\n"), targets=["k"]).load()


def test_what_cannot_be_read_is_listed_if_asked(folder: Path):
    (folder / "b.vasp").write_text("hello")
    source = FolderSource(with_table(folder, "a,1\nb,2\nbelow/d,3\nz,1\n"), targets=["k"])
    data = source.load(on_error="skip")
    assert [crystal.id for crystal in data.crystals] == ["a"]
    assert [(entry.id, entry.reason) for entry in data.removed] == [
        ("b", UNREADABLE),
        ("below/d", UNREADABLE),
        ("z", UNREADABLE),
        ("below/c.xyz", NOT_LISTED),
    ]
    with pytest.raises(DataError, match=r"line 2: .*b\.vasp: it breaks off after line 1: a scale is missing"):
        source.load()


def test_text_that_nobody_asked_for_is_no_error(folder: Path):
    data = FolderSource(with_table(folder, "id,k_vrh,class\na,1,metal\nb,n.d.,insulator\n")).load()
    np.testing.assert_array_equal(data.table.values("k_vrh"), [1, np.nan])
    assert data.table.values("class").tolist() == ["metal", "insulator"]


@pytest.mark.parametrize("targets", ["k_vrh", ["k_vrh"]])
def test_one_name_for_a_table_without_header(folder: Path, targets: str | list[str]):
    data = FolderSource(with_table(folder, "a,1\nb,2\nbelow/c,3\n"), targets=targets).load()
    assert data.table.values("k_vrh").tolist() == [1.0, 2.0, 3.0]


def test_an_implausible_file_is_refused_or_read_as_asked(tmp_path: Path):
    text = "x\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n0.1 0 0\n"
    (tmp_path / "a.vasp").write_text(text)
    (tmp_path / "id_prop.csv").write_text("id,k_vrh\na,1\n")
    with pytest.raises(DataError, match=r"a\.vasp: sites 0 and 1 \(Na-Cl\), .* are 0\.40 Å apart"):
        FolderSource(tmp_path).load()
    assert len(FolderSource(tmp_path, plausibility="warn").load().crystals) == 1
