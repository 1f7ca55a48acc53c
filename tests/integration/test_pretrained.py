"""From finished runs to an entry of a registry, and from there to an answer with an interval."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from small_models import K, registry

import potnet
from potnet.config import ConfigError
from potnet.data import EmbeddedSource
from potnet.inference.ensemble import Calibration
from potnet.predict import predict_files
from potnet.pretrained import measure
from potnet.pretrained.build import build_entry, main
from potnet.pretrained.outside import judge_outside, read_labelled
from potnet.pretrained.registry import Registry

pytestmark = pytest.mark.xdist_group("prediction")

Run = Any  # conftest.Run


@pytest.fixture(scope="module")
def built(trained: Run, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """A registry with one model of two (equal) members."""
    folder = tmp_path_factory.mktemp("registry")
    build_entry(
        "bulk", [str(trained.folder)] * 2, registry=folder / "registry.yaml", cards=folder / "cards",
        cache_dir=str(cache_dir), aliases=["k"], device="cpu", command=["potnet train ..."],
        train_crystals=50, ood=_sulfides(folder), ood_label="K", ood_title="made-up sulfides",
    )  # fmt: skip
    return folder


def _sulfides(folder: Path) -> Path:
    """A table of two crystals that no data have."""
    file = folder / "sulfides.jsonl"
    rows = [
        {"id": str(n), "atoms": bulk("XeS", "rocksalt", a=a).todict(), "K": 50.0}
        for n, a in enumerate((5.9, 6.1))
    ]
    file.write_text("".join(json.dumps(row, default=np.ndarray.tolist) + "\n" for row in rows))
    return file


def test_an_entry_says_what_it_is_and_keeps_the_figures_of_the_run(built: Path, trained: Run) -> None:
    entry = Registry(built / "registry.yaml")["bulk"].settings
    assert (entry["target"], entry["unit"], entry["learned_unit"]) == ("k_vrh", "GPa", "log10(GPa)")
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    for part in ("val", "test"):
        assert entry["figures"][part]["mae"] == pytest.approx(metrics[part]["k_vrh"]["mae"], rel=1e-3)
    assert entry["figures"]["train"]["n"] == 50
    assert len(entry["members"]) == 2
    assert entry["data"]["split_hash"]
    assert set(entry["figures"]["conformal"]["coverage"]) == {0.5, 0.8, 0.9, 0.95}
    card = (built / "cards" / "bulk.md").read_text()
    for text in ("## For what", "Not for: molecules", "| test | ", "Licence: CC BY 4.0", "potnet train ..."):
        assert text in card
    assert str(Path.home()) not in card
    around = Calibration.load(built / "bulk.calibration.safetensors").surroundings
    assert around is not None
    assert len(around.known) == 50
    labels = {crystal.id: crystal.properties["k_vrh"] for crystal in EmbeddedSource().load().crystals}
    for known in around.known:
        assert known.value == pytest.approx(labels[known.id], rel=1e-3)
    assert (built / "cards" / "bulk.png").is_file()
    assert entry["figures"]["outside"]["rows"]["flagged"]["n"] == 2
    assert "| spread normalised | " in card
    assert potnet.load("bulk", "cpu", registry=built / "registry.yaml").calibration.local_errors  # type: ignore[attr-defined]
    assert "## Crystals of another kind\n\nmade-up sulfides: 2 crystals" in card


def test_the_command_answers_with_intervals(built: Path, tmp_path: Path, capsys: Any) -> None:
    bulk("Cu").write(tmp_path / "cu.cif")
    asked = {"inputs": str(tmp_path / "cu.cif"), "models": "k", "device": "cpu"}
    count, failures = predict_files(
        **asked, registry=str(built / "registry.yaml"), output=str(tmp_path / "out.csv"), level=0.5
    )
    assert (count, failures) == (1, [])
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["id", "k_vrh", "std", "lower", "upper", "flags"]
    assert float(row["lower"]) < float(row["k_vrh"]) < float(row["upper"])
    predict_files(**asked, registry=str(built / "registry.yaml"))
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("id"))
    assert "k_vrh (GPa)" in head
    assert "90 % intervals" in lines[-1]
    with pytest.raises(ConfigError, match="give one of the two"):
        predict_files(checkpoint="x", models="k", inputs="x")


def test_wrong_commands(built: Path, capsys: Any) -> None:
    assert main(["nam=x"]) == 1
    assert "did you mean name" in capsys.readouterr().err
    assert main(["name=x", "ood_atoms=21"]) == 1
    assert "such as 21-40" in capsys.readouterr().err
    assert main(["name=x"]) == 1
    assert "missing key runs" in capsys.readouterr().err
    assert main(["--help"]) == 0


def test_crystals_of_another_kind_are_flagged_and_counted(tmp_path: Path) -> None:
    """Shares, errors and coverage by flag, with labels put inside or outside of the intervals."""
    model = potnet.load("k", "cpu", registry=registry(tmp_path, k=K))
    atoms = [bulk("Cu"), bulk("Al"), bulk("Fe"), bulk("Si")]
    found = model.predict(atoms, level=0.9)
    labels = [found["k_vrh"][0], 2 * found["upper"][1], found["k_vrh"][2], 1e-9]
    rows = [{"id": str(n), "atoms": a.todict(), "k": k, "set": "x" if n < 3 else "y"}
            for n, (a, k) in enumerate(zip(atoms, labels, strict=True))]  # fmt: skip
    file = tmp_path / "more.jsonl"
    file.write_text("".join(json.dumps(row, default=np.ndarray.tolist) + "\n" for row in rows))
    crystals = read_labelled(file, "k_vrh", "k", where='set=="x"', without=["Si"])
    assert {crystal.id for crystal in crystals} == {"0", "1", "2"}
    judged = judge_outside(model, crystals)  # type: ignore[arg-type]
    assert judged["n"] == 3
    # Iron is in no training crystal of these models, and all are far from the training crystals.
    assert judged["rows"]["an element that no training crystal has"]["n"] == 1
    assert judged["rows"]["an element that no training crystal has"]["coverage"] == 1
    assert judged["rows"]["all"]["coverage"] == pytest.approx(2 / 3, rel=1e-3)
    error = np.log10(2 * found["upper"][1] / found["k_vrh"][1])
    assert judged["rows"]["all"]["mae"] == pytest.approx(error / 3, rel=1e-3)
    assert len(read_labelled(file, "k_vrh", "k", most=2)) == 2
    with pytest.raises(ConfigError, match="no crystal with a label"):
        read_labelled(file, "k_vrh", "k", atoms=(5, 6))


def test_divisions_keep_formulas_together() -> None:
    formulas = [f"A{n % 40}" for n in range(400)]
    for seed in range(5):
        fit = measure.halves(formulas, seed)
        assert not {f for f, there in zip(formulas, fit, strict=True) if there} & {
            f for f, there in zip(formulas, fit, strict=True) if not there
        }
        assert 0.2 < fit.mean() < 0.8
    assert not np.array_equal(measure.halves(formulas, 0), measure.halves(formulas, 1))


def test_fine_tuning_by_name_of_a_run(trained: Run, run_training: Any) -> None:
    run = run_training(
        f"finetune.from={trained.folder}", "target=g_vrh", "trainer.max_epochs=1", "finetune.rate=0.5",
        "features.symprec=0.05",
    )  # fmt: skip
    model = potnet.load(run.folder, device="cpu")
    assert list(model.targets) == ["g_vrh"]
    assert model.featurizer.symprec == 0.01
    with pytest.raises(ConfigError, match="at least 20 are needed"):
        run_training(f"finetune.from={trained.folder}", "data.limit=15", "trainer.max_epochs=1")


def test_the_last_layer_knows_where_it_has_not_been() -> None:
    random = np.random.default_rng(0)

    def part(n: int, shift: float) -> measure.Part:
        error = random.standard_normal(n)
        embedding = torch.from_numpy(random.standard_normal((n, 4)) + shift)
        none = [frozenset({1})] * n
        return measure.Part(
            [str(k) for k in range(n)], error, np.zeros((1, n)), embedding, np.ones(n, int), none
        )

    near = measure.last_layer(part(500, 0), part(4000, 0), part(300, 0))
    assert near.mean() == pytest.approx(1.0, abs=0.05)
    assert measure.last_layer(part(500, 0), part(4000, 0), part(300, 50)).min() > 2
