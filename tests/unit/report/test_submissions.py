"""Files for leaderboards: what their own programs read."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from potnet.config import ConfigError
from potnet.files import csv_text
from potnet.runs.folder import PREDICTION_COLUMNS
from potnet.runs.report.command import write_report

JARVIS = {
    "_target_": "potnet.data.sources.JarvisSource",
    "name": "jarvis_dft_3d",
    "targets": {"gap": {"column": "optb88vdw_bandgap", "unit": "eV"}},
}
MATBENCH = {
    "_target_": "potnet.data.sources.MatbenchSource",
    "task": None,
    "tasks": {"log_gvrh": {"target": "g_vrh", "column": "log10(G_VRH)", "scale": "log10", "crystals": 11}},
}


def run(folder: Path, key: str, data: dict[str, Any], test: dict[str, tuple[float, float]]) -> Path:
    """A finished run with these labels and predictions."""
    folder.mkdir(parents=True)
    config = {
        "name": "some", "seed": 4, "data": data, "target": {"key": key}, "trainer": {"max_epochs": 3},
        "model": {"_target_": "potnet.models.PotNet"},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [(id, "test", key, *map(str, pair)) for id, pair in test.items()]
    rows.append(("other", "val", key, "1.0", "1.0"))
    (folder / "predictions.csv").write_text(csv_text(PREDICTION_COLUMNS, rows))
    metrics = {"format": 2, "test": {key: {"mae": 0.1, "rmse": 0.1, "r2": 0.1, "n": 2, "unit": ""}}}
    (folder / "metrics.json").write_text(json.dumps({**metrics, "parameters": 7}))
    return folder


def test_jarvis_reads_id_and_prediction_of_the_test_part(tmp_path: Path) -> None:
    """By the name of the file the leaderboard finds the benchmark, and by the ids the labels."""
    where = run(tmp_path / "a", "gap", {"source": JARVIS}, {"JVASP-2": (1.0, 1.25), "JVASP-1": (0.0, 0.5)})
    (file,) = write_report([str(where)], tmp_path / "out", ["jarvis"])
    assert file.name == "AI-SinglePropertyPrediction-optb88vdw_bandgap-dft_3d-test-mae.csv.zip"
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == [file.name.removesuffix(".zip")]
        rows = list(csv.DictReader(io.StringIO(archive.read(archive.namelist()[0]).decode())))
    assert rows == [{"id": "JVASP-2", "prediction": "1.25"}, {"id": "JVASP-1", "prediction": "0.5"}]


def test_several_or_other_runs_are_no_jarvis_submission(tmp_path: Path) -> None:
    """One prediction a crystal, of the leaderboard's own data."""
    one, two = (
        run(tmp_path / "sweep" / name, "gap", {"source": JARVIS}, {"JVASP-2": (1, 1)}) for name in "ab"
    )
    other = run(tmp_path / "c", "gap", {"source": {"name": "mine"}}, {"x": (1.0, 1.0)})
    for runs, message in (
        ([one, two], "several runs of gap"),
        ([other], "learned from mine; runs of data=jarvis"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_report([str(run) for run in runs], tmp_path / "out", ["jarvis"])
    (one / "metrics.json").unlink()
    with pytest.raises(ConfigError, match="unfinished"):
        write_report([str(one)], tmp_path / "out", ["jarvis"])
    assert not (tmp_path / "out").exists()


def folds(folder: Path) -> Path:
    """Five runs of a task of 11 crystals, divided by scikit-learn; predictions are ten times the labels."""
    selection = pytest.importorskip("sklearn.model_selection")
    divided = selection.KFold(5, shuffle=True, random_state=18012019).split(np.arange(11))
    for fold, (_, rows) in enumerate(divided):
        test = {f"mb-log-gvrh-{row + 1:02}": (float(row + 2), 10.0 * (row + 2)) for row in rows.tolist()}
        run(folder / f"{fold}_fold", "g_vrh", {"fold": fold, "source": MATBENCH}, test)
    return folder


def test_matbench_reads_five_folds_with_scores_and_a_hash(tmp_path: Path) -> None:
    """Keys, ids and hash as `MatbenchBenchmark` of matbench 0.6 checks them; log10 as its table."""
    (file,) = write_report([str(folds(tmp_path / "sweep"))], tmp_path / "out", ["matbench"])
    content = json.loads(gzip.decompress(file.read_bytes()))
    found = content.pop("hash")
    assert found == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert set(content) == {
        "@module", "@class", "version", "benchmark_name", "tasks", "user_metadata", "datestamp"
    }  # fmt: skip
    task = content["tasks"]["matbench_log_gvrh"]
    assert set(task) == {"@module", "@class", "dataset_name", "results", "benchmark_name"}
    assert list(task["results"]) == [f"fold_{fold}" for fold in range(5)]
    data = {id: value for fold in task["results"].values() for id, value in fold["data"].items()}
    assert data == pytest.approx({f"mb-log-gvrh-{n + 1:02}": np.log10(10 * (n + 2)) for n in range(11)})
    labels = [np.log10(int(id[-2:]) + 1) for id in task["results"]["fold_0"]["data"]]
    scores = task["results"]["fold_0"]["scores"]
    assert scores == pytest.approx(
        {"mae": 1, "rmse": 1, "max_error": 1, "mape": np.mean(1 / np.array(labels))}
    )
    assert task["results"]["fold_0"]["parameters"]["parameters"] == 7


def test_folds_that_are_missing_or_not_the_official_ones(tmp_path: Path) -> None:
    """The file is not written."""
    sweep = folds(tmp_path / "sweep")
    lines = (sweep / "3_fold" / "predictions.csv").read_text().splitlines()
    (sweep / "3_fold" / "predictions.csv").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    with pytest.raises(ConfigError, match="not that of fold 3 of log_gvrh: 1 of its 2 crystals are missing"):
        write_report([str(sweep)], tmp_path / "out", ["matbench"])
    with pytest.raises(ConfigError, match=r"log_gvrh lacks fold 1, 2, 3, 4: potnet train -m data.fold"):
        write_report([str(sweep / "0_fold")], tmp_path / "out", ["matbench"])
    again = tmp_path / "again"
    folds(again)
    with pytest.raises(ConfigError, match="are both fold 0"):
        write_report([str(sweep), str(again)], tmp_path / "out", ["matbench"])
