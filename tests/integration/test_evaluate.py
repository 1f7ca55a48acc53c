"""`potnet evaluate`: the data must be those of the run, and nothing else may be built from its files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ase.build import bulk

from potnet.config import ConfigError
from potnet.data.errors import DataError
from potnet.evaluate import evaluate_checkpoint
from potnet.evaluate import main as evaluate
from potnet.predict import main as predict
from potnet.runs.checkpoint import CheckpointError
from potnet.runs.folder import RunFolder

pytestmark = pytest.mark.xdist_group("evaluate")

Run = Any  # conftest.Run


def write_table(path: Path, shift: float = 0.0) -> None:
    lines = []
    for n in range(24):
        atoms = bulk("Cu", a=3.4 + 0.02 * n)
        record = {
            "id": f"c{n}", "lattice": atoms.cell[:].tolist(), "z": [29], "frac": [[0, 0, 0]],
            "k": 100.0 + n + shift, "kind": ("old", "new")[n % 8 // 4],
            "split": ("train", "train", "val", "test")[n % 4],
        }  # fmt: skip
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def on_a_table(
    run_training: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path]:
    table = tmp_path_factory.mktemp("data") / "mine.jsonl"
    write_table(table)
    settings = (
        "data=table",
        f"data.source.path={table}",
        "target.key=k",
        "target.name=null",
        "data.limit=null",
    )
    return run_training(*settings, "trainer.max_epochs=1", "data.batch_size=8"), table


def test_figures_by_a_column(
    on_a_table: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = on_a_table
    (every,) = evaluate_checkpoint(run.folder, ["test"])
    new, old = evaluate_checkpoint(run.folder, ["test"], by="kind")
    assert (new.group, old.group) == ("new", "old")
    assert new.ids == ["c7", "c15", "c23"]
    assert sorted(new.ids + old.ids) == sorted(every.ids)
    errors = dict(zip(every.ids, every.errors.tolist(), strict=True))
    for one in (new, old):
        assert one.metrics["n"] == 3
        assert one.metrics["mae"] == pytest.approx(sum(errors[id] for id in one.ids) / 3, rel=1e-5)
    with pytest.raises(DataError, match="did you mean kind"):
        evaluate_checkpoint(run.folder, ["test"], by="kinds")
    from potnet.runs import evaluation

    monkeypatch.setattr(evaluation, "MOST_GROUPS", 5)
    with pytest.raises(DataError, match="test has 6 values of it, more than 5"):
        evaluate_checkpoint(run.folder, ["test"], by="k")
    evaluation.print_table("by kind", [new, old])
    assert capsys.readouterr().out.count("new") == 1


def test_labels_that_changed_are_refused(on_a_table: tuple[Run, Path], tmp_path: Path) -> None:
    run, table = on_a_table
    (first, *_) = evaluate_checkpoint(run.folder, ["test"])
    metrics = RunFolder(run.folder).metrics()
    assert metrics is not None
    assert first.metrics == metrics["test"]["k"]
    kept = table.read_text()
    try:
        write_table(table, shift=100.0)
        with pytest.raises(CheckpointError, match="structures or labels have changed"):
            evaluate_checkpoint(run.folder)
        # The right data elsewhere.
        moved = tmp_path / "mine.jsonl"
        moved.write_text(kept)
        (again,) = evaluate_checkpoint(run.folder, ["test"], path=str(moved))
        assert again.metrics == first.metrics
        table.unlink()
        with pytest.raises(CheckpointError, match="Say where the data of the run are now: path=FILE"):
            evaluate_checkpoint(run.folder)
    finally:
        table.write_text(kept)


def test_the_cache_of_the_run_is_used(
    on_a_table: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, _ = on_a_table
    monkeypatch.setenv("POTNET_CACHE", str(tmp_path / "unused"))
    evaluate_checkpoint(run.folder, ["test"])
    assert not (tmp_path / "unused").exists()
    evaluate_checkpoint(run.folder, ["test"], cache_dir=str(tmp_path / "other"))
    assert (tmp_path / "other").exists()


@pytest.mark.parametrize("place", ["config.yaml", "checkpoint"])
def test_a_source_that_is_none_runs_nothing(place: str, on_a_table: tuple[Run, Path], tmp_path: Path) -> None:
    import torch

    run, _ = on_a_table
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.folder, copy.path)
    mark = tmp_path / "owned"
    source = {"_target_": "os.system", "command": f"touch {mark}"}
    if place == "config.yaml":
        config = yaml.safe_load(copy.config.read_text())
        config["data"]["source"] = source
        copy.config.write_text(yaml.safe_dump(config))
    else:
        copy.config.unlink()
        checkpoint = torch.load(copy.best, weights_only=True)
        checkpoint["potnet"]["config"]["data"]["source"] = source
        torch.save(checkpoint, copy.best)
    with pytest.raises(ConfigError, match=r"data\.source\._target_=os\.system"):
        evaluate_checkpoint(copy.path)
    assert not mark.exists()


def run_command(main: Callable[[], None], *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["potnet", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (predict, ["checkpoint=2024", "inputs=a.cif"], "2024: no such checkpoint or folder"),
        (predict, ["checkpoint=[a,b]", "inputs=a.cif"], "give one path"),
        (predict, ["checkpoint=a", "inputs=a.cif", "box=abc"], "box='abc': expected a number"),
        (predict, ["checkpoint=a", "inputs=a.cif", "output=[1]"], "give one path"),
        (predict, ["checkpoint=a", "inputs=[[a]]"], "inputs=['a']: give one path"),
        (
            predict,
            ["checkpoint=a", "inputs=a.cif", "batch_size=x"],
            "batch_size='x': expected a whole number",
        ),
        (evaluate, ["checkpoint=2024"], "2024: no such checkpoint or folder"),
        (evaluate, ["checkpoint=[a,b]"], "give one path"),
        (evaluate, ["checkpoint=a", "cache_dir=5"], "a: no such checkpoint"),
    ],
)
def test_commands_say_what_is_wrong(
    main: Any,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(main, *arguments, monkeypatch=monkeypatch) == 1
    assert message in capsys.readouterr().err


def test_prediction_of_a_number_as_a_file_name(
    on_a_table: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, _ = on_a_table
    bulk("Cu").write(tmp_path / "7.cif")
    arguments = (f"checkpoint={run.folder}", "inputs=[7.cif]", "output=5")
    assert run_command(predict, *arguments, monkeypatch=monkeypatch) == 0
    assert (tmp_path / "5").read_text().startswith("id,k,flags")
