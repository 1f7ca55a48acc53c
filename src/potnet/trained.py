"""Training from Python: `potnet.train("experiment=mp_bulk_modulus", trainer={"max_epochs": 20})`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import INTERRUPTED, ConfigError, compose, plain
from potnet.config.arguments import hydra_quoted, readable
from potnet.config.paths import groups
from potnet.config.resolvers import remove_unused_run_dir, run_dir
from potnet.config.trusted import targets_in
from potnet.process_rank import rank
from potnet.runs.begin import alone_in, check_free, refusal
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
        BusyError: Another process is training in the folder.
        FileExistsError: There is a run in the folder.

    Example:
        >>> run = potnet.train(data={"limit": 200}, trainer={"max_epochs": 2}, seed=1)  # doctest: +SKIP
        >>> run.metrics["test"]["k_vrh"]["mae"]  # doctest: +SKIP
    """
    from potnet.train import resumed, train

    for word in overrides:
        if not isinstance(word, str):
            raise ConfigError(
                f"potnet.train({word!r}): give settings as keyword arguments, seed=1 or "
                f"trainer={{'max_epochs': 2}} (a mapping of them as **settings), or as text, 'seed=1'"
            )
    words = readable("train", overrides) + [f"{key}={_text(key, value)}" for key, value in _leaves(settings)]
    config = compose("train", words)
    try:
        resume = config.resume is not None
        settled = {} if resume else plain(config)
        if resume:
            where = Path(run_dir("", "", str(config.resume)))
        elif folder is None:
            where = Path(run_dir(settled["runs_dir"], settled["name"], None))
        else:
            where = Path(folder)
        check_free(where)
        if not resume:
            _refuse_used(where)
        with alone_in(where):
            if resume:
                settled = resumed(where, words)
            else:
                _refuse_used(where)  # another process may have finished there meanwhile
                del settled["allow"]
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


def _refuse_used(folder: Path) -> None:
    why = refusal(folder, "folder") if rank() == 0 else None
    if why:
        raise FileExistsError(why)


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
    """A value in Hydra's grammar; numbers and arrays of NumPy and torch are those of Python."""
    if hasattr(value, "tolist"):
        value = value.tolist()
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
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{key or 'a list'}: expected text, a number, a list or a mapping, got {value!r}")
    return str(value) if key in groups() else hydra_quoted(os.fspath(value))
