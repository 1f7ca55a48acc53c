"""Featurized crystals: `CrystalGraph` is one, `CrystalBatch` many.

This file is the one list of data keys, with shapes and units, that models may read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from potnet.lattice import complete_pairs


@dataclass(frozen=True)
class CrystalGraph:
    """One featurized crystal of n atoms.

    Attributes:
        id: Name of the crystal in its data set.
        z: (n,) int64, atomic numbers.
        cell: (3, 3) float32, rows are lattice vectors, Å.
        edge_index: (2, E) int64, local edges; row 0 is the source j, row 1 the target i. None if
            not asked for.
        edge_vector: (E, 3) float32, from the target i to (the image of) the source j, Å.
        pair_sums: (n * n, P) float32, complete potentials of all ordered pairs, row-major,
            a = b included. None if not asked for.
        targets: Properties in their physical units; NaN where missing.
    """

    id: str
    z: Tensor
    cell: Tensor
    edge_index: Tensor | None = None
    edge_vector: Tensor | None = None
    pair_sums: Tensor | None = None
    targets: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CrystalBatch:
    """B featurized crystals with N atoms, E local edges and M ordered pairs, concatenated.

    Attributes:
        ids: B names.
        z: (N,) int64, atomic numbers.
        batch: (N,) int64, sorted, the crystal of each atom.
        num_atoms: (B,) int64.
        cell: (B, 3, 3) float, rows are lattice vectors, Å.
        edge_index: (2, E) int64 into the N atoms; row 0 is the source j, row 1 the target i.
        edge_vector: (E, 3) float, from the target i to the source j, Å.
        pair_index: (2, M) int64 into the N atoms, every ordered pair of one crystal, a = b included.
        pair_sums: (M, P) float, complete potentials.
        targets: (B,) float64 each, physical units; NaN where missing.
    """

    ids: list[str]
    z: Tensor
    batch: Tensor
    num_atoms: Tensor
    cell: Tensor
    edge_index: Tensor | None = None
    edge_vector: Tensor | None = None
    pair_index: Tensor | None = None
    pair_sums: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_crystals(self) -> int:
        """B."""
        return len(self.ids)

    def _map(self, function: Any) -> CrystalBatch:
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                changed[f.name] = function(value)
        changed["targets"] = {key: function(value) for key, value in self.targets.items()}
        return replace(self, **changed)

    def to(self, *args: Any, **kwargs: Any) -> CrystalBatch:
        """Move to a device. Dtypes stay: pass a device, not a dtype."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> CrystalBatch:
        """Move to page-locked memory, from which copies to a GPU are fast."""
        return self._map(lambda tensor: tensor.pin_memory())


def _present(graphs: Sequence[CrystalGraph], name: str) -> list[Tensor]:
    """A field that all crystals of a batch must have if one has it."""
    missing = [graph.id for graph in graphs if getattr(graph, name) is None]
    if missing:
        raise ValueError(f"{name} is missing for some crystals of a batch: {', '.join(missing[:5])}")
    return [getattr(graph, name) for graph in graphs]


def collate(graphs: Sequence[CrystalGraph]) -> CrystalBatch:
    """Concatenate crystals into one batch.

    Raises:
        ValueError: If there is no crystal, or some have a field that others lack.
    """
    if not graphs:
        raise ValueError("an empty batch: give at least one crystal")
    num_atoms = torch.tensor([len(graph.z) for graph in graphs])
    offset = num_atoms.cumsum(0) - num_atoms
    edge_index = edge_vector = pair_index = pair_sums = None
    if any(graph.edge_index is not None for graph in graphs):
        shifted = zip(_present(graphs, "edge_index"), offset.tolist(), strict=True)
        edge_index = torch.cat([index + first for index, first in shifted], 1)
        edge_vector = torch.cat(_present(graphs, "edge_vector"))
    if any(graph.pair_sums is not None for graph in graphs):
        pair_index = complete_pairs(num_atoms)
        pair_sums = torch.cat(_present(graphs, "pair_sums"))
    keys = sorted(set().union(*(graph.targets for graph in graphs)))
    return CrystalBatch(
        ids=[graph.id for graph in graphs],
        z=torch.cat([graph.z for graph in graphs]),
        batch=torch.arange(len(graphs)).repeat_interleave(num_atoms),
        num_atoms=num_atoms,
        cell=torch.stack([graph.cell for graph in graphs]),
        edge_index=edge_index,
        edge_vector=edge_vector,
        pair_index=pair_index,
        pair_sums=pair_sums,
        targets={
            key: torch.tensor([graph.targets.get(key, float("nan")) for graph in graphs], dtype=torch.float64)
            for key in keys
        },
    )
