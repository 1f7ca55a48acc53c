"""Fixtures that several test folders share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_LATTICE = "potnet.lattice.potentials."


@pytest.fixture(scope="session")
def feature_settings() -> dict[str, Any]:
    """Settings of a Featurizer: local edges within 4 Å, and the three sums of the paper."""
    return {
        "neighbors": {"cutoff": 4.0},
        "potentials": [
            {"_target_": _LATTICE + "Coulomb"},
            {"_target_": _LATTICE + "London"},
            {"_target_": _LATTICE + "Pauli", "alpha": 3.0},
        ],
    }


@pytest.fixture(scope="session")
def embedded() -> Any:
    """The embedded moduli with all their crystals, which take a second to read: not to be changed."""
    from potnet.data import EmbeddedSource

    return EmbeddedSource().load()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for feature caches that tests of one session share.

    From here on the sets that ship are read once: each new kind of features reads its source anew, which
    takes a second for these.
    """
    from potnet.data import EmbeddedSource
    from potnet.data.features import build
    from potnet.data.features.staging import Stage
    from potnet.data.sources.base import Source

    read, stages = build.stage, tmp_path_factory.mktemp("stages")

    def stage(source: Source, folder: Path, on_error: str) -> Stage:
        if type(source) is not EmbeddedSource:
            return read(source, folder, on_error)
        kept = stages / f"{source.content_hash()}-{on_error}"
        if not kept.exists():
            read(source, kept, on_error)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        return read(source, folder, on_error)  # finds what an earlier start has read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "stage", stage)
        yield tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def small_data(feature_settings: dict[str, Any], cache_dir: Path) -> Any:
    """A CrystalDataModule of 200 embedded crystals with bulk moduli, ready to serve batches."""
    from potnet.data import CrystalDataModule, EmbeddedSource, Target

    data = CrystalDataModule(
        EmbeddedSource(),
        Target("k_vrh", "GPa", transform="log10"),
        feature_settings,
        batch_size=16,
        limit=200,
        cache_dir=cache_dir,
    )
    data.prepare_data()
    data.setup()
    return data
