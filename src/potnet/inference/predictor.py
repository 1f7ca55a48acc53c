"""`Predictor`: a trained network with all that it needs to predict crystals in files.

Lightning, which takes seconds to import, is not needed here.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from potnet.config import ConfigError, locate
from potnet.crystals import (
    Crystal,
    CrystalBatch,
    CrystalError,
    CrystalGraph,
    Plausibility,
    collate,
    from_ase,
    from_jarvis,
    from_pymatgen,
    iterate_crystals,
    unique_id,
)
from potnet.data.features.featurizer import Failure, Featurizer
from potnet.data.targets import Targets
from potnet.files import csv_text, write_whole
from potnet.runs.checkpoint import CheckpointError, find_checkpoint, load_checkpoint
from potnet.training.networks import build_network
from potnet.training.outputs import values_of
from potnet.training.scaling import scalers_of

Inputs = str | os.PathLike[str] | Crystal | Any | Sequence[Any]
"""A file, a folder, a pattern, a `Crystal`, ASE Atoms, a pymatgen Structure, or a list of these."""

CHUNK = 512
"""Crystals featurized at a time: the sums are computed together, memory stays bounded."""


@dataclass
class Predictions:
    """Predicted values, in the order of the inputs.

    Attributes:
        targets: What was predicted.
        ids: n names.
        columns: Of each target of crystals: n numbers in its unit, or names of classes; of each class of a
            classification also its probability, under `KEY_probability_CLASS`.
        failures: Inputs that could not be used, and why.
    """

    targets: Targets
    ids: list[str] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def values(self) -> list[Any]:
        """The column of the first target."""
        return self.columns[self.targets.first.key]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(zip(self.ids, self.values, strict=True))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write CSV: `id`, and a column for each target."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = [[_text(value) for value in column] for column in self.columns.values()]
        rows = zip(self.ids, *columns, strict=True)
        write_whole(path, csv_text(("id", *self.columns), rows))


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Predictor:
    """A trained network, its features and its targets.

    Args:
        model: The network, whose outputs are scaled.
        scalers: Of its targets.
        targets: What it learned.
        featurizer: The features it learned from.
        record: What the checkpoint says about the run: config, versions, split.
        device: "cpu", "cuda", ..., or "auto" for a GPU if there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        scalers: nn.ModuleDict,
        targets: Targets,
        featurizer: Featurizer,
        record: dict[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        self.scalers = scalers.to(self.device)
        self.targets = targets
        self.featurizer = featurizer
        self.record = record or {}

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], device: str = "auto") -> Predictor:
        """Load a checkpoint file, or the best checkpoint of a run's folder or of the newest run in a folder.

        Raises:
            CheckpointError: It is missing, damaged, foreign, or does not fit its own settings.
        """
        file = find_checkpoint(Path(path))
        checkpoint = load_checkpoint(file)
        settings, record, weights = (
            checkpoint["hyper_parameters"],
            checkpoint["potnet"],
            checkpoint["state_dict"],
        )
        # A checkpoint names classes: let it build networks and nothing else.
        kind = locate(settings["model"], "model")
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise CheckpointError(f"{file}: its model {settings['model'].get('_target_')} is not a network")
        try:
            targets = Targets.from_config(settings["targets"])
            model, scalers = build_network(settings["model"], targets), scalers_of(targets)
            for part, name in ((model, "model."), (scalers, "scalers.")):
                part.load_state_dict(
                    {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
                )
            featurizer = Featurizer.from_settings(record["features"], device=device)
        except (RuntimeError, KeyError, TypeError, ConfigError) as error:
            version = record.get("versions", {}).get("potnet", "?")
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{file}: its weights do not fit its settings (written by potnet {version}): {reason}"
            ) from error
        return cls(model, scalers, targets, featurizer, record, device)

    @torch.no_grad()
    def learned(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """Values of featurized crystals in the learned units, float64 on the CPU; see `outputs.values_of`."""
        found = values_of(self.model, self.scalers, self.targets, batch.to(self.device))
        return {key: value.cpu() for key, value in found.items()}

    def predict(
        self,
        inputs: Inputs,
        on_error: Literal["raise", "skip"] = "raise",
        batch_size: int = 64,
        box: float | None = None,
        plausibility: Plausibility = "refuse",
        progress: bool = False,
    ) -> Predictions:
        """Predict crystals in files or in memory.

        Args:
            inputs: A file, a folder, a pattern such as "structures/*.cif", a `Crystal`, ASE Atoms, a pymatgen
                Structure, or a list of these.
            on_error: "raise" stops at the first crystal that cannot be used, "skip" lists it in `failures`.
            batch_size: Crystals the network sees at a time.
            box: Å of vacuum around molecules without a cell; None refuses them.
            plausibility: What to do with a structure that cannot be right: "refuse", "warn" or "ignore"; see
                `read_crystals`.
            progress: Show a bar.

        Returns:
            Values in the targets' physical units (for a log target the value, not its logarithm).

        Raises:
            CrystalError: A crystal that cannot be used, with `on_error="raise"`.
            FileNotFoundError: Nothing matches.
            ConfigError: A setting that makes no sense.
        """
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error={on_error!r}: give 'raise' or 'skip'")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: give at least 1")
        items = expand(inputs)
        result = Predictions(self.targets, columns={name: [] for name in self._columns()})
        failures = None if on_error == "raise" else result.failures
        with _bar(len(items), progress) as advance:
            for crystals in _chunks(_read(items, box, plausibility, failures, advance)):
                graphs = self.featurizer.featurize(crystals, failures=failures)
                for start in range(0, len(graphs), batch_size):
                    self._predict_graphs(graphs[start : start + batch_size], failures, result)
                advance(0, len(crystals))
        return result

    def _predict_graphs(
        self, graphs: list[CrystalGraph], failures: list[Failure] | None, result: Predictions
    ) -> None:
        """Predict one batch. If the network refuses it (an unknown element), find out which crystal it is."""
        try:
            values = self.learned(collate(graphs))
        except ValueError as error:
            if failures is None:
                raise
            if len(graphs) == 1:
                failures.append(Failure(graphs[0].id, str(error)))
                return
            for graph in graphs:
                self._predict_graphs([graph], failures, result)
            return
        result.ids += [graph.id for graph in graphs]
        for name, column in self._rows(values).items():
            result.columns[name] += column

    def _columns(self) -> list[str]:
        """Names of the columns of predictions."""
        return list(self._rows({}))

    def _rows(self, values: Mapping[str, Tensor]) -> dict[str, list[Any]]:
        """Columns from values in the learned units; empty ones without any."""
        found: dict[str, list[Any]] = {}
        for key, target in self.targets.items():
            if target.per == "atom" or target.shape:
                continue
            value = values.get(key)
            if not target.is_class:
                found[key] = [] if value is None else target.physical(value).tolist()
                continue
            classes = target.classes or ()
            chances = torch.zeros(0, len(classes)) if value is None else torch.softmax(value, -1)
            found[key] = [classes[n] for n in chances.argmax(-1).tolist()]
            for n, name in enumerate(classes):
                found[f"{key}_probability_{name}"] = chances[:, n].tolist()
        return found


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU if there is one.

    Raises:
        ConfigError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={name}: not available here ({str(error).splitlines()[0]}); try cpu"
        ) from error
    return device


_ENDINGS = (".cif", ".mcif", ".vasp", ".poscar", ".xyz", ".extxyz", ".jsonl")


def expand(inputs: Inputs) -> list[Any]:
    """The files and objects that inputs mean: folders and patterns become sorted lists of files.

    Raises:
        CrystalError: Nothing matches; the path or pattern is named.
    """
    if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes):
        return [item for entry in inputs for item in expand(entry)]
    if not isinstance(inputs, str | os.PathLike):
        # One object; a generator of objects is consumed here.
        if isinstance(inputs, Iterator):
            return [item for entry in inputs for item in expand(entry)]
        return [inputs]
    path = Path(inputs).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _is_structure(file))
        if not files:
            raise CrystalError(
                f"there is no structure file in this folder (looked for {', '.join(_ENDINGS)}, POSCAR...)",
                str(path),
            )
        return list(files)
    files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not files:
        raise CrystalError(f"no such file, and no file matches (working folder: {Path.cwd()})", str(path))
    return list(files)


def _is_structure(file: Path) -> bool:
    name = file.name.removesuffix(".gz")
    return name.lower().endswith(_ENDINGS) or name.startswith(("POSCAR", "CONTCAR"))


def _read(
    items: list[Any],
    box: float | None,
    plausibility: Plausibility,
    failures: list[Failure] | None,
    advance: Callable[[int, int], None],
) -> Iterator[Crystal]:
    """The crystals of files and objects, in order, each with an id of its own."""
    taken: dict[str, Path | None] = {}
    for number, item in enumerate(items):
        for outcome in _outcomes(item, box, plausibility, number):
            if isinstance(outcome, CrystalError):
                if failures is None:
                    raise outcome
                name = str(item) if isinstance(item, Path) else f"input {number}"
                failures.append(Failure(name, str(outcome)))
                continue
            file = item if isinstance(item, Path) else None
            if outcome.id in taken:
                outcome = replace(outcome, id=unique_id(outcome.id, taken, file))
            taken[outcome.id] = file
            yield outcome
        advance(1, 0)


def _outcomes(
    item: Any, box: float | None, plausibility: Plausibility, number: int
) -> Iterator[Crystal | CrystalError]:
    if isinstance(item, Path):
        yield from iterate_crystals(item, box, plausibility)
        return
    try:
        yield _from_object(item, box, str(number))
    except CrystalError as error:
        yield error


def _from_object(item: Any, box: float | None, name: str) -> Crystal:
    """A crystal from an object of ours, of ASE, of pymatgen or of JARVIS, named by its place in the list."""
    if isinstance(item, Crystal):
        return item if item.id else replace(item, id=name)
    if hasattr(item, "get_scaled_positions"):
        return from_ase(item, box=box, id=name)
    if hasattr(item, "lattice") and hasattr(item, "frac_coords"):
        return from_pymatgen(item, id=name)
    if isinstance(item, Mapping):
        return from_jarvis(item, id=name)
    raise CrystalError(
        f"cannot make a crystal of {type(item).__name__}: give a file, Crystal, Atoms or Structure", name
    )


def _chunks(crystals: Iterator[Crystal]) -> Iterator[list[Crystal]]:
    while chunk := list(itertools.islice(crystals, CHUNK)):
        yield chunk


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; gives a function of the inputs and crystals done since the last call."""
    if not shown:
        yield lambda inputs, crystals: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("Predicting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("inputs, {task.fields[crystals]} crystals"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, crystals=0)

        def advance(inputs: int, crystals: int) -> None:
            bar.update(task, advance=inputs, crystals=bar.tasks[task].fields["crystals"] + crystals)

        yield advance
