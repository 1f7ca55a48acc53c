"""Featurized crystals as PyTorch's DataLoader takes them: a dataset, and a loader for several devices."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from potnet.crystals import CrystalBatch
from potnet.data.features.store import FeatureStore


class CrystalDataset(Dataset[CrystalBatch]):
    """The featurized crystals of one part of a split.

    Args:
        store: Features of the whole data set.
        rows: The crystals of this part, as rows of the store.
        labels: Target -> (len(store),) float64, NaN where missing. Labels of atoms and with a shape are with
            the features.
    """

    def __init__(
        self,
        store: FeatureStore,
        rows: Sequence[int] | np.ndarray,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.store = store
        self.rows = np.asarray(rows, dtype=np.int64)
        self.labels = dict(labels or {})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> CrystalBatch:
        """A batch of one crystal."""
        return self.batch([index])

    def __getitems__(self, indices: Sequence[int]) -> CrystalBatch:
        """What a DataLoader calls: a whole batch at once, so nothing is left to collate.

        A rank's share of a batch may be no crystal at all.
        """
        return self.batch(indices) if len(indices) else _no_crystal()

    def batch(self, indices: Sequence[int]) -> CrystalBatch:
        """Some crystals (indices into this part) as one batch, in the order given."""
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        batch = self.store.batch(rows, numbers=False)
        labels = {key: torch.from_numpy(values[rows]) for key, values in self.labels.items()}
        return replace(batch, targets={**batch.targets, **labels})

    @property
    def ids(self) -> list[str]:
        """Names of the crystals, in order."""
        return self.store.table.ids.take(pa.array(self.rows)).to_pylist()

    def values(self, key: str) -> np.ndarray:
        """(n,) float64 labels of one target, in its physical unit."""
        return self.labels[key][self.rows]


class SharedLoader(DataLoader[CrystalBatch]):
    """A loader whose batches already are the share of one rank, so that Lightning leaves them alone.

    Where several devices train, Lightning replaces samplers that are not of the class below.
    """

    @property  # type: ignore[override]
    def sampler(self) -> DistributedSampler[int]:
        return self._sampler

    @sampler.setter
    def sampler(self, value: Any) -> None:
        # Never iterated: `batch_sampler` gives whole batches.
        self._sampler: DistributedSampler[int] = DistributedSampler(self.dataset, num_replicas=1, rank=0)


def as_is(batch: CrystalBatch) -> CrystalBatch:
    """What collates batches that are whole already."""
    return batch


def _no_crystal() -> CrystalBatch:
    none = torch.zeros(0, dtype=torch.int64)
    return CrystalBatch(
        ids=[],
        z=none,
        batch=none,
        num_atoms=none,
        positions=torch.zeros(0, 3, dtype=torch.float64),
        cell=torch.zeros(0, 3, 3, dtype=torch.float64),
    )


def leave_signals_to_the_parent(worker: int) -> None:
    """Go on when a scheduler sends its signals to all processes: training still has to finish a batch.

    A loading process ends when it's told to, or when its parent has gone.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
