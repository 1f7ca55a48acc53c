"""Which crystals make up each batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from potnet.crystals import CrystalBatch


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
        if not self.shuffle:
            return iter(range(self.size))
        # Mixing keeps (seed 0, epoch 1) and (seed 1, epoch 0) apart.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return iter(torch.randperm(self.size, generator=generator).tolist())


class CrystalBatchSampler(Sampler[list[int]]):
    """Batches of a fixed number of crystals, the last one smaller; of each batch the share of one rank.

    Which crystals make up a batch doesn't depend on the number of ranks. So training on several devices takes
    the steps that it would take on one, and every crystal is seen once, by one rank. Shares differ by at most
    one crystal, and where a batch has fewer crystals than there are ranks, some are empty.

    Limits on edges or pairs belong here too: this is the one place that decides which crystals go together.

    Args:
        sampler: The order of the crystals, the same on all ranks.
        batch_size: Crystals of a batch, over all ranks.
        drop_single: Leave out a last batch that would hold one crystal only (never the only batch): batch
            normalisation cannot learn from a single value. As the order changes with the epoch, so does the
            crystal left out.
        rank: Whose share this is.
        world_size: Number of ranks.

    Attributes:
        start: Batches to pass over in the next epoch that is begun, once: training had done them.
    """

    def __init__(
        self, sampler: EpochSampler, batch_size: int, drop_single: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_single = drop_single
        self.rank = rank
        self.world_size = world_size
        self.start = 0

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        dropped = self.drop_single and rest == 1 and full > 0
        return full + (rest > 0 and not dropped)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        start, self.start = self.start, 0
        for number in range(start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield batch[self.rank :: self.world_size]


class ResumableLoader(DataLoader[CrystalBatch]):
    """A DataLoader over a `CrystalBatchSampler`, which a checkpoint taken amid an epoch continues there.

    Lightning keeps `state_dict` in every checkpoint and loads it before the first batch.

    Attributes:
        done: Batches of this epoch that training has done. The loader cannot know, as it loads ahead: who
            takes a checkpoint amid an epoch sets this first.
    """

    done = 0

    def state_dict(self) -> dict[str, Any]:
        """Batches that training has done."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Pass over these batches, once."""
        assert isinstance(self.batch_sampler, CrystalBatchSampler)
        self.batch_sampler.start = state["done"]
