"""Runs, read from their folders."""

from __future__ import annotations

import glob
import math
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from potnet.config import ConfigError, plain
from potnet.runs.folder import Prediction, RunFolder


@dataclass(frozen=True)
class Run:
    """One target of one run, finished or not. What its folder does not hold is None or empty.

    Attributes:
        folder: Of the run.
        config: Plain containers, as in its config.yaml.
        overrides: The command's `key=value`, without Hydra's own; empty where the folder doesn't keep them.
        metrics: Content of metrics.json in format 2; None unless the run came to its end.
        key: Of the target.
    """

    folder: Path
    config: dict[str, Any]
    overrides: tuple[str, ...]
    metrics: dict[str, Any] | None
    key: str

    def by_target(self) -> list[Run]:
        """This run once for each of its targets."""
        return [replace(self, key=key) for key in targets_of(self.config)]

    @cached_property
    def files(self) -> RunFolder:
        """The files of the run."""
        return RunFolder(self.folder)

    @cached_property
    def status(self) -> str:
        """ "finished", "failed: MESSAGE", or "unfinished, N of M epochs"."""
        if self.metrics is not None:
            return "finished"
        try:
            message = self.files.error.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            epochs = self.config.get("trainer", {}).get("max_epochs")
            return f"unfinished, {len(self.epochs)} of {epochs} epochs"
        return f"failed: {message[0] if message else 'no message'}"

    @property
    def target(self) -> dict[str, Any]:
        """The target's settings: `key`, `unit`, `transform`, ..."""
        return targets_of(self.config).get(self.key, {})

    @property
    def title(self) -> str:
        """Name of the target for people."""
        return title_of(self.target)

    @property
    def is_class(self) -> bool:
        """Whether the target is a classification, whose error is the part of wrong classes."""
        return self.target.get("kind") == "classification"

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """Rows of metrics.csv, numbers only; empty for a fit in closed form."""
        return self.files.history()

    @property
    def epoch_seconds(self) -> float | None:
        """Median time of an epoch, validation included; None if the run had none."""
        seconds = [row["seconds"] for row in self.epochs if "seconds" in row]
        return statistics.median(seconds) if seconds else None

    def curve(self, part: str) -> list[tuple[int, float]]:
        """Error by epoch, counted from 1, of the target; part is "train" or "val"."""
        name = f"{part}/{self.key}/mae"
        found = [(int(row["epoch"]) + 1, row[name]) for row in self.epochs if name in row and "epoch" in row]
        if self.is_class:
            wrong, right = f"{part}/{self.key}/error", f"{part}/{self.key}/accuracy"
            found = [
                (int(row["epoch"]) + 1, row[wrong] if wrong in row else 1 - row[right])
                for row in self.epochs
                if (wrong in row or right in row) and "epoch" in row
            ]
        return found

    @property
    def monitored(self) -> float | None:
        """The value by which the run was judged, lower is better; None if it is not finished."""
        return self.error("val")

    def error(self, part: str) -> float | None:
        """Final error of a part, "train", "val" or "test": the MAE, or the part of wrong classes."""
        if self.is_class:
            accuracy = self.metric(part, "accuracy")
            return None if accuracy is None else 1.0 - accuracy
        return self.metric(part, "mae")

    def metric(self, part: str, name: str = "mae") -> float | None:
        """A final metric of a part; None if unfinished, or if that part has no crystals."""
        value = ((self.metrics or {}).get(part) or {}).get(self.key, {}).get(name)
        return value if value is not None and math.isfinite(value) else None

    def unit(self, part: str) -> str:
        """Unit of the error; "" if there is none or the run is not finished."""
        if self.is_class:
            return ""
        return str(((self.metrics or {}).get(part) or {}).get(self.key, {}).get("unit") or "")

    @cached_property
    def predictions(self) -> list[Prediction]:
        """Lines of predictions.csv for this target."""
        return [row for row in self.files.rows() if row.target == self.key]

    def errors(self, part: str) -> dict[str, float]:
        """Absolute error of each crystal of a part, by id, in the unit of the metrics.

        That unit is the learned one: with `transform: log10` the error is |log10 prediction - log10 label|.
        Of a classification 0 or 1.
        """
        log = self.target.get("transform") == "log10"
        errors = {}
        for row in self.predictions:
            if row.part != part:
                continue
            if self.is_class:
                if row.value:
                    errors[row.id] = float(row.value != row.prediction)
                continue
            pair = row.numbers
            if pair is None or (log and min(pair) <= 0):
                continue
            value, prediction = pair
            errors[row.id] = abs(math.log10(prediction) - math.log10(value) if log else prediction - value)
        return errors


def targets_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each target in a run's config, by key."""
    entry = config.get("target") or {}
    if not isinstance(entry, Mapping):
        return {}
    if "key" in entry:
        return {str(entry["key"]): dict(entry)}
    return {
        str(settings.get("key", key)): {"key": str(key), **settings}
        for key, settings in entry.items()
        if isinstance(settings, Mapping)
    }


def title_of(target: Mapping[str, Any]) -> str:
    """Name of a target for people, from its settings."""
    from potnet.config import ConfigError
    from potnet.data.errors import DataError
    from potnet.data.targets import Targets

    try:
        first = next(iter(Targets.from_config(target).values()))
    except (ConfigError, DataError, AttributeError):  # of a run that failed as its settings are wrong
        return str(target.get("name") or target.get("key"))
    return first.title


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
            folders.update(f.parent for f in top.rglob("config.yaml") if RunFolder(f.parent).is_run())
            # A job that failed before its settings were written has Hydra's record of them alone.
            folders.update(file.parent.parent for file in top.rglob(".hydra/config.yaml"))
    found = [run for folder in sorted(folders, key=_order) if (run := _run(folder)) is not None]
    if not found:
        raise ConfigError(f"runs={','.join(paths)}: no run is in there (a run's folder holds config.yaml)")
    return found


def _run(folder: Path) -> Run | None:
    files = RunFolder(folder)
    loaded = OmegaConf.load(files.config if files.is_run() else files.hydra / "config.yaml")
    try:
        config = plain(loaded)
    except ConfigError:  # a job that failed as its settings are wrong
        config = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(config, dict) or not targets_of(config):
        return None
    key = next(iter(targets_of(config)))
    return Run(folder, config, overrides_of(folder), files.finished(), key)


def overrides_of(folder: Path) -> tuple[str, ...]:
    """What Hydra recorded of a run's command, as given; empty where there is no record."""
    file = RunFolder(folder).hydra / "overrides.yaml"
    return tuple(map(str, OmegaConf.load(file))) if file.is_file() else ()


def _order(folder: Path) -> tuple[str, int, str]:
    number = folder.name.partition("_")[0]
    return str(folder.parent), int(number) if number.isdigit() else -1, folder.name
