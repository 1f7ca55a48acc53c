"""What a run sends to the chosen loggers besides its own files: TensorBoard, Weights & Biases.

A run's own files are always written; a logger gets the same figures, so nothing here is needed to read a run.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, build, locate
from potnet.config.resolvers import secret
from potnet.runs.folder import RunFolder
from potnet.runs.record import git_state, versions

if TYPE_CHECKING:
    from potnet.runs.evaluation import Evaluation


@dataclass(frozen=True)
class Results:
    """How a run ended.

    Attributes:
        folder: Of the run, with its pictures.
        summary: Final figures, flat: "test/k_vrh/mae", "parameters", "seconds/total".
        worst: Name of a table -> the test crystals with the largest errors, rows of `WORST_COLUMNS`; one
            table for each target.
        checkpoint: The one that was evaluated.
    """

    folder: Path
    summary: dict[str, Any]
    worst: dict[str, list[tuple[Any, ...]]]
    checkpoint: Path

    @property
    def images(self) -> dict[str, Path]:
        """The pictures that are there, by name."""
        return RunFolder(self.folder).pictures()


@contextmanager
def open_loggers(config: Mapping[str, Any], folder: Path) -> Iterator[list[Any]]:
    """The chosen loggers, told the config; closed when the run ends, as failed if it ends in an exception.

    Args:
        config: Plain config of the run.
        folder: Of the run; the loggers write below it.

    Raises:
        ConfigError: The package of a logger is not installed, or a logger refuses to start.
    """
    loggers = build_loggers(config["logger"], folder)
    status = "failed"
    try:
        if loggers:
            facts = {"units": units(config["target"]), "versions": versions(), "git": git_state()}
            for logger in loggers:
                logger.log_hyperparams(without_home({**config, **facts}))
        yield loggers
        status = "success"
    finally:
        for logger in loggers:
            close = getattr(logger, "close", None)
            if close:
                close(status)
            else:
                logger.finalize(status)


def build_loggers(config: Mapping[str, Any], folder: Path) -> list[Any]:
    """The chosen loggers; metrics.csv is written without any.

    Args:
        config: Name -> config of a logger; one that takes a `save_dir` and is given none gets the folder.
        folder: Of the run.

    Raises:
        ConfigError: The package of a logger is not installed.
    """
    key = secret("WANDB_API_KEY")
    if "wandb" in config and key:
        os.environ["WANDB_API_KEY"] = key  # where wandb looks; it does not read .env
    loggers = []
    for name, entry in config.items():
        try:
            takes = inspect.signature(locate(entry, f"logger.{name}")).parameters
            place: dict[str, Any] = (
                {"save_dir": str(folder)} if "save_dir" in takes and "save_dir" not in entry else {}
            )
            loggers.append(build(entry, f"logger.{name}", **place))
        except ModuleNotFoundError as error:
            hint = f'; install it with pip install "potnet[{name}]"' if name == "tensorboard" else ""
            raise ConfigError(f"logger={name}: {str(error).splitlines()[0]}{hint}") from error
    return loggers


def log_results(loggers: Sequence[Any], results: Results) -> None:
    """Tell every logger how the run ended; one without `log_results` gets the figures alone."""
    for logger in loggers:
        if hasattr(logger, "log_results"):
            logger.log_results(results)
        else:
            numbers = {
                key: value
                for key, value in results.summary.items()
                if "/" in key and isinstance(value, int | float)
            }
            logger.log_metrics({f"final/{key}": value for key, value in numbers.items()})


def summary(evaluations: Sequence[Evaluation], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of metrics.json, flat: "test/k_vrh/mae", "parameters", "seconds/total"."""
    flat: dict[str, Any] = {}
    for evaluation in evaluations:
        place = f"{evaluation.part}/{evaluation.key}"
        flat |= {f"{place}/{name}": value for name, value in evaluation.metrics.items()}
    for key, value in facts.items():
        flat |= {f"{key}/{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat


def units(target: Mapping[str, Any]) -> dict[str, str]:
    """The unit of every metric that is logged.

    Args:
        target: Of a run's config, see `Targets.from_config`.
    """
    from potnet.data.targets import Targets

    found: dict[str, str] = {}
    for key, one in Targets.from_config(target).items():
        names = ("accuracy", "f1") if one.is_class else ("mae", "rmse")
        parts = ("train", "val", "test")
        found |= {f"{part}/{key}/{name}": one.metric_unit for part in parts for name in names}
    return found | {
        "train/loss": "",
        "val/loss": "",
        "train/grad_norm": "",
        "lr": "",
        "crystals_per_second": "1/s",
        "seconds": "s",
        "memory_gib": "GiB",
    }


def without_home(value: Any) -> Any:
    """A plain config with the home folder written as ~, as it shows who the user is."""
    if isinstance(value, Mapping):
        return {key: without_home(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_home(entry) for entry in value]
    if isinstance(value, str):
        for home in {str(Path.home()), str(Path.home().resolve())} - {"/"}:
            value = value.replace(home, "~")
    return value
