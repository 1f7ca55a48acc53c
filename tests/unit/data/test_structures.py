"""One reader for whatever files hold crystals."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import pytest
from ase.build import bulk
from crystal_tables import cubic, write_table

from potnet.crystals import Crystal, CrystalError
from potnet.data.sources import open_structures, structure_files

SI = bulk("Si", a=5.43)


def cif() -> str:
    text = io.BytesIO()
    ase.io.write(text, SI, format="cif")
    return text.getvalue().decode()


def write_csv(path: Path, *rows: dict[str, Any]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def ids(path: Path) -> list[str]:
    return [outcome.id for outcome in open_structures(path) if isinstance(outcome, Crystal)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of every kind."""
    from pyarrow import Table
    from pyarrow.parquet import write_table as write_parquet

    (tmp_path / "below").mkdir()
    ase.io.write(tmp_path / "Si.cif", SI)
    ase.io.write(tmp_path / "Si.vasp", SI)
    ase.io.write(tmp_path / "below" / "Si.cif", SI)
    ase.io.write(tmp_path / "below" / "t.traj", [SI, SI])
    named = SI.copy()
    named.info["name"] = "mp-149"
    ase.io.write(tmp_path / "x.xyz", named, format="extxyz")
    atoms = {"numbers": [14], "positions": [[0, 0, 0]], "cell": [4, 4, 4], "pbc": True}
    (tmp_path / "j.json").write_text(json.dumps(atoms))
    with ase.db.connect(tmp_path / "d.db") as database:
        database.write(SI)
    write_csv(tmp_path / "c.csv", {"material_id": "csv", "cif": cif()})
    write_parquet(Table.from_pylist([{"id": "parquet", "cif": cif()}]), tmp_path / "p.parquet")
    write_table(tmp_path / "l.jsonl", [{"id": "jsonl", "cif": cif()}, cubic("csv")])
    # What holds no structures.
    (tmp_path / "id_prop.csv").write_text("Si,1.0\n")
    (tmp_path / "atom_init.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


def test_a_folder_with_everything(folder: Path):
    assert len(structure_files(folder)) == 10
    outcomes = list(open_structures(folder))
    assert [outcome for outcome in outcomes if isinstance(outcome, CrystalError)] == []
    found = [outcome.id for outcome in outcomes]
    assert len(set(found)) == len(found) == 12
    assert {"Si", "Si.vasp", "mp-149", "csv", "parquet", "jsonl", "1", "t:0", "t:1", "j"} <= set(found)


def test_what_cannot_be_read_comes_in_its_place(tmp_path: Path):
    path = write_table(tmp_path / "t.jsonl", [cubic("a"), {**cubic("b"), "z": [999, 1]}, cubic("c")])
    first, error, last = open_structures(path)
    assert (first.id, last.id) == ("a", "c")
    assert "line 2: crystal 'b': site 0 has atomic number 999" in str(error)
    (tmp_path / "broken.jsonl.gz").write_bytes(gzip.compress(b"{}" * 100)[:20])
    (error,) = open_structures(tmp_path / "broken.jsonl.gz")
    assert "broken gzip file" in str(error)
    with pytest.raises(CrystalError, match="no such file or folder"):
        next(open_structures(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CrystalError, match=r"no structure file in this folder \(looked for \.cif"):
        next(open_structures(tmp_path / "empty"))


def test_rows_without_a_name_are_called_after_their_place(tmp_path: Path):
    write_csv(tmp_path / "t.csv", {"cif": cif()}, {"cif": cif()})
    assert len(set(ids(tmp_path / "t.csv"))) == 2
