from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import pytest
from crystal_tables import cubic, table_of, write_table

from potnet.crystals import from_ase
from potnet.data import (
    CrystalTable,
    DataError,
    Featurizer,
    FileSplit,
    FoldSplit,
    RatioSplit,
    Removal,
    Split,
    TableSource,
)
from potnet.data.features.cache import cached_features
from potnet.data.splits import prototypes
from potnet.data.splits.grouped import connected
from potnet.data.splits.prototypes import prototype, with_prototypes
from potnet.data.table import first_rows, texts_of


def table(formulas: list[str], **more: object) -> CrystalTable:
    ids = [f"c{i}" for i in range(len(formulas))]
    return table_of(ids, {"k": np.ones(len(ids))}, {"k": ""}, formula=formulas, **more)  # type: ignore[arg-type]


TABLE = table([f"F{row % 17}" for row in range(100)])


def parts_of(split: Split, labels: dict[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for part, ids in split.to_plain().items():
        for id in ids:
            found.setdefault(labels[id], set()).add(part)
    return found


def test_ratio_uses_every_crystal_once():
    for total in range(3, 40):
        split = RatioSplit(seed=1)(table(["F"] * total))
        assert split.sizes["test"] == split.sizes["val"] == total // 10
        assert sorted(split["train"] + split["val"] + split["test"]) == sorted(f"c{i}" for i in range(total))


def test_seed_sets_the_order():
    hashes = [RatioSplit(seed=seed)(TABLE).hash() for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]
    # Guards against another shuffle in another Python.
    assert RatioSplit(seed=0)(table(["F"] * 10))["test"] == ("c7",)


def test_counts_and_shares():
    assert RatioSplit(20, 10, 5)(TABLE).sizes == {"train": 20, "val": 10, "test": 5}
    assert RatioSplit(0.5, 0.0, 0.1)(TABLE).sizes == {"train": 50, "val": 0, "test": 10}


@pytest.mark.parametrize("seed", range(5))
def test_no_formula_on_two_sides(seed: int):
    labels = dict(zip(*(TABLE.texts[name].to_pylist() for name in ("id", "formula")), strict=True))
    for split in (
        RatioSplit(seed=seed, by="formula")(TABLE),
        RatioSplit(0.3, 0.3, 0.2, seed=seed, by="formula")(TABLE),
        *(FoldSplit(4, fold, seed=seed, by="formula")(TABLE) for fold in range(4)),
    ):
        assert all(len(parts) == 1 for parts in parts_of(split, labels).values())
        assert min(split.sizes[part] for part in ("train", "test")) > 0


def test_folds_cover_everything_once():
    for by in ("crystal", "formula"):
        folds = [FoldSplit(5, fold, by=by)(TABLE) for fold in range(5)]
        assert sorted(id for split in folds for id in split["test"]) == sorted(TABLE.ids.to_pylist())
        assert np.ptp([split.sizes["test"] for split in folds]) <= 6
        for split in folds:
            assert sum(split.sizes.values()) == 100
    assert FoldSplit(5, 0, val=0.0)(TABLE).sizes == {"train": 80, "val": 0, "test": 20}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 1.5}, r"data\.split\.train=1\.5"),
        ({"train": 0.9, "val": 0.2}, "add up to 1.2"),
        ({"by": "formla"}, r"data\.split\.by='formla'; did you mean formula"),
    ],
)
def test_ratios_that_cannot_be(settings: dict[str, object], message: str):
    with pytest.raises(DataError, match=message):
        RatioSplit(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, r"data\.split\.folds=1"),
        ({"fold": 5}, r"data\.split\.fold=5: give 0 to 4"),
        ({"val": 1.0}, r"data\.split\.val=1\.0"),
        ({"by": "x"}, r"data\.split\.by='x'"),
    ],
)
def test_folds_that_cannot_be(settings: dict[str, object], message: str):
    with pytest.raises(DataError, match=message):
        FoldSplit(**settings)  # type: ignore[arg-type]


def test_tables_that_cannot_be_divided():
    with pytest.raises(DataError, match=r"asks for 35 crystals .* but there are 10"):
        RatioSplit(20, 10, 5)(table(["F"] * 10))
    with pytest.raises(DataError, match="no formula fits into 1 of 10 crystals, the smallest left has 10"):
        RatioSplit(by="formula")(table(["F"] * 10))
    with pytest.raises(DataError, match="there are only 1 groups of one formula"):
        FoldSplit(by="formula")(table(["F"] * 10))
    with pytest.raises(DataError, match="there are only 3 crystals"):
        FoldSplit()(table(["F"] * 3))
    with pytest.raises(DataError, match="the table has no prototypes"):
        RatioSplit(by="prototype")(TABLE)


def test_prototypes():
    salt = ase.build.bulk("NaCl", "rocksalt", a=5.6)
    names = [
        prototype(from_ase(atoms))
        for atoms in (
            salt,
            ase.build.bulk("NaCl", "rocksalt", a=5.6, cubic=True),
            ase.build.bulk("MgO", "rocksalt", a=4.2) * (2, 1, 1),
            ase.build.bulk("CsCl", "cesiumchloride", a=4.1),
            ase.build.bulk("ZnS", "zincblende", a=5.4),
            ase.build.bulk("Si", a=5.4),
        )
    ]
    assert names[0] == names[1] == names[2] == "225_AB_1(-3mm)_1(-3mm)"
    assert names[3:] == ["221_AB_1(-3mm)_1(-3mm)", "216_AB_1(-34m)_1(-34m)", "227_A_2(-34m)"]
    shifted = salt.copy()
    shifted.positions += 0.31
    shifted.wrap()
    assert prototype(from_ase(shifted)) == names[0]


def test_prototypes_are_searched_once_without_reading_the_source_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From the crystals on their way to the features, or from the features; the result is kept."""
    reads: list[Path] = []
    read = TableSource.read
    monkeypatch.setattr(TableSource, "read", lambda self, *a: reads.append(self.path) or read(self, *a))
    records = [cubic(f"c{i}", 4.0 + i, k=1.0) for i in range(4)]
    source = TableSource(write_table(tmp_path / "t.jsonl", records))
    found: list[CrystalTable] = []
    featurizer = Featurizer(neighbors={"cutoff": 3.0}).restricted(["edges"])

    def check(table: CrystalTable) -> None:
        found.append(with_prototypes(table.take([3, 1]), source, tmp_path / "kept"))

    store = cached_features(source, featurizer, tmp_path / "cache", check=check)
    assert found[0].texts["prototype"].to_pylist() == ["221_AB_1(-3mm)_1(-3mm)"] * 2
    whole = with_prototypes(store.table, source, tmp_path / "kept")  # the two others, from the features
    prototype_of_all = whole.texts["prototype"].to_pylist()
    assert prototype_of_all == ["221_AB_1(-3mm)_1(-3mm)"] * 4
    assert whole.take([2, 0]).texts["prototype"].to_pylist() == prototype_of_all[:2]
    assert len(reads) == 1
    searched: list[str] = []
    monkeypatch.setattr(prototypes, "prototype", lambda crystal: searched.append(crystal.id) or "none")
    again = with_prototypes(store.table, source, tmp_path / "kept")
    assert again.texts["prototype"].equals(whole.texts["prototype"])
    assert not searched


def test_prototype_split_of_the_embedded_set(embedded: Any):
    crystals = embedded.crystals[:300]
    labels = {crystal.id: prototype(crystal) for crystal in crystals}
    formulas = dict(zip(labels, embedded.table.texts["formula"].to_pylist(), strict=False))
    some = table_of(list(labels), formula=list(formulas.values()), prototype=list(labels.values()))
    split = RatioSplit(by="prototype")(some)
    assert len(set(formulas.values())) < 300
    for known in (labels, formulas):
        assert all(len(parts) == 1 for parts in parts_of(split, known).values())
    assert split.sizes == {"train": 240, "val": 30, "test": 30}


def groups(*labels: list[str]) -> list[int]:
    return connected([first_rows(texts_of(column)) for column in labels]).tolist()


def test_polymorphs_tie_prototypes_together():
    assert groups(["SiO2", "TiO2", "TiO2", "NaCl"], ["p", "p", "q", "r"]) == [0, 0, 0, 1]
    assert groups(["a", "b", "c"], ["x", "y", "x"]) == [0, 1, 0]
    assert groups(["b", "a", "c", "a", "b"]) == [0, 1, 2, 1, 0]


PARTS = {"train": ["c2", "c0"], "val": ["c1"], "test": ["c3"]}


def write_split(folder: Path, kind: str) -> Path:
    if kind == "csv":
        with (folder / "s.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["split", " ID"])
            writer.writerows([part, id] for part, ids in PARTS.items() for id in ids)
            writer.writerow(["", "c4"])
        return folder / "s.csv"
    content: dict[str, object] = {
        f"id_{part}" if kind == "alignn" else part: dict.fromkeys(ids, 1.5) if kind == "jarvis" else ids
        for part, ids in PARTS.items()
    }
    if kind in ("run", "folder"):
        content["hash"] = "x"
    (folder / "split.json").write_text(json.dumps(content))
    return folder if kind == "folder" else folder / "split.json"


@pytest.mark.parametrize("kind", ["csv", "json", "alignn", "jarvis", "run", "folder"])
def test_files_of_ids(tmp_path: Path, kind: str):
    assert FileSplit(write_split(tmp_path, kind))(table(["F"] * 5)).to_plain() == PARTS


def test_removed_crystals_may_be_listed(tmp_path: Path):
    split = FileSplit(write_split(tmp_path, "json"))
    with pytest.raises(DataError, match=r"split\.json: 1 crystals of the split are not in the data: c3"):
        split(table(["F"] * 3))
    removed = (Removal("c3", "too many atoms"),)
    assert split(table(["F"] * 3, removed=removed)).to_plain() == {**PARTS, "test": []}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.json", "{", r"s\.json: not valid JSON"),
        ("s.json", "[1]", "expected an object with train, val and test; got list"),
        ("s.json", '{"train": "c0"}', "train must be a list of ids"),
        ("s.json", '{"tran": ["c0"]}', "unknown part 'tran' of the split; did you mean train"),
        ("s.json", '{"train": ["c0", "c0"]}', "1 crystals are in two places of the split: c0"),
        ("s.json", "{}", "no crystal for training"),
        ("s.csv", "id\nc0\n", "the header needs columns id and split; it has id"),
        ("s.csv", "", "it has nothing"),
        ("s.csv", "id,split\nc0,trian\n", "line 2: unknown part 'trian' of the split; did you mean train"),
        ("s.txt", "c0\n", r"give a \.json file"),
    ],
)
def test_bad_files_of_ids(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        FileSplit(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        FileSplit(tmp_path / "none.json")
