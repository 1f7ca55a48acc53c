"""Training from Python: `potnet.train("experiment=mp_bulk_modulus", trainer={"max_epochs": 20})`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import INTERRUPTED, compose, plain
from potnet.config.arguments import hydra_quoted, readable
from potnet.config.paths import groups
from potnet.config.resolvers import remove_unused_run_dir, run_dir
from potnet.config.trusted import targets_in
from potnet.runs.folder import RunFolder

if TYPE_CHECKING:
    from potnet.inference.predictor import Predictor


@dataclass(frozen=True)
class TrainedRun:
    """A run that came to its end.

    Attributes:
        folder: With everything that the run wrote.
        metrics: Content of its metrics.json: `metrics["test"]["k_vrh"]["mae"]` and so on.
        allow: Classes that its settings named, and that its checkpoint may build therefore.
    """

    folder: Path
    metrics: dict[str, Any] = field(repr=False)
    allow: tuple[str, ...] = field(default=(), repr=False)

    def load(self, device: str = "auto") -> Predictor:
        """The trained model, from its best checkpoint."""
        from potnet.inference.predictor import Predictor

        return Predictor.from_checkpoint(self.folder, device, self.allow)

    def predict(self, inputs: Any, **options: Any) -> Any:
        """Predict with the best checkpoint: see `Predictor.predict`."""
        return self.load().predict(inputs, **options)


def train_from_python(
    *overrides: str, folder: str | os.PathLike[str] | None = None, **settings: Any
) -> TrainedRun:
    """Train as `potnet train` does, and wait for the end.

    Args:
        overrides: As on the command line: "experiment=mp_bulk_modulus", "trainer.max_epochs=20".
        folder: Of the run; by default a new one, runs/NAME/DATE_TIME.
        settings: The same as keyword arguments. A group takes the name of an option, `model="schnet"`, or a
            mapping of keys, `trainer={"max_epochs": 20}`, or both by `model="schnet", **{"model.width": 32}`.
            `resume=FOLDER` continues an earlier run.

    Returns:
        Folder and metrics. After Ctrl-C these are those of the best checkpoint so far.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: What cannot be used, and what to do.
        FileExistsError: There is a run in the folder.

    Example:
        >>> run = potnet.train(data={"limit": 200}, trainer={"max_epochs": 2}, seed=1)  # doctest: +SKIP
        >>> run.metrics["test"]["k_vrh"]["mae"]  # doctest: +SKIP
    """
    from potnet.train import resumed, train

    words = readable("train", overrides) + [f"{key}={_text(key, value)}" for key, value in _leaves(settings)]
    config = compose("train", words)
    try:
        if config.resume is not None:
            where = Path(run_dir("", "", str(config.resume)))
            settled, resume = resumed(where, words), True
        else:
            settled, resume = plain(config), False
            del settled["allow"]
            if folder is None:
                where = Path(run_dir(settled["runs_dir"], settled["name"], None))
            else:
                where = Path(folder)
                if where.is_dir() and RunFolder(where).config.exists():
                    raise FileExistsError(f"{where}: there is a run in this folder; choose another one")
                where.mkdir(parents=True, exist_ok=True)
        try:
            train(settled, where, resume)
        except SystemExit as end:
            if end.code != INTERRUPTED or not RunFolder(where).results.is_file():
                raise
    except BaseException:
        remove_unused_run_dir()
        raise
    named = tuple(str(path) for _, path in targets_in(settled))
    return TrainedRun(where, RunFolder(where).metrics() or {}, named)


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """Keyword arguments as words of a command line: `trainer={"max_epochs": 2}` is `trainer.max_epochs=2`."""
    return [f"{key}={_text(key, value)}" for key, value in _leaves(settings)]


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their full names; options of groups come before the keys in them."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(key: str, value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text("", entry) for entry in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}: {_text('', entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, int | float):
        return repr(value)
    return str(value) if key in groups() else hydra_quoted(os.fspath(value))
