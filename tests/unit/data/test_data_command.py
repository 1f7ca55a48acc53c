from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path

import pytest
from crystal_tables import moduli, write_table
from filelock import FileLock

from potnet.data import Featurizer, TableSource
from potnet.data.__main__ import main
from potnet.data.features import build, integrity
from potnet.data.features.cache import cached_features
from potnet.data.features.store import FeatureStore
from potnet.lattice import Coulomb


@pytest.fixture
def source(tmp_path: Path) -> TableSource:
    return TableSource(
        write_table(tmp_path / "tiny.jsonl", moduli(10, split="train")), units={"k_vrh": "GPa"}
    )


@pytest.fixture
def store(source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A cache of 10 crystals, with a download and an unfinished cache beside it."""
    monkeypatch.setattr(build, "_SHARD_CRYSTALS", 4)
    root = tmp_path / "cache"
    monkeypatch.setenv("POTNET_CACHE", str(root))
    store = cached_features(source, Featurizer(potentials=[Coulomb()]))
    unfinished = cached_features(source, Featurizer(neighbors={"cutoff": 3.0})).folder
    (unfinished / "manifest.json").unlink()
    (root / "downloads" / "deep").mkdir(parents=True)
    (root / "downloads" / "deep" / "set.zip").write_bytes(b"x" * 3000)
    return store


def test_list(store: FeatureStore, capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith(str(store.folder.parent))
    found = {line.split()[3]: line.split() for line in lines}
    assert found[store.folder.name][4:] == ["10", "crystals"]
    assert found["downloads/deep/set.zip"] == ["2.9", "KiB", "download", "downloads/deep/set.zip"]
    assert sorted(line[4:] for line in found.values()) == [[], ["10", "crystals"], ["unfinished"]]


def test_an_interrupted_download_is_listed_and_cleared(
    store: FeatureStore, capsys: pytest.CaptureFixture[str]
):
    downloads = store.folder.parent / "downloads"
    (downloads / "big.zip.part").write_bytes(b"x" * 3000)
    (downloads / "big.zip.part.json").write_text("{}")
    assert main(["list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "big.zip" in line]
    assert line.split() == ["2.9", "KiB", "download", "downloads/big.zip.part", "unfinished"]
    assert main(["clear", "--yes", "downloads/big"]) == 0
    assert sorted(path.name for path in downloads.iterdir()) == ["deep"]


def test_list_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["list", "--cache-dir", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'none'}: 0 B\n"


def test_show(store: FeatureStore, capsys: pytest.CaptureFixture[str]):
    assert main(["show", store.folder.name]) == 0
    text = capsys.readouterr().out
    assert "10 crystals of 2.0 atoms in 3 shards" in text
    assert "property: k_vrh (GPa), 10 crystals" in text
    assert json.loads(text[text.index("{") :]) == store.settings
    assert main(["show", "downloads/deep"]) == 0
    assert "download" in capsys.readouterr().out


def test_names(store: FeatureStore, capsys: pytest.CaptureFixture[str]):
    assert main(["show", "tyni"]) == 1
    assert "nothing is called 'tyni'" in capsys.readouterr().err
    assert main(["verify", "tiny"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_verify_finds_what_the_disk_changed_and_the_next_start_repairs_it(
    store: FeatureStore,
    source: TableSource,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(integrity, "_READ_BYTES", 0)
    assert main(["verify"]) == 0
    assert f"{store.folder.name}: whole" in capsys.readouterr().out
    path = store.folder / store.shards[1].file
    whole = path.read_bytes()
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    integrity.trust(store)  # as if no program had written this
    cached_features(source, Featurizer(potentials=[Coulomb()]))
    assert path.read_bytes() != whole
    assert main(["verify"]) == 1
    assert f"{path} is damaged" in capsys.readouterr().out
    cached_features(source, Featurizer(potentials=[Coulomb()]))
    assert path.read_bytes() == whole
    assert main(["verify"]) == 0


def test_clear_asks(store: FeatureStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    name = store.folder.name
    assert main(["clear", name]) == 1
    assert "add --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(builtins, "input", lambda question: "")
    assert main(["clear", name]) == 1
    assert store.folder.is_dir()
    monkeypatch.setattr(builtins, "input", lambda question: "y")
    assert main(["clear", name]) == 0
    left = [path.name for path in store.folder.parent.iterdir()]
    assert not [found for found in left if found.startswith(name)]
    assert "downloads" in left


def test_clear_all(store: FeatureStore, capsys: pytest.CaptureFixture[str]):
    assert main(["clear"]) == 2
    assert "--all" in capsys.readouterr().err
    assert main(["clear", "--all", "--yes"]) == 0
    assert main(["clear", "--all", "--yes"]) == 0
    assert capsys.readouterr().out.endswith("nothing to delete\n")
    assert not [path for path in store.folder.parent.rglob("*") if path.is_file()]


def test_what_is_being_written_is_not_deleted(store: FeatureStore, capsys: pytest.CaptureFixture[str]):
    with FileLock(store.folder.with_name(store.folder.name + ".lock")):
        assert main(["clear", store.folder.name, "--yes"]) == 1
    assert "is being written by another process" in capsys.readouterr().err
    assert len(FeatureStore(store.folder)) == 10


def test_prepare_does_the_work_of_training(
    source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("POTNET_CACHE", str(tmp_path / "cache"))
    given = [
        "data=table",
        f"data.source.path={source.path}",
        "ablation=pairs_none",
        "target.unit=''",
        "split=shuffled",
    ]
    assert main(["prepare", *given]) == 0
    assert capsys.readouterr().out.startswith("tiny: 8 train, 1 val, 1 test\n")
    (folder,) = (tmp_path / "cache").glob("tiny-*/")
    store = FeatureStore(folder)
    assert len(store) == 10
    assert store.settings["features"]["potentials"] is None  # the network of this ablation reads none
    assert main(["prepare", "data=tabel"]) == 1
    assert "table" in capsys.readouterr().err
