"""Keyword arguments of `potnet.train` mean what the same words on a command line mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import potnet
from potnet.config import ConfigError, compose, plain
from potnet.runs.begin import alone_in
from potnet.runs.errors import BusyError
from potnet.trained import overrides_of


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trainer": {"max_epochs": 2, "gradient_clip_val": None}}, ["trainer.max_epochs=2"]),
        ({"model": "schnet", "seed": 7}, ["model=schnet", "seed=7"]),
        (
            {"model.width": 32, "optimizer": {"betas": (0.8, 0.9)}},
            ["model.width=32", "optimizer.betas=[0.8,0.9]"],
        ),
        ({"callbacks": {"early_stopping": None}}, ["callbacks.early_stopping=null"]),
        ({"trainer": {"deterministic": True}}, ["trainer.deterministic=true"]),
        ({"data": {"limit": np.int64(40)}, "seed": torch.tensor(3)}, ["data.limit=40", "seed=3"]),
        ({"optimizer": {"learning_rate": np.float32(0.5)}}, ["optimizer.learning_rate=0.5"]),
        ({"trainer": {"deterministic": np.bool_(True)}}, ["trainer.deterministic=true"]),
        ({"optimizer": {"betas": np.array([0.5, 0.75])}}, ["optimizer.betas=[0.5,0.75]"]),
        (
            {"optimizer": {"betas": (np.array(0.5), torch.tensor(0.75))}, "model": np.str_("schnet")},
            ["model=schnet", "optimizer.betas=[0.5,0.75]"],
        ),
    ],
)
def test_keyword_arguments_are_overrides(settings: dict[str, Any], words: list[str]) -> None:
    made = plain(compose("train", overrides_of(settings)))
    if "gradient_clip_val" in settings.get("trainer", {}):
        words = [*words, "trainer.gradient_clip_val=null"]
    assert made == plain(compose("train", words))


def test_texts_and_paths_are_taken_as_they_are() -> None:
    source = {"path": Path("a (1)=b, c.csv"), "units": {"gap": "eV"}}
    words = [
        "data=table",
        "target=own",
        *overrides_of({"data": {"source": source}, "target": {"key": "gap"}}),
    ]
    config = compose(
        "train", [word.replace("data.source.units.gap", "+data.source.units.gap") for word in words]
    )
    assert config.data.source.path == "a (1)=b, c.csv"
    assert config.data.source.units.gap == "eV"
    assert config.target.key == "gap"


def test_a_mistake_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"did you mean trainer\.max_epochs\?"):
        potnet.train(trainer={"max_epoch": 2})
    with pytest.raises(ConfigError, match=r"lr; did you mean optimizer\.learning_rate"):
        potnet.train("lr=3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [None, {"seed": 1}, 3])
def test_settings_by_position_are_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"give settings as keyword arguments, seed=1"):
        potnet.train(given)


def test_a_value_of_no_kind_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"data\.limit: expected text, a number, .* got <object"):
        potnet.train(data={"limit": object()})


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"nowhere\.csv: no such file"):
        potnet.train(
            "data=table", "target=own", target={"key": "gap"}, data={"source": {"path": "nowhere.csv"}}
        )
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").touch()
    with pytest.raises(FileExistsError, match=r"holds an earlier run \(metrics\.json\): .* another folder"):
        potnet.train(folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_a_folder_is_held_while_a_run_is_trained_in_it(
    error: type[BaseException] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder in which an earlier run kept nothing."""
    (tmp_path / "config.yaml").touch()
    trained = []

    def train(config: dict[str, Any], folder: Path, resume: bool) -> None:
        trained.append((folder, resume))
        with pytest.raises(BusyError, match=f"another process is training in {tmp_path}"):
            potnet.train(folder=tmp_path)
        if error is not None:
            raise error

    monkeypatch.setattr("potnet.train.train", train)
    for _ in range(2):  # it is free again
        if error is None:
            assert potnet.train(folder=tmp_path).folder == tmp_path
        else:
            with pytest.raises(error):
                potnet.train(folder=tmp_path)
    assert trained == [(tmp_path, False)] * 2


def test_a_run_in_progress_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with alone_in(tmp_path), pytest.raises(BusyError, match=f"another process is training in {tmp_path}"):
        potnet.train(resume=tmp_path)
