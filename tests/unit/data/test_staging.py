"""Crystals on their way from a source to features: read once, in any order afterwards, never all in "
"memory."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from crystal_tables import cubic, moduli, write_table

from potnet import files
from potnet.crystals import Crystal
from potnet.data import (
    CrystalDataModule,
    DataError,
    Featurizer,
    RatioSplit,
    Removal,
    TableSource,
    Target,
)
from potnet.data.features import build, staging
from potnet.data.features.cache import cached_features
from potnet.data.features.choice import choose
from potnet.data.features.staging import Stage, stage
from potnet.data.sources import ReadableSource, Sample
from potnet.data.sources.base import Item
from potnet.data.table import DUPLICATE, TOO_LARGE, UNREADABLE
from potnet.runs.record import record_of


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_CHUNK_CRYSTALS", 3)


class CountedSource(TableSource):
    """Counts how often it is read."""

    reads = 0

    def read(self, on_error: str = "raise") -> Iterator[Item]:
        self.reads += 1
        return super().read(on_error)


def test_a_first_start_reads_and_hashes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_table(tmp_path / "t.jsonl", moduli(10, split="train"))
    hashed: list[Path] = []
    digest = files.file_hash
    monkeypatch.setattr(files, "file_hash", lambda p, *a: hashed.append(p) or digest(p, *a))
    source = CountedSource(path)
    TableSource(path).content_hash()  # as a check before the start does
    data = CrystalDataModule(
        source, Target("k_vrh"), Featurizer(neighbors={"cutoff": 3.0}), cache_dir=tmp_path, needs=["edges"]
    )
    data.prepare_data()
    data.setup()
    record_of({}, data)
    assert source.reads == 1
    assert hashed.count(path) == 1


def test_a_start_after_the_reading_was_done_does_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = CountedSource(write_table(tmp_path / "t.jsonl", moduli(10)))
    featurizer = Featurizer(neighbors={"cutoff": 3.0})

    def refuse(table: Any) -> None:
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        cached_features(source, featurizer, tmp_path / "cache", check=refuse)
    store = cached_features(source, featurizer, tmp_path / "cache")
    assert source.reads == 1
    assert len(store) == 10
    assert not (store.folder / "stage").exists()
    # What was skipped is an error where that is asked for.
    broken = CountedSource(write_table(tmp_path / "u.jsonl", [*moduli(2), {**cubic("x"), "z": [999, 1]}]))
    with pytest.raises(DataError, match="no"):
        cached_features(broken, featurizer, tmp_path / "cache", check=refuse, on_error="skip")
    with pytest.raises(DataError, match="atomic number 999"):
        cached_features(broken, featurizer, tmp_path / "cache")


def test_a_reading_that_was_cut_off_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = CountedSource(write_table(tmp_path / "t.jsonl", moduli(10)))
    sample, calls = CountedSource.sample, []

    def stop(self: CountedSource, *arguments: Any) -> Sample:
        calls.append(arguments)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return sample(self, *arguments)

    monkeypatch.setattr(CountedSource, "sample", stop)
    with pytest.raises(KeyboardInterrupt):
        stage(source, tmp_path / "stage", "raise")
    with pytest.raises(OSError, match=r"stage\.json"):
        Stage(tmp_path / "stage")
    assert len(stage(source, tmp_path / "stage", "raise")) == 10


class MixedSource(ReadableSource):
    """Eight crystals with labels of every kind."""

    name = "mixed"
    licence = citation = ""
    units = {"gap": "eV", "absent": "GPa"}  # noqa: RUF012

    def content_hash(self) -> str:
        return "0"

    def read(self, on_error: str = "raise") -> Iterator[Item]:
        for i in range(8):
            n = 1 + i % 3
            labels: dict[str, Any] = {"irregular": np.zeros(1 + i)}
            if i != 2:
                labels |= {"gap": float(i), "class": f"class {i % 2}"}
            if i > 3:
                labels |= {"forces": np.full((n, 3), float(i)), "stress": np.arange(6.0)}
            if i == 7:
                labels["gap"] = "n.d."
            places = 2.5 * np.arange(n)[:, None] * np.array([[1.0, 0, 0]])
            crystal = Crystal(9.0 * np.eye(3), places, [11] * n, f"c{i}", labels)
            yield Sample(crystal, ("train", "test", None)[i % 3])


def test_everything_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        staged = stage(MixedSource(), tmp_path / "stage", "raise")
    assert "irregular is not a label, as its shape is not the same for all crystals" in caplog.text
    assert staged.keys == ["absent", "class", "forces", "gap", "stress"]
    assert staged.arrays == ("forces", "stress")
    table = choose(staged, "mixed").table
    np.testing.assert_array_equal(table.values("gap"), [0, 1, np.nan, 3, 4, 5, 6, np.nan])
    np.testing.assert_array_equal(table.values("absent"), [np.nan] * 8)
    assert table.values("class").tolist() == [None if i == 2 else f"class {i % 2}" for i in range(8)]
    assert table.split.to_pylist() == [("train", "test", None)[i % 3] for i in range(8)]
    with pytest.raises(DataError, match="forces is an array"):
        table.values("forces")
    expected = {item.crystal.id: item.crystal for item in MixedSource().read()}
    for crystal in staged.crystals([7, 0, 4]):
        original = expected[crystal.id]
        for name in ("cell", "positions", "z"):
            np.testing.assert_array_equal(getattr(crystal, name), getattr(original, name))
        numbers = {
            k: v for k, v in original.properties.items() if k != "irregular" and not isinstance(v, str)
        }
        assert crystal.properties.keys() == numbers.keys()
        for key, value in numbers.items():
            np.testing.assert_array_equal(crystal.properties[key], value)


def test_the_finished_cache_knows_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "_SHARD_CRYSTALS", 3)
    featurizer = Featurizer(neighbors={"cutoff": 3.0}, cell="as_given")
    store = cached_features(MixedSource(), featurizer, tmp_path / "one")
    staged = choose(stage(MixedSource(), tmp_path / "stage", "raise"), "mixed").table
    assert list(store.table.texts) == list(staged.texts) == ["id", "formula", "part"]
    for name in staged.texts:
        assert store.table.texts[name].equals(staged.texts[name])
    assert store.table.units == staged.units
    assert store.table.arrays == staged.arrays
    assert list(store.table.targets) == list(staged.targets)
    for key in staged.targets:
        np.testing.assert_array_equal(store.table.values(key), staged.values(key))
    # Other chunks, the same bytes.
    monkeypatch.setattr(staging, "_CHUNK_CRYSTALS", 5)
    again = cached_features(MixedSource(), featurizer, tmp_path / "two")
    for file in store.folder.iterdir():
        assert (again.folder / file.name).read_bytes() == file.read_bytes()


def test_what_is_left_out(tmp_path: Path):
    large = cubic("large")
    rows = [
        *moduli(4),
        cubic("c1", 9.0),
        {**cubic("bad"), "z": [999, 1]},
        {**large, "z": [*large["z"], 8], "frac": [*large["frac"], [0.5, 0, 0]]},
        cubic("c9", 5.0),
        cubic("c0", 5.0),
    ]
    source = TableSource(write_table(tmp_path / "t.jsonl", rows))
    staged = stage(source, tmp_path / "stage", "skip")
    choice = choose(staged, "t", max_atoms=2, on_error="skip")
    assert choice.table.ids.to_pylist() == ["c0", "c1", "c2", "c3", "c9"]
    assert [(entry.id, entry.reason) for entry in choice.table.removed] == [
        ("c1", DUPLICATE),
        ("bad", UNREADABLE),
        ("c0", DUPLICATE),
        ("large", TOO_LARGE),
    ]
    assert choice.atoms.tolist() == [2] * 5
    assert len(choose(staged, "t", limit=3, on_error="skip").rows) == 3
    with pytest.raises(DataError, match="2 ids stand for several crystals: c1, c0"):
        choose(staged, "t")
    with pytest.raises(DataError, match=r"max_atoms=1: none of the 6 crystals of t is as small"):
        choose(staged, "t", max_atoms=1, on_error="skip")


class EmptySource(MixedSource):
    def read(self, on_error: str = "raise") -> Iterator[Item]:
        yield Removal("x", UNREADABLE, "broken")


def test_nothing_readable(tmp_path: Path):
    with pytest.raises(DataError, match="none of the 1 crystals can be read: broken"):
        choose(stage(EmptySource(), tmp_path / "stage", "skip"), "e", on_error="skip")


class ManySource(MixedSource):
    """Any number of crystals, made as they are asked for."""

    def __init__(self, total: int) -> None:
        self.total = total

    def content_hash(self) -> str:
        return f"{self.total:064d}"

    def read(self, on_error: str = "raise") -> Iterator[Item]:
        for i in range(self.total):
            places = 2.5 * np.arange(4)[:, None] * np.array([[1.0, 0, 0]])
            labels = {"gap": float(i), "forces": np.zeros((4, 3))}
            yield Sample(
                Crystal(11.0 * np.eye(3), places, [11, 11, 11, 3 + i % 60], f"c{i}", labels), "train"
            )


def test_memory_does_not_grow_with_the_structures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Peak of Python's and NumPy's memory: a list of the crystals takes some 2 KiB for each."""
    monkeypatch.setattr(staging, "_CHUNK_CRYSTALS", 64)
    stage(ManySource(10), tmp_path / "warm", "raise")
    peaks = []
    for total in (200, 1400):
        tracemalloc.start()
        stage(ManySource(total), tmp_path / str(total), "raise")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1200 * 200


def test_no_object_for_each_crystal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Python's and NumPy's memory, and Arrow's, from the source to the order of an epoch.

    An id as an object in one list takes 70 bytes, and in a dictionary 100 more.
    """
    monkeypatch.setattr(staging, "_CHUNK_CRYSTALS", 64)
    monkeypatch.setattr(build, "_SHARD_CRYSTALS", 256)

    def run(total: int) -> CrystalDataModule:
        data = CrystalDataModule(
            ManySource(total), Target("gap"), {"neighbors": {"cutoff": 3.0}},
            RatioSplit(by="formula"), cache_dir=tmp_path, needs=["edges"], featurize_workers=1,
        )  # fmt: skip
        data.prepare_data()
        data.setup()
        for _ in data.train_dataloader().batch_sampler or ():
            pass
        return data

    run(100)
    kept, peaks = [], []
    for total in (300, 2300):
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        data = run(total)
        found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        kept.append(found[0] + pa.total_allocated_bytes() - before)
        peaks.append(found[1])
        del data
    assert kept[1] - kept[0] < 100 * 2000
    assert peaks[1] - peaks[0] < 200 * 2000
