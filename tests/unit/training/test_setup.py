"""What is refused before a run begins."""

from __future__ import annotations

import pytest
from torch import nn

from potnet.config import ConfigError
from potnet.training.setup import build_data


def test_forces_refuse_the_k_nearest_neighbours() -> None:
    """With k nearest, an edge is replaced by another when atoms move, and the energy jumps."""
    config = {
        "data": {},
        "features": {"neighbors": {"cutoff": None, "k": 12}},
        "target": {
            "energy": {"key": "energy", "unit": "eV", "extensive": True},
            "forces": {
                "key": "forces",
                "unit": "eV/Å",
                "per": "atom",
                "shape": [3],
                "derived_from": "energy",
            },
        },
    }
    with pytest.raises(ConfigError, match=r"features\.neighbors\.k=12: forces .* not continuous.*k=null"):
        build_data(config, nn.Identity())
