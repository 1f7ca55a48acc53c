"""Several targets, classes, and a force field, each through the ordinary commands."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run

from potnet import load
from potnet.config import ConfigError
from potnet.evaluate import evaluate_checkpoint
from potnet.export import main as export_command
from potnet.pretrained.build import build_entry
from potnet.runs.checkpoint import CheckpointError, export

SMALL = ["model.width=16", "model.edge_width=8", "model.layers=1", "trainer.accelerator=cpu"]


def metrics_of(run: Run) -> dict[str, Any]:
    return json.loads((run.folder / "metrics.json").read_text())


def embedded_rows(count: int) -> list[dict[str, Any]]:
    content = (files("potnet.data") / "embedded" / "mp_elastic_2018.jsonl.gz").read_bytes()
    return [json.loads(line) for line in gzip.decompress(content).decode().splitlines()[:count]]


@pytest.fixture(scope="module")
def moduli(run_training: Callable[..., Run]) -> Run:
    return run_training("target=moduli", "data.limit=80", "trainer.max_epochs=2", tiny=SMALL)


def test_two_moduli_in_one_network(moduli: Run, cache_dir: Path) -> None:
    metrics = metrics_of(moduli)
    assert list(metrics["test"]) == ["k_vrh", "g_vrh"]
    assert metrics["monitor"] == "val/loss"
    with (moduli.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"val/k_vrh/mae", "val/g_vrh/mae", "train/g_vrh/mae"} <= set(rows[0])
    assert moduli.result == pytest.approx(min(float(row["val/loss"]) for row in rows), rel=1e-4)
    again = evaluate_checkpoint(moduli.folder, ["test"], str(cache_dir))
    assert {e.key: e.metrics for e in again} == metrics["test"]
    structures = [{key: row[key] for key in ("lattice", "z", "frac")} for row in embedded_rows(3)]
    predictions = load(moduli.folder, device="cpu").predict(structures)
    assert list(predictions.columns)[:2] == ["k_vrh", "g_vrh"]
    assert len(predictions) == 3


def test_one_target_of_several_as_a_network_of_its_own(
    moduli: Run, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "g.safetensors"
    monkeypatch.setattr("sys.argv", ["export", f"checkpoint={moduli.folder}", f"output={file}", "only=g_vrh"])
    export_command()
    structures = [{key: row[key] for key in ("lattice", "z", "frac")} for row in embedded_rows(3)]
    alone, both = (load(path, device="cpu").predict(structures) for path in (file, moduli.folder))
    assert "g_vrh" in alone.columns
    assert "k_vrh" not in alone.columns
    np.testing.assert_allclose(alone["g_vrh"], both["g_vrh"], rtol=1e-5)
    with pytest.raises(CheckpointError, match="target=gap: the network predicts k_vrh, g_vrh"):
        export(moduli.folder, tmp_path / "gap.safetensors", target="gap")

    runs, registry = [str(moduli.folder)] * 2, tmp_path / "registry.yaml"
    settings = {"cache_dir": str(cache_dir), "device": "cpu", "train_crystals": 20}
    with pytest.raises(ConfigError, match="one number a crystal: give target=, of k_vrh, g_vrh"):
        build_entry("shear", runs, registry, **settings)
    entry = build_entry("shear", runs, registry, target="g_vrh", **settings)
    expected = metrics_of(moduli)["test"]["g_vrh"]["mae"]
    assert entry["figures"]["test"]["mae"] == pytest.approx(expected, rel=1e-3)
    assert entry["target"] == "g_vrh"


def test_labels_that_some_crystals_lack(run_training: Callable[..., Run], tmp_path: Path) -> None:
    rows = embedded_rows(60)
    for number, row in enumerate(rows):
        row.pop("split", None)
        if number % 3:
            row.pop("g_vrh")
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    run = run_training(
        "data=table", f"data.source.path={path}", "target=moduli", "data.on_missing=mask", "split=shuffled",
        "trainer.max_epochs=1", tiny=SMALL,
    )  # fmt: skip
    test = metrics_of(run)["test"]
    assert 0 < test["g_vrh"]["n"] < test["k_vrh"]["n"]


def test_labels_that_the_whole_validation_part_lacks(
    run_training: Callable[..., Run], tmp_path: Path
) -> None:
    rows = embedded_rows(60)
    for number, row in enumerate(rows):
        row["split"] = "train" if number < 40 else "val" if number < 50 else "test"
        if row["split"] == "val":
            row.pop("g_vrh")
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    run = run_training(
        "data=table", f"data.source.path={path}", "target=moduli", "data.on_missing=mask", "split=given",
        "trainer.max_epochs=1", tiny=SMALL,
    )  # fmt: skip
    with (run.folder / "metrics.csv").open() as file:
        (epoch,) = csv.DictReader(file)
    assert 0 < float(epoch["val/loss"]) < 100  # that of k_vrh
    assert run.result == pytest.approx(float(epoch["val/loss"]))
    assert metrics_of(run)["test"]["g_vrh"]["n"] == 10


def test_metal_or_not(run_training: Callable[..., Run], tmp_path: Path) -> None:
    rows = embedded_rows(80)
    for row in rows:
        row.pop("split", None)
        row["band_gap"] = float(any(z in (7, 8, 9, 16, 17) for z in row["z"]))
    path = tmp_path / "gaps.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    run = run_training(
        "data=table",
        f"data.source.path={path}",
        "target=metal",
        "split=shuffled",
        "trainer.max_epochs=3",
        tiny=SMALL,
    )
    metrics = metrics_of(run)
    assert set(metrics["test"]["metal"]) >= {"accuracy", "f1", "roc_auc", "n"}
    assert metrics["monitor"] == "val/metal/accuracy"
    with (run.folder / "predictions.csv").open() as file:
        assert {row["value"] for row in csv.DictReader(file)} <= {"metal", "non-metal"}
    (row,) = rows[:1]
    predictions = load(run.folder, device="cpu").predict([{k: row[k] for k in ("lattice", "z", "frac")}])
    chances = [predictions.columns[f"metal_probability_{name}"][0] for name in ("metal", "non-metal")]
    assert sum(chances) == pytest.approx(1.0, abs=1e-6)
    assert predictions.columns["metal"][0] == ("metal", "non-metal")[int(np.argmax(chances))]


def springs(count: int) -> list[dict[str, Any]]:
    """Crystals of two atoms in a cube, joined by springs: energy and forces by hand."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        frac = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]) + 0.03 * rng.normal(size=(2, 3))
        moved = 4.0 * (frac[1] - frac[0] - 0.5)
        rows.append(
            {
                "id": f"c{number}", "lattice": (4.0 * np.eye(3)).tolist(),
                "z": [11, 17], "frac": frac.tolist(),
                "energy": -3.0 + 0.5 * 2.0 * float(moved @ moved),
                "forces": [(2.0 * moved).tolist(), (-2.0 * moved).tolist()],
            }
        )  # fmt: skip
    return rows


def test_a_force_field_trains_and_its_forces_are_the_gradient(
    run_training: Callable[..., Run], tmp_path: Path
) -> None:
    path = tmp_path / "springs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in springs(40)))
    run = run_training(
        "data=table", f"data.source.path={path}", "target=energy_forces", "split=shuffled", "model=potnet_ff",
        "model.width=16", "model.layers=1", "features.cell=as_given", "data.batch_size=4",
        "trainer.max_epochs=3", "trainer.accelerator=cpu", tiny=[],
    )  # fmt: skip
    metrics = metrics_of(run)
    assert metrics["test"]["energy"]["unit"] == "meV/atom"
    assert metrics["test"]["forces"]["n"] == 6 * metrics["test"]["energy"]["n"]
    predictor = load(run.folder, device="cpu")
    from dataclasses import replace

    from potnet.crystals import Crystal, collate
    from potnet.training.outputs import values_of

    row = springs(1)[0]
    cell = np.array(row["lattice"])
    crystal = Crystal(cell, np.array(row["frac"]) @ cell, np.array(row["z"]), "c")
    graph = predictor.featurizer.featurize([crystal])
    batch, step = collate(graph).double(), 1e-4
    model = predictor.model.double()

    def energy(at: torch.Tensor) -> float:
        moved = replace(batch, positions=at)
        return float(values_of(model, predictor.scalers, predictor.targets, moved)["energy"])

    forces = values_of(model, predictor.scalers, predictor.targets, batch)["forces"]
    for atom, axis in ((0, 0), (1, 2)):
        shift = torch.zeros_like(batch.positions)
        shift[atom, axis] = step
        by_difference = -(energy(batch.positions + shift) - energy(batch.positions - shift)) / (2 * step)
        assert float(forces[atom, axis]) == pytest.approx(by_difference, abs=1e-6)
    assert forces.sum(0).abs().max() < 1e-9


def test_forces_need_a_smooth_network(run_training: Callable[..., Run], tmp_path: Path) -> None:
    from potnet.config import ConfigError

    path = tmp_path / "springs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in springs(10)))
    with pytest.raises(ConfigError, match="not a smooth function of positions"):
        run_training(
            "data=table", f"data.source.path={path}", "target=energy_forces", "split=shuffled",
            "features.cell=as_given", tiny=SMALL,
        )  # fmt: skip
