"""Featurized crystals: `CrystalGraph` is one, `CrystalBatch` many.

This file is the one list of data keys, with shapes and units, that models may read. Arrays whose length
differs from crystal to crystal are listed in `RAGGED`, from which batches, shards and the cache are made: a
further array is one more entry there, and a field of that name in `CrystalGraph` and `CrystalBatch`.

Labels may be numbers or arrays. Whether an array belongs to the crystal (`stress`, (6,)) or to its atoms
(`forces`, (n, 3)) follows from its name, see `is_atom_label`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from potnet.crystals.labels import is_atom_label
from potnet.lattice import complete_pairs


@dataclass(frozen=True)
class RaggedField:
    """One array of a crystal.

    Attributes:
        name: Field of `CrystalGraph` and of `CrystalBatch`.
        per: What its rows are: "atoms", "edges", "angles", "pairs" or "descriptors". The ordered pairs of n
            atoms are n²; rows of the other kinds are counted in `num_<kind>`.
        stored: Type on disk; a wider one of the same kind where the values do not fit.
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
    RaggedField("positions", "atoms", torch.float64, torch.float64),
    RaggedField("edge_index", "edges", torch.int32, torch.int64, numbers="atoms", last=True),
    RaggedField("edge_shift", "edges", torch.int8, torch.int32),
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
        positions: (n, 3) float64, Cartesian, Å; not necessarily inside the cell.
        cell: (3, 3) float64, rows are lattice vectors, Å.
        edge_index: (2, E) int64, local edges; row 0 is the source j, row 1 the target i. None if
            not asked for.
        edge_shift: (E, 3) integers, the image of the source j in whole lattice vectors: see `edge_vectors`.
        angle_index: (2, A) int64, the line graph: all pairs of edges (e', e) of this crystal where e begins
            at the atom at which e' ends; sorted by e, then e'. None if not asked for.
        pair_sums: (n * n, P) float32, complete potentials of all ordered pairs, row-major,
            a = b included. None if not asked for.
        descriptor_index: (K,) int64, which features of the descriptor are not zero, ascending. None if not
            asked for.
        descriptor_value: (K,) float32, their values.
        targets: Properties in their physical units, numbers or float64 arrays; NaN or absent where missing.
    """

    id: str
    z: Tensor
    positions: Tensor
    cell: Tensor
    edge_index: Tensor | None = None
    edge_shift: Tensor | None = None
    angle_index: Tensor | None = None
    pair_sums: Tensor | None = None
    descriptor_index: Tensor | None = None
    descriptor_value: Tensor | None = None
    targets: dict[str, float | Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class CrystalBatch:
    """B featurized crystals with N atoms, E local edges, A angles and M ordered pairs, concatenated.

    Attributes:
        ids: B names.
        z: (N,) int64, atomic numbers.
        batch: (N,) int64, sorted, the crystal of each atom.
        num_atoms: (B,) int64.
        positions: (N, 3) float64, Cartesian, Å.
        cell: (B, 3, 3) float64, rows are lattice vectors, Å.
        edge_index: (2, E) int64 into the N atoms; row 0 is the source j, row 1 the target i.
        edge_shift: (E, 3) int32, the image of the source j in whole lattice vectors: see `edge_vectors`.
        num_edges: (B,) int64; None without edges.
        angle_index: (2, A) int64 into the E edges, pairs (e', e) where e begins at the atom at which e' ends.
        pair_index: (2, M) int64 into the N atoms, every ordered pair of one crystal, a = b included.
        pair_sums: (M, P) float, complete potentials.
        num_descriptors: (B,) int64, features of each crystal that are not zero.
        descriptor_index: (K,) int64, their numbers, ascending in each crystal.
        descriptor_value: (K,) float, their values.
        targets: float64, physical units, NaN where missing: (B, *shape) each, or (N, *shape) for labels of
            atoms (`is_atom_label`).
        dtype: What networks compute in: float32, or float64 after `double()`. Geometry and labels are
            float64 in either case.
    """

    ids: list[str]
    z: Tensor
    batch: Tensor
    num_atoms: Tensor
    positions: Tensor
    cell: Tensor
    edge_index: Tensor | None = None
    edge_shift: Tensor | None = None
    num_edges: Tensor | None = None
    angle_index: Tensor | None = None
    pair_index: Tensor | None = None
    pair_sums: Tensor | None = None
    num_descriptors: Tensor | None = None
    descriptor_index: Tensor | None = None
    descriptor_value: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32

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
        """The same with all real numbers in float64, and `dtype` float64."""
        wide = self._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
        return replace(wide, dtype=torch.float64)

    def pin_memory(self) -> CrystalBatch:
        """Move to page-locked memory, from which copies to a GPU are fast."""
        return self._map(lambda tensor: tensor.pin_memory())


def edge_vectors(batch: CrystalBatch, model: str = "the network") -> Tensor:
    """Vectors of the local edges, from the target i to the image of the source j: (E, 3), Å.

    x_j + shift · cell - x_i, computed in float64 and returned in `batch.dtype`; gradients reach `positions`
    and `cell`.

    Args:
        batch: With local edges.
        model: The name for the error message.

    Raises:
        ValueError: The batch has no local edges.
    """
    if batch.edge_index is None or batch.edge_shift is None:
        raise ValueError(f"{model} needs local edges, but the batch has none: featurize with neighbors")
    source, target = batch.edge_index
    cell = batch.cell.index_select(0, batch.batch.index_select(0, target))
    image = torch.einsum("ei,eix->ex", batch.edge_shift.to(cell.dtype), cell)
    start, end = (batch.positions.index_select(0, atom) for atom in (target, source))
    return (end - start + image).to(batch.dtype)


def label_array(key: str, values: Sequence[float | Tensor | None], num_atoms: Sequence[int]) -> Tensor | None:
    """One label of B crystals as one array.

    Args:
        key: Its name.
        values: Of each crystal, a number or an array; None or NaN where it is missing.
        num_atoms: B, atoms of each crystal.

    Returns:
        (B, *shape) float64, or (N, *shape) if it is a label of atoms, NaN where missing. None if no crystal
        has it, so that its shape is unknown.

    Raises:
        ValueError: Shapes of the crystals differ, or a label of atoms has not one row for each atom.
    """
    arrays = [
        None if value is None or (not isinstance(value, Tensor) and value != value) else value
        for value in values
    ]
    known = [torch.as_tensor(value, dtype=torch.float64) for value in arrays if value is not None]
    if not known:
        return None
    of_atoms = is_atom_label(key) and any(value.dim() for value in known)  # numbers are of the crystal
    shapes = {tuple(value.shape[1:] if of_atoms and value.dim() else value.shape) for value in known}
    if len(shapes) > 1:
        raise ValueError(f"{key} has a different shape in different crystals: {sorted(shapes)[:3]}")
    shape = shapes.pop()
    parts, rest = [], iter(known)
    for value, n in zip(arrays, num_atoms, strict=True):
        size = (n, *shape) if of_atoms else shape
        part = torch.full(size, float("nan"), dtype=torch.float64) if value is None else next(rest)
        if part.shape != size:
            raise ValueError(
                f"{key} is a label of atoms, so it needs one row for each of the {n} atoms, but its shape is "
                f"{tuple(part.shape)}"
            )
        parts.append(part)
    return torch.cat(parts) if of_atoms else torch.stack(parts)


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
    sizes = [len(graph.z) for graph in graphs]
    lengths = {"atoms": torch.tensor(sizes)}
    arrays: dict[str, Tensor] = {}
    for field_ in RAGGED:
        if any(getattr(graph, field_.name) is not None for graph in graphs):
            parts = _present(graphs, field_.name)
            lengths.setdefault(field_.per, torch.tensor([field_.length(part) for part in parts]))
            arrays[field_.name] = joined(field_, parts, lengths)
    targets = {}
    for key in sorted(set().union(*(graph.targets for graph in graphs))):
        label = label_array(key, [graph.targets.get(key) for graph in graphs], sizes)
        targets[key] = (
            torch.full((len(graphs),), float("nan"), dtype=torch.float64) if label is None else label
        )
    return batch_of(
        ids=[graph.id for graph in graphs],
        cell=torch.stack([graph.cell for graph in graphs]),
        lengths=lengths,
        arrays=arrays,
        targets=targets,
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
        cell: (B, 3, 3) float64, Å.
        lengths: (B,) int64, rows of each crystal of every kind that the arrays have, and of "atoms".
        arrays: By name, those of `RAGGED` that were asked for, joined; z and positions always.
        targets: See `CrystalBatch`.
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
        **arrays,  # type: ignore[arg-type]  # mypy takes them for the dtype, too
    )
