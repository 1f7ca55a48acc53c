"""The three pages: one run, a study, a search; and runs of the present format, with several targets."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from potnet.config import ConfigError
from potnet.files import csv_text
from potnet.runs.folder import ELEMENT_COLUMNS, PREDICTION_COLUMNS, WORST_COLUMNS, RunFolder
from potnet.runs.report import collect, sections
from potnet.runs.report.command import write_report
from potnet.runs.report.html import page_data
from potnet.runs.report.names import name_rows, short_value
from potnet.runs.report.plots import coordinates, looks, trials
from potnet.runs.report.search import axis_of, ranked

WriteRun = Any

MODULI = {
    "k_vrh": {"key": "k_vrh", "unit": "GPa", "transform": "log10"},
    "metal": {"key": "metal", "kind": "classification", "classes": ["metal", "insulator"]},
}


def write_format_2(folder: Path, config: dict[str, Any] | None = None, error: float = 0.1) -> RunFolder:
    """A finished run with two targets, one of them a classification."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    settings = {"name": "two", "seed": 0, "target": MODULI, "model": {"_target_": "potnet.models.PotNet"}}
    run.config.write_text(yaml.safe_dump({**settings, "trainer": {"max_epochs": 2}, **(config or {})}))
    rows = [(e, 0.5 - 0.1 * e, 0.4 - 0.1 * e, 0.3, 0.8, 1.0) for e in range(2)]
    header = (
        "epoch",
        "train/k_vrh/mae",
        "val/k_vrh/mae",
        "train/metal/error",
        "val/metal/accuracy",
        "seconds",
    )
    run.epochs.write_text(csv_text(header, rows))
    lines = [(f"c{i}", "test", "k_vrh", "100", f"{100 * 10 ** (error * i)}") for i in range(4)]
    lines += [(f"c{i}", "test", "metal", "metal", "metal" if i else "insulator") for i in range(4)]
    lines.append(("c9", "test", "k_vrh", "", "5"))  # no label
    run.predictions.write_text(csv_text(PREDICTION_COLUMNS, lines))
    run.worst.write_text(csv_text(WORST_COLUMNS, [("k_vrh", "c3", "NaCl", 2, 100, 200, 0.3)]))
    run.elements.write_text(
        csv_text(ELEMENT_COLUMNS, [("k_vrh", 11, "Na", 0.2, 12), ("k_vrh", 17, "Cl", 0.3, 2)])
    )
    figures = {
        "k_vrh": {"mae": 1.5 * error, "rmse": 0.2, "r2": 0.9, "n": 4, "unit": "log10(GPa)"},
        "metal": {"accuracy": 0.75, "f1": 0.8, "roc_auc": None, "log_loss": float("nan"), "n": 4, "unit": ""},
    }
    run.write_results({"val": figures, "test": figures, "parameters": 10, "seconds": {"total": 60.0}})
    return run


def test_results_are_valid_json_with_a_format(tmp_path: Path) -> None:
    run = write_format_2(tmp_path / "run")
    assert "NaN" not in run.results.read_text()
    assert run.metrics()["format"] == 2  # type: ignore[index]


def test_each_target_is_a_section(tmp_path: Path) -> None:
    write_format_2(tmp_path / "run")
    moduli, metal = sections(collect([tmp_path]))
    assert (moduli.key, moduli.unit, moduli.measure) == ("k_vrh", "log10(GPa)", "MAE")
    assert (metal.key, metal.unit, metal.measure) == ("metal", "", "wrong classes")
    assert moduli.rows[0].error("test").mean == pytest.approx(0.15)  # type: ignore[union-attr]
    assert metal.rows[0].error("test").mean == pytest.approx(0.25)  # type: ignore[union-attr]
    assert moduli.rows[0].runs[0].errors("test") == pytest.approx({f"c{i}": 0.1 * i for i in range(4)})
    assert sum(metal.rows[0].runs[0].errors("test").values()) == 1
    assert metal.rows[0].runs[0].curve("val") == [(1, pytest.approx(0.2)), (2, pytest.approx(0.2))]


def test_page_of_one_run(tmp_path: Path) -> None:
    write_format_2(tmp_path / "run").data.write_text("data: mine\nlicence: CC0\n")
    written = write_report([str(tmp_path / "run")], tmp_path / "report", ["markdown", "csv", "png"])
    names = {file.name for file in written}
    assert {"parity_k_vrh.png", "elements_k_vrh.png", "learning_k_vrh.png", "learning_metal.png"} <= names
    assert "errors_k_vrh.png" not in names
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| c3 | NaCl | 100 | 199.5 | 0.3000 |" in text
    assert "difference" not in text  # nothing to compare with
    assert "accuracy" in text
    data = page_data(sections(collect([tmp_path / "run"])), [], "run")
    assert "<title>c0: 100, predicted 100</title>" in data["sections"][0]["pictures"]["parity"]
    assert [e["unsure"] for e in data["sections"][0]["elements"]] == [False, True]
    assert data["facts"]["parameters"] == "10"
    assert data["facts"]["data"] == "mine"


def test_wandb_and_hydra_leave_no_runs(tmp_path: Path) -> None:
    run = write_format_2(tmp_path / "run")
    files = run.path / "wandb" / "offline-run-1" / "files"
    files.mkdir(parents=True)
    (files / "config.yaml").write_text(yaml.safe_dump({"target": {"value": MODULI}, "_wandb": {"value": {}}}))
    run.hydra.mkdir()
    (run.hydra / "config.yaml").write_text(run.config.read_text())
    assert [found.folder for found in collect([tmp_path])] == [run.path]


def test_folds_are_averaged_and_the_fold_of_a_model_is_not(tmp_path: Path) -> None:
    for fold in range(3):
        write_format_2(tmp_path / f"{fold}", {"data": {"fold": fold}}, error=0.1 + 0.01 * fold)
    (section, _) = sections(collect([tmp_path]))
    (row,) = section.rows
    assert row.error("test").n == 3  # type: ignore[union-attr]
    write_format_2(tmp_path / "3", {"data": {"fold": 0}, "model": {"_target_": "a", "fold": True}})
    assert len(sections(collect([tmp_path]))[0].rows) == 2
    assert len(sections(collect([tmp_path]), over=["seed"])[0].rows) == 4
    with pytest.raises(ConfigError, match=r"over=\[foldd\]: no run has this setting; did you mean fold\?"):
        sections(collect([tmp_path]), over=["foldd"])


@pytest.fixture
def search(tmp_path: Path, write_run: WriteRun) -> Path:
    """Four trials of Optuna, one of which failed."""
    sweep = tmp_path / "multirun" / "search"
    sweep.mkdir(parents=True)
    for n, (rate, width, error) in enumerate(
        [(0.00123456789012, 64, 0.3), (0.01, 128, 0.1), (0.0004, 96, 0.2), (0.002, 96, None)]
    ):
        folder = write_run(sweep, "complete", 0, None if error is None else (error, error))
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        settings |= {"optimizer": {"learning_rate": rate}, "model": {"width": width, "half": width // 2}}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        overrides = [f"optimizer.learning_rate={rate}", f"model.width={width}", "search=all"]
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
        # Optuna's sweeper leaves no multirun.yaml.
        sweeper = {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"}
        hydra = {"hydra": {"mode": "MULTIRUN", "sweeper": sweeper}}
        (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
        folder.rename(sweep / f"{n}_trial")
    return sweep


def test_a_search_is_sorted_with_the_best_first(search: Path, tmp_path: Path) -> None:
    (section,) = [ranked(section) for section in sections(collect([search]))]
    names = [row.name for row in section.rows]
    assert names[0] == "learning_rate=0.01, width=128"
    assert "learning_rate=0.001235, width=64" in names  # four digits
    assert section.reference is section.rows[0]
    assert not section.rows[-1].finished
    assert [best for _, _, best in trials(section)] == pytest.approx([0.31, 0.11, 0.11])
    written = write_report([str(search)], tmp_path / "report", ["markdown", "png"])
    assert {file.name for file in written} == {"report.md", "parallel_k_vrh.png", "trials_k_vrh.png"}
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| learning_rate | width | val MAE | test MAE |" in text
    assert "| **1** | **0.01** | **128** | **0.1100** | **0.1000** |" in text
    data = page_data([section], [], "search")["sections"][0]
    assert data["parameters"] == ["learning_rate", "width"]  # not what follows from them
    assert f"<title>{names[0]}: 0.1100</title>" in data["pictures"]["parallel"]
    assert "<title>trial 1: 0.1100</title>" in data["pictures"]["trials"]
    assert len(coordinates(section)["axes"]) == 3


def test_axes_of_parallel_coordinates() -> None:
    places, labels = axis_of([1e-4, 1e-2, 1e-3])
    assert places == pytest.approx([0.0, 1.0, 0.5])  # logarithmic
    assert [text for _, text in labels] == ["0.0001", "0.001", "0.01"]
    assert [place for place, _ in labels] == pytest.approx([0.0, 0.5, 1.0])
    assert axis_of([1, 2, 3])[0] == pytest.approx([0.0, 0.5, 1.0])
    assert axis_of(["b", "a", None])[0] == [0.5, 0.0, 1.0]
    assert axis_of([2.0, 2.0])[0] == [0.5, 0.5]


def test_names_are_short_and_differ() -> None:
    assert short_value("0.12345678901234567") == "0.1235"
    assert (short_value("64"), short_value(10000), short_value(None)) == ("64", "10000", "null")
    rows = [(["a.rate=0.123456781"], {}), (["a.rate=0.123456782"], {}), (["a.rate=0.5"], {})]
    assert name_rows(rows, ["seed"]) == ["rate=0.1235 (1)", "rate=0.1235 (2)", "rate=0.5"]
    models = [(["model=potnet", "seed=1"], {}), (["model=schnet", "seed=1"], {})]
    assert name_rows(models, ["seed"]) == ["potnet", "schnet"]  # the name of an option says what it is


def test_each_row_has_its_look(study: Path) -> None:
    (section,) = sections(collect([study]))
    found = looks(section)
    assert found.keys() == {row.name for row in section.rows}
    assert len(set(found.values())) == len(section.rows)


def test_the_page_is_small(study: Path, tmp_path: Path) -> None:
    """Plotly's script alone was 2 MB."""
    (file,) = write_report([str(study)], tmp_path / "report", ["html"])
    assert file.stat().st_size < 1.5e5


def test_old_runs_are_read_as_the_present_format(study: Path) -> None:
    run = RunFolder(collect([study])[0].folder)
    metrics = run.metrics()
    assert metrics is not None
    assert metrics["test"]["k_vrh"]["unit"] == "log10(GPa)"
    assert metrics["monitor"] == "val/k_vrh/mae"
    assert {row.target for row in run.rows()} == {"k_vrh"}
    assert "val/k_vrh/mae" in run.history()[0]


def test_csv_of_a_search_has_every_trial(search: Path, tmp_path: Path) -> None:
    write_report([str(search)], tmp_path / "report", ["csv"])
    with (tmp_path / "report" / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["finished"] for row in rows] == ["1", "1", "1", "0"]
    assert json.dumps(rows[0])


def test_a_sweep_over_folds_ends_with_its_mean(tmp_path: Path) -> None:
    from potnet.runs.sweeps import SweepReport

    for fold in range(3):
        write_format_2(tmp_path / f"{fold}_fold", {"data": {"fold": fold}}, error=0.1 + 0.01 * fold)
    first, second = SweepReport._means(tmp_path)
    assert first == (
        "k_vrh: val MAE 0.1650 ± 0.0150, test MAE 0.1650 ± 0.0150 log10(GPa) "
        "(mean ± standard deviation of 3 runs)"
    )
    assert second.startswith("metal: val wrong classes 0.2500 ± 0.0000")
    assert SweepReport._means(tmp_path / "0_fold") == []
