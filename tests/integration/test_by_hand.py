"""`trainer.fit(module, datamodule=data)`: the script of docs/experiments.md against the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from potnet.api import load
from potnet.evaluate import evaluate_checkpoint
from potnet.runs.checkpoint import CheckpointError

DOCS = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"^```python\n(import potnet\nfrom lightning.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
SMALL = ("data.limit=40", "trainer.max_epochs=2", "data.batch_size=8", "model.width=16")


def script(**changes: str) -> str:
    """The script as printed, made small."""
    text = SCRIPT
    replaced = {
        "limit=200": "limit=40, batch_size=8",
        "max_epochs=5": "max_epochs=2",
        '"potnet.models.PotNet"': '"potnet.models.PotNet", "width": 16',
        **changes,
    }
    for old, new in replaced.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def weights(file: Path) -> dict[str, torch.Tensor]:
    """The network and its scalers."""
    found: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return {name: value for name, value in found.items() if name.startswith(("model.", "scalers."))}


def run(text: str, folder: Path, cache_dir: Path) -> str:
    """Run a script in a process of its own, in a folder."""
    (folder / "script.py").write_text(text)
    environment = {**os.environ, "POTNET_CACHE": str(cache_dir), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on loggers and loading processes
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
def test_by_hand_is_what_the_command_trains(
    run_training: Callable[..., Any],
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = run_training(*SMALL, "trainer.accelerator=cpu", tiny=())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POTNET_CACHE", str(cache_dir))
    by_hand: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(script(), "experiments.md", "exec"), by_hand)
    wanted, found = weights(command.folder / "checkpoints" / "last.ckpt"), weights(tmp_path / "mine.ckpt")
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    # The test part, and the scalers, without a call for either.
    shown = by_hand["trainer"].callback_metrics
    (best,) = evaluate_checkpoint(command.folder / "checkpoints" / "last.ckpt", ("test",))
    assert float(shown["test/k_vrh/mae"]) == pytest.approx(best.metrics["mae"], rel=1e-5)
    assert "k_vrh: GPa" in capsys.readouterr().out
    # It predicts; it cannot be evaluated on data that it does not name.
    assert load("mine.ckpt").domain.elements
    with pytest.raises(CheckpointError, match=r"does not say where its data came from.*trainer\.test"):
        evaluate_checkpoint("mine.ckpt")


@pytest.mark.slow
def test_by_hand_on_two_devices(run_training: Callable[..., Any], tmp_path: Path, cache_dir: Path) -> None:
    command = run_training(*SMALL, "trainer=ddp_cpu", tiny=())
    run(script(**{"devices=1": "devices=2", '"auto"': '"ddp"'}), tmp_path, cache_dir)
    wanted, found = weights(command.folder / "checkpoints" / "last.ckpt"), weights(tmp_path / "mine.ckpt")
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
