"""The table of ragged arrays: those whose length differs from crystal to crystal.

Batches, shards and the cache are all made from this one list, so a further array is one more entry here, and
a field of that name in `CrystalGraph` and `CrystalBatch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
