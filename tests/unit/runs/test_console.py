"""What a run prints and keeps as its log."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from potnet.config import ConfigError
from potnet.data import Target
from potnet.data.splits.recipes import Split
from potnet.data.table import Removals
from potnet.runs.evaluation import print_table
from potnet.runs.log import log_in
from potnet.training import setup
from potnet.training.processes.devices import devices


def test_a_narrow_terminal_cuts_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    metrics = {"mae": 0.123456, "rmse": 0.234567, "r2": -1.345678, "unit": "log10(GPa)", "n": 4273}
    found: Any = SimpleNamespace(
        part="test", group=None, key="k_vrh", target=Target("k_vrh", "GPa"), metrics=metrics
    )
    print_table("bulk modulus", [found])
    text = capsys.readouterr().out
    for figure in ("0.12346", "0.23457", "-1.34568", "log10(GPa)", "4273"):
        assert figure in text
    assert "…" not in text


def test_the_log_of_a_run(tmp_path: Path) -> None:
    log = logging.getLogger("potnet.test")

    def fails() -> None:
        with log_in(tmp_path / "run"):
            log.warning("few crystals")
            raise ConfigError("data.limit=0")

    with pytest.raises(ConfigError):
        fails()
    log.warning("after the run")
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert [line.partition(" WARNING ")[2] for line in lines[:1]] == ["potnet.test: few crystals"]
    assert lines[-1].endswith("ERROR potnet: ConfigError: data.limit=0")


@pytest.mark.parametrize(("job", "shown"), [(None, True), (0, True), (1, False)])
def test_the_licence_is_shown_once_in_a_sweep(
    job: int | None, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(setup, "job_number", lambda: job)
    split = Split(pa.array(["a"]), [0])
    source = SimpleNamespace(name="mine", licence="CC0", citation="A paper")
    data: Any = SimpleNamespace(split=split, removed=Removals(), source=source)
    with caplog.at_level(logging.INFO):
        setup.write_split(tmp_path, data)
    assert ("licence: CC0" in caplog.text) == shown
    assert "licence: CC0" in (tmp_path / "data.txt").read_text()
    assert json.loads((tmp_path / "split.json").read_text())["train"] == ["a"]


@pytest.mark.parametrize(("given", "count"), [(2, 2), ("2", 2), ([0, 3], 2), ("0,3", 2), ("auto", 1)])
def test_number_of_devices(given: Any, count: int) -> None:
    assert devices({"devices": given, "accelerator": "cpu"}) == count


@pytest.mark.parametrize("given", ["abc", ["a"], "0;1"])
def test_devices_that_are_no_number(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.devices=.*give a number of devices"):
        devices({"devices": given, "accelerator": "cpu"})
