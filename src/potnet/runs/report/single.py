"""What the page of one run shows: its errors, worst crystals, and errors by element."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import Any

from potnet.runs.folder import number
from potnet.runs.periodic_table import ElementError
from potnet.runs.report.collect import Run

MOST = 20
"""Crystals in a list of the worst."""


@dataclass(frozen=True)
class Crystal:
    """A crystal that the run predicts badly.

    Attributes:
        id: Its name.
        formula: "" where it is not known.
        value, prediction: Physical units, as text.
        error: In the unit of the metrics.
    """

    id: str
    formula: str
    value: str
    prediction: str
    error: float


def facts(run: Run) -> dict[str, str]:
    """What is worth knowing of a run in a few words."""
    metrics, config = run.metrics or {}, run.config
    found = {
        "folder": str(run.folder),
        "status": run.status,
        "data": data_name(run),
        "model": str((config.get("model") or {}).get("_target_", "")).rpartition(".")[2],
        "seed": str(config.get("seed", "")),
        "epochs": f"{len(run.epochs)} of {(config.get('trainer') or {}).get('max_epochs')}",
        "parameters": f"{metrics['parameters']:,}".replace(",", " ") if "parameters" in metrics else "",
        "time": f"{metrics['seconds']['total'] / 60:.1f} min" if "seconds" in metrics else "",
        "monitor": str(metrics.get("monitor") or ""),
    }
    return {key: value for key, value in found.items() if value}


def data_name(run: Run) -> str:
    """Name of the data set as in data.txt, or the class of the source where there is no data.txt."""
    if run.files.data.is_file():
        return run.files.data.read_text().partition("\n")[0].removeprefix("data: ")
    source = (run.config.get("data") or {}).get("source") or {}
    return str(source.get("_target_", "")).rpartition(".")[2]


def metric_rows(run: Run) -> list[dict[str, Any]]:
    """The final metrics of each part, as in metrics.json, with the name of the part."""
    rows = []
    for part in ("train", "val", "test"):
        found = ((run.metrics or {}).get(part) or {}).get(run.key)
        if found:
            rows.append({"part": part, **found})
    return rows


def pairs(run: Run, part: str) -> list[tuple[str, float, float]]:
    """Id, label and prediction of each crystal of a part, in physical units; only numbers."""
    found = []
    for row in run.predictions:
        both = row.numbers if row.part == part and not run.is_class else None
        if both is not None:
            found.append((row.id, *both))
    return found


def worst_crystals(run: Run, part: str) -> list[Crystal]:
    """The crystals of a part with the largest errors, the worst first."""
    formulas = {row["id"]: row.get("formula", "") for row in _table(run, "worst")}
    values = {row.id: row for row in run.predictions if row.part == part}
    errors = sorted(run.errors(part).items(), key=lambda item: -item[1])[:MOST]
    return [
        Crystal(id, formulas.get(id, ""), values[id].value, values[id].prediction, error)
        for id, error in errors
        if error > 0
    ]


def element_errors(run: Run) -> dict[int, ElementError]:
    """Error of each element over the test crystals that contain it; empty where formulas are not known."""
    found = {}
    for row in _table(run, "elements"):
        error, crystals = number(row.get("error")), number(row.get("crystals"))
        if error is not None and crystals is not None and math.isfinite(error):
            found[int(row["z"])] = ElementError(error, int(crystals))
    return found


def _table(run: Run, name: str) -> list[dict[str, str]]:
    """Rows of one of the run's tables by target."""
    file = {"worst": run.files.worst, "elements": run.files.elements}[name]
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row.get("target") == run.key]
