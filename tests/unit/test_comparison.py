"""conf/comparison: every model of a comparison has a budget, and trains on the embedded set."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import yaml

from potnet.config import ConfigError, build, compose, config_dir, locate, plain
from potnet.runs.sweeps import difference
from potnet.train import resumable

SETTINGS = yaml.safe_load((config_dir() / "comparison" / "embedded.yaml").read_text())
SWEPT = {key: str(values).split(",") for key, values in SETTINGS["hydra"]["sweeper"]["params"].items()}


@cache
def default() -> Any:
    return compose("train", ["comparison=embedded"])


@pytest.mark.parametrize("model", SWEPT["model"])
def test_every_model_has_its_budget_and_the_same_recipe(model: str) -> None:
    config = compose("train", ["comparison=embedded", f"model={model}"])
    epochs = SETTINGS["comparison_epochs"][config.model._target_]
    assert config.trainer.max_epochs == epochs
    assert config.optimizer.learning_rate == SETTINGS["comparison_rates"][config.model._target_]
    reference = default()
    for key in ("objective", "callbacks", "data"):
        assert plain(config[key]) == plain(reference[key]), key
    rate = {"learning_rate": reference.optimizer.learning_rate}
    assert {**plain(config.optimizer), **rate} == plain(reference.optimizer)


def test_all_eight_models_two_targets_and_three_seeds() -> None:
    assert len(set(SWEPT["model"])) == 8
    assert SWEPT["target"] == ["k_vrh", "g_vrh"]
    assert len(SWEPT["seed"]) == 3
    for target in SETTINGS["comparison_epochs"]:
        locate({"_target_": target}, "comparison_epochs")


def test_a_model_without_a_budget_is_named() -> None:
    config = compose("train", ["comparison=embedded", "model=potnet_published"])
    asked = r"taken from comparison_epochs\[potnet\.models\.PublishedPotNet\], .*: give .*max_epochs=VALUE"
    with pytest.raises(ConfigError, match=asked):
        plain(config.trainer)


@pytest.mark.parametrize(
    ("model", "algorithm", "schedule", "rate", "batch", "epochs"),
    [
        ("cgcnn", "sgd", "constant", 1e-2, 256, 30),
        ("schnet", "adam", "exponential", 1e-3, 32, 500),
        ("megnet", "adam", "steps", 1e-3, 128, 1000),
        ("gatgnn", "adamw", "steps", 5e-3, 256, 200),
        ("alignn", "adamw", "one_cycle", 1e-3, 64, 300),
        ("matformer", "adamw", "one_cycle", 1e-3, 64, 500),
    ],
)
def test_published_training(
    model: str, algorithm: str, schedule: str, rate: float, batch: int, epochs: int
) -> None:
    config = compose("train", [f"experiment={model}_published", "target=g_vrh"])
    alone = compose("train", [f"model={model}"])
    assert config.target.key == "g_vrh"
    assert plain(config.model) == plain(alone.model)
    assert plain(config.features.neighbors) == plain(alone.features.neighbors)
    assert (config.optimizer.algorithm, config.optimizer.schedule) == (algorithm, schedule)
    assert (config.optimizer.learning_rate, config.data.batch_size) == (rate, batch)
    assert config.trainer.max_epochs == epochs
    build({"_target_": "potnet.training.optimization.build_optimizer", **plain(config.optimizer)},
          module=build(config.model, "model"), total_steps=10)  # fmt: skip


def test_the_budget_of_another_model_does_not_matter_to_a_finished_run() -> None:
    before = plain(compose("train", ["comparison=embedded", "model=cgcnn"]).trainer) | {"seed": 1}
    budgets = SETTINGS["comparison_epochs"]
    saved, given = (
        {"comparison_epochs": {**budgets, "potnet.models.ALIGNN": n}, "trainer": before} for n in (1, 9)
    )
    assert difference(saved, given, resumable) is None
    other = {**given, "trainer": {**before, "max_epochs": 77}}
    assert difference(saved, other, resumable) == "trainer.max_epochs"
