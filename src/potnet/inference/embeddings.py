"""Vectors of crystals and atoms from a trained network, for maps, neighbours and models of your own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from potnet.config import ConfigError
from potnet.crystals import CrystalGraph, Plausibility, collate
from potnet.data.features.featurizer import Failure
from potnet.inference.inputs import Inputs, chunks, crystals_of, expand
from potnet.inference.limits import Limits

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from potnet.inference.predictor import Predictor


@dataclass
class Embeddings:
    """Features of n crystals as a network has them before its heads.

    Attributes:
        ids: n names.
        crystals: (n, G) float32.
        elements: n arrays (atoms,), atomic numbers of the atoms that the network sees: those of the
            primitive cell, unless `features.cell=as_given`.
        atoms: n arrays (atoms, F) float32, in that order; empty if they were not asked for.
        failures: Inputs that could not be used.
    """

    ids: list[str] = field(default_factory=list)
    crystals: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32), repr=False)
    elements: list[np.ndarray] = field(default_factory=list, repr=False)
    atoms: list[np.ndarray] = field(default_factory=list, repr=False)
    failures: list[Failure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def to_numpy(self) -> np.ndarray:
        """(n, G)."""
        return self.crystals

    def to_dataframe(self) -> pandas.DataFrame:
        """A row a crystal, a column a feature."""
        import pandas

        return pandas.DataFrame(self.crystals, index=pandas.Index(self.ids, name="id", dtype=object))

    def to_table(self) -> pyarrow.Table:
        """Arrow: `id`, `embedding` (G numbers); with atoms `elements` and `atoms`, a list a crystal."""
        import pyarrow

        columns: dict[str, Any] = {
            "id": pyarrow.array(self.ids, pyarrow.string()),
            "embedding": pyarrow.array(list(self.crystals), pyarrow.list_(pyarrow.float32())),
        }
        if self.atoms:
            columns["elements"] = pyarrow.array(
                [z.tolist() for z in self.elements], pyarrow.list_(pyarrow.int16())
            )
            columns["atoms"] = pyarrow.array(
                [list(x) for x in self.atoms], pyarrow.list_(pyarrow.list_(pyarrow.float32()))
            )
        return pyarrow.table(columns)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write `to_table` as Parquet."""
        import pyarrow.parquet

        from potnet.files import replacing

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            pyarrow.parquet.write_table(self.to_table(), part)


def embed(
    predictor: Predictor,
    inputs: Inputs,
    atoms: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    batch_size: int = 64,
    box: float | None = None,
    plausibility: Plausibility = "refuse",
) -> Embeddings:
    """See `Predictor.embed`."""
    _check_embeds(predictor)
    found = Embeddings()
    crystals = []
    limits = Limits(batch_size)
    for graphs in featurized_batches(predictor, inputs, on_error, limits, box, plausibility, found.failures):
        batch = collate(graphs)
        with torch.no_grad():
            vectors = predictor.model.embed(batch.to(predictor.device))  # type: ignore[operator]
        found.ids += batch.ids
        crystals.append(vectors.crystals.float().cpu().numpy())
        sizes = batch.num_atoms.tolist()
        found.elements += [z.numpy() for z in batch.z.split(sizes)]
        if atoms:
            found.atoms += [x.numpy() for x in vectors.atoms.float().cpu().split(sizes)]
    if crystals:
        found.crystals = np.concatenate(crystals)
    return found


def featurized_batches(
    predictor: Predictor,
    inputs: Inputs,
    on_error: str,
    limits: Limits,
    box: float | None,
    plausibility: Plausibility,
    failures: list[Failure],
) -> Iterator[list[CrystalGraph]]:
    """Featurized crystals of inputs, batch by batch within the limits of prediction; collects failures."""
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error={on_error!r}: give 'raise' or 'skip'")
    skip = on_error == "skip"
    items = expand(inputs)
    for crystals, unread in chunks(items, crystals_of(items, box, plausibility), skip):
        failures += unread
        graphs = predictor.featurized(crystals, skip, failures)
        yield from predictor.batches(graphs, skip, limits, failures)


def _check_embeds(predictor: Predictor) -> None:
    """Refuse a network that has no vectors to give.

    Raises:
        ConfigError: It has none.
    """
    if not hasattr(predictor.model, "embed"):
        raise ConfigError(f"{type(predictor.model).__name__} has no embedding: it is no `Network` of potnet")
