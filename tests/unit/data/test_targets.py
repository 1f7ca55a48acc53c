from __future__ import annotations

import numpy as np
import pytest
import torch
from crystal_tables import table_of

from potnet.config import ConfigError
from potnet.data import CrystalTable, DataError, Target, Targets


def table(values: list[float], unit: str = "GPa") -> CrystalTable:
    return table_of([f"c{i}" for i in range(len(values))], {"k": np.array(values)}, {"k": unit})


def test_log10_and_back():
    target = Target("k", "GPa", transform="log10")
    values = torch.tensor([1.0, 10.0, 250.0], dtype=torch.float64)
    assert target.learned_unit == "log10(GPa)"
    torch.testing.assert_close(target.learned(values)[:2], torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(target.physical(target.learned(values)), values)


def test_none_is_the_identity():
    target = Target("k", "eV")
    values = torch.tensor([-1.0, 2.0])
    assert target.learned_unit == "eV"
    assert target.physical(target.learned(values)) is values


def test_settings_round_trip():
    target = Target("k", "GPa", transform="log10", name="bulk modulus", on_missing="drop")
    assert Target(**target.settings()).settings() == target.settings()


def test_misspelt_options():
    with pytest.raises(DataError, match=r"target\.transform='log'; did you mean log10"):
        Target("k", transform="log")
    with pytest.raises(DataError, match=r"target\.on_missing='dorp'; did you mean drop"):
        Target("k", on_missing="dorp")


@pytest.mark.parametrize("bad", [0.0, -3.5])
def test_no_logarithm_of_nothing(bad: float):
    target = Target("k", "GPa", transform="log10")
    with pytest.raises(
        DataError, match=rf"k is zero or negative, and so has no log10, for 1 crystals: c1 \({bad:g} GPa\)"
    ):
        Targets([target]).select(table([1.0, bad]))
    Targets([Target("k", "GPa")]).select(table([1.0, bad]))


def test_missing_targets_are_named():
    values = [1.0] + [np.nan] * 7
    message = r"7 of 8 crystals have no k .*: c1, c2, c3, c4, c5 and 2 more\. .*on_missing=drop"
    with pytest.raises(DataError, match=message):
        Targets([Target("k", "GPa")]).select(table(values))


def test_missing_targets_are_dropped_and_counted():
    rows, labels, removed = Targets([Target("k", "GPa", on_missing="drop")]).select(table([1.0, np.nan, 2.0]))
    assert rows.tolist() == [0, 2]
    assert labels["k"].tolist() == [1.0, 2.0]
    assert [(entry.id, entry.reason) for entry in removed] == [("c1", "no k")]


def test_nothing_left():
    with pytest.raises(DataError, match="none of the 2 crystals has k"):
        Targets([Target("k", "GPa", on_missing="drop")]).select(table([np.nan, np.nan]))


def test_infinite_target():
    with pytest.raises(DataError, match="k is infinite for 1 crystals: c0"):
        Targets([Target("k", "GPa")]).select(table([np.inf, 1.0]))


def test_wrong_unit():
    with pytest.raises(DataError, match=r"k is given in GPa, but the target says eV: set target\.unit=GPa"):
        Targets([Target("k", "eV")]).select(table([1.0]))


def several(**columns: list[float]) -> CrystalTable:
    arrays = {
        key: np.array(values, dtype=object if isinstance(values[0], str) else float)
        for key, values in columns.items()
    }
    return table_of([f"c{i}" for i in range(len(arrays[next(iter(arrays))]))], arrays)


def test_targets_from_one_or_several_configs() -> None:
    one = Targets.from_config({"key": "k", "unit": "GPa", "transform": "log10"})
    assert list(one) == ["k"]
    assert one.monitor == "val/k/mae"
    both = Targets.from_config(
        {"k": {"unit": "GPa"}, "metal": {"kind": "classification", "classes": ["a", "b"]}}
    )
    assert list(both) == ["k", "metal"]
    assert both.monitor == "val/loss"
    assert Targets.from_config(both.settings()).settings() == both.settings()
    assert both.heads()["metal"] == {"outputs": 2, "per": "crystal", "extensive": False}
    with pytest.raises(ConfigError, match=r"unknown key target\.k\.unti; did you mean target\.k\.unit"):
        Targets.from_config({"k": {"unti": "GPa"}, "g": {}})
    with pytest.raises(DataError, match="several targets have one key"):
        Targets([Target("k"), Target("k")])


def test_masked_labels_keep_a_crystal_while_it_has_any() -> None:
    targets = Targets([Target("k", on_missing="mask"), Target("g", on_missing="mask")])
    rows, labels, removed = targets.select(several(k=[1.0, np.nan, np.nan], g=[np.nan, 2.0, np.nan]))
    assert rows.tolist() == [0, 1]
    np.testing.assert_array_equal(labels["k"], [1.0, np.nan])
    assert [(entry.id, entry.reason) for entry in removed] == [("c2", "no k or g")]


def test_classes_from_numbers_thresholds_and_names() -> None:
    names = Target("kind", kind="classification", classes=("metal", "insulator"))
    gap = Target(
        "metal", kind="classification", classes=("metal", "insulator"), thresholds=(0.0,), column="gap"
    )
    table = several(kind=["metal", "insulator", "", "metal"], gap=[0.0, 0.1, np.nan, -0.2])
    np.testing.assert_array_equal(names.labels(table), [0, 1, np.nan, 0])
    np.testing.assert_array_equal(gap.labels(table), [0, 1, np.nan, 0])
    with pytest.raises(DataError, match=r"labels that are not among target\.classes=.*: semi"):
        names.labels(several(kind=["metal", "semi"]))
    with pytest.raises(DataError, match=r"classes are numbered 0 to 1, .*: c1 \(2\).*thresholds"):
        names.labels(several(kind=[0.0, 2.0]))


def test_a_class_with_one_example_is_refused() -> None:
    target = Target("kind", kind="classification", classes=("metal", "insulator"))
    with pytest.raises(DataError, match="fewer than two crystals are insulator"):
        Targets([target]).select(several(kind=["metal", "metal", "insulator"]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "classification"}, "at least two classes"),
        ({"classes": ["a", "b"]}, "belong to target.kind=classification"),
        ({"kind": "classification", "classes": ["a", "b"], "thresholds": [1.0, 2.0]}, "need 1 thresholds"),
        ({"extensive": True, "transform": "log10"}, "use target.transform=none"),
        ({"weight": -1.0}, "give a number, 0 or more"),
        ({"kind": "clasification"}, "; did you mean classification"),
    ],
)
def test_targets_that_make_no_sense(wrong: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Target("k", **wrong)


def test_only_forces_and_stress_of_an_energy_are_derived() -> None:
    energy = Target("energy", "eV", extensive=True)
    forces = Target("forces", "eV/Å", per="atom", shape=(3,), derived_from="energy", on_missing="mask")
    targets = Targets([energy, forces])
    assert list(targets.direct) == ["energy"]
    assert list(targets.derived) == ["forces"]
    assert energy.metric_unit == "eV/atom"
    with pytest.raises(DataError, match="derived from energy, which is not an extensive target"):
        Targets([forces])
    with pytest.raises(DataError, match="only forces and stress"):
        Targets([energy, Target("dipole", shape=(3,), derived_from="energy")])


def test_a_logarithm_of_a_number_without_unit_has_no_brackets() -> None:
    assert Target("n", transform="log10").learned_unit == "log10"
    assert Target("k", "GPa", transform="log10").learned_unit == "log10(GPa)"


def test_a_name_alone_is_no_target() -> None:
    with pytest.raises(DataError, match=r"targets='k_vrh': give a Target"):
        Targets.from_config("k_vrh")  # type: ignore[arg-type]
