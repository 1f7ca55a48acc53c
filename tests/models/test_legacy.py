"""Names in checkpoints of format 1, as the last version before format 2 wrote them. What its checkpoints
predict is tested in unit/runs/test_checkpoint.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from potnet.config import build
from potnet.models.legacy import upgraded_model, upgraded_names

FIXTURE = Path(__file__).parents[1] / "fixtures" / "format1" / "names.json"
NAMES: list[dict[str, Any]] = json.loads(FIXTURE.read_text())


@pytest.mark.parametrize("old", NAMES, ids=lambda old: old["model"]["_target_"].rpartition(".")[2])
def test_every_weight_has_a_place_in_todays_model(old):
    settings = upgraded_model(old["model"])
    model = build({**settings, "heads": {"k_vrh": {}}}, "model", nested=False)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert upgraded_names(old["model"]["_target_"], old["shapes"], "k_vrh") == shapes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("potnet.models.BranchedPotNet", "potnet.models.PotNet"),
        ("potnet.models.branched.BranchedPotNet", "potnet.models.PotNet"),
        ("potnet.models.PotNet", "potnet.models.PublishedPotNet"),
        ("potnet.models.potnet.PotNet", "potnet.models.PublishedPotNet"),
        ("mine.Net", "mine.Net"),
    ],
)
def test_classes_have_todays_names(old, new):
    assert upgraded_model({"_target_": old, "width": 8}) == {"_target_": new, "width": 8}


def test_weights_of_other_classes_keep_their_names():
    assert upgraded_names("mine.Net", {"readout.hidden.weight": 0}, "k_vrh") == {"readout.hidden.weight": 0}
