"""Every notebook runs from its first cell to its last, in an empty folder, without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LARGEST = 200_000
"""Bytes of a notebook with its pictures."""


def cells(notebook: Path, kind: str) -> list[str]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def execute(notebook: Path, folder: Path, cache: Path) -> str:
    """Run the code as a script. The cells hold plain Python, so no kernel is needed, nor its ports."""
    script = folder / f"{notebook.stem}.py"
    script.write_text("\n\n".join(cells(notebook, "code")), encoding="utf-8")
    environment = {
        **os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
        "POTNET_CACHE": str(cache), "PYTHONIOENCODING": "utf-8",
    }  # fmt: skip
    command = [sys.executable, script.name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_four_are_here_and_small() -> None:
    assert [notebook.stem[:2] for notebook in NOTEBOOKS] == ["01", "02", "03", "04"]
    for notebook in NOTEBOOKS:
        assert notebook.stat().st_size < LARGEST
        assert cells(notebook, "markdown")[0].startswith("# ")
        code = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
        pictures = [o for cell in code for o in cell["outputs"] if "image/png" in o.get("data", {})]
        assert pictures, f"{notebook.name} has no picture: execute it before storing it"
        assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]


def test_complete_potentials(tmp_path: Path) -> None:
    output = execute(NOTEBOOKS[0], tmp_path, tmp_path)
    assert "Madelung constant 1.747564594" in output


@pytest.mark.slow
def test_training(tmp_path: Path, cache_dir: Path) -> None:
    output = execute(NOTEBOOKS[1], tmp_path, cache_dir)
    assert "test  MAE" in output


@pytest.mark.slow
def test_prediction_with_a_model_that_ships(tmp_path: Path, cache_dir: Path) -> None:
    output = execute(NOTEBOOKS[2], tmp_path, cache_dir)
    assert "could not be used" in output
    assert "periclase" in output
    assert "hardest to compress" in output


@pytest.mark.slow
def test_reading_a_study(tmp_path: Path, cache_dir: Path) -> None:
    output = execute(NOTEBOOKS[3], tmp_path, cache_dir)
    assert "4 runs: finished" in output
    assert "model.pairs: complete -> none" in output
