"""A small trained run that the tests of this folder share, and the command in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from potnet import cli
from potnet.config import compose, plain
from potnet.train import train

TINY = [
    "model=potnet_published",
    "model.width=16",
    "model.layers=1",
    "data.limit=120",
    "trainer.accelerator=cpu",
]


@dataclass
class Run:
    """A run's folder, its config, and what training returned."""

    folder: Path
    config: dict[str, Any]
    result: float | None


@dataclass
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def potnet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Runs `potnet ...` in this process: one of its own takes seconds of imports.

    An error that is not turned into a message is one of the test.
    """
    path, modules = list(sys.path), set(sys.modules)

    def run(*words: str, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["potnet", *words])
        capfd.readouterr()
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = int(end.code or 0)
        return Done(status, *capfd.readouterr())

    yield run
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        # A class of the user's in the working folder, which another test may have under the same name.
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == Path.cwd():
            del sys.modules[name]


@pytest.fixture(scope="session")
def run_training(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Trains a tiny network as the command would, in this process; its pictures are drawn if asked for."""

    def run(
        *overrides: str, folder: Path | None = None, tiny: Sequence[str] = TINY, pictures: bool = False
    ) -> Run:
        config = plain(compose("train", [*tiny, f"data.cache_dir={cache_dir}", *overrides]))
        folder = folder or tmp_path_factory.mktemp("run")
        with pytest.MonkeyPatch.context() as patch:
            if not pictures:  # they take half of the time of a tiny run
                patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path: Path(path).touch())
            return Run(folder, config, train(config, folder))

    return run


@pytest.fixture(scope="session")
def trained(run_training: Callable[..., Run]) -> Run:
    """Three epochs on a hundred crystals, with averaged weights."""
    return run_training("trainer.max_epochs=3", "data.batch_size=32", pictures=True)
