"""Which crystals make up each batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


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
    """Batches of a fixed number of crystals, the last one smaller.

    Limits on edges or pairs, and sharing among devices, belong here too: this is the one place that
    decides which crystals go together.

    Args:
        sampler: The order of the crystals.
        batch_size: Crystals of a batch.
        drop_single: Leave out a last batch that would hold one crystal only (never the only batch): batch
            normalisation cannot learn from a single value. As the order changes with the epoch, so does the
            crystal left out.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, drop_single: bool) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_single = drop_single

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        dropped = self.drop_single and rest == 1 and full > 0
        return full + (rest > 0 and not dropped)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        for number in range(len(self)):
            yield order[number * self.batch_size : (number + 1) * self.batch_size]
