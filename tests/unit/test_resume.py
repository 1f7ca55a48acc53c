"""What may change when a run is continued, and what a changed config.yaml may not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from potnet.config import ConfigError, compose, plain
from potnet.runs.checkpoint import CheckpointError
from potnet.train import RESUMABLE, resumed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that stopped: its config, and an empty file in the place of its last checkpoint."""
    monkeypatch.setattr("potnet.runs.checkpoint.check_resumable", lambda file: None)
    run = tmp_path / "a run (1)=x"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    config = plain(compose("train"))
    del config["allow"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def change(folder: Path, **sections: Any) -> None:
    """Change the config.yaml of a run."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | sections))


def test_what_does_not_change_a_result_may_be_given(folder: Path) -> None:
    config = resumed(
        folder,
        [
            f"resume='{folder}'",
            "data.num_workers=2",
            "data.cache_dir='/elsewhere'",
            "trainer.max_time='00:08:00:00'",
            "callbacks.early_stopping.patience=7",
            "trainer.max_epochs=60",  # as it was
        ],
    )
    assert config["data"]["num_workers"] == 2
    assert config["data"]["cache_dir"] == "/elsewhere"
    assert config["trainer"]["max_time"] == "00:08:00:00"
    assert config["callbacks"]["early_stopping"]["patience"] == 7


@pytest.mark.parametrize(
    "override",
    [
        "trainer.precision=bf16-mixed",
        "trainer.accumulate_grad_batches=2",
        "trainer.gradient_clip_val=0.5",
        "trainer.devices=2",
        "trainer.accelerator=gpu",
        "trainer.sync_batchnorm=true",
        "trainer.deterministic=true",
        "trainer.max_epochs=61",
        "data.batch_size=32",
        "model.width=64",
        "callbacks.early_stopping.min_delta=0.1",
        "callbacks.ema.decay=0.9",
        "+trainer.limit_train_batches=2",
    ],
)
def test_what_would_change_a_result_is_refused(override: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="continues exactly") as error:
        resumed(folder, [override])
    assert "trainer.max_time" in str(error.value)  # what may change


def test_every_setting_that_may_change_is_one(folder: Path) -> None:
    config = plain(compose("train", ["comparison=embedded"]))
    for name in RESUMABLE:
        found: Any = config
        for key in name.removesuffix(".").split("."):
            if found is not None:  # callbacks.early_stopping of a comparison
                found = found[key]


def test_a_setting_that_the_run_has_not_is_refused(folder: Path) -> None:
    change(folder, callbacks={"early_stopping": None, "ema": None})
    with pytest.raises(ConfigError, match="this run has no such setting"):
        resumed(folder, ["callbacks.early_stopping.patience=7"])


def test_a_changed_config_builds_nothing_else(folder: Path, tmp_path: Path) -> None:
    change(folder, data={"source": {"_target_": "os.system", "command": f"touch {tmp_path}/built"}})
    with pytest.raises(ConfigError, match=r"data\.source\._target_=os\.system"):
        resumed(folder, [])
    change(folder, data={}, runs_dir="${oc.env:HOME}")
    with pytest.raises(ConfigError, match="interpolation"):
        resumed(folder, [])


def test_a_class_of_the_users_is_named_again(folder: Path) -> None:
    change(folder, model={"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1})
    with pytest.raises(ConfigError, match=r"allow=\[torch\.nn\.Linear\]"):
        resumed(folder, [])
    config = resumed(folder, ["allow=[torch.nn.Linear]"])
    assert config["model"]["_target_"] == "torch.nn.Linear"
    assert "allow" not in config


def test_a_run_without_a_checkpoint_is_named_so_that_it_can_be_pasted(folder: Path) -> None:
    (folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(CheckpointError) as error:
        resumed(folder, [])
    assert str(error.value).startswith(f"'resume={folder}': there is no last.ckpt")
