"""The folder of a run: every file name in it, in one place, and what its files say without any network.

    run = RunFolder("runs/k_vrh/2026-11-01_10-00-00")
    run.config, run.predictions, run.best, ...      paths; the files may be missing
    run.metrics()                                    content of metrics.json, of this or an older format
    run.rows()                                       lines of predictions.csv, likewise

Format 2 (now): metrics.json has a figure for each part and target,
`{"format": 2, "test": {"k_vrh": {"mae": ...}}}`, and predictions.csv a line for each crystal and target.
Format 1 had one target, and neither name nor level for it. Whoever reads through this class sees format 2.
"""  # fmt: skip

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potnet.files import write_whole

FORMAT = 2
"""Of metrics.json and predictions.csv."""

BEST, LAST = "best.ckpt", "last.ckpt"

ERROR = "error.txt"
"""Of a sweep's job that failed: the message on the first line, then the traceback."""

PARTS = ("train", "val", "test")

PREDICTION_COLUMNS = ("id", "split", "target", "value", "prediction")

WORST_COLUMNS = ("target", "id", "formula", "atoms", "value", "prediction", "error")

ELEMENT_COLUMNS = ("target", "z", "element", "error", "crystals")

PICTURES = ("parity", "error_by_element", "learning_curve")
"""Pictures of a run, without target and ending."""


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.csv.

    Attributes:
        id: Name of the crystal.
        part: "train", "val" or "test".
        target: Key of the target.
        value: The label: text of a number in physical units, or a class.
        prediction: The same of the model.
    """

    id: str
    part: str
    target: str
    value: str
    prediction: str

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Label and prediction; None unless both are finite numbers."""
        value, prediction = number(self.value), number(self.prediction)
        return None if value is None or prediction is None else (value, prediction)


class RunFolder:
    """The folder of one run.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def containing(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run that a path means: a folder itself, or the run around a checkpoint file."""
        path = Path(path)
        return cls(path.parent.parent if path.suffix == ".ckpt" else path)

    # What the run was asked for.

    @property
    def config(self) -> Path:
        """Plain settings of the run, everything filled in. Its presence makes a folder a run."""
        return self.path / "config.yaml"

    @property
    def hydra(self) -> Path:
        """Hydra's record of the command: `overrides.yaml` and `config.yaml`."""
        return self.path / ".hydra"

    @property
    def versions(self) -> Path:
        """JSON: versions of what shapes the result, and the commit of the checkout."""
        return self.path / "versions.json"

    @property
    def log(self) -> Path:
        """What the command logged."""
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the process that trains in the folder (`potnet.runs.begin.alone_in`)."""
        return self.path / ".lock"

    @property
    def wandb_id(self) -> Path:
        """The name that W&B knows the run by, so that a resumed run is the same one there."""
        return self.path / "wandb_run_id.txt"

    # Its data.

    @property
    def split(self) -> Path:
        """JSON: part -> ids."""
        return self.path / "split.json"

    @property
    def data(self) -> Path:
        """Summary of the data, text."""
        return self.path / "data.txt"

    @property
    def removed(self) -> Path:
        """CSV: crystals of the source that are not used, and why."""
        return self.path / "removed.csv"

    # What came of it.

    @property
    def epochs(self) -> Path:
        """CSV: metrics by epoch."""
        return self.path / "metrics.csv"

    @property
    def results(self) -> Path:
        """JSON: final metrics. Written last, so its presence marks a finished run."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """CSV with `PREDICTION_COLUMNS`, in physical units."""
        return self.path / "predictions.csv"

    @property
    def worst(self) -> Path:
        """CSV with `WORST_COLUMNS`: the test crystals with the largest errors of each target."""
        return self.path / "worst_crystals.csv"

    @property
    def elements(self) -> Path:
        """CSV with `ELEMENT_COLUMNS`: the error of the test crystals that contain an element."""
        return self.path / "error_by_element.csv"

    @property
    def trials(self) -> Path:
        """CSV: what the cross-validation of a model in closed form tried."""
        return self.path / "cross_validation.csv"

    @property
    def error(self) -> Path:
        """What became of a sweep's job that failed."""
        return self.path / ERROR

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint with the best value of the monitored metric."""
        return self.checkpoints / BEST

    @property
    def last(self) -> Path:
        """The checkpoint from which the run can be resumed."""
        return self.checkpoints / LAST

    def picture(self, name: str, target: str | None = None) -> Path:
        """A PNG of the run.

        Args:
            name: One of `PICTURES`.
            target: Key of the target, where the run has several.
        """
        return self.path / (f"{name}_{target}.png" if target else f"{name}.png")

    def pictures(self) -> dict[str, Path]:
        """The pictures that are there, by name without ending."""
        files = [file for name in PICTURES for file in sorted(self.path.glob(f"{name}*.png"))]
        return {file.stem: file for file in files}

    # Reading.

    def checkpoint(self, names: tuple[str, ...] = (BEST, LAST)) -> Path | None:
        """The first of these checkpoints that is there; None if there is none."""
        files = [folder / name for name in names for folder in (self.checkpoints, self.path)]
        return next((file for file in files if file.is_file()), None)

    def kept(self) -> list[Path]:
        """What a new run would overwrite: checkpoints and the final metrics, as far as they are there."""
        files = [
            self.results,
            *(folder / name for folder in (self.checkpoints, self.path) for name in (LAST, BEST)),
        ]
        return [file for file in files if file.is_file()]

    def is_run(self) -> bool:
        """Whether this is the folder of a run: Hydra and W&B leave a config.yaml in folders, too."""
        if not self.config.is_file() or self.path.name == ".hydra":
            return False
        with self.config.open(encoding="utf-8", errors="replace") as lines:
            keys = {line.partition(":")[0] for line in lines if line[:1].isalpha()}
        return {"target", "model"} <= keys

    def metrics(self) -> dict[str, Any] | None:
        """Content of metrics.json, in format 2; None if there is none, as the run did not finish."""
        try:
            found: dict[str, Any] = json.loads(self.results.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        written = found.get("format", FORMAT if "monitor" in found else 1)
        return found if written >= FORMAT else upgraded_metrics(found, self._only_target())

    def finished(self) -> dict[str, Any] | None:
        """`metrics` of a run that came to its end; None if it was interrupted or stopped."""
        metrics = self.metrics()
        return None if metrics is None or metrics.get("interrupted") else metrics

    def monitored(self) -> tuple[str, float] | None:
        """Name and value of the metric that judges the run, final or the best so far; None without one."""
        metrics = self.metrics() or {}
        name = str(metrics.get("monitor") or "")
        value = metrics.get("monitored")
        if value is None and name:
            value = metric_of(metrics, name)
        if value is not None:
            return name, float(value)
        history = self.history()
        names = [name] if name else [n for n in (history or [{}])[-1] if re.fullmatch(r"val/.+/mae", n)]
        for name in [*names, "val/loss"]:
            values = [row[name] for row in history if name in row]
            if values:
                return name, max(values) if is_better_high(name) else min(values)
        return None

    def rows(self) -> Iterator[Prediction]:
        """Lines of predictions.csv; none if there is no such file."""
        if not self.predictions.is_file():
            return
        key = None
        with self.predictions.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if None in row.values():  # the end of a file that is being written
                    continue
                if "value" in row:
                    yield Prediction(row["id"], row["split"], row["target"], row["value"], row["prediction"])
                    continue
                key = key or self._only_target()  # format 1
                yield Prediction(row["id"], row["split"], key, row["target"], row["prediction"])

    def history(self) -> list[dict[str, float]]:
        """Rows of metrics.csv, numbers only, with the names of format 2; empty for a fit in closed form."""
        if not self.epochs.is_file():
            return []
        with self.epochs.open(newline="", encoding="utf-8") as lines:
            rows = [
                {key: value for key, text in row.items() if (value := number(text)) is not None}
                for row in csv.DictReader(lines)
            ]
        if any("val/mae" in row for row in rows):
            key = self._only_target()
            return [{_renamed(name, key): value for name, value in row.items()} for row in rows]
        return rows

    def _only_target(self) -> str:
        """Key of the one target that a run of format 1 had."""
        from omegaconf import OmegaConf

        try:
            config: Any = OmegaConf.to_container(OmegaConf.load(self.config), resolve=False)
            return str(config["target"]["key"])
        except (OSError, TypeError, KeyError):
            return "target"

    # Writing.

    def write_results(self, content: Mapping[str, Any]) -> None:
        """Write metrics.json, which marks the run as finished; NaN becomes null."""
        whole = {"format": FORMAT, **_without_nan(content)}
        write_whole(self.results, json.dumps(whole, indent=2, allow_nan=False) + "\n")


def upgraded_metrics(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """metrics.json of format 1 in the form of format 2.

    Args:
        content: Of format 1, with the figures of a part at its top level: `{"test": {"mae": ...}}`.
        key: Of the run's one target.
    """
    parts = {part: {key: content[part]} for part in PARTS if part in content}
    return {"format": FORMAT, **content, **parts, "monitor": f"val/{key}/mae"}


def metric_of(metrics: Mapping[str, Any], name: str) -> float | None:
    """A metric such as "val/k_vrh/mae" in the content of metrics.json; None if it is not there."""
    value: Any = metrics
    for part in name.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def is_better_high(metric: str) -> bool:
    """Whether a metric such as "val/metal/accuracy" is the better the higher it is."""
    return metric.rpartition("/")[2] in ("accuracy", "f1", "roc_auc", "r2")


def _renamed(name: str, key: str) -> str:
    """A column of metrics.csv of format 1 as it is called now."""
    part, _, metric = name.partition("/")
    return f"{part}/{key}/{metric}" if metric in ("mae", "rmse") else name


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def number(text: str | None) -> float | None:
    """A finite number; None for anything else, such as the end of a file that is being written."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
