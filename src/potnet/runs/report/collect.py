"""Runs as their folders tell them."""

from __future__ import annotations

import csv
import glob
import math
import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from potnet.config import ConfigError, plain
from potnet.runs.sweeps import ERROR, finished


@dataclass(frozen=True)
class Run:
    """One run, finished or not. What its folder does not hold is None or empty.

    Attributes:
        folder: Of the run.
        config: Plain containers, as in its config.yaml.
        overrides: The command's `key=value`, without Hydra's own; empty where the folder doesn't keep them.
        metrics: Content of metrics.json; None unless the run came to its end.
    """

    folder: Path
    config: dict[str, Any]
    overrides: tuple[str, ...]
    metrics: dict[str, Any] | None

    @cached_property
    def status(self) -> str:
        """ "finished", "failed: MESSAGE", or "unfinished, N of M epochs"."""
        if self.metrics is not None:
            return "finished"
        try:
            message = (self.folder / ERROR).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            epochs = self.config.get("trainer", {}).get("max_epochs")
            return f"unfinished, {len(self.epochs)} of {epochs} epochs"
        return f"failed: {message[0] if message else 'no message'}"

    @property
    def target(self) -> dict[str, Any]:
        """The target's settings: `key`, `name`, `unit`, `transform`."""
        return dict(self.config.get("target") or {})

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """Rows of metrics.csv, numbers only; empty for a fit in closed form."""
        return [
            {key: number for key, value in row.items() if (number := _number(value)) is not None}
            for row in _read(self.folder / "metrics.csv")
        ]

    @property
    def epoch_seconds(self) -> float | None:
        """Median time of an epoch, validation included; None if the run had none."""
        seconds = [row["seconds"] for row in self.epochs if "seconds" in row]
        return statistics.median(seconds) if seconds else None

    def metric(self, part: str, name: str = "mae") -> float | None:
        """A final metric of a part, "val" or "test"; None if unfinished, or if that part has no crystals."""
        value = ((self.metrics or {}).get(part) or {}).get(name)
        return value if value is not None and math.isfinite(value) else None

    def errors(self, part: str) -> dict[str, float]:
        """Absolute error of each crystal of a part, "val" or "test", by id, in the unit of the metrics.

        That unit is the learned one: with `transform: log10` the error is |log10 prediction - log10 target|.
        """
        log = self.target.get("transform") == "log10"
        errors = {}
        for row in _read(self.folder / "predictions.csv"):
            if row.get("split") != part:
                continue
            target, prediction = _number(row.get("target")), _number(row.get("prediction"))
            if target is None or prediction is None or (log and min(target, prediction) <= 0):
                continue
            difference = math.log10(prediction) - math.log10(target) if log else prediction - target
            errors[row["id"]] = abs(difference)
        return errors


def collect(runs: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """Every run in and below some folders, sorted by folder, the jobs of a sweep by their number.

    Args:
        runs: Folders of runs, of sweeps or above them, or patterns such as "multirun/study_seed*".

    Raises:
        ConfigError: A folder is not there, or there is no run in any.
    """
    paths = [str(path) for path in runs]
    folders: set[Path] = set()
    for path in paths:
        tops = [Path(found) for found in ([path] if Path(path).exists() else glob.glob(path))]
        if not tops:
            raise ConfigError(f"runs={path}: there is no such folder; give the folder of a run or of a sweep")
        for top in tops:
            folders.update(file.parent for file in top.rglob("config.yaml") if file.parent.name != ".hydra")
            # A job that failed before its settings were written has Hydra's record of them alone.
            folders.update(file.parent.parent for file in top.rglob(".hydra/config.yaml"))
    found = [run for folder in sorted(folders, key=_order) if (run := _run(folder)) is not None]
    if not found:
        raise ConfigError(f"runs={','.join(paths)}: no run is in there (a run's folder holds config.yaml)")
    return found


def _run(folder: Path) -> Run | None:
    own = folder / "config.yaml"
    loaded = OmegaConf.load(own if own.is_file() else folder / ".hydra" / "config.yaml")
    try:
        config = plain(loaded)
    except ConfigError:  # a job that failed as its settings are wrong
        config = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(config, dict) or not isinstance(config.get("target"), dict):
        return None
    return Run(folder, config, overrides_of(folder), finished(folder))


def overrides_of(folder: Path) -> tuple[str, ...]:
    """What Hydra recorded of a run's command, as given; empty where there is no record."""
    file = folder / ".hydra" / "overrides.yaml"
    return tuple(map(str, OmegaConf.load(file))) if file.is_file() else ()


def _order(folder: Path) -> tuple[str, int, str]:
    number = folder.name.partition("_")[0]
    return str(folder.parent), int(number) if number.isdigit() else -1, folder.name


def _read(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _number(text: str | None) -> float | None:
    """A finite number, or None for anything else, such as the end of a file that is being written."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
