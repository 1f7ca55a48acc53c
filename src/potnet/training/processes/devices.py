"""How many ranks a run asks for, and what cannot be. Nothing heavy is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from potnet.config import ConfigError, did_you_mean
from potnet.process_rank import started_by


def check_alone() -> None:
    """Refuse a sweep in several ranks.

    Raises:
        ConfigError: This process is one of several.
    """
    starter = started_by()
    if starter and int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1))) > 1:
        raise ConfigError(
            f"a sweep cannot run under {starter}: start it as one process, and each job starts a process for "
            "each of its devices (trainer.devices=2)"
        )


def check_started(trainer: Mapping[str, Any]) -> None:
    """Refuse processes that torchrun or srun started and that the Trainer does not know of.

    Each of them would train the whole network by itself, and write into the same folder.

    Raises:
        ConfigError: Their number is another one than that of the devices.
    """
    starter = started_by()
    if starter is None:
        return
    started = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1)))
    nodes = int(trainer.get("num_nodes", 1))
    here = trainer.get("devices", 1)
    if here in ("auto", -1, "-1") and trainer.get("accelerator") != "cpu":
        return  # as many as there are GPUs: Lightning compares
    wanted = devices(trainer) * nodes
    if wanted != started:
        each, rest = divmod(started, nodes)
        count = f"trainer.devices={each if not rest else started}"
        processor = "ddp" if trainer.get("accelerator") in ("gpu", "cuda") else "ddp_cpu"
        raise ConfigError(
            f"{starter} started {started} processes, but the settings ask for {wanted} (trainer.devices="
            f"{here}, trainer.num_nodes={nodes}), so each would train the whole network by itself. Give "
            f"trainer={processor} {count}, which are the devices of one node"
        )


def ranks_to_start(trainer: Mapping[str, Any]) -> int:
    """How many ranks a run needs that nobody has started yet; 1 if it can run in this process.

    Args:
        trainer: Config of the Trainer, checked by `setup.check_trainer`.

    Raises:
        ConfigError: Several nodes without torchrun or srun, or a strategy other than ddp.
    """
    if started_by():
        return 1
    if trainer.get("num_nodes", 1) > 1:
        raise ConfigError(
            f"trainer.num_nodes={trainer['num_nodes']}: several nodes need torchrun or srun to start one "
            "process for each device; docs/cluster.md shows the commands"
        )
    count = devices(trainer)
    strategy = str(trainer.get("strategy", "auto"))
    ours = ("auto", "ddp", "ddp_find_unused_parameters_true")
    if count > 1 and strategy not in ours:
        raise ConfigError(f"trainer.strategy={strategy} on {count} devices{did_you_mean(strategy, ours)}")
    return count


def devices(trainer: Mapping[str, Any]) -> int:
    """Number of devices on this node that a config of the Trainer asks for.

    Raises:
        ConfigError: `devices` is not a number, list of numbers or "auto".
    """
    wanted = trainer.get("devices", 1)
    numbers = wanted if isinstance(wanted, list) else str(wanted).split(",")
    if wanted != "auto" and not all(re.fullmatch(r"\s*-?\d*\s*", str(number)) for number in numbers):
        raise ConfigError(
            f"trainer.devices={wanted}: give a number of devices, a list of their numbers ([0,2]), or auto"
        )
    if isinstance(wanted, list):
        return len(wanted)
    if isinstance(wanted, str) and "," in wanted:
        return len([device for device in wanted.split(",") if device.strip()])
    if wanted == "auto" or int(wanted) == -1:
        if trainer.get("accelerator") == "cpu":
            return 1
        import torch

        return max(1, torch.cuda.device_count())
    return int(wanted)


def check_devices(config: Mapping[str, Any]) -> None:
    """Refuse devices that are not there, before any work is done.

    Args:
        config: Of the Trainer: `accelerator` and `devices`.

    Raises:
        ConfigError: An unknown accelerator, a GPU that is not there, or no device at all.
    """
    import torch

    known = ("auto", "cpu", "cuda", "gpu")
    accelerator = config.get("accelerator", "auto")
    if accelerator not in known:
        raise ConfigError(f"trainer.accelerator={accelerator}{did_you_mean(str(accelerator), known)}")
    wanted, there = config.get("devices", 1), torch.cuda.device_count()
    if accelerator in ("cuda", "gpu") and not there:
        mps = "; Apple's GPUs lack float64" if torch.backends.mps.is_available() else ""
        raise ConfigError(
            f"trainer.accelerator={accelerator}: no CUDA device is found here{mps}; "
            "use trainer.accelerator=cpu, or look whether nvidia-smi lists one and torch is a CUDA build"
        )
    if isinstance(wanted, int) and not isinstance(wanted, bool) and (wanted < -1 or wanted == 0):
        raise ConfigError(f"trainer.devices={wanted}: give at least 1, or auto for all")
    if accelerator != "cpu" and there and isinstance(wanted, int) and wanted > there:
        raise ConfigError(f"trainer.devices={wanted}: there are {there} GPUs here; give at most that many")
