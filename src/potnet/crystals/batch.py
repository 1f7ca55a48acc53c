"""Featurized crystals: `CrystalGraph` is one, `CrystalBatch` many.

This file is the one list of data keys, with shapes and units, that models may read. Arrays whose length
differs from crystal to crystal are listed in `RAGGED`, from which batches, shards and the cache are made: a
further array is one more entry there, and a field of that name in `CrystalGraph` and `CrystalBatch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from potnet.lattice import complete_pairs


@dataclass(frozen=True)
class RaggedField:
    """One array of a crystal.

    Attributes:
        name: Field of `CrystalGraph` and of `CrystalBatch`.
        per: What its rows are: "atoms", "edges", "angles", "pairs" or "descriptors". The ordered pairs of n
            atoms are n²; rows of the other kinds are counted in `num_<kind>`.
        stored: Type on disk.
        used: Type in memory.
        numbers: The kind whose rows the entries count, from 0 in each crystal, so that a batch has to shift
            them. None for other entries.
        last: Whether the rows lie along the last dimension, as in (2, E), rather than the first.
    """

    name: str
    per: str
    stored: torch.dtype
    used: torch.dtype
    numbers: str | None = None
    last: bool = False

    @property
    def dim(self) -> int:
        """The dimension that the rows lie along."""
        return -1 if self.last else 0

    def length(self, value: Tensor) -> int:
        """Number of rows."""
        return value.shape[self.dim]

    def cut(self, value: Tensor, start: int, stop: int) -> Tensor:
        """Some rows, without a copy."""
        return value.narrow(self.dim, start, stop - start)


RAGGED = (
    RaggedField("z", "atoms", torch.uint8, torch.int64),
    RaggedField("edge_index", "edges", torch.int32, torch.int64, numbers="atoms", last=True),
    RaggedField("edge_vector", "edges", torch.float32, torch.float32),
    RaggedField("angle_index", "angles", torch.int32, torch.int64, numbers="edges", last=True),
    RaggedField("pair_sums", "pairs", torch.float32, torch.float32),
    RaggedField("descriptor_index", "descriptors", torch.int32, torch.int64),
    RaggedField("descriptor_value", "descriptors", torch.float32, torch.float32),
)


def joined(field: RaggedField, parts: Sequence[Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
    """One array of a batch, in the type used in memory.

    Args:
        field: Which.
        parts: That of each of the B crystals.
        lengths: (B,) int64 each, how many rows of a kind each crystal has.
    """
    value = torch.cat(list(parts), field.dim).to(field.used)
    if field.numbers is None:
        return value
    rows = lengths[field.numbers]
    return value + (rows.cumsum(0) - rows).repeat_interleave(lengths[field.per])


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
        angle_index: (2, A) int64, the line graph: all pairs of edges (e', e) of this crystal where e begins
            at the atom at which e' ends; sorted by e, then e'. None if not asked for.
        pair_sums: (n * n, P) float32, complete potentials of all ordered pairs, row-major,
            a = b included. None if not asked for.
        descriptor_index: (K,) int64, which features of the descriptor are not zero, ascending. None if not
            asked for.
        descriptor_value: (K,) float32, their values.
        targets: Properties in their physical units; NaN where missing.
    """

    id: str
    z: Tensor
    cell: Tensor
    edge_index: Tensor | None = None
    edge_vector: Tensor | None = None
    angle_index: Tensor | None = None
    pair_sums: Tensor | None = None
    descriptor_index: Tensor | None = None
    descriptor_value: Tensor | None = None
    targets: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CrystalBatch:
    """B featurized crystals with N atoms, E local edges, A angles and M ordered pairs, concatenated.

    Attributes:
        ids: B names.
        z: (N,) int64, atomic numbers.
        batch: (N,) int64, sorted, the crystal of each atom.
        num_atoms: (B,) int64.
        cell: (B, 3, 3) float, rows are lattice vectors, Å.
        edge_index: (2, E) int64 into the N atoms; row 0 is the source j, row 1 the target i.
        edge_vector: (E, 3) float, from the target i to the source j, Å.
        num_edges: (B,) int64; None without edges.
        angle_index: (2, A) int64 into the E edges, pairs (e', e) where e begins at the atom at which e' ends.
        pair_index: (2, M) int64 into the N atoms, every ordered pair of one crystal, a = b included.
        pair_sums: (M, P) float, complete potentials.
        num_descriptors: (B,) int64, features of each crystal that are not zero.
        descriptor_index: (K,) int64, their numbers, ascending in each crystal.
        descriptor_value: (K,) float, their values.
        targets: (B,) float64 each, physical units; NaN where missing.
    """

    ids: list[str]
    z: Tensor
    batch: Tensor
    num_atoms: Tensor
    cell: Tensor
    edge_index: Tensor | None = None
    edge_vector: Tensor | None = None
    num_edges: Tensor | None = None
    angle_index: Tensor | None = None
    pair_index: Tensor | None = None
    pair_sums: Tensor | None = None
    num_descriptors: Tensor | None = None
    descriptor_index: Tensor | None = None
    descriptor_value: Tensor | None = None
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

    def double(self) -> CrystalBatch:
        """The same with all real numbers in float64."""
        return self._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)

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
    lengths = {"atoms": torch.tensor([len(graph.z) for graph in graphs])}
    arrays: dict[str, Tensor] = {}
    for field_ in RAGGED:
        if any(getattr(graph, field_.name) is not None for graph in graphs):
            parts = _present(graphs, field_.name)
            lengths.setdefault(field_.per, torch.tensor([field_.length(part) for part in parts]))
            arrays[field_.name] = joined(field_, parts, lengths)
    keys = sorted(set().union(*(graph.targets for graph in graphs)))
    return batch_of(
        ids=[graph.id for graph in graphs],
        cell=torch.stack([graph.cell for graph in graphs]),
        lengths=lengths,
        arrays=arrays,
        targets={
            key: torch.tensor([graph.targets.get(key, float("nan")) for graph in graphs], dtype=torch.float64)
            for key in keys
        },
    )


def batch_of(
    ids: list[str],
    cell: Tensor,
    lengths: Mapping[str, Tensor],
    arrays: Mapping[str, Tensor],
    targets: dict[str, Tensor],
) -> CrystalBatch:
    """A batch from the arrays that are stored; what follows from them is filled in.

    Args:
        ids: B names.
        cell: (B, 3, 3), Å.
        lengths: (B,) int64, rows of each crystal of every kind that the arrays have, and of "atoms".
        arrays: By name, those of `ragged.RAGGED` that were asked for, joined.
        targets: (B,) float64 each.
    """
    num_atoms = lengths["atoms"]
    return CrystalBatch(
        ids=ids,
        batch=torch.arange(len(ids)).repeat_interleave(num_atoms),
        num_atoms=num_atoms,
        cell=cell,
        num_edges=lengths["edges"] if "edge_index" in arrays else None,
        pair_index=complete_pairs(num_atoms) if "pair_sums" in arrays else None,
        num_descriptors=lengths["descriptors"] if "descriptor_index" in arrays else None,
        targets=targets,
        **arrays,
    )
