"""The record that a checkpoint keeps beside its weights: what it is, and how it came about."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from potnet.runs.errors import CheckpointError

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule

log = logging.getLogger(__name__)

FORMAT = 2
"""Of checkpoints. Raised whenever an older version of the package could not read a new one."""


def record_of(config: Mapping[str, Any], data: CrystalDataModule) -> dict[str, Any]:
    """What a checkpoint keeps beside the weights: enough to predict, to evaluate again, to know its data.

    Args:
        config: Plain config of the run.
        data: Set up.
    """
    from potnet.data.features.domain import training_domain

    rows = data.dataset("train").rows
    _warn_about_edges(data, rows)
    return {
        "format": FORMAT,
        "config": portable(config),
        "features": data.featurizer.settings(),
        "dataset": data.source.name,
        "content_hash": data.source.content_hash(),
        "split_hash": data.split.hash(),
        "versions": versions(),
        "elements": table_of_elements(),
        "training": training_domain(data.store, rows),
    }


def _warn_about_edges(data: CrystalDataModule, rows: np.ndarray) -> None:
    """Say that crystals have no local edge, as with a cutoff that is too short."""
    neighbors = data.featurizer.neighbors
    if neighbors is None:
        return
    alone = int((data.store.num_edges[rows] == 0).sum())
    if alone:
        log.warning(
            "%d of %d training crystals have no local edge with features.neighbors.cutoff=%s: the network "
            "sees nothing of their structure through edges; choose a larger cutoff",
            alone, len(rows), neighbors.get("cutoff"),
        )  # fmt: skip


def portable(config: Any) -> Any:
    """A plain config without places of this machine: absolute paths are cut to their last part.

    The cache folder is left out. A run's folder keeps the whole paths, in config.yaml.
    """
    if isinstance(config, Mapping):
        return {key: None if key == "cache_dir" else portable(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [portable(value) for value in config]
    if not isinstance(config, str):
        return config
    if config.startswith(("/", "~")) or config[1:3] == ":\\":
        return Path(config.replace("\\", "/")).name
    homes = {str(Path.home()), str(Path.home().resolve())} - {"/"}
    for home in homes:
        config = config.replace(home, "~")
    return config


def table_of_elements() -> dict[str, Any]:
    """What a checkpoint keeps of the features of elements: `table`, (Z, 92) uint8 of zeros and ones.

    The table comes with another package, whose next release may have another one.
    """
    from potnet.nn.elements import atom_table

    return {"table": atom_table().to(torch.uint8)}


def restore_elements(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Give a network the table of elements that it was trained with, if its checkpoint has one.

    Args:
        model: Whose `ElementFeatures`, wherever they are, are changed.
        record: Of the checkpoint.

    Raises:
        CheckpointError: The table has another form.
    """
    from potnet.nn.elements import ElementFeatures

    table = (record.get("elements") or {}).get("table")
    if table is None:
        return
    for layer in model.modules():
        if isinstance(layer, ElementFeatures):
            rows, columns = table.shape
            if rows != layer.table.shape[0] or columns > layer.table.shape[1]:
                raise CheckpointError(
                    f"its table of elements is {tuple(table.shape)}, expected {tuple(layer.table.shape)}"
                )
            layer.table[:, :columns] = table.to(layer.table)


def versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    found = {"python": platform.python_version()}
    for name in ("potnet", "torch", "lightning", "numpy", "moyopy", "vesin", "gemmi", "ase", "jarvis-tools"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Commit of the checkout that the package runs from, and whether it was changed; empty if installed."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}  # no git here, or not a checkout that this user may read
