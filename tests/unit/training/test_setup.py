"""What is refused before a run begins."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from potnet.config import ConfigError
from potnet.data import Target, Targets
from potnet.training.networks import build_network
from potnet.training.setup import build_data

TARGETS = Targets([Target("k_vrh", "GPa")])
SMALL = {"_target_": "potnet.models.PotNet", "width": 8, "edge_width": 4, "layers": 1, "angular": 4}


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.5}, r"^model\.dropout=1\.5: give a fraction"),
        ({"angular": -1}, r"^model\.angular=-1, angular_cutoff=4\.0: give 0, or at least 2"),
        ({"angular_cutoff": 0}, r"^model\.angular=4, angular_cutoff=0: give 0"),
        ({"width": 0}, r"^model: width, .* must be positive"),
        ({"local_bins": -1}, r"^model: a basis needs"),
    ],
)
def test_what_a_network_refuses_is_one_message(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(SMALL | settings, TARGETS)


class Faulty(nn.Module):
    """Of a user, with a mistake in it."""

    def __init__(self, heads: Any = None) -> None:
        super().__init__()
        [].index(heads)


def test_a_mistake_in_a_network_of_the_users_keeps_its_traceback() -> None:
    config = {"_target_": f"{__name__}.Faulty"}
    with pytest.raises(ValueError, match="is not in list") as error:
        build_network(config, TARGETS)
    assert not isinstance(error.value, ConfigError)
