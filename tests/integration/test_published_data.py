"""A data set that downloads, from its description to the folder of a run; the example of docs/data.md."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potnet.config import build, compose, config_dir, hydra_config, plain
from potnet.evaluate import evaluate_checkpoint

FILES = Path(__file__).parents[1] / "fixtures" / "published"
DOCS = Path(__file__).parents[2] / "docs" / "data.md"
TINY = ("model.width=16", "model.layers=1", "trainer.accelerator=cpu", "trainer.max_epochs=1")


def test_a_run_on_jarvis_keeps_split_licence_and_citation(
    run_training: Callable[..., Any], cache_dir: Path
) -> None:
    run = run_training(
        "data=jarvis_dft_3d",
        "target=band_gap_mbj",
        f"data.path={FILES / 'jdft_3d-8-18-2021.json.zip'}",
        "data.source.crystals=null",
        tiny=TINY,
    )
    text = (run.folder / "data.txt").read_text()
    assert text.startswith("data: jarvis_dft_3d\nlicence: public domain")
    assert "cite: K. Choudhary et al." in text
    split = json.loads((run.folder / "split.json").read_text())
    assert [len(split[part]) for part in ("train", "val", "test")] == [19, 2, 2]
    assert len((run.folder / "removed.csv").read_text().splitlines()) == 1 + 16 + 1  # without gap; in no part
    assert json.loads((run.folder / "metrics.json").read_text())["test"]["band_gap_mbj"]["unit"] == "eV"
    assert evaluate_checkpoint(run.folder, ["test"], str(cache_dir))[0].metrics["n"] == 2


def test_the_example_of_the_docs_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = shutil.copytree(config_dir(), tmp_path / "conf")
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (conf / "data" / "jarvis_dft_2d.yaml").write_text(example)
    monkeypatch.setattr(hydra_config, "config_dir", lambda: conf)
    config = compose("train", ["data=jarvis_dft_2d", "target=exfoliation_energy"])
    source = build(plain(config.data.source), "data.source")
    assert source.name == "jarvis_dft_2d"
    assert source.columns["exfoliation_energy"].unit == config.target.unit
    assert config.target.on_missing == "drop"
    assert build(plain(config.data.split), "data.split").parts == {"train": 0.8, "val": 0.1, "test": 0.1}
    figshare = pytest.importorskip("jarvis.db.figshare")
    (file,) = source.files
    assert [file.url, file.name.removesuffix(".zip")] == figshare.get_db_info()["dft_2d_2021"][:2]


def test_every_data_set_and_target_is_in_the_docs() -> None:
    text = DOCS.read_text()
    for group in ("data", "target"):
        for file in (config_dir() / group).glob("[!_]*.yaml"):
            assert f"`{file.stem}`" in text, f"{group}={file.stem} is not in docs/data.md"
