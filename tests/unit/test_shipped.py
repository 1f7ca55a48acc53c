"""The models that come with the package: whole, small enough, and as good as their entries say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

import potnet
from potnet.inference.ensemble import Calibration
from potnet.pretrained import shipped
from potnet.pretrained.registry import SHIPPED

NAMES = list(shipped())
MOST_BYTES = 20 * 2**20


def test_their_files_are_whole_small_and_all_named() -> None:
    named = {SHIPPED.name}
    for entry in shipped().values():
        for file in (*entry.settings["members"], entry.settings["calibration"]):
            named.add(entry.file(file).name)
        for key in ("title", "unit", "data", "licence", "figures", "date", "command"):
            assert key in entry.settings
    there = list(SHIPPED.parent.iterdir())
    assert {file.name for file in there} == named
    assert sum(file.stat().st_size for file in there) <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_card_and_a_calibration_of_its_split(name: str) -> None:
    entry = shipped()[name]
    calibration = Calibration.load(entry.file(entry.settings["calibration"]))
    assert calibration.facts["split_hash"] == entry.settings["data"]["split_hash"]
    assert len(calibration.intervals[entry.settings["target"]]) == entry.settings["figures"]["test"]["n"]
    cards = Path(__file__).parents[2] / "docs" / "models"
    assert f"# {name}: " in (cards / f"{name}.md").read_text()
    assert (cards / f"{name}.png").is_file()


def test_each_predicts_silicon() -> None:
    if not NAMES:
        pytest.skip("no models are shipped")
    model = potnet.load(NAMES, device="cpu")
    found = model.predict(bulk("Si"))
    for name, target in model.targets.items():
        prefix = f"{name}_" if len(model.targets) > 1 else ""
        assert found[f"{prefix}lower"][0] < found[name][0] < found[f"{prefix}upper"][0]
        assert target.key in found.header
    assert np.isfinite(found[next(iter(model.targets))]).all()
