"""What loggers are told, and the table of elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from potnet.config import ConfigError, compose, plain
from potnet.crystals.elements import ATOMIC_NUMBERS, MAX_Z
from potnet.runs.periodic_table import (
    ElementError,
    elements_of,
    error_by_element,
    place,
    plot_error_by_element,
)
from potnet.training.loggers import common


class Recorder:
    """A logger of somebody else."""

    def __init__(self, save_dir: str) -> None:
        self.save_dir = save_dir
        self.config: dict[str, Any] = {}
        self.logged: dict[str, float] = {}
        self.status = ""

    def log_hyperparams(self, config: dict[str, Any]) -> None:
        self.config = config

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.logged |= metrics

    def finalize(self, status: str) -> None:
        self.status = status


CONFIG = {
    "logger": {"mine": {"_target_": f"{__name__}.Recorder"}},
    "target": {"key": "k_vrh", "unit": "GPa", "transform": "log10"},
}


def test_a_logger_gets_the_config_and_the_end_of_the_run(tmp_path: Path) -> None:
    with common.open_loggers(CONFIG, tmp_path) as (logger,):
        assert logger.save_dir == str(tmp_path)
        assert logger.config["target"] == CONFIG["target"]
        assert logger.config["units"]["val/k_vrh/mae"] == "log10(GPa)"
        assert logger.config["versions"]["torch"]
        results = common.Results(
            tmp_path, {"test/k_vrh/mae": 0.1, "test/k_vrh/unit": "eV"}, {}, tmp_path / "best.ckpt"
        )
        common.log_results([logger], results)
    assert logger.logged == {"final/test/k_vrh/mae": 0.1}
    assert logger.status == "success"


def test_a_run_that_fails_is_closed_as_failed(tmp_path: Path) -> None:
    context = common.open_loggers(CONFIG, tmp_path)
    (logger,) = context.__enter__()
    error = RuntimeError("out of memory")
    assert not context.__exit__(RuntimeError, error, None)  # which goes on
    assert logger.status == "failed"


@pytest.mark.parametrize("name", ["csv", "tensorboard", "wandb"])
def test_loggers_compose_without_hydra(name: str) -> None:
    logger = plain(compose("train", [f"logger={name}", "seed=7"]))["logger"]
    assert set(logger) == ({name} - {"csv"})
    if name == "wandb":
        assert logger["wandb"]["group"] == "k_vrh"
        assert logger["wandb"]["labels"]["seed"] == 7


def test_a_logger_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any, **settings: Any) -> None:
        raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available.\nTry")

    monkeypatch.setattr(common, "build", missing)
    with pytest.raises(ConfigError, match=r"logger=mine: Neither `tensorboard`.* available\.$"):
        common.build_loggers(CONFIG["logger"], tmp_path)


def test_the_home_folder_is_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    config = {"a": [f"{tmp_path}/x", 1], "b": {"c": None, "d": f"{tmp_path}"}, "e": "/data"}
    assert common.without_home(config) == {"a": ["~/x", 1], "b": {"c": None, "d": "~"}, "e": "/data"}


def test_every_element_has_a_place_of_its_own() -> None:
    places = {place(z): z for z in range(1, MAX_Z + 1)}
    assert len(places) == MAX_Z
    known = {
        "H": (0, 0),
        "He": (0, 17),
        "B": (1, 12),
        "Al": (2, 12),
        "Sc": (3, 2),
        "Zn": (3, 11),
        "Hf": (5, 3),
    }
    for symbol, where in known.items():
        assert place(ATOMIC_NUMBERS[symbol]) == where
    assert place(57)[1] == place(89)[1] == 2
    assert place(71)[1] == place(103)[1] == 16


def test_an_element_has_the_mean_error_of_the_crystals_with_it(tmp_path: Path) -> None:
    assert elements_of("Ca3Fe2(SiO4)3") == {20, 26, 14, 8}
    errors = error_by_element(["NaCl", "NaNa", "Cl2"], [0.1, 0.3, 0.5])
    assert errors == {11: ElementError(pytest.approx(0.2), 2), 17: ElementError(pytest.approx(0.3), 2)}
    assert error_by_element(["", ""], [0.1, 0.2]) == {}
    plot_error_by_element(tmp_path / "table.png", errors, "k_vrh", "log10(GPa)")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_run_is_the_same_one_in_wandb(tmp_path: Path) -> None:
    from potnet.runs.folder import RunFolder
    from potnet.training.loggers.wandb_run import WandbRun

    first, again = (WandbRun(str(tmp_path), {"seed": 0, "ablation": None}, offline=True) for _ in range(2))
    assert first._saved_id() == again._saved_id() == RunFolder(tmp_path).wandb_id.read_text().strip()
    assert first._wandb_init["tags"] == ["seed:0"]
