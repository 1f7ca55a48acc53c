"""Trained models on new crystals, from Python; checkpoints that cannot be used."""

from __future__ import annotations

import csv
import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

import potnet
from potnet.config import ConfigError
from potnet.crystals import Crystal, CrystalError
from potnet.predict import predict_files
from potnet.runs.checkpoint import CheckpointError, export, find_checkpoint, load_checkpoint

# Its fixtures take seconds: one process of pytest-xdist makes them, not each.
pytestmark = pytest.mark.xdist_group("prediction")

Run = Any  # conftest.Run


@pytest.fixture(scope="module")
def model(trained: Run) -> potnet.Predictor:
    return potnet.load(trained.folder, device="cpu")


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    folder = tmp_path / "structures"
    folder.mkdir()
    bulk("NaCl", "rocksalt", a=5.64).write(folder / "nacl.cif")
    bulk("Si").write(folder / "si.vasp", format="vasp")
    bulk("Cu", cubic=True).write(folder / "cu.xyz", format="extxyz")
    return folder


def best_value(predictions: potnet.Predictions) -> dict[str, float]:
    return {row["id"]: row["k_vrh"] for row in predictions}


def test_new_crystals_get_the_values_of_the_test(
    trained: Run, model: potnet.Predictor, tmp_path: Path
) -> None:
    with (trained.folder / "predictions.csv").open(newline="") as file:
        known = {row["id"]: float(row["prediction"]) for row in csv.DictReader(file)}
    content = (files("potnet.data") / "embedded" / "mp_elastic_2018.jsonl.gz").read_bytes()
    lines = [
        line for line in gzip.decompress(content).decode().splitlines() if json.loads(line)["id"] in known
    ]
    (tmp_path / "some.jsonl").write_text("\n".join(lines))
    predictions = model.predict(tmp_path / "some.jsonl", batch_size=7)
    assert (predictions.key, predictions.unit) == ("k_vrh", "GPa")
    assert best_value(predictions) == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize("form", ["folder", "pattern", "list", "file"])
def test_inputs_are_files_folders_patterns_and_lists(
    form: str, structures: Path, model: potnet.Predictor
) -> None:
    inputs = {
        "folder": structures,
        "pattern": str(structures / "*"),
        "list": [structures / "nacl.cif", str(structures / "[sc]*")],
        "file": structures / "si.vasp",
    }[form]
    found = best_value(model.predict(inputs))
    assert set(found) == ({"si"} if form == "file" else {"nacl", "si", "cu"})
    assert all(value > 0 for value in found.values())


def test_objects_of_other_libraries_and_cells_of_one_crystal_agree(model: potnet.Predictor) -> None:
    primitive, cubic = bulk("NaCl", "rocksalt", a=5.64), bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    crystal = Crystal(cubic.cell[:], cubic.positions, cubic.numbers, id="mine")
    predictions = model.predict([primitive, cubic.repeat((2, 1, 1)), crystal])
    assert predictions.ids == ["0", "1", "mine"]
    np.testing.assert_allclose(predictions.values, predictions.values[0], rtol=1e-5)


def test_tables_and_dictionaries_are_read_as_in_training(model: potnet.Predictor, tmp_path: Path) -> None:
    """What data=table reads, predict reads, too."""
    cif = tmp_path / "Cu.cif"
    bulk("Cu").write(cif)
    expected = model.predict(cif).values[0]
    with (tmp_path / "many.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "cif"), ("a", cif.read_text()), ("b", cif.read_text())])
    (tmp_path / "many.jsonl").write_text(json.dumps({"id": "c", "cif": cif.read_text()}) + "\n")
    for name, ids in (("many.csv", ["a", "b"]), ("many.jsonl", ["c"])):
        found = model.predict(tmp_path / name)
        assert found.ids == ids
        np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "x.cif").write_text(cif.read_text())
    assert set(model.predict(tmp_path).ids) == {"Cu", "a", "b", "c", "x"}
    structure = {
        "lattice": {"matrix": bulk("Cu").cell[:].tolist()},
        "sites": [{"species": [{"element": "Cu", "occu": 1}], "abc": [0, 0, 0]}],
    }  # of pymatgen
    np.testing.assert_allclose(model.predict(structure).values, expected, rtol=1e-5)


def test_files_of_one_name_are_told_apart(tmp_path: Path, model: potnet.Predictor) -> None:
    for name, symbol in (("a", "Cu"), ("b", "Al")):
        (tmp_path / name).mkdir()
        bulk(symbol).write(tmp_path / name / "metal.cif")
    first, second = model.predict(str(tmp_path / "*" / "metal.cif")).ids
    assert first == "metal" != second
    ids = model.predict([tmp_path / "a" / "metal.cif"] * 3).ids
    assert ids[0] == "metal"
    assert len(set(ids)) == 3


def test_bad_files_cost_nothing_but_themselves(structures: Path, model: potnet.Predictor) -> None:
    (structures / "broken.cif").write_text("not a crystal")
    Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]).write(structures / "molecule.xyz")
    Atoms("Og", cell=[4, 4, 4], pbc=True).write(structures / "unknown.vasp", format="vasp")
    result = model.predict(structures, on_error="skip")
    assert set(result.ids) == {"nacl", "si", "cu"}
    reasons = {Path(failure.id).stem: failure.reason for failure in result.failures}
    assert set(reasons) == {"broken", "molecule", "unknown"}
    assert "periodicity" in reasons["molecule"]
    assert "Og" in reasons["unknown"]
    with pytest.raises(CrystalError, match=r"broken\.cif"):
        model.predict(structures, on_error="raise")
    assert "molecule" in model.predict(structures / "molecule.xyz", box=6.0).ids


def test_csv_has_the_name_of_the_property(structures: Path, model: potnet.Predictor, tmp_path: Path) -> None:
    output = tmp_path / "new" / "predictions.csv"
    model.predict(structures).to_csv(output)
    rows = list(csv.reader(output.read_text().splitlines()))
    assert rows[0] == ["id", "k_vrh", "flags"]
    assert sorted(row[0] for row in rows[1:]) == ["cu", "nacl", "si"]
    assert not output.with_name("predictions.csv.part").exists()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("nowhere/*.cif", "no file matches"),
        ("missing.cif", "no such file"),
        (3.5, "a structure is wanted .* got a float"),
        ("", "an empty path"),
    ],
)
def test_inputs_that_mean_nothing(inputs: Any, message: str, model: potnet.Predictor) -> None:
    with pytest.raises(CrystalError, match=message):
        model.predict(inputs)


def test_an_empty_folder_is_named(tmp_path: Path, model: potnet.Predictor) -> None:
    with pytest.raises(CrystalError, match="no structure file in this folder"):
        model.predict(tmp_path)


def test_wrong_options(structures: Path, model: potnet.Predictor, trained: Run) -> None:
    with pytest.raises(ConfigError, match="give 'raise' or 'skip'"):
        model.predict(structures, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size=0"):
        model.predict(structures, batch_size=0)
    with pytest.raises(ConfigError, match="device=nonsense"):
        potnet.load(trained.folder, device="nonsense")


def test_predictions_are_written_as_csv_alone(structures: Path, trained: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output=.*x\.parquet: predictions are written as CSV"):
        predict_files(str(trained.folder), str(structures), str(tmp_path / "x.parquet"))
    assert not (tmp_path / "x.parquet").exists()


def tampered(trained: Run, path: Path, change: Any) -> Path:
    checkpoint = load_checkpoint(trained.folder)
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint or folder"):
        potnet.load(tmp_path / "nothing.ckpt")
    with pytest.raises(CheckpointError, match=r"no best\.ckpt or last\.ckpt in this folder, nor a run"):
        potnet.load(tmp_path)


def test_a_folder_of_runs_means_the_newest_with_a_checkpoint(tmp_path: Path) -> None:
    names = (
        "2026-01-31_12-00-00",
        "2026-01-31_12-00-00-2",
        "2026-01-31_12-00-00-10",  # several began in one second: later than -2
        "2026-02-01_09-00-00",  # stopped before its first epoch
        "zz-notes",
    )
    for name in names:
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    for name in (*names[:3], names[4]):
        (tmp_path / name / "checkpoints" / "last.ckpt").touch()
    assert find_checkpoint(tmp_path) == tmp_path / names[2] / "checkpoints" / "last.ckpt"
    (tmp_path / names[2] / "checkpoints" / "best.ckpt").touch()
    assert find_checkpoint(tmp_path) == tmp_path / names[2] / "checkpoints" / "best.ckpt"
    assert find_checkpoint(tmp_path / names[0]).parent.parent.name == names[0]
    (tmp_path / names[3] / "checkpoints" / "best.ckpt").touch()
    assert find_checkpoint(tmp_path).parent.parent.name == names[3]


@pytest.mark.parametrize("kept", [0, 10, 1000, -100])
def test_a_truncated_checkpoint(kept: int, trained: Run, tmp_path: Path) -> None:
    content = (trained.folder / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt: (damaged or truncated|not a checkpoint)"):
        potnet.load(tmp_path / "cut.ckpt")


class Foreign:
    """Anything but plain data."""


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], Foreign(), {"epoch": 3}])
def test_a_foreign_checkpoint(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match=r"foreign\.ckpt: not a checkpoint of potnet"):
        potnet.load(tmp_path / "foreign.ckpt")


def test_a_checkpoint_without_settings(trained: Run, tmp_path: Path) -> None:
    path = tampered(trained, tmp_path / "bare.ckpt", lambda content: content.pop("hyper_parameters"))
    with pytest.raises(CheckpointError, match="not a checkpoint of potnet, it has no hyper_parameters"):
        potnet.load(path)


def test_text_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.ckpt"):
        potnet.load(tmp_path / "text.ckpt")


def test_weights_of_other_settings(trained: Run, tmp_path: Path) -> None:
    path = tampered(trained, tmp_path / "w.ckpt", lambda c: c["hyper_parameters"]["model"].update(width=8))
    with pytest.raises(CheckpointError, match="weights do not fit its settings"):
        potnet.load(path)


def test_settings_of_another_version(trained: Run, tmp_path: Path) -> None:
    path = tampered(trained, tmp_path / "k.ckpt", lambda c: c["hyper_parameters"]["model"].update(depth=8))
    with pytest.raises(CheckpointError, match=r"unknown key model\.depth"):
        potnet.load(path)
    path = tampered(trained, tmp_path / "n.ckpt", lambda c: c["potnet"].update(format=99))
    with pytest.raises(CheckpointError, match="newer than this one"):
        potnet.load(path)


@pytest.mark.parametrize("place", ["model", "potential", "targets"])
def test_a_checkpoint_imports_nothing_else(
    place: str, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mynet.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\ndef run(**kwargs): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def change(checkpoint: dict[str, Any]) -> None:
        entry = {"_target_": "mynet.run"}
        if place == "model":
            checkpoint["hyper_parameters"]["model"] = entry
        elif place == "potential":
            checkpoint["potnet"]["features"]["potentials"] = [entry]
        else:
            checkpoint["hyper_parameters"]["targets"]["k_vrh"]["name"] = entry

    path = tampered(trained, tmp_path / "bad.ckpt", change)
    with pytest.raises(CheckpointError, match=r"mynet\.run"):
        potnet.load(path)
    assert not (tmp_path / "imported").exists()


def test_a_checkpoint_builds_networks_only(trained: Run, tmp_path: Path) -> None:
    def malicious(checkpoint: dict[str, Any]) -> None:
        checkpoint["hyper_parameters"]["model"] = {"_target_": "os.system", "command": "touch owned"}

    with pytest.raises(CheckpointError, match=r"is not potnet's own.*allow=\[os.system\]"):
        potnet.load(tampered(trained, tmp_path / "bad.ckpt", malicious))

    def nested(checkpoint: dict[str, Any]) -> None:
        checkpoint["hyper_parameters"]["model"]["width"] = {"_target_": "os.system", "command": "touch owned"}

    with pytest.raises(CheckpointError):
        potnet.load(tampered(trained, tmp_path / "nested.ckpt", nested))
    assert not Path("owned").exists()


FIXTURES = Path(__file__).parents[1] / "fixtures" / "structures"


def test_every_prediction_has_an_id_of_its_own(model: potnet.Predictor, structures: Path) -> None:
    bulk("NaCl", "rocksalt", a=5.7).write(structures / "nacl.vasp", format="vasp")
    predictions = model.predict([FIXTURES / "dup_ids", structures, structures / "nacl.cif"])
    assert predictions.ids == [
        "dup_ids/POSCAR.1",
        "dup_ids/POSCAR.2",
        "dup_ids/POSCAR.3",
        "cu",
        "nacl",
        "nacl.vasp",
        "si",
        f"{structures}/nacl",
    ]


def test_an_implausible_crystal_is_listed_or_predicted_as_asked(
    model: potnet.Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    file = FIXTURES / "formula_mismatch.cif"
    refused = model.predict(file, on_error="skip")
    assert not len(refused)
    assert "states the formula Cl3Cs, but its atoms are ClCs" in refused.failures[0].reason
    assert len(model.predict(file, plausibility="warn")) == 1
    assert "states the formula Cl3Cs" in caplog.text


def test_an_export_predicts_the_same(trained: Run, tmp_path: Path, structures: Path) -> None:
    whole = export(trained.folder, tmp_path / "model.safetensors")
    expected = best_value(potnet.load(trained.folder).predict(structures))
    assert best_value(potnet.load(whole).predict(structures)) == expected
    half = export(trained.folder, tmp_path / "half.safetensors", dtype="float16")
    assert best_value(potnet.load(half).predict(structures)) == pytest.approx(expected, rel=1e-2)
    assert (
        half.stat().st_size
        < whole.stat().st_size
        < (trained.folder / "checkpoints" / "best.ckpt").stat().st_size
    )
    content = whole.read_bytes()
    assert str(Path.home()).encode() not in content
    assert str(tmp_path.parent).encode() not in content
    whole.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        potnet.load(whole)
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        export(trained.folder, tmp_path / "model.bin")


def test_a_checkpoint_names_no_place_of_this_machine(trained: Run) -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for entry in value.values() for text in texts(entry)]
        if isinstance(value, list | tuple):
            return [text for entry in value for text in texts(entry)]
        return [value] if isinstance(value, str) else []

    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert not [text for text in texts(checkpoint["potnet"]) if text.startswith("/") or "/tmp" in text]


def test_elements_are_those_of_the_training(
    trained: Run, structures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new release of the package that has the table must not change what an old checkpoint predicts."""
    from potnet.nn import elements

    expected = best_value(potnet.load(trained.folder).predict(structures))
    flipped = 1.0 - elements.atom_table()
    monkeypatch.setattr(elements, "atom_table", lambda: flipped)
    assert best_value(potnet.load(trained.folder).predict(structures)) == expected


@pytest.mark.parametrize("dropped", ["elements", None])
def test_elements_never_seen_are_flagged(dropped: str | None, trained: Run, tmp_path: Path) -> None:
    bulk("Pu", "fcc", a=4.6).write(tmp_path / "pu.cif")
    facts = {} if dropped else {"elements": {14: 40, 8: 3}, "max_atoms": 4, "density": [2.0, 9.0]}
    path = tampered(trained, tmp_path / "t.ckpt", lambda c: c["potnet"].update(training=facts))
    (flag,) = potnet.load(path).predict(tmp_path / "pu.cif").flags
    assert ("no training crystal has Pu; density 16.7 g/cm³" in flag) == (dropped is None)
