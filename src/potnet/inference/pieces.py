"""Predicting in pieces: however many crystals there are, and however large, memory stays bounded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from potnet.crystals import Crystal, CrystalBatch, CrystalError, CrystalGraph, collate
from potnet.data.features.featurizer import Failure, Featurizer
from potnet.inference.flags import TrainingDomain
from potnet.inference.inputs import Outcome, chunks
from potnet.inference.limits import Limits
from potnet.inference.memory import (
    FEATURE_BYTES,
    GIB,
    SAFETY,
    disordered_crystal,
    is_out_of_memory,
    peak_bytes,
)
from potnet.inference.predictions import Predictions, joined
from potnet.progress import progress_bar

UNMEASURED = 100_000
"""Pairs and edges of a batch up to which its memory is not looked at."""


class InPieces(ABC):
    """What a predictor does to crystals on their way to a table: features, batches within the limits.

    Attributes:
        device: Of the network.
        featurizer: The features that it learned from.
        domain: What it was trained on.
    """

    device: torch.device
    featurizer: Featurizer
    domain: TrainingDomain
    _bytes_each: float | None = None

    @abstractmethod
    def learned(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """Values of featurized crystals in the learned units."""

    @abstractmethod
    def _rows(self, graphs: list[CrystalGraph], crystals: list[Crystal], level: float) -> Predictions:
        """The rows of one batch.

        Args:
            graphs: Features, in the cell that the network sees.
            crystals: The same as they were given.
            level: Of intervals.
        """

    @abstractmethod
    def empty_table(self) -> Predictions:
        """A table without a row."""

    def _in_tables(
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
        tables = [self.empty_table()]
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
                (graph,) = self.featurizer.featurize([disordered_crystal(sorted(self.domain.elements))])
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

    def _refuse(self, id: str, reason: str, skip: bool, failures: list[Failure]) -> None:
        if not skip:
            raise CrystalError(reason, f"crystal {id!r}")
        failures.append(Failure(id, reason))
