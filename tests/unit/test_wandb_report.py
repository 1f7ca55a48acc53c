"""The report of a study in W&B, as far as it can be made without its server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from potnet.config import ConfigError
from potnet.runs.folder import PICTURES
from potnet.training.loggers.common import units
from potnet.wandb_report import main, study_report


def test_without_a_key_the_local_report_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["wandb_report", "entity=me", "group=study"])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert "WANDB_API_KEY" in error
    assert "potnet report" in error


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean ablation"):
        study_report("me", "potnet", "study", "k_vrh", by="ablations")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ConfigError, match="pip install wandb-workspaces"):
        study_report("me", "potnet", "study", "k_vrh")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_panels_show_what_runs_log(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces", reason="pip install wandb-workspaces")
    from wandb_workspaces.reports.v2 import interface

    # What the server would be asked: whether the project is there.
    monkeypatch.setattr(interface, "_get_api", lambda: None)
    found = {"project": {"internalId": "1"}}
    monkeypatch.setattr(interface, "execute_graphql", lambda *arguments: found)
    model = study_report("me", "potnet", "study/2026", "k_vrh", by="model")._to_model()
    spec = json.loads(model.model_dump_json(by_alias=True))["spec"]
    spec = json.loads(spec) if isinstance(spec, str) else spec
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 5
    for grid in grids:
        (runs,) = grid["runSets"]
        (condition,) = runs["filters"]["filters"]
        assert (condition["key"]["name"], condition["value"]) == ("group", "study/2026")
        assert runs["grouping"] == [{"section": "config", "name": "labels.value.model"}]
    panels = [panel["config"] for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]
    drawn = {name.removeprefix("summary_metrics.") for panel in panels for name in panel.get("metrics") or []}
    assert drawn <= {*units({"key": "k_vrh"}), "seconds/total"}
    assert {key for panel in panels for key in panel.get("mediaKeys") or []} <= set(PICTURES)
