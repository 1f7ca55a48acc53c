from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crystal_tables import cubic, moduli, write_table

from potnet.data import DataError, EmbeddedSource, TableSource
from potnet.data.features.choice import choose
from potnet.data.features.staging import stage


def test_embedded_set_is_the_described_one(embedded: Any):
    data = embedded
    assert data.name == "mp_elastic_2018"
    assert len(data) == 4273
    assert data.targets == {"g_vrh": "GPa", "k_vrh": "GPa"}
    parts = list(data.split.values())
    assert [parts.count(part) for part in ("train", "val", "test")] == [3360, 455, 458]
    assert data.content_hash == EmbeddedSource().content_hash()
    assert "CC BY 4.0" in data.licence
    assert "150009" in data.citation
    assert "011002" in data.citation
    assert (data.table.values("k_vrh") > 0).all()


def test_embedded_split_keeps_formulas_apart(embedded: Any):
    parts: dict[str, set[str]] = {}
    ids, formulas = (embedded.table.texts[name].to_pylist() for name in ("id", "formula"))
    for id, formula in zip(ids, formulas, strict=True):
        parts.setdefault(formula, set()).add(embedded.split[id])
    assert len(parts) == 3742
    assert all(len(found) == 1 for found in parts.values())


def test_limit_keeps_proportions_and_order(tmp_path: Path):
    whole = stage(EmbeddedSource(), tmp_path / "stage", "raise")
    found = choose(whole, "mp", limit=200)
    assert len(found.rows) == len(found.table) == 200
    assert [found.table.split.to_pylist().count(part) for part in ("train", "val", "test")] == [157, 21, 22]
    assert (np.diff(found.rows) > 0).all()
    np.testing.assert_array_equal(choose(whole, "mp", limit=200).rows, found.rows)
    assert len(choose(whole, "mp", limit=5000).rows) == 4273
    with pytest.raises(DataError, match=r"data\.limit=0"):
        choose(whole, "mp", limit=0)


def test_table_with_and_without_compression(tmp_path: Path):
    records = moduli(3, split="train")
    plain = TableSource(write_table(tmp_path / "a.jsonl", records), units={"k_vrh": "GPa"}).load()
    packed = TableSource(write_table(tmp_path / "a.jsonl.gz", records)).load()
    assert plain.name == packed.name == "a"
    assert [crystal.id for crystal in plain.crystals] == ["c0", "c1", "c2"]
    assert plain.targets == {"k_vrh": "GPa"}
    assert packed.targets == {"k_vrh": ""}
    assert plain.split == {"c0": "train", "c1": "train", "c2": "train"}
    np.testing.assert_array_equal(plain.crystals[1].cell, packed.crystals[1].cell)


def test_missing_values_are_nan_and_text_is_kept(tmp_path: Path):
    records = [cubic("a", k=1.0, note="x", stable=True, remark="long " * 50), cubic("b", k=None)]
    table = TableSource(write_table(tmp_path / "t.jsonl", records)).load().table
    assert list(table.targets) == ["k", "note", "stable"]
    np.testing.assert_array_equal(table.values("k"), [1.0, np.nan])
    np.testing.assert_array_equal(table.values("stable"), [1.0, np.nan])
    assert table.values("note").tolist() == ["x", None]
    assert table.split is None


def test_unknown_target_names_the_nearest(tmp_path: Path):
    table = TableSource(write_table(tmp_path / "t.jsonl", moduli(2))).load().table
    with pytest.raises(DataError, match=r"unknown target 'k_vhr'; did you mean k_vrh"):
        table.values("k_vhr")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the table is empty; give at least one crystal"),
        (b"\n  \n", "the table is empty"),
        (b"{}\n{", r"line 1: the crystal has no id"),
        (json.dumps(cubic("a")).encode() + b"\n{'id'}\n", r"t\.jsonl, line 2: not valid JSON"),
        (b"[1, 2]\n", "line 1: expected an object with id, lattice, z and frac; got list"),
        (json.dumps({"id": "a", "z": [1]}).encode(), "line 1: .*has no lattice, frac"),
        (json.dumps({**cubic("a"), "z": [1]}).encode(), "line 1: .*'a'.*2 positions need as many"),
        (json.dumps({**cubic("a"), "lattice": [[0] * 3] * 3}).encode(), "line 1: .*lattice vector 0 is zero"),
        (
            json.dumps({**cubic("a"), "split": "tain"}).encode(),
            "crystal a is in .* 'tain'; did you mean train",
        ),
        (json.dumps({**cubic("a"), "split": ["x"]}).encode(), "crystal a is in the unknown part"),
        (json.dumps({**cubic("a"), "split": 0}).encode(), "crystal a is in the unknown part '0'"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
        ("\n".join([json.dumps(cubic("a"))] * 2).encode(), "1 ids stand for several crystals: a"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        TableSource(path).load()


def test_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        TableSource(tmp_path / "none.jsonl").load()


def test_folder_in_place_of_a_file(tmp_path: Path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        TableSource(tmp_path / "folder.jsonl").load()


def test_other_formats_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"cannot read this kind of table; give a \.jsonl, \.csv"):
        TableSource(tmp_path / "data.xlsx")


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"no", lambda b: b[:30] + b"xxxx" + b[34:]])
def test_broken_gzip(tmp_path: Path, damage):
    path = write_table(tmp_path / "t.jsonl.gz", moduli(20))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="broken gzip file"):
        TableSource(path).load()


def test_other_checksum_is_noticed(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match="the file is not what it should be"):
        TableSource(path, sha256="0" * 64).content_hash()
