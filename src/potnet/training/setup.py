"""The steps that training and evaluation share: from plain config to objects, and through the epochs."""

from __future__ import annotations

import csv
import json
import logging
import signal
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, build, check_arguments, did_you_mean, locate
from potnet.config.resolvers import job_number
from potnet.data.targets import Targets
from potnet.files import replacing, write_whole
from potnet.runs.folder import RunFolder
from potnet.runs.record import git_state, versions
from potnet.training.processes.devices import check_devices

if TYPE_CHECKING:
    from lightning import Callback, LightningModule, Trainer
    from torch import nn

    from potnet.data import CrystalDataModule

log = logging.getLogger(__name__)


def with_absolute_source(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the files of its data and of its split, if there are such, as absolute paths.

    So the run can be evaluated and resumed from any working folder.
    """
    data = dict(config["data"])
    for key in ("source", "split"):
        path = (data.get(key) or {}).get("path")
        if path is not None and not str(path).startswith(("http://", "https://")):
            data[key] = {**data[key], "path": str(Path(path).expanduser().absolute())}
    return {**config, "data": data}


#: Keys of a data config to which its other keys, the target and the split refer; no arguments of the module.
DATA_SHORTHANDS = ("path", "task", "fold", "element", "on_missing", "published_split")


def data_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the data module in a data config."""
    return {key: value for key, value in data.items() if key not in DATA_SHORTHANDS}


def check_data(data: Mapping[str, Any]) -> None:
    """Meet what is wrong with the data before anything slow: no network, no such file, another checksum.

    Files that are not there yet are fetched.

    Raises:
        ConfigError, DataError: What is wrong, and what to do.
    """
    build(data["source"], "data.source").content_hash()


def build_data(config: Mapping[str, Any], model: nn.Module) -> CrystalDataModule:
    """The data of a run, with the features that its model reads.

    Args:
        config: Plain config with `data`, `target` and `features`.
        model: Declares what it `needs`.

    Raises:
        ConfigError: See `build`; or forces are to be derived from edges to the k nearest neighbours.
    """
    targets = Targets.from_config(config["target"])
    k = (config["features"].get("neighbors") or {}).get("k")
    if targets.derived and k is not None:
        raise ConfigError(
            f"features.neighbors.k={k}: {' and '.join(targets.derived)} are derivatives of the energy, and "
            "an energy of the k nearest neighbours is not continuous when atoms move; set "
            "features.neighbors.k=null features.neighbors.cutoff=5"
        )
    featurizer = build({"_target_": "potnet.data.Featurizer", **config["features"]}, "features")
    data: CrystalDataModule = build(
        data_settings(config["data"]), "data", targets=targets, featurizer=featurizer, needs=model.needs
    )
    return data


def check_seed(seed: Any) -> None:
    """Refuse what numpy and torch cannot be seeded with.

    Raises:
        ConfigError: Not a whole number from 0 to 2^32 - 1.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed}: give a whole number from 0 to {2**32 - 1}")


def check_trainer(config: Mapping[str, Any]) -> None:
    """Refuse settings of the Trainer before any work is done.

    Raises:
        ConfigError: An unknown key, a value of the wrong kind, a run without an epoch, or a GPU that is not
            there.
    """
    trainer = locate(config, "trainer")
    check_arguments(trainer, {key: value for key, value in config.items() if key != "_target_"}, "trainer")
    epochs = config.get("max_epochs")
    if epochs is None or epochs < 1:
        raise ConfigError(
            f"trainer.max_epochs={'null' if epochs is None else epochs}: give at least 1, as the "
            "learning rate follows the epochs (trainer.max_time may end a run sooner). To evaluate "
            "a trained model, use potnet evaluate"
        )
    check_devices(config)


def monitor_of(config: Mapping[str, Any], targets: Targets) -> str:
    """The metric that checkpoints, early stopping and sweeps watch.

    Raises:
        ConfigError: It is not one of this run.
    """
    monitor = config.get("monitor") or targets.monitor
    valid = ["val/loss"]
    for key, target in targets.items():
        valid += [f"val/{key}/{name}" for name in (("accuracy",) if target.is_class else ("mae", "rmse"))]
    if monitor not in valid:
        raise ConfigError(f"monitor={monitor}{did_you_mean(str(monitor), valid)}")
    return str(monitor)


def build_callbacks(config: Mapping[str, Any], validates: bool, monitor: str) -> list[Callback]:
    """The chosen callbacks; without a validation part those that watch it are left out, with a warning.

    Args:
        config: Name -> config of a callback, or None; one without a `monitor` that takes one gets `monitor`.
        validates: Whether there is a validation part.
        monitor: Name of the metric that judges the run.
    """
    chosen = {name: dict(entry) for name, entry in config.items() if entry is not None}
    from potnet.training.callbacks import mode_of

    for entry in chosen.values():
        if "monitor" in entry and entry["monitor"] is None:
            entry |= {"monitor": monitor, "mode": mode_of(monitor)}
    if not validates:
        for name in [
            name for name, entry in chosen.items() if str(entry.get("monitor", "")).startswith("val/")
        ]:
            log.warning("callbacks.%s is left out: there is no validation part to watch", name)
            del chosen[name]
    return [build(entry, f"callbacks.{name}") for name, entry in chosen.items()]


def build_trainer(
    config: Mapping[str, Any],
    callbacks: list[Callback],
    loggers: list[Any],
    folder: Path,
    derivatives: bool = False,
) -> Trainer:
    """Lightning's Trainer, with fixed what the run's folder and table rely on.

    Args:
        config: Of the Trainer.
        callbacks: All of them.
        loggers: All of them.
        folder: Of the run.
        derivatives: Whether validation differentiates, as for forces.

    Raises:
        ConfigError: A setting that Lightning refuses.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from potnet.training.checkpoint_io import AtomicCheckpointIO
    from potnet.training.precision import DoubleBatches
    from potnet.training.synchronize import BatchNormAcrossRanks

    plugins: list[Any] = [AtomicCheckpointIO()]
    ours = {"accelerator", "sync_batchnorm"}
    if config.get("precision") in ("64-true", "64", 64):
        plugins.append(DoubleBatches())
        ours.add("precision")
    if config.get("sync_batchnorm"):
        plugins.append(BatchNormAcrossRanks())
    try:
        trainer: Trainer = build(
            {key: value for key, value in config.items() if key not in ours},
            "trainer",
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=str(folder),
            accelerator=_accelerator(config.get("accelerator", "auto")),
            plugins=plugins,
            enable_progress_bar=False,
            inference_mode=not derivatives,
            enable_model_summary=False,
            # The sampler of CrystalDataModule orders the crystals by seed and epoch.
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except ConfigError:
        raise
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    return trainer


def _accelerator(name: str) -> str:
    """Make "auto" CUDA or the CPU: targets and metrics are float64, which Apple's GPUs do not have."""
    import torch

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def quieten() -> None:
    """Silence hints of libraries that a user of the commands can do nothing about."""
    for text in (
        ".*does not have many workers.*",
        ".*have no `val_dataloader`.*",
        ".*Total length of `list` across ranks is zero.*",  # a split without validation
        ".*checkpoint that ended before the epoch ended.*",  # StopOnSignal sees to it
        ".*The number of training batches.*is smaller than the logging interval.*",
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # the first rank speaks for all
        ".*could not find the monitored key.*",  # before the first validation
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*`isinstance\\(treespec, LeafSpec\\)`.*",
        ".*torch.jit.script.*",
    ):
        warnings.filterwarnings("ignore", message=text)
    import lightning.pytorch  # noqa: F401, it sets the levels of its loggers when it is imported

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def fit(trainer: Trainer, module: LightningModule, data: CrystalDataModule, checkpoint: Path | None) -> bool:
    """Train this rank's share; signals end it in an orderly way.

    Args:
        trainer: Runs the epochs.
        module: What is trained.
        data: Prepared and set up.
        checkpoint: Of the run to continue.

    Returns:
        Whether it was interrupted by Ctrl-C.

    Raises:
        SystemExit: On SIGTERM or SIGUSR1, with status 128 + its number, once last.ckpt holds everything.
    """
    import torch

    from potnet.runs.choice import to_continue
    from potnet.training.preemption import Stopped

    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint and str(checkpoint), weights_only=True)
    except Stopped as stopped:
        if trainer.is_global_zero:
            print(stopped, file=sys.stderr)
            if stopped.number != signal.SIGINT:  # after Ctrl-C the results say it
                print(f"continue: {to_continue(Path(trainer.default_root_dir))}", file=sys.stderr)
        if stopped.number != signal.SIGINT:
            sys.exit(128 + stopped.number)
        return True
    except SystemExit:
        # Lightning ends the process after Ctrl-C, with SIGINT switched off.
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return True
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return False


def write_split(folder: Path, data: CrystalDataModule) -> None:
    """Keep ids of each part, crystals not used, versions, licence and citation; print the last two."""
    run = RunFolder(folder)
    data.split.write(run.split)
    with replacing(run.removed) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "reason", "detail"))
        table.writerows((entry.id, entry.reason, entry.detail) for entry in data.removed)
    source = data.source
    licence, citation = getattr(source, "licence", ""), getattr(source, "citation", "")
    text = f"data: {source.name}\nlicence: {licence or 'not stated'}\ncite: {citation or 'not stated'}"
    write_whole(run.data, text + "\n")
    write_whole(run.versions, json.dumps({**versions(), "git": git_state()}, indent=1) + "\n")
    # Once for a sweep, not in each of its jobs.
    if job_number() in (None, 0):
        log.info("%s", text)
