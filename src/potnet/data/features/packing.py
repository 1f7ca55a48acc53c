"""Batches limited by more than their number of crystals: local edges, or pairs of atoms.

A crystal of 600 atoms has 360 000 pairs, more than two thousand crystals of a dozen atoms. A limit on pairs
that it fits in must not make all batches small, and a limit on crystals alone lets memory run out when a few
such meet. And the number of batches must be the same in every epoch, as the schedule of the learning rate is
made from it, though the crystals come in a new order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch


class Packing:
    """Divides n crystals into batches within limits; in training in a new way each epoch.

    For training, crystals are sorted by size and cut into strata of `count` neighbours, and each batch gets
    one crystal of each stratum, by chance. So whichever it gets, it holds at most the sum of the strata's
    largest, and the least `count` for which this keeps the limits serves all epochs. A few large crystals
    would ask for many more batches than they fill: as many of them as shortens the epoch get a batch of their
    own, and so does each that is above a limit by itself.

    Otherwise batches hold crystals in their given order, each as many as fit.

    Args:
        sizes: (n, R) int64, what each crystal has of each of R limited things.
        limits: (R,) int64, how much of each a batch may have.
        shuffle: Whether this is for training.

    Attributes:
        count: Number of batches.
        alone: How many of them hold one large crystal.
    """

    def __init__(self, sizes: np.ndarray, limits: np.ndarray, shuffle: bool) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.limits = np.asarray(limits, dtype=np.int64)
        self.alone = 0
        self.shuffle = shuffle
        if not shuffle:
            self._bounds = self._in_order()
            self.count = len(self._bounds) - 1
            return
        share = self.sizes / self.limits
        above = (share > 1).any(1)
        # Those above a limit by themselves, and then the largest first.
        self._order = np.lexsort([-share.sum(1), ~above])
        self.alone, self._width = self._choose(int(above.sum()))
        self.count = self.alone + self._width

    def batches(self, generator: torch.Generator | None = None) -> Iterator[list[int]]:
        """The crystals of each batch; those of a batch for training begin with the largest.

        Args:
            generator: Of the order in training.
        """
        if not self.shuffle:
            yield from (list(range(start, stop)) for start, stop in pairwise(self._bounds))
            return
        mixed = self._order[self.alone :]
        rows = -(-len(mixed) // self._width) if self._width else 0
        # Which batch each member of a stratum goes to; the last stratum has too few for all.
        places = torch.rand(rows, self._width, generator=generator).argsort(1).flatten()[: len(mixed)].numpy()
        mixed = mixed[np.argsort(places, kind="stable")]
        ends = np.cumsum([0, *np.bincount(places, minlength=self._width)])
        for number in torch.randperm(self.count, generator=generator).tolist():
            if number < self._width:
                yield mixed[ends[number] : ends[number + 1]].tolist()
            else:
                yield [int(self._order[number - self._width])]

    def _choose(self, least: int) -> tuple[int, int]:
        """Crystals to set apart, and batches for the others, so that there are fewest in all."""
        total = len(self._order)
        steps = {
            least,
            *(least + 2**power for power in range(total.bit_length()) if least + 2**power < total),
        }
        options = [(alone, self._fewest(self._order[alone:])) for alone in sorted(steps)]
        return min(options, key=sum)

    def _fewest(self, crystals: np.ndarray) -> int:
        """The fewest batches for crystals sorted by size none of which is above a limit; 0 for no crystal."""
        sizes = self.sizes[crystals]
        if not len(sizes):
            return 0

        def fits(count: int) -> bool:
            largest = np.maximum.reduceat(sizes, np.arange(0, len(sizes), count))
            return bool((largest.sum(0) <= self.limits).all())

        low, high = 0, len(sizes)  # does not fit (no batch at all), fits
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high

    def _in_order(self) -> list[int]:
        """The first crystal of each batch, and the number of crystals."""
        bounds: list[int] = []
        held = self.limits
        for crystal, size in enumerate(self.sizes):
            if bounds and (held + size <= self.limits).all():
                held = held + size
            else:
                bounds.append(crystal)
                held = size
        return [*bounds, len(self.sizes)]


def limited_batches(
    batch_size: int,
    shuffle: bool,
    edges: np.ndarray,
    pairs: np.ndarray,
    max_edges: int | None,
    max_pairs: int | None,
) -> Packing | None:
    """Batches within limits, or None where no batch of `batch_size` crystals could pass them.

    Args:
        batch_size: Most crystals of a batch.
        shuffle: Whether this is for training.
        edges: (n,) local edges of each crystal.
        pairs: (n,) ordered pairs of atoms of each crystal.
        max_edges: Most edges of a batch; None is no limit.
        max_pairs: Most pairs of a batch; None is no limit.
    """
    bounds = [(size, limit) for size, limit in ((edges, max_edges), (pairs, max_pairs)) if limit is not None]
    if all(np.sort(size)[-batch_size:].sum() <= limit for size, limit in bounds):
        return None
    sizes = np.stack([np.ones_like(pairs), *(size for size, _ in bounds)], 1)
    return Packing(sizes, np.array([batch_size, *(limit for _, limit in bounds)]), shuffle)
