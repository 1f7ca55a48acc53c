"""How a prediction is done: limits on batches, the level of intervals."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import torch

from potnet.config import ConfigError
from potnet.inference.memory import GIB, SHARE, available_bytes

DEFAULT_LEVEL = 0.9
"""Of intervals: the part of labels that they hold."""


@dataclass(frozen=True)
class Limits:
    """How a prediction is done: what a batch may have at most, and the level of intervals.

    Attributes:
        crystals, pairs, edges: Most of them in a batch.
        memory_gib: Working memory; None is a part of what is available.
        level: Of intervals.
        share: Processes that predict on this machine, and share what is available.

    Raises:
        ConfigError: A limit that makes no sense.
    """

    crystals: int = 64
    pairs: int = 500_000
    edges: int = 500_000
    memory_gib: float | None = None
    level: float = DEFAULT_LEVEL
    share: int = 1

    def __post_init__(self) -> None:
        for name, value in (
            ("batch_size", self.crystals),
            ("max_pairs", self.pairs),
            ("max_edges", self.edges),
        ):
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ConfigError(f"{name}={value!r}: give a whole number, at least 1")
        if self.memory_gib is not None and not self.memory_gib > 0:
            raise ConfigError(f"max_memory_gib={self.memory_gib}: give a positive number, or null to choose")

    def bytes(self, device: torch.device) -> float:
        """Working memory of a batch."""
        if self.memory_gib is not None:
            return self.memory_gib * GIB
        return SHARE * available_bytes(device) / self.share
