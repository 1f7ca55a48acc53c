"""Jobs of a sweep: what is skipped, what goes on, what is refused, and what a job leaves behind."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from omegaconf import OmegaConf

from potnet.runs.folder import ERROR, RunFolder
from potnet.runs.sweeps import difference, run_job
from potnet.train import resumable

CONFIG = {
    "seed": 1,
    "resume": None,
    "model": {"width": 16},
    "trainer": {"max_epochs": 3, "devices": 1},
    "data": {"source": {"_target_": "potnet.data.EmbeddedSource"}, "cache_dir": None},
    "logger": {},
}


class Training:
    """In the place of `potnet.train.train`: remembers how it was called."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[tuple[dict[str, Any], bool]] = []
        self.error = error

    def __call__(self, config: dict[str, Any], folder: Path, resume: bool) -> float:
        self.calls.append((config, resume))
        if self.error is not None:
            raise self.error
        return 0.5


def run(folder: Path, training: Training, **changes: Any) -> float | None:
    return run_job(OmegaConf.create(CONFIG | changes), folder, training, resumable)


def earlier_run(
    folder: Path, metrics: dict[str, Any] | None, checkpoint: bool = True, **changes: Any
) -> None:
    """The folder as an earlier job of the same settings, or with changes, left it."""
    (folder / "checkpoints").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    if checkpoint:
        torch.save({"state_dict": {}, "potnet": {"format": 2}}, folder / "checkpoints" / "last.ckpt")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))


def test_a_new_job_is_trained_from_the_start(tmp_path: Path) -> None:
    training = Training()
    assert run(tmp_path / "0_seed=1", training) == 0.5
    assert training.calls == [(CONFIG, False)]


def test_a_finished_job_is_skipped_and_returns_its_value(tmp_path: Path) -> None:
    earlier_run(tmp_path, {"val": {"mae": 0.25}, "interrupted": False})
    training = Training()
    assert run(tmp_path, training) == 0.25
    assert training.calls == []


@pytest.mark.parametrize("metrics", [None, {"val": {"mae": 0.25}, "interrupted": True}])
def test_an_unfinished_job_goes_on_from_its_last_checkpoint(
    metrics: dict[str, Any] | None, tmp_path: Path
) -> None:
    earlier_run(tmp_path, metrics)
    training = Training()
    assert run(tmp_path, training) == 0.5
    assert [resume for _, resume in training.calls] == [True]


def test_a_job_that_stopped_before_its_first_epoch_starts_anew(tmp_path: Path) -> None:
    earlier_run(tmp_path, None, checkpoint=False, seed=2)
    training = Training()
    assert run(tmp_path, training) == 0.5
    assert [resume for _, resume in training.calls] == [False]


def test_a_folder_with_a_run_of_other_settings_is_left_alone(tmp_path: Path, capsys: Any) -> None:
    earlier_run(tmp_path, {"val": {"mae": 0.25}}, model={"width": 32})
    training = Training()
    assert run(tmp_path, training) is None
    assert training.calls == []
    assert "another value of model.width" in capsys.readouterr().err
    assert json.loads(RunFolder(tmp_path).results.read_text()) == {"val": {"mae": 0.25}}


def test_what_does_not_change_a_result_may_differ(tmp_path: Path) -> None:
    data = CONFIG["data"] | {"cache_dir": "/elsewhere"}
    earlier_run(tmp_path, {"val": {"mae": 0.25}}, data=data, logger={"x": 1})
    assert run(tmp_path, Training()) == 0.25


@pytest.mark.parametrize("change", [{"devices": 4}, {"precision": "bf16-mixed"}, {"gradient_clip_val": 2.0}])
def test_a_finished_job_of_another_precision_is_not_this_one(
    change: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    earlier_run(tmp_path, {"val": {"mae": 0.25}}, trainer=CONFIG["trainer"] | change)
    assert run(tmp_path, Training()) is None
    assert f"another value of trainer.{next(iter(change))}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("monitor", "value"), [("val/k_vrh/mae", 0.1), ("val/metal/accuracy", 0.9), ("val/loss", 0.3)]
)
def test_a_finished_job_returns_what_it_was_judged_by(monitor: str, value: float, tmp_path: Path) -> None:
    metrics = {"monitor": monitor, "val": {"k_vrh": {"mae": 0.1}, "metal": {"accuracy": 0.9}}}
    earlier_run(tmp_path, metrics)
    (tmp_path / "metrics.csv").write_text("epoch,val/loss\n1,0.5\n2,0.3\n3,0.4\n")
    assert run(tmp_path, Training()) == value


def test_a_folder_that_was_tampered_with_is_refused(tmp_path: Path, capsys: Any) -> None:
    earlier_run(tmp_path, None, data={"source": {"_target_": "os.system", "command": "true"}})
    training = Training()
    assert run(tmp_path, training) is None
    assert training.calls == []
    assert "os.system" in capsys.readouterr().err


def test_resume_is_refused_in_a_sweep(tmp_path: Path, capsys: Any) -> None:
    training = Training()
    assert run(tmp_path, training, resume="runs/a") is None
    assert training.calls == []
    assert "hydra.sweep.dir=FOLDER" in capsys.readouterr().err


def test_a_job_that_fails_is_reported_and_starts_anew_next_time(tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path, Training(RuntimeError("no memory left"))) is None
    shown = capsys.readouterr().err
    assert f"error: job {tmp_path.name} failed: RuntimeError: no memory left" in shown
    assert "Traceback" in shown  # nobody foresaw it
    assert (tmp_path / ERROR).read_text().startswith("RuntimeError: no memory left\n\nTraceback")
    assert run(tmp_path, Training()) == 0.5
    assert not (tmp_path / ERROR).exists()


def test_ctrl_c_and_signals_end_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, Training(SystemExit(130)))
    assert not (tmp_path / ERROR).exists()


def test_a_folder_that_another_process_works_in_is_left_alone(tmp_path: Path, capsys: Any) -> None:
    training = Training()
    with FileLock(tmp_path / ".lock"):
        assert run(tmp_path, training) is None
    assert training.calls == []
    assert f"another process is training in {tmp_path}" in capsys.readouterr().err
    assert not (tmp_path / ERROR).exists()  # in which that process would see a failure of its own


def test_a_job_leaves_nothing_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    wandb = types.SimpleNamespace(run=object(), finish=lambda: ended.append(True))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("KEPT", "before")
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    class Leaky(Training):
        def __call__(self, config: dict[str, Any], folder: Path, resume: bool) -> float:
            os.environ["WORLD_SIZE"] = "2"
            os.environ["KEPT"] = "after"
            raise RuntimeError

    assert run(tmp_path, Leaky()) is None
    assert "WORLD_SIZE" not in os.environ
    assert os.environ["KEPT"] == "before"
    assert ended == [True]


@pytest.mark.parametrize(
    ("saved", "given", "key"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1.0}}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b"),
        ({"a": 1}, {"a": 1, "b": 2}, "b"),
        ({"a": [{"x": 1}, {"x": 2}]}, {"a": [{"x": 1}, {"x": 3}]}, "a.1.x"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a"),
        ({"a": {}}, {"a": {"b": 1}}, "a"),
        ({"logger": {"x": 1}, "runs_dir": "a"}, {"logger": {}, "runs_dir": "b"}, None),
        ({"data": {"num_workers": 0}}, {"data": {"num_workers": 4}}, None),
        ({"trainer": {"max_epochs": 3}}, {"trainer": {"max_epochs": 4}}, "trainer.max_epochs"),
        ({"trainer": {"precision": "32-true"}}, {"trainer": {"precision": "16-mixed"}}, "trainer.precision"),
        ({"trainer": {"max_time": None}}, {"trainer": {"max_time": "00:08:00:00"}}, None),
    ],
)
def test_the_first_difference_of_two_configs_is_named(saved: dict, given: dict, key: str | None) -> None:
    assert difference(saved, given, resumable) == key
