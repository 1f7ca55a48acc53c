"""Functions that the YAML files in conf/ call: folders and names of runs, keys of services.

`register_resolvers` registers them with OmegaConf, under the names that the YAML files use.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from potnet.config.errors import ConfigError
from potnet.config.paths import groups
from potnet.process_rank import rank


def run_dir(runs_dir: str, name: str, resume: str | None) -> str:
    """The folder of this run: that of the run to continue, or a new one named by date and time.

    A new one is made here, so that of two runs that begin in the same second each gets its own. If the run
    fails before it has anything to keep, `remove_unused_run_dir` removes it.
    """
    if resume:
        # Hydra makes the folder of a run that is not there, and then it looks like one.
        if not (run_folder(resume) / "config.yaml").is_file():
            raise ConfigError(f"resume={resume}: there is no config.yaml here; give the folder of a run")
        return str(run_folder(resume))
    if rank() > 0:
        # The first rank has the folder of the run; what Hydra writes for the others is of no use.
        unused = tempfile.mkdtemp(prefix="potnet_rank_")
        atexit.register(shutil.rmtree, unused, ignore_errors=True)
        return unused
    folder = Path(runs_dir) / str(name) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number, free = 2, folder
    while True:
        missing = [path for path in (free, *free.parents) if not path.exists()]
        try:
            free.mkdir(parents=True)
            _made[:] = [path.absolute() for path in missing]
        except FileExistsError:
            free, number = folder.with_name(f"{folder.name}-{number}"), number + 1
            continue
        except OSError:
            pass  # Hydra meets the same error next, outside of an interpolation, where it can be explained
        return str(free)


_made: list[Path] = []
"""Folders made by `run_dir` in this process, the inner ones first."""


def made_run_dir() -> Path | None:
    """The folder that `run_dir` made in this process; None if it made none."""
    return _made[0] if _made else None


_WORTHLESS = (".hydra", ".lock", "log.txt", "train.log", "versions.json")
"""What a run's folder may hold before there is anything to keep."""


def remove_unused_run_dir(folder: str | Path | None = None) -> None:
    """Remove the folder of a run that has not begun: the given one, or the one that `run_dir` made.

    Folders around it that `run_dir` made are removed, too. A folder in which there is anything but Hydra's
    notes is left alone, and so are the working folder and one in which another process is about to train.
    """
    from potnet.runs.begin import in_use

    made, _made[:] = list(_made), []
    first = Path(folder).absolute() if folder is not None else made[0] if made else None
    if first is None or not first.is_dir() or first.resolve() == Path.cwd():
        return
    if any(path.name not in _WORTHLESS for path in first.iterdir()) or in_use(first):
        return
    shutil.rmtree(first, ignore_errors=True)
    for outer in made[1:] if first in made else ():
        with suppress(OSError):  # another run is in there
            outer.rmdir()


def folder_name(number: int, overrides: str | None) -> str:
    """A short name for the folder of a sweep's job, which can be pasted into a shell: `3_pairs_none_seed-1`.

    Args:
        number: Of the job.
        overrides: Those that vary in the sweep, as Hydra joins them: `ablation=pairs_none,model.width=64`.
            Of each, the last part of its key and its value are taken, numbers with four digits; what is not a
            letter, a number or one of `. _ + -` becomes a `-`. Where names are cut, a hash keeps them apart.
    """
    words = []
    for override in re.split(r",(?=[+~]*[\w./@-]+=)", overrides or ""):
        key, _, value = override.partition("=")
        if re.fullmatch(r"-?\d*\.\d{4,}(e-?\d+)?", value):  # as a search chooses them
            value = f"{float(value):.4g}"
        text = re.sub(r"[^\w.+-]+", "-", value, flags=re.ASCII).strip("-")
        # The name of an option says what it is.
        is_option = key in groups()
        words += (
            [text if is_option else f"{re.split(r'[./@]', key)[-1].lstrip('+~')}-{text}"] if override else []
        )
    name = "_".join([str(number), *words])
    if len(name) <= 60:
        return name
    return f"{name[:51]}_{hashlib.sha256(str(overrides).encode()).hexdigest()[:8]}"


def run_folder(path: str | Path) -> Path:
    """The run's folder that a path means: itself, or the one around a checkpoint file."""
    path = Path(path)
    return path.parent.parent if path.suffix == ".ckpt" else path


def secret(name: str) -> str | None:
    """A key from the environment, or from a file `.env` in the working folder; None if neither has it.

    Args:
        name: Such as "WANDB_API_KEY"; `.env.example` lists them.
    """
    if os.environ.get(name):
        return os.environ[name]
    file = Path(".env")
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        key, _, value = line.partition("=")
        if key.strip() == name and value.strip():
            return value.strip().strip("'\"")
    return None


def choice(group: str) -> str | None:
    """The option of a config group that a run uses; None if it uses none, or was not started by Hydra."""
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


def sweep_name(otherwise: str | None) -> str | None:
    """A name for the sweep that a run belongs to, from the sweep's folder."""
    if not is_multirun():
        return otherwise
    from hydra.core.hydra_config import HydraConfig

    folder = Path(HydraConfig.get().sweep.dir)
    parts = [part for part in folder.parts if part != "multirun"]
    return folder.name if folder.is_absolute() else "/".join(parts[-2:]) or otherwise


def _channels(potentials: Any, pair_split: float | None) -> int:
    """Sums of each pair: of each potential one, or two."""
    return len(potentials or ()) * (1 if pair_split is None else 2)


def _target_keys(target: Any) -> list[str]:
    """Keys of one target, or of several by name."""
    if target is None or not len(target):
        raise ConfigError("there is no target: choose one, such as target=k_vrh")
    return [str(target["key"])] if "key" in target else [str(key) for key in target]


def register_resolvers() -> None:
    """Register the functions used in conf/: `channels`, `folder_name`, `run_dir`, and those for W&B."""
    OmegaConf.register_new_resolver("channels", _channels, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("choice", choice, replace=True)
    OmegaConf.register_new_resolver("target_key", lambda target: _target_keys(target)[0], replace=True)
    OmegaConf.register_new_resolver(
        "target_keys", lambda target: "_".join(_target_keys(target)), replace=True
    )
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("wandb_offline", lambda: secret("WANDB_API_KEY") is None, replace=True)


def job_number() -> int | None:
    """The number of this job in its sweep, from 0; None for a single run."""
    from hydra.core.hydra_config import HydraConfig

    return int(HydraConfig.get().job.num) if is_multirun() else None


def is_multirun() -> bool:
    """Whether this process runs a job of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
