"""`Predictor`: a trained network with all that it needs to predict crystals in files.

Lightning, which takes seconds to import, is not needed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from potnet.config import ConfigError
from potnet.config.trusted import check_trusted
from potnet.crystals import Crystal, CrystalBatch, CrystalError, CrystalGraph, Plausibility, collate
from potnet.data.features.featurizer import Failure, Featurizer
from potnet.data.targets import Targets
from potnet.inference.flags import TrainingDomain
from potnet.inference.inputs import Inputs, Outcome, crystals_of, expand, name_of
from potnet.inference.intervals import check_level
from potnet.inference.limits import DEFAULT_LEVEL, Limits
from potnet.inference.memory import (
    FEATURE_BYTES,
    GIB,
    SAFETY,
    is_out_of_memory,
    peak_bytes,
)
from potnet.inference.predictions import Predictions, columns_of, joined
from potnet.progress import progress_bar
from potnet.runs.checkpoint import CheckpointError, find_checkpoint, load_checkpoint
from potnet.runs.record import restore_elements
from potnet.training.networks import build_network
from potnet.training.outputs import values_of
from potnet.training.scaling import scalers_of

if TYPE_CHECKING:
    from potnet.inference.embeddings import Embeddings
    from potnet.inference.explain import Explanation

__all__ = ["Inputs", "Predictions", "Predictor", "choose_device", "expand"]

CHUNK = 512
"""Most crystals that are featurized at a time: the sums are computed together, memory stays bounded."""

CHUNK_PAIRS = 4_000_000
"""Most pairs of atoms that are featurized at a time, unless one crystal has more."""

UNMEASURED = 100_000
"""Pairs and edges of a batch up to which its memory is not looked at."""


class Predictor:
    """A trained network, its features and its targets. It can be pickled, and so sent to other processes.

    Args:
        model: The network, whose outputs are scaled.
        scalers: Of its targets.
        targets: What it learned.
        featurizer: The features it learned from.
        record: What the checkpoint says about the run: config, versions, split, training.
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
        self.domain = TrainingDomain(self.record.get("training"))
        self._bytes_each: float | None = None

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        lines = [f"Predictor: {type(self.model).__name__}, {parameters:,} parameters, on {self.device}"]
        for key, target in self.targets.items():
            name = "" if target.title == key else f"{target.title}, "
            kind = (
                f"one of {', '.join(target.classes or ())}" if target.is_class else target.unit or "no unit"
            )
            scale = "" if target.learned_unit == target.unit else f", learned as {target.learned_unit}"
            lines.append(f"  {key}: {name}{kind}{scale}")
        if self.record.get("dataset"):
            lines.append(f"  trained on {self.record['dataset']}")
        return "\n".join(lines)

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike[str], device: str = "auto", allow: Sequence[str] = ()
    ) -> Predictor:
        """Load a checkpoint file, or the best checkpoint of a run's folder or of the newest run in a folder.

        Args:
            path: See `find_checkpoint`.
            device: "cpu", "cuda", ..., or "auto".
            allow: Full names of classes outside of potnet that the file may build, such as "mynet.Net".

        Raises:
            CheckpointError: It is missing, damaged, foreign, does not fit its own settings, or asks for a
                class that it may not build; then nothing was imported.
        """
        file = find_checkpoint(path if isinstance(path, str) else Path(path))
        checkpoint = load_checkpoint(file)
        settings, record, weights = (
            checkpoint["hyper_parameters"],
            checkpoint["potnet"],
            checkpoint["state_dict"],
        )
        try:
            asked = {
                "model": settings["model"],
                "targets": settings["targets"],
                "features": record["features"],
            }
            check_trusted(asked, allow)
        except (ConfigError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file}: {error}") from error
        try:
            targets = Targets.from_config(settings["targets"])
            model, scalers = build_network(settings["model"], targets), scalers_of(targets)
            for part, name in ((model, "model."), (scalers, "scalers.")):
                part.load_state_dict(
                    {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
                )
            restore_elements(model, record)
            featurizer = Featurizer.from_settings(record["features"], device=device)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            version = record.get("versions", {}).get("potnet", "?")
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{file}: its weights do not fit its settings (written by potnet {version}): {reason}"
            ) from error
        return cls(model, scalers, targets, featurizer, record, device)

    def to(self, device: str) -> None:
        """Move the networks to a device, and let features be computed there; see the class.

        Raises:
            ConfigError: There is no such device here.
        """
        self.device = choose_device(device)
        self.featurizer.device = str(self.device)
        self.model.to(self.device)
        self.scalers.to(self.device)

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
        max_memory_gib: float | None = None,
        max_pairs: int = 500_000,
        max_edges: int = 500_000,
        progress: bool = False,
        level: float = DEFAULT_LEVEL,
    ) -> Predictions:
        """Predict crystals in files or in memory.

        Args:
            inputs: A file, a folder, a pattern such as "structures/*.cif", a `Crystal`, ASE Atoms, a pymatgen
                Structure, or a list of these.
            on_error: "raise" stops at the first crystal that cannot be used, "skip" lists it in `failures`.
            batch_size: Most crystals that the network sees at a time.
            box: Å of vacuum around molecules without a cell; None refuses them.
            plausibility: What to do with a structure that cannot be right: "refuse", "warn" or "ignore"; see
                `read_crystals`.
            max_memory_gib: Working memory for one batch, GiB; a crystal that takes more is not predicted.
                None is four fifths of what is available.
            max_pairs: Most ordered pairs of atoms of a batch; a crystal that has more is predicted alone.
            max_edges: Likewise, most local edges.
            progress: Show a bar, if stderr is a terminal.
            level: Of the intervals, where the model has any (an `Ensemble` with a calibration).

        Returns:
            Values in the targets' physical units (for a log target the value, not its logarithm).

        Raises:
            CrystalError: A crystal that cannot be used, with `on_error="raise"`.
            ConfigError: A setting that makes no sense.
        """
        tables = self.tables(
            inputs,
            on_error,
            batch_size,
            box,
            plausibility,
            max_memory_gib,
            max_pairs,
            max_edges,
            progress,
            level,
        )
        return joined([self._empty(), *tables])

    def tables(
        self,
        inputs: Inputs,
        on_error: Literal["raise", "skip"] = "raise",
        batch_size: int = 64,
        box: float | None = None,
        plausibility: Plausibility = "refuse",
        max_memory_gib: float | None = None,
        max_pairs: int = 500_000,
        max_edges: int = 500_000,
        progress: bool = False,
        level: float = DEFAULT_LEVEL,
    ) -> Iterator[Predictions]:
        """As `predict`, but table by table: memory does not grow with the number of crystals.

        Yields:
            Tables of up to 512 crystals, in the order of the inputs; together what `predict` returns.
        """
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error={on_error!r}: give 'raise' or 'skip'")
        limits = Limits(batch_size, max_pairs, max_edges, max_memory_gib, check_level(level))
        items = expand(inputs)
        return self._tables(
            items, crystals_of(items, box, plausibility), on_error == "skip", limits, progress
        )

    def embed(self, inputs: Inputs, atoms: bool = False, **options: Any) -> Embeddings:
        """Vectors of crystals, and with `atoms=True` of atoms, from the layer before the heads.

        Args:
            inputs: As for `predict`.
            atoms: Whether to keep a vector an atom.
            options: `on_error`, `batch_size`, `box`, `plausibility`, as for `predict`.
        """
        from potnet.inference.embeddings import embed

        return embed(self, inputs, atoms, **options)

    def explain(self, inputs: Inputs, target: str | None = None, **options: Any) -> Explanation:
        """What each atom contributes to the prediction, and what it is without the complete potentials.

        Args:
            inputs: As for `predict`.
            target: Key; None is the first.
            options: `on_error`, `box`, `plausibility`, as for `predict`.
        """
        from potnet.inference.explain import explain

        return explain(self, inputs, target, **options)

    def _tables(
        self, items: list[Any], outcomes: Iterator[Outcome], skip: bool, limits: Limits, progress: bool
    ) -> Iterator[Predictions]:
        # The number of crystals in the files is not known before they are read.
        title = f"Predicting {len(items)} input{'' if len(items) == 1 else 's'}"
        with progress_bar(None, title, shown=None if progress else False) as advance:
            for crystals, failures in chunks(items, outcomes, skip):
                yield self.table(crystals, failures, skip, limits)
                advance(len(crystals) + len(failures))

    def table(
        self, crystals: list[Crystal], unread: list[Failure], skip: bool, limits: Limits
    ) -> Predictions:
        """Predict some crystals; failures are listed in the order: unread, not featurized, not predicted."""
        failures: list[Failure] = []
        usable = []
        for crystal in crystals:
            needed = FEATURE_BYTES * len(crystal) ** 2 if self.featurizer.potentials else 0
            if self._fits(crystal.id, len(crystal), needed, torch.device("cpu"), skip, limits, failures):
                usable.append(crystal)
        graphs = self.featurized(usable, skip, failures)
        given = {crystal.id: crystal for crystal in usable}
        tables = [self._empty()]
        for batch in self.batches(graphs, skip, limits, failures):
            tables += self._batch(batch, given, skip, limits, failures)
        found = joined(tables)
        found.failures = [*unread, *failures]
        return found

    def featurized(self, crystals: list[Crystal], skip: bool, failures: list[Failure]) -> list[CrystalGraph]:
        try:
            given = failures if skip else None
            return self.featurizer.featurize(crystals, failures=given, labels=False)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(crystals) > 1:
                return [g for crystal in crystals for g in self.featurized([crystal], skip, failures)]
            reason = f"{len(crystals[0])} atoms: there is not enough memory for its features"
            self._refuse(crystals[0].id, reason, skip, failures)
            return []

    def batches(
        self, graphs: list[CrystalGraph], skip: bool, limits: Limits, failures: list[Failure]
    ) -> Iterator[list[CrystalGraph]]:
        """Crystals in order, each batch within the limits; a crystal above one of them comes alone."""
        held: list[CrystalGraph] = []
        pairs = edges = 0
        for graph in graphs:
            more_pairs, more_edges = self._size(graph)
            if more_pairs + more_edges > UNMEASURED:
                needed = SAFETY * self._bytes_of_one() * (more_pairs + more_edges)
                if not self._fits(graph.id, len(graph.z), needed, self.device, skip, limits, failures):
                    continue
            full = (
                len(held) == limits.crystals
                or pairs + more_pairs > limits.pairs
                or edges + more_edges > limits.edges
                or self._heavy(pairs + more_pairs + edges + more_edges, limits)
            )
            if held and full:
                yield held
                held, pairs, edges = [], 0, 0
            held.append(graph)
            pairs, edges = pairs + more_pairs, edges + more_edges
        if held:
            yield held

    def _fits(
        self,
        id: str,
        atoms: int,
        needed: float,
        device: torch.device,
        skip: bool,
        limits: Limits,
        failures: list[Failure],
    ) -> bool:
        """Whether a crystal that takes so many bytes may be predicted; if not, it is refused."""
        most = limits.bytes(device)
        if needed <= most:
            return True
        what = "max_memory_gib" if limits.memory_gib is not None else "four fifths of what is available"
        reason = (
            f"{atoms} atoms take about {needed / GIB:.2g} GiB, and the limit is {most / GIB:.2g} GiB "
            f"({what}): raise max_memory_gib, or use a machine with more memory"
        )
        self._refuse(id, reason, skip, failures)
        return False

    def _heavy(self, size: int, limits: Limits) -> bool:
        """Whether a batch of this many pairs and edges would take more memory than there is."""
        return size > UNMEASURED and SAFETY * self._bytes_of_one() * size > limits.bytes(self.device)

    def _size(self, graph: CrystalGraph) -> tuple[int, int]:
        """Ordered pairs of atoms that the network sees, and local edges."""
        pairs = len(graph.z) ** 2 if graph.pair_sums is not None else 0
        return pairs, 0 if graph.edge_index is None else graph.edge_index.shape[1]

    def _bytes_of_one(self) -> float:
        """Bytes of working memory for one pair or edge, measured once on 96 atoms without symmetry."""
        if self._bytes_each is None:
            self._bytes_each = 0.0
            try:
                (graph,) = self.featurizer.featurize([_disordered(sorted(self.domain.elements))])
                batch = collate([graph])
                self._bytes_each = peak_bytes(lambda: self.learned(batch)) / max(sum(self._size(graph)), 1)
            except ValueError:
                pass  # a network that refuses this crystal is only stopped by the allocator
        return self._bytes_each

    def _batch(
        self,
        graphs: list[CrystalGraph],
        given: dict[str, Crystal],
        skip: bool,
        limits: Limits,
        failures: list[Failure],
    ) -> list[Predictions]:
        """Predict one batch. If the network refuses it (an unknown element), find out which crystal it is."""
        try:
            return [self._rows(graphs, [given[graph.id] for graph in graphs], limits.level)]
        except (ValueError, MemoryError, RuntimeError) as error:
            if not (isinstance(error, ValueError) or is_out_of_memory(error)):
                raise
            if len(graphs) > 1:
                return [t for graph in graphs for t in self._batch([graph], given, skip, limits, failures)]
            reason = str(error)
            if is_out_of_memory(error):
                reason = f"{len(graphs[0].z)} atoms: there is not enough memory"
            self._refuse(graphs[0].id, reason, skip, failures)
            return []

    def _rows(self, graphs: list[CrystalGraph], crystals: list[Crystal], level: float) -> Predictions:
        """The rows of one batch.

        Args:
            graphs: Features, in the cell that the network sees.
            crystals: The same as they were given.
            level: Of intervals.
        """
        return self._filled(self.learned(collate(graphs)), graphs, crystals)

    def _filled(
        self, values: dict[str, Tensor], graphs: list[CrystalGraph], crystals: list[Crystal]
    ) -> Predictions:
        """Rows from values in the learned units; extensive ones become those of the cell as given."""
        found = Predictions(self.targets, [graph.id for graph in graphs])
        for key, target in self.targets.items():
            if target.per == "atom":
                found.atoms[key] = self._of_atoms(key, values[key], graphs, crystals)
                continue
            if target.extensive:  # of the cell that was given, not of the one that the network saw
                times = [len(c) / len(g.z) for c, g in zip(crystals, graphs, strict=True)]
                values[key] = values[key] * torch.tensor(times, dtype=torch.float64)
            found.columns |= columns_of(target, values[key])
        found.flags = [self.domain.flags(c, g) for c, g in zip(crystals, graphs, strict=True)]
        return found

    def _of_atoms(
        self, key: str, values: Tensor, graphs: list[CrystalGraph], crystals: list[Crystal]
    ) -> list[Any]:
        """Values of atoms by crystal; NaN for a crystal whose atoms the featurizer changed."""
        parts = values.split([len(graph.z) for graph in graphs])
        found = []
        for part, crystal in zip(parts, crystals, strict=True):
            shape = (len(crystal), *part.shape[1:])
            same = self.featurizer.cell == "as_given" and len(part) == len(crystal)
            found.append((part if same else torch.full(shape, torch.nan)).numpy())
        return found

    def _empty(self) -> Predictions:
        """A table without a row."""
        found = Predictions(self.targets)
        for key, target in self.targets.items():
            if target.per == "atom":
                found.atoms[key] = []
            else:
                found.columns |= columns_of(target, None)
        return found

    def _refuse(self, id: str, reason: str, skip: bool, failures: list[Failure]) -> None:
        if not skip:
            raise CrystalError(reason, f"crystal {id!r}")
        failures.append(Failure(id, reason))


def _disordered(elements: Sequence[int]) -> Crystal:
    """96 atoms without symmetry, at a usual density."""
    import numpy as np

    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(range(4), range(4), range(6), indexing="ij"), -1).reshape(-1, 3)
    positions = 2.6 * (grid + 0.25 * random.random((96, 3)))
    kinds = list(elements)[:8] or [8, 13, 14, 22, 26, 29]
    return Crystal(np.diag([10.4, 10.4, 15.6]), positions, random.choice(kinds, 96), id="disordered")


def chunks(
    items: list[Any], outcomes: Iterator[Outcome], skip: bool
) -> Iterator[tuple[list[Crystal], list[Failure]]]:
    """Crystals of some inputs at a time, with the inputs between them that could not be read."""
    crystals: list[Crystal] = []
    failures: list[Failure] = []
    pairs = 0
    for number, outcome in outcomes:
        if isinstance(outcome, CrystalError):
            if not skip:
                raise outcome
            failures.append(Failure(name_of(items[number], number), str(outcome)))
            continue
        if crystals and (len(crystals) == CHUNK or pairs + len(outcome) ** 2 > CHUNK_PAIRS):
            yield crystals, failures
            crystals, failures, pairs = [], [], 0
        crystals.append(outcome)
        pairs += len(outcome) ** 2
    yield crystals, failures


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
