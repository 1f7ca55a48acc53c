"""What conf/ asks of Python: folders and names of runs, keys of services.

`register_resolvers` teaches these functions to OmegaConf, under the names that the YAML files use.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from potnet.config.errors import ConfigError
from potnet.training.processes.environment import rank


def run_dir(runs_dir: str, name: str, resume: str | None) -> str:
    """The folder of this run: that of the run to continue, or a new one named by date and time.

    A new one is made here, so that of two runs that begin in the same second each gets its own.
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
        try:
            free.mkdir(parents=True)
        except FileExistsError:
            free, number = folder.with_name(f"{folder.name}-{number}"), number + 1
            continue
        except OSError:
            pass  # Hydra meets the same error next, outside of an interpolation, where it can be explained
        return str(free)


def folder_name(overrides: str) -> str:
    """A name for the folder of a sweep's job: one level, and no longer than file systems allow.

    Args:
        overrides: Of the job, its number first. Where they are cut, a hash keeps the names apart.
    """
    name = overrides.replace("/", "_")
    if len(name) <= 150:
        return name
    return f"{name[:141]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


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


def _target_keys(target: Any) -> list[str]:
    """Keys of one target, or of several by name."""
    if target is None or not len(target):
        raise ConfigError("there is no target: choose one, such as target=k_vrh")
    return [str(target["key"])] if "key" in target else [str(key) for key in target]


def register_resolvers() -> None:
    """Teach OmegaConf the functions used in conf/: `count`, `folder_name`, `run_dir`, and those for W&B."""
    OmegaConf.register_new_resolver("count", lambda items: len(items or ()), replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("choice", choice, replace=True)
    OmegaConf.register_new_resolver("target_key", lambda target: _target_keys(target)[0], replace=True)
    OmegaConf.register_new_resolver(
        "target_keys", lambda target: "_".join(_target_keys(target)), replace=True
    )
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("wandb_offline", lambda: secret("WANDB_API_KEY") is None, replace=True)


def is_multirun() -> bool:
    """Whether this process runs a job of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
