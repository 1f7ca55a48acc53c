"""What a run tells the loggers that were chosen besides its own files: TensorBoard, Weights & Biases.

A run's own files are always written; a logger gets the same figures, so nothing here is needed to read a run.
"""

from __future__ import annotations

import inspect
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, build, locate
from potnet.config.resolvers import secret
from potnet.runs.checkpoint import versions

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule
    from potnet.runs.evaluation import Evaluation

IMAGES = ("parity", "error_by_element", "learning_curve")
"""Pictures in the folder of a run, without their suffix; those that are there are logged."""

WORST_COLUMNS = ("id", "formula", "atoms", "target", "prediction", "error")


@dataclass(frozen=True)
class Results:
    """How a run ended.

    Attributes:
        folder: Of the run, with its pictures.
        summary: Final figures, flat: "test/k_vrh/mae", "parameters", "seconds/total".
        worst: Rows of `WORST_COLUMNS`, the largest error first.
        checkpoint: The one that was judged.
    """

    folder: Path
    summary: dict[str, Any]
    worst: list[tuple[Any, ...]]
    checkpoint: Path

    @property
    def images(self) -> dict[str, Path]:
        """The pictures that are there, by name."""
        files = {name: self.folder / f"{name}.png" for name in IMAGES}
        return {name: file for name, file in files.items() if file.is_file()}


@contextmanager
def opened(config: Mapping[str, Any], folder: Path) -> Iterator[list[Any]]:
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


def formulas_of(evaluation: Evaluation, data: CrystalDataModule) -> list[str]:
    """n formulas; an empty list where the source does not know them."""
    table = data.store.table
    return [table.formulas[table.position[id]] for id in evaluation.ids] if table.formulas else []


def worst_crystals(evaluation: Evaluation, data: CrystalDataModule, count: int = 20) -> list[tuple[Any, ...]]:
    """Rows of `WORST_COLUMNS`; label and prediction in the physical unit, the error in that of metrics."""
    errors = evaluation.errors.nan_to_num(nan=-1.0).tolist()
    formulas = formulas_of(evaluation, data) or [""] * len(errors)
    atoms, position = data.store.num_atoms, data.store.table.position
    worst = sorted((n for n in range(len(errors)) if errors[n] >= 0), key=lambda n: -errors[n])[:count]
    return [
        (
            evaluation.ids[n],
            formulas[n],
            int(atoms[position[evaluation.ids[n]]]),
            float(evaluation.label[n]),
            float(evaluation.prediction[n]),
            errors[n],
        )
        for n in worst
    ]


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


def git_state() -> dict[str, Any]:
    """Commit of the checkout that the package runs from, and whether it was changed; empty if installed."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}  # no git here, or not a checkout that this user may read


def without_home(value: Any) -> Any:
    """A plain config with the home folder written as ~, for it tells who and where the user is."""
    if isinstance(value, Mapping):
        return {key: without_home(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_home(entry) for entry in value]
    if isinstance(value, str):
        for home in {str(Path.home()), str(Path.home().resolve())} - {"/"}:
            value = value.replace(home, "~")
    return value
