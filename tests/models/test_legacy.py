"""Names in checkpoints of format 1: files and lists that the last version before format 2 wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from potnet.config import build
from potnet.crystals import collate
from potnet.data import Featurizer
from potnet.data.sources import EmbeddedSource
from potnet.models.legacy import upgraded_model, upgraded_names

FIXTURES = Path(__file__).parents[1] / "fixtures" / "checkpoints"
NAMES: list[dict[str, Any]] = json.loads((FIXTURES / "format1_names.json").read_text())


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


@pytest.mark.parametrize("name", ["potnet", "published"])
def test_predictions_stay_what_they_were(name):
    checkpoint = torch.load(FIXTURES / f"format1_{name}.ckpt", weights_only=True)
    expected = json.loads((FIXTURES / f"format1_{name}.json").read_text())["predictions"]
    settings, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    key = settings["target"]["key"]
    model = build({**upgraded_model(settings["model"]), "heads": {key: {}}}, "model", nested=False)
    own = {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
    model.load_state_dict(upgraded_names(settings["model"]["_target_"], own, key))
    featurizer = Featurizer.from_settings(checkpoint["potnet"]["features"], device="cpu")
    crystals = [crystal for crystal in EmbeddedSource().load().crystals if crystal.id in expected]
    with torch.no_grad():
        output = model.eval()(collate(featurizer.featurize(crystals)))[key].double()
    found = 10 ** (output * weights["std"] + weights["mean"])
    for crystal, value in zip(crystals, found.tolist(), strict=True):
        assert value == pytest.approx(expected[crystal.id], rel=1e-6)
