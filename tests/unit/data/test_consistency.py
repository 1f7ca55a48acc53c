"""Labels against the derivatives of their energies: right ones pass, another sign or unit is named."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from potnet.crystals import Crystal
from potnet.data import CrystalDataModule, EmbeddedSource, Featurizer
from potnet.data.consistency import Consistency, compare, problems, repeated


def configurations(count: int = 12, strain: float = 0.005, step: float = 0.03) -> list[Crystal]:
    """Lennard-Jones copper, strained and shaken."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        atoms = bulk("Cu", cubic=True, a=3.7)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += step * rng.normal(size=(4, 3)) + rng.normal(size=3)
        atoms.calc = LennardJones(sigma=2.3, epsilon=0.4, rc=5.0, smooth=True)
        labels = {
            "energy": atoms.get_potential_energy() - 12.0,
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        found.append(Crystal(atoms.cell[:], atoms.positions, atoms.numbers, str(number), labels))
    return found


def changed(crystals: list[Crystal], **factors: float) -> list[Crystal]:
    return [
        replace(c, properties={key: value * factors.get(key, 1.0) for key, value in c.properties.items()})
        for c in crystals
    ]


def test_right_labels_fit_with_one():
    found = compare(configurations())
    assert found.pairs > 30
    assert found.stress == pytest.approx(1, abs=0.1)
    assert found.forces == pytest.approx(1, abs=0.1)
    assert problems(found) == []


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"stress": -1}, "stress .* their sign is opposite"),
        ({"stress": 1602.18}, "stress .* in kbar. Wanted is eV/Å³"),
        ({"stress": -1602.18}, "stress .* in kbar with compression positive, as VASP"),
        ({"stress": 160.218}, "stress .* in GPa. Wanted"),
        ({"stress": 10.0}, "stress .* check sign and unit"),
        ({"forces": -1}, "forces .* their sign is opposite"),
        ({"forces": 1 / 51.4221}, "forces .* in hartree/bohr"),
    ],
)
def test_another_sign_or_unit_is_named(factors, message):
    (found,) = problems(compare(changed(configurations(), **factors)))
    assert re.search(message, found), found


def test_what_cannot_be_told_is_not_said():
    crystals = configurations()
    without = [
        replace(c, properties={k: v for k, v in c.properties.items() if k != "stress"}) for c in crystals
    ]
    assert np.isnan(compare(without).stress)
    assert compare(without).pairs > 30
    # One cell, so nothing is known of the stress; far apart, nothing at all.
    assert np.isnan(compare(changed(configurations(strain=0), stress=5.0)).stress)
    assert compare(configurations(strain=0.5)).pairs < 6
    assert problems(compare(changed(crystals[:3], stress=-1))) == []
    # A factor that nothing explains, and not far from one: too few or too noisy pairs.
    assert problems(Consistency(16, 1.0, 1.6)) == []
    # Energies of two sources differ by more than any strain does.
    other = [replace(c, properties={**c.properties, "source": n % 2}) for n, c in enumerate(crystals)]
    for c in other[::2]:
        c.properties["energy"] += 50
    assert compare(other, "source").stress == pytest.approx(1, abs=0.1)


def test_a_run_warns_of_stress_in_another_sign(tmp_path, caplog):
    class Flipped(EmbeddedSource):
        def read(self, on_error="raise"):
            for sample in super().read(on_error):
                if "stress" in sample.crystal.properties:  # of some it is not known
                    sample.crystal.properties["stress"] = -sample.crystal.properties["stress"]
                yield sample

    targets = {
        "energy": {"unit": "eV", "extensive": True},
        "stress": {"shape": [6], "derived_from": "energy", "unit": "eV/Å³"},
    }
    said = {}
    for kind in (EmbeddedSource, Flipped):
        features = Featurizer(cell="as_given", neighbors={"cutoff": 2.5}, device="cpu")
        data = CrystalDataModule(
            kind("mlearn_si"), targets, features, needs=("edges",), cache_dir=tmp_path / kind.__name__,
            featurize_workers=1,
        )  # fmt: skip
        with caplog.at_level(logging.WARNING):
            data.prepare_data()
            data.setup()
        said[kind] = [record.message for record in caplog.records if "derivatives" in record.message]
        caplog.clear()
    assert said[EmbeddedSource] == []
    assert "their sign is opposite" in said[Flipped][0]


def test_labels_that_came_to_other_configurations_are_named():
    rng = np.random.default_rng(0)
    crystals = [
        Crystal(4.0 * np.eye(3), rng.uniform(0, 4, (2, 3)), np.array([14, 14]), str(number), {
            "stress": rng.normal(size=6), "forces": np.zeros((2, 3))
        })
        for number in range(5)
    ]  # fmt: skip
    assert repeated(crystals, ["stress", "forces"]) == []
    crystals[3].properties["stress"] = crystals[1].properties["stress"].copy()
    (said,) = repeated(crystals, ["stress", "forces"])
    assert "the stress of 1 configurations is that of another one" in said
    assert "3 that of 1" in said
    # A configuration that is there twice has its labels twice.
    crystals[3] = replace(crystals[3], positions=crystals[1].positions)
    assert repeated(crystals, ["stress"]) == []
    crystals[4].properties["stress"] = np.full(6, np.nan)
    crystals[2].properties["stress"] = np.full(6, np.nan)
    assert repeated(crystals, ["stress"]) == []
