from __future__ import annotations

import dataclasses
import errno
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from crystal_tables import cubic, moduli, write_table

from potnet.crystals import Crystal, CrystalError, CrystalGraph, collate
from potnet.data import (
    CacheError,
    CrystalDataModule,
    Failure,
    Featurizer,
    GivenSplit,
    ShuffledSplit,
    TableSource,
    Target,
)
from potnet.data.features import build, integrity
from potnet.data.features import store as store_module
from potnet.data.features.cache import cache_folder, cached_features
from potnet.data.features.shards import pack
from potnet.data.features.store import FeatureStore
from potnet.data.sources import ReadableSource, Sample
from potnet.files import cache_root, file_hash
from potnet.lattice import Coulomb


class CountingFeaturizer(Featurizer):
    """Notes which crystals it was given."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen: list[str] = []

    def featurize(self, crystals: Any, *args: Any, **kwargs: Any) -> list[CrystalGraph]:
        self.seen += [crystal.id for crystal in crystals]
        return super().featurize(crystals, *args, **kwargs)


@pytest.fixture
def source(tmp_path: Path) -> TableSource:
    return TableSource(write_table(tmp_path / "tiny.jsonl", moduli(10, split="train")))


@pytest.fixture
def featurizer(feature_settings: dict[str, Any]) -> CountingFeaturizer:
    return CountingFeaturizer(**feature_settings)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_SHARD_CRYSTALS", 4)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_batches_are_the_collated_graphs(source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path):
    store = cached_features(source, featurizer, tmp_path)
    assert [shard.crystals for shard in store.shards] == [4, 4, 2]
    rows = [9, 0, 5, 4, 3]
    crystals = source.load().crystals
    expected = collate(featurizer.featurize([crystals[row] for row in rows]))
    batch = store.batch(rows)
    assert batch.ids == expected.ids == [f"c{row}" for row in rows]
    for name in (
        "z",
        "batch",
        "num_atoms",
        "positions",
        "cell",
        "edge_index",
        "edge_shift",
        "pair_index",
        "pair_sums",
    ):
        torch.testing.assert_close(getattr(batch, name), getattr(expected, name), rtol=0, atol=0)
    torch.testing.assert_close(batch.targets, expected.targets)
    graph = store.graph(5)
    assert graph.id == "c5"
    assert graph.targets == {"k_vrh": 15.0}
    np.testing.assert_array_equal(store.num_atoms, [2] * 10)
    np.testing.assert_array_equal(store.num_edges[rows], np.bincount(batch.batch[batch.edge_index[1]]))


class LabelledSource(ReadableSource):
    """Ten crystals of one or two atoms; the last shard has neither forces nor stress."""

    name = "labelled"
    licence = citation = ""
    units: ClassVar = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}

    def content_hash(self) -> str:
        return "0"

    def read(self, on_error: str = "raise") -> Iterator[Sample]:
        for i in range(10):
            n = 1 + i % 2
            properties: dict[str, Any] = {"energy": float(i)}
            if i < 8 and i != 3:
                properties |= {"forces": np.full((n, 3), float(i)), "stress": np.arange(6.0) + i}
            positions = 2.0 * np.arange(n)[:, None] * np.ones((1, 3))
            yield Sample(Crystal(5.0 * np.eye(3), positions, [11] * n, f"c{i}", properties))


def test_labels_of_atoms_and_tensors_are_cached(tmp_path: Path):
    store = cached_features(LabelledSource(), Featurizer(device="cpu", cell="as_given"), tmp_path)
    rows = [9, 1, 3, 4]
    batch = store.batch(rows)
    assert batch.targets["energy"].tolist() == rows
    forces, stress = batch.targets["forces"], batch.targets["stress"]
    assert forces.dtype == stress.dtype == torch.float64
    assert forces.shape == (2 + 2 + 2 + 1, 3)
    assert forces.isnan().all(1).tolist() == [True] * 2 + [False] * 2 + [True] * 2 + [False]
    assert forces[[2, 3, 6]].tolist() == [[1.0] * 3, [1.0] * 3, [4.0] * 3]
    assert stress.isnan().all(1).tolist() == [True, False, True, False]
    assert stress[3].tolist() == [4.0 + i for i in range(6)]
    graph = store.graph(4)
    assert graph.targets["energy"] == 4.0
    assert graph.targets["forces"].shape == (1, 3)
    assert graph.targets["stress"].shape == (6,)
    torch.testing.assert_close(collate([store.graph(r) for r in rows]).targets, batch.targets, equal_nan=True)


def test_shifts_too_large_for_one_byte_are_stored_in_two(tmp_path: Path):
    features = Featurizer(device="cpu", cell="as_given", neighbors={"cutoff": 2.0})
    far = Crystal(5.0 * np.eye(3), [[0, 0, 0], [5.0 * 200 + 1.5, 0, 0]], [11, 17], "far")
    near = dataclasses.replace(far, positions=np.array([[0, 0, 0], [1.5, 0, 0]]))
    packed = [pack(features.featurize([crystal]))["edge_shift"] for crystal in (near, far)]
    assert [shifts.dtype for shifts in packed] == [torch.int8, torch.int16]
    assert packed[1][:, 0].abs().tolist() == [200, 200]


@pytest.mark.parametrize("needs", [{"edges"}, {"pairs"}, set()])
def test_absent_fields_stay_absent(
    source: TableSource, featurizer: Featurizer, tmp_path: Path, needs: set[str]
):
    batch = cached_features(source, featurizer.restricted(needs), tmp_path).batch([0, 1])
    assert (batch.edge_index is not None) == (batch.edge_shift is not None) == ("edges" in needs)
    assert (batch.pair_index is not None) == (batch.pair_sums is not None) == ("pairs" in needs)


def test_angles_are_cached(source: TableSource, featurizer: Featurizer, tmp_path: Path):
    angles = featurizer.restricted({"angles"})
    store = cached_features(source, angles, tmp_path)
    rows = [9, 0, 5, 4, 3]
    crystals = source.load().crystals
    expected = collate(angles.featurize([crystals[row] for row in rows]))
    batch = store.batch(rows)
    for name in ("edge_index", "num_edges", "angle_index"):
        assert torch.equal(getattr(batch, name), getattr(expected, name))
    assert batch.angle_index.shape[1] > 0
    assert torch.equal(store.graph(5).angle_index, angles.featurize([crystals[5]])[0].angle_index)


def test_descriptors_are_cached(tmp_path: Path):
    graphs = [
        CrystalGraph(
            f"c{n}",
            torch.tensor([n]),
            torch.zeros(1, 3, dtype=torch.float64),
            torch.eye(3, dtype=torch.float64),
            descriptor_index=torch.arange(n),
            descriptor_value=torch.full((n,), 0.5),
        )
        for n in (3, 1)
    ]
    arrays = pack(graphs)
    assert arrays["num_descriptors"].tolist() == [3, 1]
    assert arrays["descriptor_index"].tolist() == [0, 1, 2, 0]
    assert arrays["descriptor_index"].dtype == torch.int32
    assert arrays["descriptor_value"].tolist() == [0.5] * 4
    assert "num_edges" not in arrays


def test_crystals_without_edges(featurizer: Featurizer, tmp_path: Path):
    source = TableSource(
        write_table(tmp_path / "t.jsonl", [cubic("a", 20.0), cubic("b", 4.0), cubic("c", 20.0)])
    )
    batch = cached_features(source, featurizer, tmp_path).batch([0, 1, 2])
    assert set(batch.edge_index.flatten().tolist()) == {2, 3}
    assert cached_features(source, featurizer, tmp_path).batch([2, 0]).edge_index.shape == (2, 0)


def test_work_is_done_once(source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path):
    first = cached_features(source, featurizer, tmp_path)
    second = cached_features(source, featurizer, tmp_path)
    assert featurizer.seen == [f"c{i}" for i in range(10)]
    assert first.folder == second.folder


def test_key_knows_what_matters(source: TableSource, feature_settings: dict[str, Any], tmp_path: Path):
    def folder(
        data: TableSource = source, limit: int | None = None, max_atoms: int | None = None, **change: Any
    ) -> Path:
        featurizer = Featurizer(**{**feature_settings, **change})
        return cache_folder(data, featurizer, tmp_path, limit, max_atoms)[0]

    def potentials(change: dict[str, Any]) -> list[dict[str, Any]]:
        return [*feature_settings["potentials"][:2], {**feature_settings["potentials"][2], **change}]

    assert folder() == folder() == folder(device="cpu", memory_mib=8)
    assert folder() == folder(potentials=potentials({})) == folder(neighbors={"cutoff": 4, "k": None})
    assert folder().name.startswith("tiny-")
    other = TableSource(write_table(tmp_path / "tiny2.jsonl", moduli(9)), name="tiny")
    different = {
        "data": folder(other),
        "units": folder(TableSource(source.path, units={"k_vrh": "GPa"})),
        "limit": folder(limit=3),
        "max_atoms": folder(max_atoms=3),
        "cell": folder(cell="as_given"),
        "symprec": folder(symprec=0.1),
        "cutoff": folder(neighbors={"cutoff": 5.0}),
        "k": folder(neighbors={"cutoff": 4.0, "k": 12}),
        "shells": folder(neighbors={"cutoff": 4.0, "shell_tolerance": 0.1}),
        "no edges": folder(neighbors=None),
        "fewer potentials": folder(potentials=feature_settings["potentials"][:2]),
        "order of potentials": folder(potentials=feature_settings["potentials"][::-1]),
        "no potentials": folder(potentials=None),
        "alpha": folder(potentials=potentials({"alpha": 2.0})),
        "convention": folder(potentials=potentials({"convention": "published"})),
        "accuracy": folder(accuracy=1e-6),
        "pair_cutoff": folder(pair_cutoff=10.0),
        "pair_split": folder(pair_split=10.0),
    }
    assert len({folder(), *different.values()}) == 1 + len(different)


def test_key_ignores_what_does_not_matter(feature_settings: dict[str, Any], tmp_path: Path):
    records = [{**record, "gap": 1.0} for record in moduli(10, split="train")]
    source = TableSource(write_table(tmp_path / "two.jsonl", records))

    def folder(target: str = "k_vrh", **settings: Any) -> Path:
        settings = {"split": ShuffledSplit(), "cache_dir": tmp_path, **settings}
        return CrystalDataModule(source, Target(target), feature_settings, **settings).store.folder

    expected = folder()
    assert folder("gap") == expected
    assert folder(batch_size=3, max_pairs=9, max_edges=9, seed=5, num_workers=1) == expected
    assert folder(split=GivenSplit(), on_error="skip", featurize_workers=1) == expected
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [expected]


def test_where_caches_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("POTNET_CACHE", raising=False)
    assert cache_root() == Path("/xdg/potnet")
    monkeypatch.setenv("POTNET_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    assert cache_root("/elsewhere") == Path("/elsewhere")


def test_unfinished_cache_is_never_read(source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path):
    store = cached_features(source, featurizer, tmp_path)
    whole = files(store.folder)
    (store.folder / "manifest.json").unlink()
    with pytest.raises(CacheError, match="no finished feature cache"):
        FeatureStore(store.folder)
    (store.folder / store.shards[1].file).unlink()
    (store.folder / "labels.parquet.part").write_text("half")
    featurizer.seen.clear()
    cached_features(source, featurizer, tmp_path)
    assert featurizer.seen == ["c4", "c5", "c6", "c7"]
    assert files(store.folder) == whole


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:300] + bytes([b[300] ^ 1]) + b[301:]])
def test_damaged_shard_is_noticed_and_redone(
    source: TableSource,
    featurizer: CountingFeaturizer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Any,
):
    store = cached_features(source, featurizer, tmp_path)
    whole = files(store.folder)
    path = store.folder / store.shards[2].file
    path.write_bytes(damage(path.read_bytes()))
    featurizer.seen.clear()
    with caplog.at_level(logging.WARNING):
        cached_features(source, featurizer, tmp_path)
    assert path.name in caplog.text
    assert featurizer.seen == ["c8", "c9"]
    assert files(store.folder) == whole


@pytest.mark.parametrize("place", [0, -20])
def test_flipped_byte_of_the_labels(
    source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path, place: int
):
    store = cached_features(source, featurizer, tmp_path)
    whole = files(store.folder)
    content = bytearray(whole["labels.parquet"])
    content[place] ^= 1
    (store.folder / "labels.parquet").write_bytes(content)
    with pytest.raises(CacheError, match=r"labels\.parquet is damaged"):
        FeatureStore(store.folder)
    featurizer.seen.clear()
    cached_features(source, featurizer, tmp_path)
    assert featurizer.seen == []
    assert files(store.folder) == whole


def test_other_properties_may_be_infinite_or_missing(featurizer: CountingFeaturizer, tmp_path: Path):
    gaps = [np.inf, -np.inf, None, 1.5]
    records = [{**record, "gap": gap} for record, gap in zip(moduli(4), gaps, strict=True)]
    store = cached_features(TableSource(write_table(tmp_path / "t.jsonl", records)), featurizer, tmp_path)
    np.testing.assert_array_equal(store.table.values("gap"), [np.inf, -np.inf, np.nan, 1.5])


@pytest.mark.parametrize("content", [b"", b"{", b"{}", None])
def test_broken_manifest(source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path, content: bytes):
    store = cached_features(source, featurizer, tmp_path)
    path = store.folder / "manifest.json"
    if content is None:
        content = path.read_bytes().replace(b'"crystals":4', b'"crystals":5', 1)
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"manifest\.json"):
        FeatureStore(store.folder)
    featurizer.seen.clear()
    assert len(cached_features(source, featurizer, tmp_path)) == 10
    assert featurizer.seen == []


def test_large_caches_are_not_read_whole_at_the_start(
    source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(integrity, "_READ_BYTES", 0)
    read: list[str] = []

    def note(path: Path) -> str:
        if path.name.startswith("shard"):
            read.append(path.name)
        return file_hash(path)

    monkeypatch.setattr(store_module, "file_hash", note)
    store = cached_features(source, featurizer, tmp_path)
    cached_features(source, featurizer, tmp_path)
    assert read == []
    path = store.folder / store.shards[1].file
    os.utime(path, (1, 1))
    cached_features(source, featurizer, tmp_path)
    assert read == [path.name]
    cached_features(source, featurizer, tmp_path)
    assert read == [path.name]
    # Without the record, or with a broken one, all is read once.
    for content in (None, "[1", "[]"):
        read.clear()
        integrity.record_of(store.folder).unlink()
        if content is not None:
            integrity.record_of(store.folder).write_text(content)
        cached_features(source, featurizer, tmp_path)
        cached_features(source, featurizer, tmp_path)
        assert len(read) == 3


def test_flipped_byte_of_a_large_cache(
    source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(integrity, "_READ_BYTES", 0)
    store = cached_features(source, featurizer, tmp_path)
    whole = files(store.folder)
    path = store.folder / store.shards[1].file
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    # Who sets back the time of the last write leaves another trace, once the clock of the file system ticks.
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    featurizer.seen.clear()
    cached_features(source, featurizer, tmp_path)
    assert featurizer.seen == ["c4", "c5", "c6", "c7"]
    assert files(store.folder) == whole


def test_cache_that_belongs_to_others(
    source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, content: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    store = cached_features(source, featurizer, tmp_path)
    integrity.forget(store.folder)
    monkeypatch.setattr(integrity, "write_whole", refuse)
    assert len(cached_features(source, featurizer, tmp_path)) == 10


def test_full_disk(
    source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done: list[int] = []

    def fsync(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) == 3:  # after the stage and one shard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    message = r"cannot write the feature cache in .*tiny-.*: No space left .*data\.cache_dir or POTNET_CACHE"
    with pytest.raises(CacheError, match=message):
        cached_features(source, featurizer, tmp_path)
    folder = cache_folder(source, featurizer, tmp_path)[0]
    assert sorted(path.name[:11] for path in folder.iterdir()) == ["shard-00000", "stage"]
    featurizer.seen.clear()
    assert len(cached_features(source, featurizer, tmp_path)) == 10
    assert "c0" not in featurizer.seen


def test_cache_dir_that_is_no_folder(source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot write the feature cache in .*file.*data\.cache_dir"):
        cached_features(source, featurizer, tmp_path / "file" / "cache")
    assert featurizer.seen == []


class _Refusing(CountingFeaturizer):
    def _local(self, crystal: Crystal) -> Any:
        if crystal.id in ("c1", "c8", "c9"):
            raise CrystalError("refused", crystal.id)
        return super()._local(crystal)


def test_failures_are_kept_with_their_reason(
    source: TableSource, feature_settings: dict[str, Any], tmp_path: Path
):
    featurizer = _Refusing(**feature_settings)
    with pytest.raises(CrystalError, match="crystal 'c1': refused"):
        cached_features(source, featurizer, tmp_path)
    expected = [Failure(id, "refused") for id in ("c1", "c8", "c9")]
    store = cached_features(source, featurizer, tmp_path, on_error="skip")
    assert store.failures == expected
    assert store.table.ids.to_pylist() == ["c0", "c2", "c3", "c4", "c5", "c6", "c7"]
    assert store.batch([1, 6]).ids == ["c2", "c7"]
    assert store.batch([1, 6]).targets["k_vrh"].tolist() == [12.0, 17.0]
    # A later run that wants every crystal finds the same cache, and is told.
    with pytest.raises(CrystalError, match="crystal 'c1': refused"):
        cached_features(source, featurizer, tmp_path)
    # The same from the shards alone.
    (store.folder / "manifest.json").unlink()
    assert cached_features(source, featurizer, tmp_path, on_error="skip").failures == expected


def test_check_comes_before_the_work(source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path):
    def refuse(dataset: Any) -> None:
        raise KeyError("no such target")

    with pytest.raises(KeyError):
        cached_features(source, featurizer, tmp_path, check=refuse)
    assert featurizer.seen == []


def test_store_travels_to_other_processes_by_path(
    source: TableSource, featurizer: CountingFeaturizer, tmp_path: Path
):
    store = cached_features(source, featurizer, tmp_path)
    content = pickle.dumps(store)
    assert len(content) < 1000
    torch.testing.assert_close(pickle.loads(content).batch([3]).pair_sums, store.batch([3]).pair_sums)


_PROCESS = """
import sys
from potnet.data import Featurizer, TableSource
from potnet.data.features import build, cache
from potnet.lattice import Coulomb

class Waiting(Featurizer):
    def featurize(self, crystals, *args, **kwargs):
        print("featurize", len(crystals), flush=True)
        sys.stdin.readline()  # until the test says go on
        return super().featurize(crystals, *args, **kwargs)

build._SHARD_CRYSTALS = 4
store = cache.cached_features(TableSource(sys.argv[1]), Waiting(potentials=[Coulomb()]), sys.argv[2])
print("crystals", len(store), flush=True)
"""


@contextmanager
def process(source: TableSource, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that featurizes; it waits before each shard for a line on its standard input."""
    command = [sys.executable, "-c", _PROCESS, str(source.path), str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def test_killed_half_way(source: TableSource, tmp_path: Path):
    featurizer = CountingFeaturizer(potentials=[Coulomb()])
    with process(source, tmp_path / "killed") as child:
        assert child.stdout.readline() == "featurize 4\n"
        child.stdin.write("go on\n")
        child.stdin.flush()
        assert child.stdout.readline() == "featurize 4\n"  # it is at the second shard
        child.send_signal(signal.SIGKILL)
        child.wait()
    folder = cache_folder(source, featurizer, tmp_path / "killed")[0]
    with pytest.raises(CacheError):
        FeatureStore(folder)
    store = cached_features(source, featurizer, tmp_path / "killed")
    assert featurizer.seen == ["c4", "c5", "c6", "c7", "c8", "c9"]
    whole = cached_features(source, featurizer, tmp_path / "whole")
    assert files(store.folder) == files(whole.folder)
    assert store.settings["features"] == featurizer.settings()


def test_two_processes_share_the_work(source: TableSource, tmp_path: Path):
    with process(source, tmp_path / "shared") as first:
        assert first.stdout.readline() == "featurize 4\n"  # it holds the lock
        with process(source, tmp_path / "shared") as second:
            assert any("waiting for it" in line for line in second.stderr)
            out, _ = first.communicate()  # closes standard input: it waits no more
            assert out == "featurize 4\nfeaturize 2\ncrystals 10\n"
            out, _ = second.communicate()
            assert out == "crystals 10\n"
    assert first.returncode == second.returncode == 0
