"""Folders of runs as training leaves them, without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from potnet.files import csv_text

PUBLISHED = {"mae": 0.04, "unit": "log10(GPa)", "source": "A paper, 2023", "data": "other_set"}
#: Error of each of four crystals by ablation; a seed adds a hundredth of itself.
ERRORS = {
    "complete": (0.10, 0.20, 0.10, 0.20),
    "pairs_none": (0.15, 0.25, 0.18, 0.22),
    "radius_4": (0.10, 0.20, 0.10, 0.20),
}

WriteRun = Callable[..., Path]


def config(ablation: str, seed: int, target: str = "k_vrh", transform: str = "log10") -> dict[str, Any]:
    cut = {"radius_4": 4.0}.get(ablation)
    return {
        "name": "study",
        "seed": seed,
        "published": PUBLISHED if target == "k_vrh" else None,
        "data": {"_target_": "potnet.data.CrystalDataModule", "seed": seed, "cache_dir": f"cache{seed}"},
        "target": {"key": target, "name": "bulk modulus", "unit": "GPa", "transform": transform},
        "features": {"pair_cutoff": cut, "potentials": [{"_target_": "potnet.lattice.Pauli", "alpha": 3.0}]},
        "model": {"pairs": "none" if ablation == "pairs_none" else "complete"},
        "trainer": {"max_epochs": 3},
    }


@pytest.fixture
def write_run() -> WriteRun:
    """Writes one job's folder below another folder; without errors the run is unfinished."""

    def write(
        sweep: Path,
        ablation: str,
        seed: int,
        errors: tuple[float, ...] | None = None,
        epochs: int = 3,
        overrides: bool = True,
        **target: str,
    ) -> Path:
        folder = sweep / f"{len(list(sweep.glob('*/')))}_ablation={ablation},seed={seed}"
        (folder / ".hydra").mkdir(parents=True)
        settings = config(ablation, seed, **target)
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        if overrides:
            given = [f"ablation={ablation}", f"seed={seed}", "trainer.max_epochs=3"]
            if "target" in target:
                given.append(f"target={target['target']}")
            (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(given))
        rows = [(epoch, 1 / (epoch + 1) + 0.01 * seed, 2.0 + epoch) for epoch in range(epochs)]
        (folder / "metrics.csv").write_text(csv_text(("epoch", "val/mae", "seconds"), rows))
        if errors is not None:
            write_results(folder, errors, settings)
        return folder

    return write


def write_results(folder: Path, errors: tuple[float, ...], settings: Mapping[str, Any]) -> None:
    log = settings["target"]["transform"] == "log10"
    mae = sum(errors) / len(errors)
    part = {"mae": mae, "rmse": mae, "r2": None, "n": len(errors), "unit": "log10(GPa)" if log else "GPa"}
    metrics = {
        "val": {**part, "mae": mae + 0.01},
        "test": part,
        "parameters": 1234,
        "epochs": 3,
        "seconds": {"total": 60.0, "train": 50.0},
        "interrupted": False,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    table = [
        (f"mp-{i}", "test", 100.0, 100.0 * 10**error if log else 100.0 - error)
        for i, error in enumerate(errors)
    ]
    table.append(("mp-9", "val", 1.0, 1.0))
    (folder / "predictions.csv").write_text(csv_text(("id", "split", "target", "prediction"), table))


@pytest.fixture
def study(tmp_path: Path, write_run: WriteRun) -> Path:
    """Two seeds of two rows, one of a third and a job of it that failed, and a third seed half-way."""
    sweep = tmp_path / "multirun" / "study"
    sweep.mkdir(parents=True)
    for ablation, seeds in (("pairs_none", (0, 1)), ("complete", (0, 1)), ("radius_4", (0,))):
        for seed in seeds:
            write_run(sweep, ablation, seed, tuple(error + 0.01 * seed for error in ERRORS[ablation]))
    failed = write_run(sweep, "radius_4", 1, epochs=1)
    (failed / "error.txt").write_text("data.limit=0: must be positive\n\nTraceback ...")
    write_run(sweep, "complete", 2, epochs=2)
    return sweep
