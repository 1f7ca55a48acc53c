"""How large errors are around a crystal: those of the nearest validation crystals in the embedding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

NEAREST = 20
"""Validation crystals over which errors are averaged."""

MOST = 2000
"""Validation crystals that are kept."""


class LocalErrors:
    """Mean absolute errors in the neighbourhood of crystals, in the learned unit of one target.

    An estimate of how hard a crystal is, by which intervals are normalised (Papadopoulos, Vovk and Gammerman,
    J. Artif. Intell. Res. 40, 815 (2011)). It must come from other crystals than those that calibrate.

    Args:
        places: (n, D) in the directions of `Surroundings`.
        errors: (n,) absolute.

    Raises:
        ValueError: No crystal, or errors that are no numbers of 0 or more.
    """

    def __init__(self, places: Tensor, errors: Tensor) -> None:
        if not len(places) or len(places) != len(errors):
            raise ValueError(f"one error a crystal is needed, got {len(errors)} for {len(places)} crystals")
        if not (torch.isfinite(errors).all() and (errors >= 0).all()):
            raise ValueError("errors must be finite and not negative")
        # In the precision in which they are stored, so that what calibrates is what is used later.
        self.places, self.errors = places.half().float(), errors.float()

    @classmethod
    def fit(cls, places: Tensor, errors: np.ndarray, seed: int = 0) -> LocalErrors:
        """From the validation part; crystals without a label (NaN) are left out, and at most 2 000 kept."""
        known = torch.from_numpy(np.flatnonzero(np.isfinite(errors)))
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:MOST]
        chosen = known[order]
        return cls(places[chosen], torch.from_numpy(errors)[chosen])

    def at(self, places: Tensor) -> np.ndarray:
        """(B, D) places to (B,) mean errors of the 20 nearest."""
        nearest = torch.cdist(places.float(), self.places).topk(min(NEAREST, len(self.places)), largest=False)
        return np.asarray(self.errors[nearest.indices].double().mean(1).numpy())

    def tensors(self, key: str) -> dict[str, Tensor]:
        """What to keep in a file, under the key of the target."""
        return {
            f"local_errors.{key}.places": self.places.half().contiguous(),
            f"local_errors.{key}": self.errors,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], key: str) -> LocalErrors | None:
        """From `tensors()`; None if there are none."""
        name = f"local_errors.{key}"
        return cls(tensors[f"{name}.places"], tensors[name]) if name in tensors else None
