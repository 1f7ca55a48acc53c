"""MPtrj from a small file in the published layout, written with pymatgen as the original was."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from potnet.config import build, compose, plain
from potnet.data import DataError
from potnet.data.sources.json_stream import JsonStream
from potnet.data.sources.mptrj import KBAR

pymatgen = pytest.importorskip("pymatgen.core")


def frame(side: float, **changes):
    structure = pymatgen.Structure(
        side * np.eye(3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.51]], site_properties={"magmom": [0.0, 0.1]}
    )
    return {
        "structure": structure.as_dict(),
        "uncorrected_total_energy": -6.5,
        "corrected_total_energy": -7.1,
        "energy_per_atom": -3.55,
        "force": [[0.0, 0.0, 0.2], [0.0, 0.0, -0.2]],
        # VASP: kbar, compression positive.
        "stress": [[30.0, 1.0, 2.0], [1.0, 40.0, 3.0], [2.0, 3.0, 50.0]],
        "magmom": None,
        "bandgap": 5.2,
        "mp_id": "mp-22865",
        **changes,
    }


def content():
    return {
        "mp-22865": {"mp-22865-0-0": frame(4.1), "mp-22865-0-1": frame(4.2, stress=None)},
        "mp-1": {"mp-1-1-0": frame(4.3, force=None)},
        "mp-2": {},
    }


def source(path, *more):
    config = compose("train", ["data=mptrj", f"data.path={path}", "data.source.crystals=null", *more])
    return build(plain(config.data.source), "data.source")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "MPtrj_2022.9_full.json"
    path.write_text(json.dumps(content()))
    return path


def test_frames_are_crystals_with_forces_and_stress(path):
    data = source(path).load()
    assert [crystal.id for crystal in data.crystals] == ["mp-22865-0-0", "mp-22865-0-1", "mp-1-1-0"]
    first, second, third = data.crystals
    assert first.properties["energy"] == -7.1
    np.testing.assert_allclose(first.properties["forces"], [[0, 0, 0.2], [0, 0, -0.2]])
    # xx yy zz yz xz xy, positive under tension.
    np.testing.assert_allclose(first.properties["stress"], -np.array([30, 40, 50, 3, 2, 1]) / KBAR)
    assert first.properties["material"] == "mp-22865"
    assert "stress" not in second.properties
    assert "forces" not in third.properties
    assert data.table.units["stress"] == "eV/Å³"
    assert source(path, "data.source.targets.energy.column=uncorrected_total_energy").load().crystals[
        0
    ].properties["energy"] == pytest.approx(-6.5)


def test_a_compressed_crystal_has_a_negative_stress(tmp_path):
    """Energies, forces and stress of a known potential, written as VASP does, are read as consistent."""
    from ase.build import bulk
    from ase.calculators.lj import LennardJones

    from potnet.data.consistency import compare

    frames = {}
    for number, side in enumerate(np.linspace(3.4, 3.5, 6)):
        atoms = bulk("Cu", cubic=True, a=side)
        atoms.calc = LennardJones(sigma=2.3, epsilon=0.4, rc=5.0, smooth=True)
        frames[f"mp-30-0-{number}"] = {
            "structure": pymatgen.Structure(
                atoms.cell[:], atoms.symbols, atoms.get_scaled_positions()
            ).as_dict(),
            "corrected_total_energy": atoms.get_potential_energy(),
            "force": atoms.get_forces().tolist(),
            "stress": (-KBAR * atoms.get_stress(voigt=False)).tolist(),
        }
    path = tmp_path / "MPtrj_2022.9_full.json"
    path.write_text(json.dumps({"mp-30": frames}))
    crystals = source(path).load().crystals
    assert crystals[0].properties["stress"][0] < 0
    assert compare(crystals).stress == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"force": [[0.0, 0.0, 0.2]]}, r"force has the shape \(1, 3\), and there are 2 atoms"),
        ({"stress": [1.0, 2.0]}, r"stress has the shape \(2,\)"),
        ({"force": [["x", 0, 0], [0, 0, 0]]}, "force is no array of numbers"),
    ],
)
def test_bad_frames_are_named(tmp_path, change, message):
    path = tmp_path / "MPtrj_2022.9_full.json"
    path.write_text(json.dumps({"mp-1": {"mp-1-0-0": frame(4.1, **change), "mp-1-0-1": frame(4.2)}}))
    with pytest.raises(DataError, match=f"mp-1-0-0.*{message}"):
        source(path).load()
    assert len(source(path).load("skip").crystals) == 1


def test_another_file_is_refused(path, tmp_path):
    other = tmp_path / "MPtrj_2022.9_full.json"
    text = path.read_text()
    for broken, message in (
        (text[: len(text) // 2], "breaks off after mp-22865"),
        ("[1, 2]", "not the file of MPtrj"),
        (json.dumps({"mp-1": {"mp-1-0-0": [1]}}), "mp-1-0-0: a frame with structure"),
    ):
        other.write_text(broken)
        with pytest.raises(DataError, match=message):
            source(other).load()
    path.write_text(text)
    config = compose("train", ["data=mptrj", f"data.path={path}"])
    with pytest.raises(DataError, match="3 crystals, but this data set has 1580395"):
        build(plain(config.data.source), "data.source").load()


def test_entries_of_an_object_come_one_by_one(monkeypatch):
    monkeypatch.setattr("potnet.data.sources.json_stream._BLOCK", 7)
    given = {"a": {"x": 1, "y": [2, {"z": 3}]}, "b": {}, "c": {"w": "}"}}
    stream = JsonStream(io.StringIO(json.dumps(given, indent=1)))
    found = {outer: {inner: stream.value() for inner in stream.entries()} for outer in stream.entries()}
    assert found == given
