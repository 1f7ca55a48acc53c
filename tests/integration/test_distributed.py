"""Two CPU processes against one: the same figures, one folder, nothing left behind; killed and resumed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from lightning import Callback, LightningModule, Trainer

from potnet.train import resumed, train
from potnet.training.processes.launch import RankError

Run = Any  # conftest.Run
TWO = "trainer=ddp_cpu"
# 49 training crystals in batches of 16: shares differ, and the last batch of an epoch has a single crystal.
SIZES = ("data.limit=61", "data.batch_size=16", "trainer.max_epochs=1")


def figures(folder: Path) -> dict[str, float]:
    """All errors of a run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    found = {
        f"final {part}/{key}": metrics[part]["k_vrh"][key]
        for part in ("val", "test")
        for key in ("mae", "rmse", "n")
    }
    return found | {
        key: float(last[key])
        for key in (
            "step",
            "train/loss",
            "train/k_vrh/mae",
            "train/grad_norm",
            "val/loss",
            "val/k_vrh/mae",
            "val/k_vrh/rmse",
        )
    }


def test_two_ranks_give_the_figures_of_one(
    run_training: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batch normalisation across ranks, and so for all layers that there are.

    In float64: in front of batch normalisation some gradients are zero but for rounding, and AdamW makes
    steps of them.
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    settings = (*SIZES, "trainer.precision=64-true")
    one = run_training(*settings)
    environment = dict(os.environ)
    two = run_training(TWO, "trainer.sync_batchnorm=true", *settings)

    assert figures(two.folder) == pytest.approx(figures(one.folder), rel=1e-6, abs=1e-6)
    split = json.loads((two.folder / "split.json").read_text())
    with (two.folder / "predictions.csv").open(newline="") as file:
        predicted = [row["id"] for row in csv.DictReader(file)]
    assert predicted == [*split["val"], *split["test"]]
    # One folder, and nothing elsewhere.
    assert sorted(path.name for path in two.folder.iterdir()) == sorted(
        path.name for path in one.folder.iterdir()
    )
    assert dict(os.environ) == environment
    assert not torch.distributed.is_initialized()
    assert not list(tmp_path.glob("potnet_*"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["potnet", "potnet_published"])
def test_every_rank_validates_the_network_that_is_kept(
    model: str, run_training: Callable[..., Run], cache_dir: Path
) -> None:
    """Without batch normalisation across ranks: each has running statistics of its own."""
    run = run_training(TWO, *SIZES, f"model={model}")
    found = figures(run.folder)
    assert found["val/k_vrh/mae"] == pytest.approx(found["final val/mae"], rel=1e-5)


@pytest.mark.slow
def test_the_default_network_on_two_ranks(run_training: Callable[..., Run]) -> None:
    """In float32, as it comes."""
    settings = (*SIZES, "model=potnet", "data.num_workers=1")
    one, two = (figures(run_training(*devices, *settings).folder) for devices in ((), (TWO,)))
    assert two == pytest.approx(one, rel=1e-5, abs=1e-6)
    for key in ("final val/mae", "final val/rmse"):
        assert two[key] == pytest.approx(one[key], rel=0, abs=1e-6)


@pytest.mark.slow
def test_a_batch_smaller_than_the_number_of_ranks(run_training: Callable[..., Run]) -> None:
    settings = ("data.limit=20", "data.batch_size=7", "trainer.max_epochs=1", "model=potnet")
    one = run_training(*settings)
    four = run_training(TWO, "trainer.devices=4", *settings)
    assert figures(four.folder) == pytest.approx(figures(one.folder), rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_each_job_of_a_sweep_has_its_own_number_of_ranks(tmp_path: Path, cache_dir: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "potnet.train", "-m", "trainer.devices=1,2,1", "hydra.sweep.dir=sweep"),
            *(*TINY, *SIZES, "model=potnet", f"data.cache_dir={cache_dir}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary(tmp_path))},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    folders = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert len(folders) == 3
    first, second, third = map(figures, folders)
    assert first == third
    assert second == pytest.approx(first, rel=1e-5, abs=1e-6)
    for folder, devices in zip(folders, (1, 2, 1), strict=True):
        kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert kept["potnet"]["config"]["trainer"]["devices"] == devices
        assert json.loads((folder / "metrics.json").read_text())["devices"] == devices
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep", "tmp"]
    assert not list((tmp_path / "tmp").glob("potnet_*"))


class EndOnce(Callback):
    """Sends a signal to the second rank, within the third epoch; once, which the file `done` says."""

    def __init__(self, number: int, done: str) -> None:
        self.number, self.done = number, Path(done)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.global_rank, trainer.current_epoch, batch_idx) == (1, 2, 1) and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), self.number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_rank_is_ended_goes_on_to_the_same_result(
    number: signal.Signals,
    run_training: Callable[..., Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    end = [f"+callbacks.end.{key}" for key in ("_target_", "number", "done")]
    settings = [TWO, "data.limit=61", "data.batch_size=16", "trainer.max_epochs=4", "model=potnet"]
    settings += [f"{end[0]}={__name__}.EndOnce", f"{end[1]}={int(number)}", f"{end[2]}={tmp_path / 'done'}"]
    folder = tmp_path / "run"
    folder.mkdir()
    if number == signal.SIGKILL:
        with pytest.raises(RankError, match=r"rank 1 of 2 \(process \d+\) was killed by SIGKILL.*resume="):
            run_training(*settings, folder=folder)
    else:
        with pytest.raises(SystemExit) as stopped:
            run_training(*settings, folder=folder)
        assert stopped.value.code == 143
    said = capfd.readouterr().err
    assert ("stopped by SIGTERM; kept: 2 of 3 batches of epoch 3" in said) == (number == signal.SIGTERM)
    assert "Traceback" not in said

    train(resumed(folder, [f"allow=[{__name__}.EndOnce]"]), folder, resume=True)
    whole = run_training(*settings)
    assert figures(folder) == figures(whole.folder)
    assert (folder / "predictions.csv").read_text() == (whole.folder / "predictions.csv").read_text()
    assert not list(tmp_path.glob("potnet_*"))


@pytest.mark.slow
def test_the_process_that_starts_the_ranks_holds_the_folder(tmp_path: Path, cache_dir: Path) -> None:
    command = [
        *(sys.executable, "-m", "potnet.train", *TINY, TWO, *SIZES, f"data.cache_dir={cache_dir}"),
        "hydra.run.dir=mine",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first, second = (
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert figures(tmp_path / "mine")["final val/n"] > 0
    assert second.returncode == 1
    assert second.stderr.startswith("error: mine holds an earlier run")


@pytest.mark.slow
@pytest.mark.parametrize("place", [(), ("hydra.run.dir=mine",)])
def test_ranks_that_torchrun_starts(place: tuple[str, ...], tmp_path: Path, cache_dir: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"),
            *("potnet.train", *TINY, TWO, *SIZES, f"data.cache_dir={cache_dir}", *place),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary(tmp_path))},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/1") == 1
    folder = tmp_path / "mine"
    if not place:
        (folder,) = (tmp_path / "runs" / "k_vrh").iterdir()
    assert figures(folder)["final val/n"] > 0
    assert not list((tmp_path / "tmp").glob("potnet_*"))


@pytest.mark.slow
def test_torchrun_without_ddp_is_refused_once(tmp_path: Path, cache_dir: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"),
            *("potnet.train", *TINY, *SIZES, f"data.cache_dir={cache_dir}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode != 0
    assert done.stderr.count("error: torchrun started 2 processes") == 1
    assert "trainer=ddp_cpu trainer.devices=2" in done.stderr
    assert not (tmp_path / "runs").exists()


def temporary(folder: Path) -> Path:
    """A folder for temporary files."""
    (folder / "tmp").mkdir()
    return folder / "tmp"
