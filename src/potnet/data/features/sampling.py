"""Which crystals make up each batch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Sampler

from potnet.data.features.packing import Packing


class EpochSampler(Sampler[int]):
    """0..size-1, in an order that depends on seed and epoch alone.

    The order uses no global random state, so a resumed run continues with the order that the
    uninterrupted one would have had. Lightning calls `set_epoch` before each epoch.

    Args:
        size: Number of crystals.
        shuffle: Whether to permute; otherwise always 0..size-1.
        seed: With the epoch, chooses the permutation.
    """

    def __init__(self, size: int, shuffle: bool, seed: int = 0) -> None:
        self.size = size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return map(int, self.order())

    def order(self) -> np.ndarray:
        """(size,) int64, the order of this epoch."""
        if not self.shuffle:
            return np.arange(self.size)
        return torch.randperm(self.size, generator=self.generator()).numpy()

    def generator(self) -> torch.Generator:
        """The random numbers of this epoch, from their beginning."""
        # Mixing keeps (seed 0, epoch 1) and (seed 1, epoch 0) apart.
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)


class CrystalBatchSampler(Sampler[list[int]]):
    """Batches of a number of crystals, the last one smaller; of each batch the share of one rank.

    Which crystals make up a batch doesn't depend on the number of ranks. So training on several devices takes
    the steps that it would take on one, and every crystal is seen once, by one rank. Shares differ by at most
    one crystal, and where a batch has fewer crystals than there are ranks, some are empty.

    The number of batches is the same in every epoch.

    Args:
        sampler: The order of the crystals, the same on all ranks.
        batch_size: Crystals of a batch, over all ranks.
        drop_single: Leave out a last batch that would hold one crystal only (never the only batch): batch
            normalisation cannot learn from a single value. As the order changes with the epoch, so does the
            crystal left out.
        rank: Whose share this is.
        world_size: Number of ranks.
        packing: Batches within further limits, in place of those of `batch_size` crystals.

    Attributes:
        start: Batches to pass over in the next epoch that is begun, once: a run that resumes mid-epoch
            had done them.
    """

    def __init__(
        self,
        sampler: EpochSampler,
        batch_size: int,
        drop_single: bool,
        rank: int = 0,
        world_size: int = 1,
        packing: Packing | None = None,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_single = drop_single
        self.rank = rank
        self.world_size = world_size
        self.packing = packing
        self.start = 0

    def __len__(self) -> int:
        if self.packing is not None:
            return self.packing.count
        full, rest = divmod(len(self.sampler), self.batch_size)
        dropped = self.drop_single and rest == 1 and full > 0
        return full + (rest > 0 and not dropped)

    def __iter__(self) -> Iterator[list[int]]:
        start, self.start = self.start, 0
        for batch in islice(self.batches(), start, None):
            yield batch[self.rank :: self.world_size]

    def batches(self) -> Iterator[list[int]]:
        """The crystals of each batch of this epoch, over all ranks."""
        if self.packing is not None:
            yield from self.packing.batches(self.sampler.generator())
            return
        order = self.sampler.order()
        for n in range(len(self)):
            yield order[n * self.batch_size : (n + 1) * self.batch_size].tolist()
