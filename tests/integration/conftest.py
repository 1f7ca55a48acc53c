"""A small trained run that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from potnet.config import compose, plain
from potnet.train import train

TINY = [
    "model=potnet_published",
    "model.width=16",
    "model.layers=1",
    "data.limit=120",
    "trainer.accelerator=cpu",
]


@dataclass
class Run:
    """A run's folder, its config, and what training returned."""

    folder: Path
    config: dict[str, Any]
    result: float | None


@pytest.fixture(scope="session")
def run_training(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Trains a tiny network as the command would, in this process."""

    def run(*overrides: str, folder: Path | None = None, tiny: Sequence[str] = TINY) -> Run:
        config = plain(compose("train", [*tiny, f"data.cache_dir={cache_dir}", *overrides]))
        folder = folder or tmp_path_factory.mktemp("run")
        return Run(folder, config, train(config, folder))

    return run


@pytest.fixture(scope="session")
def trained(run_training: Callable[..., Run]) -> Run:
    """Three epochs on a hundred crystals, with averaged weights."""
    return run_training("trainer.max_epochs=3", "data.batch_size=32")
