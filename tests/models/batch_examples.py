"""Batches for tests whose edges are given as vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from potnet.crystals import CrystalBatch


def batch_with_vectors(vectors: Tensor, **fields: Any) -> CrystalBatch:
    """A batch whose edges have these vectors (E, 3), whichever they are.

    All atoms lie in the origin of a cubic cell of 1 Å, and shifts are no whole numbers.
    """
    fields.setdefault("cell", torch.eye(3, dtype=torch.float64).expand(len(fields["ids"]), 3, 3))
    positions = torch.zeros(len(fields["z"]), 3, dtype=torch.float64)
    return CrystalBatch(positions=positions, edge_shift=vectors.double(), **fields)
