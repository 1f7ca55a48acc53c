"""Data frames in and out, one structure to one number, and an ASE calculator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from ase.build import bulk
from ase.io import write
from small_models import GAP, K, registry

import potnet
from potnet.config import ConfigError
from potnet.crystals import CrystalError
from potnet.data import Target
from potnet.inference.predictor import Predictor

COPPER, SILICON, ALUMINIUM = bulk("Cu"), bulk("Si"), bulk("Al")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return registry(tmp_path_factory.mktemp("models"), k=K, gap=GAP)


@pytest.fixture
def model(models: Path) -> Predictor:
    return potnet.load("k", "cpu", registry=models)


def test_predictions_of_a_frame_have_its_index(model: Predictor, tmp_path: Path) -> None:
    """So that they can be joined to it; a row that cannot be predicted is missing, and named in failures."""
    write(tmp_path / "Si.cif", SILICON)
    frame = pandas.DataFrame(
        {"note": ["a", "b", "c", "d"], "Structure": [COPPER, "no crystal", (tmp_path / "Si.cif").read_text(),
                                                     ALUMINIUM.todict()]},
        index=pandas.Index([10, 20, 30, 40], name="row"),
    )  # fmt: skip
    found = model.predict(frame, on_error="skip")
    values = model.predict([COPPER, SILICON, ALUMINIUM])["k_vrh"]
    joined = frame.join(found.to_dataframe())
    assert list(joined.index) == [10, 20, 30, 40]
    np.testing.assert_allclose(joined["k_vrh"], [values[0], np.nan, values[1], values[2]], rtol=1e-6)
    assert list(joined.columns) == ["note", "Structure", "k_vrh", "std", "lower", "upper", "flags"]
    assert [failure.id for failure in found.failures] == ["20"]
    assert list(found[1:].to_dataframe().index) == [30, 40]
    with pytest.raises(CrystalError, match="crystal '20'"):
        model.predict(frame)


def test_names_are_those_of_the_frame(model: Predictor) -> None:
    """From a column of ids, made distinct; the column of structures is found by what is in it, too."""
    pymatgen = pytest.importorskip("pymatgen.core")
    silicon = pymatgen.Structure(
        [[2.7, 2.7, 0], [2.7, 0, 2.7], [0, 2.7, 2.7]], ["Si", "Si"], [[0] * 3, [0.25] * 3]
    )
    frame = pandas.DataFrame({"material_id": ["x", "x"], "relaxed": [silicon, COPPER]})
    found = model.predict(frame)
    assert found.ids == ["x", "x (2)"]
    assert list(found.to_dataframe().index) == [0, 1]
    assert model.embed(frame).ids == found.ids
    with pytest.raises(ConfigError, match=r"no column of structures \(columns: material_id\)"):
        model.predict(frame[["material_id"]])


def test_one_structure_gives_one_number(model: Predictor, models: Path, tmp_path: Path) -> None:
    """From an object or a file; of several models all values by key."""
    value = model.predict(COPPER)["k_vrh"].item()
    write(tmp_path / "Cu.cif", COPPER)
    write(tmp_path / "two.xyz", [COPPER, SILICON], format="extxyz")
    for given in (COPPER, tmp_path / "Cu.cif", str(tmp_path / "Cu.cif"), (tmp_path / "Cu.cif").read_text()):
        found = model.predict_structure(given)
        assert isinstance(found, float)
        assert found == pytest.approx(value, rel=1e-5)
    both = potnet.load(["k", "gap"], "cpu", registry=models).predict_structure(COPPER)
    assert isinstance(both, dict)
    assert list(both) == ["k_vrh", "band_gap"]
    with pytest.raises(CrystalError, match="one structure is wanted, got 2: use predict"):
        model.predict_structure(tmp_path / "two.xyz")


def test_properties_by_their_names_in_ase(model: Predictor, models: Path, tmp_path: Path) -> None:
    """Kept until the atoms change; a model of energies is refused."""
    calculator = potnet.PropertyCalculator(model, level=0.5)
    atoms = COPPER.copy()
    atoms.calc = calculator
    expected = model.predict(COPPER, level=0.5)
    assert calculator.get_property("k_vrh", atoms) == expected["k_vrh"]
    assert calculator.results["k_vrh_lower"] == expected["lower"]
    assert calculator.results["flags"] == expected.flags[0]
    atoms.set_cell(1.1 * atoms.cell, scale_atoms=True)
    assert calculator.get_property("k_vrh", atoms) != expected["k_vrh"]
    two = potnet.PropertyCalculator(potnet.load(["k", "gap"], "cpu", registry=models))
    assert {"k_vrh", "band_gap", "band_gap_std", "flags"} <= set(two.implemented_properties)
    energy = Target("energy", "eV", extensive=True)
    file = registry(tmp_path, e=energy)
    with pytest.raises(ConfigError, match=r"a model of energy is a force field: use potnet.forcefield"):
        potnet.PropertyCalculator(potnet.load("e", "cpu", registry=file))
