"""Fixtures that several test folders share."""

from __future__ import annotations

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
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for feature caches that tests of one session share."""
    return tmp_path_factory.mktemp("cache")


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
