"""From a config to the folder of a run; interrupted and resumed runs."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback, LightningModule, Trainer

from potnet.config import ConfigError, config_dir, plain
from potnet.data import DataError, Target
from potnet.evaluate import evaluate_checkpoint
from potnet.train import resumed, train
from potnet.training import TrainingError
from potnet.training.metrics import regression_metrics

ABLATIONS = sorted(file.stem for file in (config_dir() / "ablation").glob("*.yaml"))
Run = Any  # conftest.Run
# An ablation may switch the network, so neither that nor what only one of them has is given.
DEFAULT_TINY = ("model.width=16", "model.layers=1", "trainer.accelerator=cpu")
PNG = b"\x89PNG"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_in_its_folder(trained: Run) -> None:
    folder = trained.folder
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in ("val", "test"):
        assert set(metrics[part]["k_vrh"]) == {"mae", "rmse", "r2", "n", "unit"}
        assert metrics[part]["k_vrh"]["unit"] == "log10(GPa)"
        assert metrics[part]["k_vrh"]["rmse"] >= metrics[part]["k_vrh"]["mae"] > 0
    assert trained.result == metrics["val"]["k_vrh"]["mae"]
    assert metrics["epochs"] == 3
    assert set(metrics["seconds"]) == {"featurize", "train", "test", "total"}
    assert metrics["parameters"] > 0
    assert (folder / "parity.png").read_bytes().startswith(PNG)
    assert (folder / "learning_curve.png").read_bytes().startswith(PNG)
    assert (folder / "checkpoints" / "best.ckpt").is_file()
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert "CC BY 4.0" in (folder / "data.txt").read_text()
    versions = json.loads((folder / "versions.json").read_text())
    assert {"python", "potnet", "torch", "gemmi", "git"} <= set(versions)
    assert versions["torch"] == torch.__version__
    rows = table(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert min(float(row["val/k_vrh/mae"]) for row in rows) == pytest.approx(
        metrics["val"]["k_vrh"]["mae"], rel=1e-5
    )
    assert float(rows[0]["train/grad_norm"]) > 0
    assert not list(folder.rglob("*.part"))


def test_an_epoch_without_validation_has_no_error_of_an_earlier_one(
    run_training: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_training("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2", "data.limit=60")
    rows = table(run.folder / "metrics.csv")
    assert [bool(row["val/k_vrh/mae"]) for row in rows] == [False, True, False]
    assert all(float(row["crystals_per_second"]) < 1e6 for row in rows)
    assert ["val" in line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")] == [
        False, True, False,
    ]  # fmt: skip


def test_predictions_hold_every_crystal_once_in_physical_units(trained: Run) -> None:
    split = json.loads((trained.folder / "split.json").read_text())
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    rows = table(trained.folder / "predictions.csv")
    target = Target("k_vrh", "GPa", transform="log10")
    for part in ("val", "test"):
        chosen = [row for row in rows if row["split"] == part]
        assert [row["id"] for row in chosen] == split[part]
        wanted, predicted = (
            target.learned(torch.tensor([float(row[key]) for row in chosen], dtype=torch.float64))
            for key in ("value", "prediction")
        )
        again = regression_metrics(predicted, wanted)
        assert again["mae"] == pytest.approx(metrics[part]["k_vrh"]["mae"], abs=1e-5)
        assert again["r2"] == pytest.approx(metrics[part]["k_vrh"]["r2"], abs=1e-4)


def test_evaluate_repeats_the_figures_exactly(trained: Run, cache_dir: Path) -> None:
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    for checkpoint in (trained.folder, trained.folder / "checkpoints" / "best.ckpt"):
        for evaluation in evaluate_checkpoint(checkpoint, ["val", "test"], str(cache_dir)):
            assert evaluation.metrics == metrics[evaluation.part][evaluation.key]


def test_a_run_on_a_relative_path_is_evaluated_from_another_folder(
    run_training: Callable[..., Run], cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (files("potnet.data") / "embedded" / "mp_elastic_2018.jsonl.gz").read_bytes()
    lines = gzip.decompress(content).decode().splitlines()[:30]
    (tmp_path / "my.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    run = run_training(
        "data=table", "data.source.path=my.jsonl", "split=shuffled", "data.limit=null", "trainer.max_epochs=1"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (test,) = evaluate_checkpoint(run.folder, ["test"], str(cache_dir))
    assert test.metrics == json.loads((run.folder / "metrics.json").read_text())["test"]["k_vrh"]
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert saved["data"]["source"]["path"] == str(tmp_path / "my.jsonl")


def test_evaluate_refuses_an_unknown_part(trained: Run) -> None:
    with pytest.raises(ConfigError, match="unknown part tset; did you mean test"):
        evaluate_checkpoint(trained.folder, ["tset"])


def test_the_checkpoint_holds_plain_data_and_tensors_only(trained: Run) -> None:
    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    record = checkpoint["potnet"]
    assert record["config"]["target"]["unit"] == "GPa"
    assert record["features"]["potentials"][2]["alpha"] == 3.0
    assert record["split_hash"] == json.loads((trained.folder / "split.json").read_text())["hash"]
    assert record["versions"]["torch"]
    assert {"scalers.k_vrh.mean", "scalers.k_vrh.std"} <= set(checkpoint["state_dict"])
    assert 1 < float(checkpoint["state_dict"]["scalers.k_vrh.mean"]) < 3


def test_the_checkpoint_predicts_with_averaged_weights(trained: Run) -> None:
    checkpoint = torch.load(trained.folder / "checkpoints" / "last.ckpt", weights_only=True)
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    name = "model.atom_embedding.weight"
    assert not torch.equal(averaged[name], current[name])
    torch.testing.assert_close(averaged[name], current[name], atol=0.1, rtol=0)
    for exact in ("scalers.k_vrh.mean", "scalers.k_vrh.std"):
        assert torch.equal(averaged[exact], current[exact])


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_runs(ablation: str, run_training: Callable[..., Run]) -> None:
    run_training(f"ablation={ablation}", "data.limit=30", "trainer.fast_dev_run=true", tiny=DEFAULT_TINY)


class StopOnce(Callback):
    """Ends a run from within, once."""

    raised: type[BaseException] = KeyboardInterrupt
    at_epoch = 2
    armed = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if StopOnce.armed and trainer.current_epoch == self.at_epoch and batch_idx == 1:
            StopOnce.armed = False
            raise self.raised


STOP = f"+callbacks.stop._target_={__name__}.StopOnce"


@pytest.mark.parametrize("callbacks", ["default", "published"])
def test_a_resumed_run_is_the_uninterrupted_one(
    callbacks: str, run_training: Callable[..., Run], tmp_path: Path
) -> None:
    settings = ["trainer.max_epochs=4", "data.batch_size=32", f"callbacks={callbacks}", STOP]
    whole = run_training(*settings)
    StopOnce.armed = True
    with pytest.raises(SystemExit) as stopped:
        run_training(*settings, folder=tmp_path)
    assert stopped.value.code == 130
    interrupted = json.loads((tmp_path / "metrics.json").read_text())
    assert interrupted["interrupted"] is True
    assert interrupted["epochs"] == 2

    allowed = f"allow=[{__name__}.StopOnce]"
    train(resumed(tmp_path, [f"resume={tmp_path}", allowed]), tmp_path, resume=True)
    timing = ("seconds", "crystals_per_second")
    before, after = (
        [
            {key: value for key, value in row.items() if key not in timing}
            for row in table(folder / "metrics.csv")
        ]
        for folder in (whole.folder, tmp_path)
    )
    assert before == after
    assert (whole.folder / "predictions.csv").read_text() == (tmp_path / "predictions.csv").read_text()


def test_an_interrupt_before_the_first_epoch_leaves_nothing_to_evaluate(
    run_training: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(StopOnce, "at_epoch", 0)
    StopOnce.armed = True
    with pytest.raises(SystemExit) as stopped:
        run_training("data.batch_size=32", STOP, folder=tmp_path)
    assert stopped.value.code == 130
    assert "before the first epoch" in capsys.readouterr().err
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.width=32", "a resumed run keeps its own settings"),
        ("experiment=mp_bulk_modulus", "a resumed run keeps its own settings"),
        ("trainer.max_epochs=9", "a resumed run keeps its own settings"),
    ],
)
def test_a_resumed_run_refuses_other_settings(trained: Run, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resumed(trained.folder, ["resume=x", override])


def test_a_resumed_run_may_end_at_another_time(trained: Run) -> None:
    config = resumed(trained.folder, ["resume=x", "trainer.max_time=00:01:00:00", "data.num_workers=1"])
    assert config["trainer"]["max_time"] == "00:01:00:00"
    assert config["data"]["num_workers"] == 1
    config["trainer"]["max_time"] = None
    config["data"]["num_workers"] = 0
    assert config == plain(trained.config)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["trainer.max_epochs=0"], ConfigError, r"trainer\.max_epochs=0: give at least 1"),
        (["trainer.max_epochs=-1"], ConfigError, r"trainer\.max_epochs=-1: give at least 1"),
        (["seed=abc"], ConfigError, "seed=abc: give a whole number"),
        (["seed=-1"], ConfigError, "seed=-1: give a whole number"),
        (["trainer.precision=17"], ConfigError, r"trainer\.precision=17"),
        (["+trainer.nonsense=1"], ConfigError, r"unknown key trainer\.nonsense"),
        (["+model.widht=1"], ConfigError, r"unknown key model\.widht; did you mean model\.width"),
        (["objective.loss=rmse"], ConfigError, r"objective\.loss=rmse; did you mean mse"),
        (
            ["optimizer.learning_rate=fast"],
            ConfigError,
            r"optimizer\.learning_rate='fast': expected a number",
        ),
        (["optimizer.learning_rate=0"], ValueError, "give a positive number"),
        (["data.limit=1"], ConfigError, "one crystal"),
        (["data.batch_size=0"], DataError, r"data\.batch_size=0"),
        (["target.key=k_vhr"], DataError, "did you mean k_vrh"),
    ],
)
def test_bad_settings_are_named(
    overrides: list[str], error: type[Exception], message: str, run_training: Callable[..., Run]
) -> None:
    with pytest.raises(error, match=message):
        run_training(*overrides)


def test_a_network_that_gives_no_numbers_any_more_is_an_error(
    run_training: Callable[..., Run], tmp_path: Path
) -> None:
    """At the last step, after which there is a validation and no further loss of training."""
    with pytest.raises(TrainingError, match=r"validation loss became (nan|inf) in epoch \d: lower optimizer"):
        run_training(
            *("data.limit=60", "optimizer.learning_rate=1e10", "trainer.max_epochs=2"),
            tiny=DEFAULT_TINY,
            folder=tmp_path,
        )
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


def test_a_batch_of_one_crystal_trains(run_training: Callable[..., Run]) -> None:
    run = run_training("data.batch_size=1", "data.limit=30", "trainer.max_epochs=1")
    assert run.result is not None


def test_without_validation_the_last_checkpoint_counts(
    run_training: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = run_training("split=shuffled", "data.split.val=0.0", "trainer.max_epochs=1")
    assert run.result is None
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["checkpoint"] == "last.ckpt"
    assert "val" not in metrics
    assert metrics["test"]["k_vrh"]["n"] == 12
    assert "callbacks.early_stopping is left out" in caplog.text


def test_early_stopping_ends_a_run(run_training: Callable[..., Run]) -> None:
    run = run_training(
        "trainer.max_epochs=20",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=10.0",
        "data.limit=40",
    )
    assert json.loads((run.folder / "metrics.json").read_text())["epochs"] < 5


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_every_loss_trains_with_and_without_scaling(loss: str, run_training: Callable[..., Run]) -> None:
    scale = "false" if loss == "mse" else "true"
    run = run_training(
        f"objective.loss={loss}", f"objective.scale_target={scale}", "data.limit=40", "trainer.max_epochs=1"
    )
    state = torch.load(run.folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert (float(state["scalers.k_vrh.std"]) == 1.0) == (scale == "false")
