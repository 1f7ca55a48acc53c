from __future__ import annotations

import numpy as np
import pytest
import torch

from potnet.data import CrystalTable, DataError, Target


def table(values: list[float], unit: str = "GPa") -> CrystalTable:
    return CrystalTable([f"c{i}" for i in range(len(values))], {"k": np.array(values)}, {"k": unit})


def test_log10_and_back():
    target = Target("k", "GPa", "log10")
    values = torch.tensor([1.0, 10.0, 250.0], dtype=torch.float64)
    assert target.learned_unit == "log10(GPa)"
    torch.testing.assert_close(target.transform(values)[:2], torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(target.inverse(target.transform(values)), values)


def test_none_is_the_identity():
    target = Target("k", "eV")
    values = torch.tensor([-1.0, 2.0])
    assert target.learned_unit == "eV"
    assert target.inverse(target.transform(values)) is values


def test_settings_round_trip():
    target = Target("k", "GPa", "log10", "bulk modulus", "drop")
    assert Target(**target.settings()).settings() == target.settings()


def test_misspelt_options():
    with pytest.raises(DataError, match=r"target\.transform='log'; did you mean log10"):
        Target("k", transform="log")
    with pytest.raises(DataError, match=r"target\.on_missing='dorp'; did you mean drop"):
        Target("k", on_missing="dorp")


@pytest.mark.parametrize("bad", [0.0, -3.5])
def test_no_logarithm_of_nothing(bad: float):
    target = Target("k", "GPa", "log10")
    with pytest.raises(DataError, match=rf"k is zero or negative for 1 crystals, .*c1 \({bad:g} GPa\)"):
        target.select(table([1.0, bad]))
    Target("k", "GPa").select(table([1.0, bad]))


def test_missing_targets_are_named():
    values = [1.0] + [np.nan] * 7
    message = r"7 of 8 crystals have no k .*: c1, c2, c3, c4, c5 and 2 more\. .*on_missing=drop"
    with pytest.raises(DataError, match=message):
        Target("k", "GPa").select(table(values))


def test_missing_targets_are_dropped_and_counted():
    rows, removed = Target("k", "GPa", on_missing="drop").select(table([1.0, np.nan, 2.0]))
    assert rows.tolist() == [0, 2]
    assert [(entry.id, entry.reason) for entry in removed] == [("c1", "no k")]


def test_nothing_left():
    with pytest.raises(DataError, match="none of the 2 crystals has k"):
        Target("k", "GPa", on_missing="drop").select(table([np.nan, np.nan]))


def test_infinite_target():
    with pytest.raises(DataError, match="k is infinite for 1 crystals: c0"):
        Target("k", "GPa").select(table([np.inf, 1.0]))


def test_wrong_unit():
    with pytest.raises(DataError, match=r"k is given in GPa, but the target says eV: set target\.unit=GPa"):
        Target("k", "eV").select(table([1.0]))


def test_table_survives_json():
    import json

    before = table([1.0, np.nan])
    after = CrystalTable.from_plain(json.loads(json.dumps(before.to_plain(), allow_nan=False)))
    np.testing.assert_array_equal(before.values("k"), after.values("k"))
    assert (after.ids, after.units, after.split) == (before.ids, before.units, before.split)
