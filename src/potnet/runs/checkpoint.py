"""Finding, reading and checking checkpoints. Only plain data and tensors are ever unpickled."""

from __future__ import annotations

import importlib.metadata
import pickle
import platform
import re
from pathlib import Path
from typing import Any

import torch

FORMAT = 2
"""Raised whenever an older version of the package could not read a new checkpoint."""

BEST, LAST = "best.ckpt", "last.ckpt"
_RUN_NAME = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:-(\d+))?")
"""Date and time of a run's folder, and a number where several began in one second (`resolvers.run_dir`)."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or foreign. The message names the file and what to do."""


def find_checkpoint(path: str | Path, names: tuple[str, ...] = (BEST, LAST)) -> Path:
    """The checkpoint file that a path means.

    Args:
        path: A file, the folder of a run, or a folder that holds runs, such as runs/mp_bulk_modulus: of these
            the newest that has a checkpoint, by the date and time in its name.
        names: Which of a run's checkpoints are wanted, in order of preference.

    Raises:
        CheckpointError: There is none.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        for folder in (path, *_runs(path)):
            file = checkpoint_of(folder, names)
            if file is not None:
                return file
        raise CheckpointError(
            f"{path}: there is no {' or '.join(names)} in this folder, nor a run that has one; give the "
            "folder of a run, a folder of runs or a .ckpt file"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint or folder (working folder: {Path.cwd()})")
    return path


def checkpoint_of(run: Path, names: tuple[str, ...] = (BEST, LAST)) -> Path | None:
    """The first of these checkpoints in the folder of a run; None if it has none of them."""
    files = [folder / name for name in names for folder in (run / "checkpoints", run)]
    return next((file for file in files if file.is_file()), None)


def _runs(folder: Path) -> list[Path]:
    """The runs' folders in a folder, the newest first."""
    found = []
    for path in folder.iterdir():
        name = _RUN_NAME.fullmatch(path.name)
        if name and path.is_dir():
            found.append((name[1], int(name[2] or 1), path))
    return [path for *_, path in sorted(found, reverse=True)]


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        path: See `find_checkpoint`.

    Raises:
        CheckpointError: The file is missing, truncated, not a checkpoint, or of another program or version.
    """
    file = find_checkpoint(path)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: not a checkpoint of potnet (it holds more than tensors and plain data, or is damaged)"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: damaged or truncated; take another checkpoint of the run") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    record = checkpoint.get("potnet") if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or "format" not in record or "state_dict" not in checkpoint:
        raise CheckpointError(
            f"{file}: not a checkpoint of potnet; give one written by python -m potnet.train"
        )
    if record["format"] > FORMAT:
        raise CheckpointError(
            f"{file}: written by potnet {record.get('versions', {}).get('potnet', '?')}, which is newer than "
            "this one: upgrade potnet"
        )
    return checkpoint


def versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    names = ("potnet", "torch", "lightning", "torch-geometric", "numpy", "moyopy", "vesin")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
