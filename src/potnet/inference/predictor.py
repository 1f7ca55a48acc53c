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
from potnet.data.features.featurizer import Featurizer
from potnet.data.targets import Targets
from potnet.inference.flags import TrainingDomain
from potnet.inference.frames import Named, index_of, is_frame
from potnet.inference.inputs import Inputs, crystals_of, expand
from potnet.inference.intervals import check_level
from potnet.inference.limits import DEFAULT_LEVEL, Limits
from potnet.inference.pieces import InPieces
from potnet.inference.predictions import Predictions, columns_of, joined
from potnet.runs.checkpoint import CheckpointError, find_checkpoint, load_checkpoint, of_one_target
from potnet.runs.record import restore_elements
from potnet.training.networks import build_network
from potnet.training.outputs import values_of
from potnet.training.scaling import scalers_of

if TYPE_CHECKING:
    from potnet.inference.embeddings import Embeddings
    from potnet.inference.explain import Explanation

__all__ = ["Inputs", "Predictions", "Predictor", "choose_device", "expand"]


class Predictor(InPieces):
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
        cls,
        path: str | os.PathLike[str],
        device: str = "auto",
        allow: Sequence[str] = (),
        target: str | None = None,
    ) -> Predictor:
        """Load a checkpoint file, or the best checkpoint of a run's folder or of the newest run in a folder.

        Args:
            path: See `find_checkpoint`.
            device: "cpu", "cuda", ..., or "auto".
            allow: Full names of classes outside of potnet that the file may build, such as "mynet.Net".
            target: Of a network with several targets, the one to predict; None predicts all.

        Raises:
            CheckpointError: It is missing, damaged, foreign, does not fit its own settings, has no such
                target, or asks for a class that it may not build; then nothing was imported.
        """
        file = find_checkpoint(path if isinstance(path, str) else Path(path))
        checkpoint = load_checkpoint(file)
        if absent := [key for key in ("hyper_parameters", "potnet", "state_dict") if key not in checkpoint]:
            raise CheckpointError(f"{file}: not a checkpoint of potnet, it has no {', '.join(absent)}")
        if target is not None:
            checkpoint = of_one_target(checkpoint, target)
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
                Structure, a list of these, or a pandas DataFrame with a column of structures.
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
        found = joined([self.empty_table(), *tables])
        if is_frame(inputs):
            found.index = index_of(inputs)
        return found

    def predict_structure(self, structure: Any, **options: Any) -> float | str | dict[str, float | str]:
        """The value of one structure, as a plain number; of several targets all, by key.

        Args:
            structure: A pymatgen Structure, ASE Atoms, a `Crystal`, CIF text, a dictionary of these, or the
                file of one structure.
            options: `box`, `plausibility`, `max_memory_gib`, as for `predict`.

        Returns:
            In the physical unit of the target; of a classification the name of the class.

        Raises:
            CrystalError: It cannot be used, or it is not one structure.
        """
        given = structure if isinstance(structure, os.PathLike) else Named("structure", structure)
        if isinstance(structure, str) and "\n" not in structure:
            given = Path(structure)
        found = self.predict(given, **options)
        if len(found) != 1:
            raise CrystalError(f"one structure is wanted, got {len(found)}: use predict", str(given))
        row = found[0]
        values = {key: row[key] for key in self.targets if key in row}
        return next(iter(values.values())) if len(self.targets) == 1 and values else values

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
        return self._in_tables(
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

    def explain(
        self, inputs: Inputs, target: str | None = None, pairs: bool = False, **options: Any
    ) -> Explanation:
        """What each atom contributes to the prediction, and what it is without the complete potentials.

        Args:
            inputs: As for `predict`.
            target: Key; None is the first.
            pairs: Whether to divide what the complete potentials change among the pairs of atoms: some
                seconds a crystal.
            options: `on_error`, `box`, `plausibility`, as for `predict`.
        """
        from potnet.inference.explain import explain

        return explain(self, inputs, target, pairs, **options)

    def _rows(self, graphs: list[CrystalGraph], crystals: list[Crystal], level: float) -> Predictions:
        return self._filled(self.learned(collate(graphs)), graphs, crystals)

    def _filled(
        self, values: dict[str, Tensor], graphs: list[CrystalGraph], crystals: list[Crystal]
    ) -> Predictions:
        """Rows from values in the learned units; extensive ones become those of the cell as given."""
        found = Predictions(self.targets, [graph.id for graph in graphs])
        for key, target in self.targets.items():
            if not torch.isfinite(values[key]).all():
                raise ValueError(f"the network gives no finite {key}")
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

    def empty_table(self) -> Predictions:
        found = Predictions(self.targets)
        for key, target in self.targets.items():
            if target.per == "atom":
                found.atoms[key] = []
            else:
                found.columns |= columns_of(target, None)
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
