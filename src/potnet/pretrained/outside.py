"""Intervals and flags on crystals of another kind than those of training."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from potnet.config import ConfigError
from potnet.data.sources.base import Removal
from potnet.data.sources.table import TableSource
from potnet.pretrained.measure import rounded

if TYPE_CHECKING:
    from potnet.inference.ensemble import Ensemble

FLAGS = {
    "an element that no training crystal has": "no training crystal has",
    "an element that few training crystals have": "few training crystals have",
    "a larger cell": "training crystals have at most",
    "another density": "density ",
    "atoms without neighbours": "neighbour within the cutoff",
    "far from the training crystals": "unlike the training crystals",
}
"""Kinds of flags for people, and the text by which each is known."""

LEVEL = 0.9


def read_labelled(
    file: str | Path,
    target: str,
    label: str | None = None,
    where: str | None = None,
    atoms: tuple[int, int] | None = None,
    without: Collection[str] = (),
    most: int = 1000,
) -> list[Any]:
    """Crystals with labels from a table.

    Args:
        file: See `TableSource`.
        target: Key of the label, which gets it as a property, in the unit of the target.
        label: Its column; None is the key.
        where: Which rows, such as 'embedded_split=="new"'.
        atoms: Fewest and most atoms of the cell.
        without: Reduced formulas that are left out: those of the training data.
        most: More are cut down to this number, by a hash of their ids.

    Raises:
        ConfigError: None is left.
        DataError: The table cannot be read.
    """
    source = TableSource(file, targets={target: label or target}, where=where, plausibility="ignore")
    low, high = atoms or (1, 10**9)
    found = [
        item.crystal
        for item in source.read("skip")
        if not isinstance(item, Removal)
        and np.isfinite(item.crystal.properties.get(target, np.nan))
        and low <= len(item.crystal) <= high
        and item.crystal.formula not in without
    ]
    if not found:
        raise ConfigError(
            f"ood={file}: no crystal with a label and a formula that is not in the data is left"
        )
    return sorted(found, key=lambda crystal: hashlib.sha256(crystal.id.encode()).digest())[:most]


def judge_outside(ensemble: Ensemble, crystals: list[Any]) -> dict[str, Any]:
    """What flags and intervals are worth on crystals with labels.

    Args:
        ensemble: With a calibration of its one target.
        crystals: Whose property of the target's key is the label.

    Returns:
        `n`; `failed`, how many could not be predicted; and `rows`, by "all", "not flagged", "flagged" and the
        kinds of flags that occur: `n`, `share` of all, `mae` in the learned unit, `coverage` of the intervals
        at 0.9, median `width` in the learned unit.
    """
    target = ensemble.targets.first
    found = ensemble.predict(crystals, on_error="skip", level=LEVEL)
    label = {crystal.id: crystal.properties[target.key] for crystal in crystals}

    def learned(values: Any) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return target.learned(torch.as_tensor(np.asarray(values, dtype=np.float64))).numpy()

    truth = np.array([label[id] for id in found.ids], dtype=np.float64)
    error = np.abs(learned(found[target.key]) - learned(truth))
    inside = (found["lower"] <= truth) & (truth <= found["upper"])
    width = learned(found["upper"]) - learned(found["lower"])
    flagged = np.array([bool(text) for text in found.flags], dtype=bool)
    groups = {"all": np.ones(len(found), dtype=bool), "not flagged": ~flagged, "flagged": flagged}
    groups |= {kind: np.array([sign in text for text in found.flags]) for kind, sign in FLAGS.items()}
    rows = {
        name: {
            "n": int(chosen.sum()),
            "share": rounded(chosen.mean()),
            "mae": rounded(error[chosen].mean()),
            "coverage": rounded(inside[chosen].mean()),
            "width": rounded(np.median(width[chosen])),
        }
        for name, chosen in groups.items()
        if chosen.any()
    }
    return {"n": len(found), "failed": len(found.failures), "rows": rows}
