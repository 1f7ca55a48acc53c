"""Checkpoints: older formats, what is resumed, what is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import potnet
from potnet.runs.checkpoint import CheckpointError, check_resumable, export, load_checkpoint
from potnet.runs.folder import RunFolder
from potnet.runs.record import FORMAT, portable

OLD = Path(__file__).parents[2] / "fixtures" / "format1"


@pytest.mark.parametrize("name", ["potnet", "published"])
def test_format_1_predicts_what_it_predicted(name: str, tmp_path: Path) -> None:
    import gzip
    from importlib.resources import files

    with (OLD / name / "predictions.csv").open(newline="") as file:
        known = {row["id"]: float(row["prediction"]) for row in csv.DictReader(file)}
    content = (files("potnet.data") / "embedded" / "mp_elastic_2018.jsonl.gz").read_bytes()
    lines = [
        line for line in gzip.decompress(content).decode().splitlines() if json.loads(line)["id"] in known
    ]
    (tmp_path / "some.jsonl").write_text("\n".join(lines))
    model = potnet.load(OLD / name, device="cpu")
    found = model.predict(tmp_path / "some.jsonl")
    assert {row["id"]: row["k_vrh"] for row in found} == pytest.approx(known, rel=1e-5)
    whole = export(OLD / name, tmp_path / "old.safetensors")
    assert list(potnet.load(whole, device="cpu").predict(tmp_path / "some.jsonl").values) == list(
        found.values
    )


def test_format_1_in_the_present_form() -> None:
    checkpoint = load_checkpoint(OLD / "potnet")
    settings, record = checkpoint["hyper_parameters"], checkpoint["potnet"]
    assert record["format"] == FORMAT
    assert settings["model"]["_target_"] == record["config"]["model"]["_target_"] == "potnet.models.PotNet"
    assert list(settings["targets"]) == ["k_vrh"]
    assert {"scalers.k_vrh.mean", "scalers.k_vrh.std"} < set(checkpoint["state_dict"])
    assert "home" not in json.dumps(record)
    assert load_checkpoint(OLD / "published")["hyper_parameters"]["model"]["_target_"].endswith(
        ".PublishedPotNet"
    )


def test_folders_of_format_1_are_read() -> None:
    run = RunFolder(OLD / "potnet")
    metrics = run.finished()
    assert metrics is not None
    assert metrics["test"]["k_vrh"]["n"] == 7
    assert len(list(run.rows())) == 13
    assert "val/k_vrh/mae" in run.history()[0]


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("read", [load_checkpoint, check_resumable, potnet.load])
def test_a_malicious_pickle_runs_nothing(read: Any, tmp_path: Path) -> None:
    mark, file = tmp_path / "owned", tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "potnet": {"format": 2}, "evil": Malicious(mark)}, file)
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt: not a checkpoint of potnet .*nothing in it was run"
    ):
        read(file)
    assert not mark.exists()


def test_an_old_run_or_an_export_cannot_be_continued(tmp_path: Path) -> None:
    shutil.copytree(OLD / "potnet", tmp_path / "old")
    run = RunFolder(tmp_path / "old")
    run.best.rename(run.last)
    with pytest.raises(CheckpointError, match=r"older potnet \(format 1\).*Start a new run"):
        check_resumable(run.path)
    with pytest.raises(CheckpointError, match="weights alone"):
        check_resumable(export(run.last))


def test_places_of_a_machine_are_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    config = {
        "data": {"cache_dir": "/scratch/me", "source": {"path": "/data/mine/a.csv", "_target_": "b.C"}},
        "windows": "C:\\Users\\me\\b.csv",
        "runs_dir": "runs",
        "list": [f"file:{tmp_path}/x", "~/y", 3, None],
    }
    assert portable(config) == {
        "data": {"cache_dir": None, "source": {"path": "a.csv", "_target_": "b.C"}},
        "windows": "b.csv",
        "runs_dir": "runs",
        "list": ["file:~/x", "y", 3, None],
    }


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_broken_export(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: (damaged|not an export)"):
        potnet.load(file)


@pytest.mark.parametrize("size", [0, 100, 5_000, 20_000])
@pytest.mark.parametrize("read", [load_checkpoint, check_resumable])
def test_a_truncated_checkpoint_is_called_so(read: Any, size: int, tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    weights = {f"model.{number}": torch.zeros(100) for number in range(200)}
    torch.save({"state_dict": weights, "potnet": {"format": FORMAT}}, file)
    content = file.read_bytes()
    assert len(content) > 20_000
    file.write_bytes(content[:size])
    with pytest.raises(CheckpointError, match=r"last\.ckpt: damaged or truncated; take another checkpoint"):
        read(file)


def test_resume_runs_nothing_of_a_malicious_checkpoint(tmp_path: Path) -> None:
    from potnet.train import resumed

    mark, run = tmp_path / "owned", RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    shutil.copy(OLD / "potnet" / "config.yaml", run.config)
    torch.save({"state_dict": {}, "potnet": {"format": 2}, "evil": Malicious(mark)}, run.last)
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        resumed(run.path, [])
    assert not mark.exists()
