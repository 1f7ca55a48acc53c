"""Which checkpoint a path means, and what else was there to choose."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from potnet.config import pasteable
from potnet.runs.errors import CheckpointError
from potnet.runs.folder import BEST, LAST, RunFolder, is_better_high

_RUN_NAME = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:-(\d+))?")
"""Date and time of a run's folder, and a number where several began in one second (`resolvers.run_dir`)."""


@dataclass(frozen=True)
class Candidate:
    """A run that has a checkpoint.

    Attributes:
        run: Its folder.
        file: Its checkpoint.
    """

    run: RunFolder
    file: Path

    @cached_property
    def epochs(self) -> int:
        """How many it was trained for, so far."""
        return len(self.run.history())

    @cached_property
    def error(self) -> tuple[str, float] | None:
        """Name and value of the metric that judges it; see `RunFolder.monitored`."""
        return self.run.monitored()

    def __str__(self) -> str:
        what = f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}" if self.epochs else "no epochs"
        judged = f", {self.error[0]} {self.error[1]:.4g}" if self.error else ""
        state = "" if self.run.finished() else ", unfinished"
        return f"{self.run.path}: {what}{judged}{state}"


@dataclass(frozen=True)
class Choice:
    """What a path means.

    Attributes:
        file: The checkpoint.
        taken: Its run, if it was chosen among several.
        others: The runs that were not taken, the newest first.
    """

    file: Path
    taken: Candidate | None = None
    others: tuple[Candidate, ...] = ()

    def lines(self, most: int = 8) -> list[str]:
        """What to tell a user; empty if there was nothing to choose."""
        if self.taken is None or not self.others:
            return []
        lines = [f"checkpoint: the newest of {len(self.others) + 1} runs, {self.taken}"]
        lines += [f"  not taken: {other}" for other in self.others[:most]]
        if len(self.others) > most:
            lines.append(f"  and {len(self.others) - most} more")
        better = _best([self.taken, *self.others])
        if better is not None and better is not self.taken:
            lines.append(f"  the best of them by {better.error[0]}: checkpoint={better.run.path}")  # type: ignore
        return lines


def _best(candidates: Iterable[Candidate]) -> Candidate | None:
    """The one with the best value, among those that are judged by the same metric as the first of them."""
    judged = [candidate for candidate in candidates if candidate.error is not None]
    if not judged:
        return None
    name = judged[0].error[0]  # type: ignore[index]
    same = [candidate for candidate in judged if candidate.error[0] == name]  # type: ignore[index]
    sign = -1 if is_better_high(name) else 1
    return min(same, key=lambda candidate: sign * candidate.error[1])  # type: ignore[index]


def find_checkpoint(path: str | Path, names: tuple[str, ...] = (BEST, LAST)) -> Path:
    """The checkpoint file that a path means; see `choose_checkpoint`."""
    return choose_checkpoint(path, names).file


def choose_checkpoint(path: Any, names: tuple[str, ...] = (BEST, LAST)) -> Choice:
    """The checkpoint that a path means, and the runs that it was chosen from.

    Args:
        path: A file, the folder of a run, or a folder that holds runs, such as runs/mp_bulk_modulus: of these
            the newest that has a checkpoint, by the date and time in its name.
        names: Which of a run's checkpoints are wanted, in order of preference.

    Raises:
        CheckpointError: There is none.
    """
    if isinstance(path, list | tuple | dict):
        raise CheckpointError(f"checkpoint={path}: give one checkpoint or folder, got {len(path)}")
    if path is None or isinstance(path, bool):
        raise CheckpointError(f"checkpoint={path}: give a checkpoint file or the folder of a run")
    path = Path(str(path)).expanduser()
    if not path.is_dir():
        if not path.is_file():
            raise CheckpointError(f"{path}: no such checkpoint or folder (working folder: {Path.cwd()})")
        return Choice(path)
    own = RunFolder(path).checkpoint(names)
    if own is not None:
        return Choice(own)
    found = [
        Candidate(run, file)
        for folder in _runs(path)
        if (file := (run := RunFolder(folder)).checkpoint(names)) is not None
    ]
    if not found:
        raise CheckpointError(
            f"{path}: there is no {' or '.join(names)} in this folder, nor a run that has one; give the "
            "folder of a run, a folder of runs or a .ckpt file"
        )
    return Choice(found[0].file, found[0], tuple(found[1:]))


def _runs(folder: Path) -> list[Path]:
    """The runs' folders in a folder, the newest first."""
    found = []
    for path in folder.iterdir():
        name = _RUN_NAME.fullmatch(path.name)
        if name and path.is_dir():
            found.append((name[1], int(name[2] or 1), path))
    return [path for *_, path in sorted(found, reverse=True)]


def shortest(path: Path) -> Path:
    """A path relative to the working folder, where it lies inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def to_continue(folder: Path) -> str:
    """The command that continues a run, as it can be pasted into a shell."""
    return f"potnet train {pasteable('resume', shortest(folder))}"
