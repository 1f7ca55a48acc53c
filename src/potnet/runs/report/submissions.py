"""Files for public leaderboards from the predictions of finished runs.

JARVIS-Leaderboard (https://pages.nist.gov/jarvis_leaderboard): a CSV `id,prediction` of the test part for
each property, zipped, `AI-SinglePropertyPrediction-PROPERTY-DATASET-test-mae.csv.zip`.

Matbench v0.1 (https://matbench.materialsproject.org): what `MatbenchBenchmark.to_file` of matbench 0.6
writes, with predictions, scores and parameters of the five folds of each task, gzipped.
"""  # fmt: skip

from __future__ import annotations

import datetime
import gzip
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from potnet.config import ConfigError
from potnet.data.sources.matbench import chosen_task, matbench_id
from potnet.data.splits.published import MATBENCH_FOLDS, matbench_test_rows
from potnet.files import csv_text
from potnet.runs.report.collect import Run

JARVIS_DATASETS = {"jarvis_dft_3d": "dft_3d", "mp_megnet": "megnet"}
"""Name of a source of ours -> that of the leaderboard."""

MATBENCH_VERSION = "0.6"

MATBENCH_FILE = "results.json.gz"

LEAST_LABEL = 1e-5
"""Labels nearer to 0 do not count in matbench's mean absolute percentage error."""


def jarvis_files(runs: Sequence[Run]) -> dict[str, bytes]:
    """Contents by file name: one file for each property that was learned.

    Raises:
        ConfigError: A run is not finished, is of other data or of classes, or two are of one property.
    """
    found: dict[str, bytes] = {}
    for run in (one for entry in runs for one in entry.by_target()):
        source = run.config["data"]["source"]
        dataset = JARVIS_DATASETS.get(str(source.get("name")))
        if dataset is None:
            raise ConfigError(
                f"format=jarvis: {run.folder} learned from {source.get('name') or 'a table of yours'}; "
                "runs of data=jarvis_dft_3d or data=mp_megnet are wanted"
            )
        label = str(source["targets"][run.key]["column"]).replace(" ", "")
        name = f"AI-SinglePropertyPrediction-{label}-{dataset}-test-mae.csv"
        if f"{name}.zip" in found:
            raise ConfigError(
                f"format=jarvis: several runs of {run.key}: a submission has one prediction a crystal, so "
                "give the folder of one run"
            )
        rows = [(id, repr(value)) for id, (_, value) in _test_part(run, "jarvis").items()]
        found[f"{name}.zip"] = _zipped(name, csv_text(("id", "prediction"), rows))
    return found


def matbench_file(runs: Sequence[Run]) -> dict[str, bytes]:
    """The content of results.json.gz, by its name.

    Raises:
        ConfigError: A run is not finished or of other data, a fold is missing or there twice, or a test part
            is not that of the official fold.
    """
    folds: dict[str, dict[int, Run]] = {}
    for run in runs:
        data = run.config["data"]
        source = data["source"]
        if "MatbenchSource" not in str(source.get("_target_")):
            raise ConfigError(f"format=matbench: {run.folder} is not a run of data=matbench")
        task = chosen_task(source["tasks"], run.key, source.get("task"))
        fold = int(data["fold"])
        if fold in folds.setdefault(task, {}):
            raise ConfigError(
                f"format=matbench: {folds[task][fold].folder} and {run.folder} are both fold {fold} of "
                f"{task}: a submission has one run a fold"
            )
        folds[task][fold] = run
    tasks = {}
    for task, by_fold in sorted(folds.items()):
        missing = [str(fold) for fold in range(MATBENCH_FOLDS) if fold not in by_fold]
        if missing:
            raise ConfigError(
                f"format=matbench: {task} lacks fold {', '.join(missing)}: potnet train -m "
                "data.fold=0,1,2,3,4 trains all"
            )
        tasks[f"matbench_{task}"] = {
            "@module": "matbench.task",
            "@class": "MatbenchTask",
            "benchmark_name": "matbench_v0.1",
            "dataset_name": f"matbench_{task}",
            "results": {f"fold_{fold}": _fold(by_fold[fold], task, fold) for fold in sorted(by_fold)},
        }
    now = datetime.datetime.now(datetime.UTC)
    content: dict[str, Any] = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": MATBENCH_VERSION,
        "tasks": tasks,
        "user_metadata": {},
        "benchmark_name": "matbench_v0.1",
        "datestamp": now.strftime("%Y.%m.%d %H:%M.%S"),
    }
    # matbench refuses a file whose content does not have this hash.
    content["hash"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {MATBENCH_FILE: gzip.compress(json.dumps(content).encode(), mtime=0)}


def _fold(run: Run, task: str, fold: int) -> dict[str, Any]:
    """What matbench records of one fold; values in the scale of its table, such as log10(G)."""
    settings = run.config["data"]["source"]["tasks"][task]
    values = _test_part(run, "matbench")
    if settings.get("scale") == "log10":
        values = {id: (math.log10(label), math.log10(value)) for id, (label, value) in values.items()}
    total = int(settings["crystals"])
    wanted = [matbench_id(task, int(row) + 1, total) for row in matbench_test_rows(total, fold)]
    if set(wanted) != set(values):
        raise ConfigError(
            f"format=matbench: the test part of {run.folder} is not that of fold {fold} of {task}: "
            f"{len(set(wanted) - set(values))} of its {len(wanted)} crystals are missing, "
            f"{len(set(values) - set(wanted))} do not belong to it. Train on all of data=matbench with "
            "split=published"
        )
    label, value = np.array([values[id] for id in wanted]).T
    error = np.abs(value - label)
    counted = np.abs(label) > LEAST_LABEL
    metrics = run.metrics or {}
    return {
        "data": {id: values[id][1] for id in wanted},
        "parameters": {
            "model": str(run.config["model"].get("_target_")),
            "parameters": metrics.get("parameters"),
            "epochs": run.config.get("trainer", {}).get("max_epochs"),
            "seed": run.config.get("seed"),
        },
        "scores": {
            "mae": float(error.mean()),
            "rmse": float(np.sqrt(np.square(error).mean())),
            "mape": float(np.mean(error[counted] / np.abs(label[counted]))),
            "max_error": float(error.max()),
        },
    }


def _test_part(run: Run, board: str) -> dict[str, tuple[float, float]]:
    """Label and prediction of each crystal of the test part, in physical units.

    Raises:
        ConfigError: The run is not finished, or one of them is no number.
    """
    if run.metrics is None:
        raise ConfigError(f"format={board}: {run.folder} is {run.status}; finished runs are wanted")
    if run.is_class:
        raise ConfigError(f"format={board}: {run.folder} predicts classes; a number a crystal is wanted")
    rows = [row for row in run.predictions if row.part == "test"]
    found = {row.id: row.numbers for row in rows}
    without = [id for id, pair in found.items() if pair is None]
    if without or not rows:
        what = f"no number for {without[0]}" if without else "no test part"
        raise ConfigError(f"format={board}: {run.folder} has {what}")
    return {id: pair for id, pair in found.items() if pair is not None}


def _zipped(name: str, text: str) -> bytes:
    """One file in an archive that is the same whenever it is made."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return held.getvalue()
