"""Tiny networks with random weights, as checkpoints: what ensembles and registries are tested with."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from potnet.data import Target, Targets
from potnet.inference.ensemble import Calibration
from potnet.inference.flags import Surroundings
from potnet.inference.intervals import Intervals
from potnet.runs.checkpoint import FORMAT, export
from potnet.runs.record import table_of_elements
from potnet.training.networks import build_network
from potnet.training.scaling import scalers_of

MODEL = {"_target_": "potnet.models.PotNet", "width": 8, "edge_width": 4, "layers": 1, "pairs": "none"}
FEATURES = {"neighbors": {"cutoff": 4.0}, "potentials": None}
K = Target("k_vrh", "GPa", transform="log10")
GAP = Target("band_gap", "eV")


def checkpoint(file: Path, seed: int, target: Target = K, features: dict[str, Any] | None = None) -> Path:
    """A checkpoint of format 2 as training writes it."""
    torch.manual_seed(seed)
    targets = Targets([target])
    model, scalers = build_network(MODEL, targets), scalers_of(targets)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    weights |= {f"scalers.{name}": value for name, value in scalers.state_dict().items()}
    record = {
        "format": FORMAT, "config": {}, "features": features or FEATURES, "dataset": "some crystals",
        "split_hash": "1" * 16, "content_hash": "2" * 16, "versions": {}, "elements": table_of_elements(),
        "training": {"elements": {29: 10, 14: 10, 13: 10}, "max_atoms": 4, "density": [1.0, 12.0]},
    }  # fmt: skip
    settings = {"model": MODEL, "targets": targets.settings()}
    torch.save({"state_dict": weights, "hyper_parameters": settings, "potnet": record}, file)
    return file


def registry(folder: Path, **targets: Target) -> Path:
    """A registry with a model of two members for each target, calibrated on nine scores from 1 to 9."""
    entries = {}
    for name, target in targets.items():
        files = [
            export(
                checkpoint(folder / f"{name}{seed}.ckpt", seed, target), folder / f"{name}{seed}.safetensors"
            )
            for seed in (0, 1)
        ]
        calibration = folder / f"{name}.calibration.safetensors"
        random = torch.Generator().manual_seed(0)
        far = Surroundings.fit(
            100 + torch.randn(50, 8, generator=random), 100 + torch.randn(9, 8, generator=random)
        )
        Calibration({target.key: Intervals(np.arange(1.0, 10.0), 0.01)}, far).save(calibration)
        entries[name] = {
            "members": [{"file": file.name, "sha256": _hash(file)} for file in files],
            "calibration": {"file": calibration.name, "sha256": _hash(calibration)},
            "aliases": [f"{name}_too"],
        }
    file = folder / "registry.yaml"
    file.write_text(yaml.safe_dump(entries))
    return file


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
