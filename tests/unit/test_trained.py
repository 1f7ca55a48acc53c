"""Keyword arguments of `potnet.train` mean what the same words on a command line mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import potnet
from potnet.config import ConfigError, compose, plain
from potnet.runs.trained import overrides_of


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


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"nowhere\.csv: no such file"):
        potnet.train(
            "data=table", "target=own", target={"key": "gap"}, data={"source": {"path": "nowhere.csv"}}
        )
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(FileExistsError, match="there is a run in this folder"):
        potnet.train(folder=tmp_path)
