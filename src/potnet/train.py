"""Train a network: `potnet train --help`.

From Python this module is called like a function, `potnet.train("experiment=mp_bulk_modulus")`: see
`potnet.trained.train_from_python`.
"""

from __future__ import annotations

import logging
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import INTERRUPTED, ConfigError, entry_point, plain
from potnet.process_rank import rank

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

RESUMABLE = (
    "data.num_workers",
    "data.featurize_workers",
    "data.cache_dir",
    "trainer.max_time",
    "callbacks.early_stopping.patience",
    "comparison_epochs.",  # of all models; that of the run is trainer.max_epochs
)
"""Settings that may change when a run is continued, as no epoch's result depends on them.

`max_time` and `patience` say when a run stops, not what it computes until then. Everything else may change
the last digits or more: precision, clipping, accumulation, the number and the kind of devices.
"""


def resumable(key: str) -> bool:
    """Whether a run may be continued with another value of this setting."""
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in RESUMABLE)


def train(config: dict[str, Any], folder: Path, resume: bool = False) -> float | None:
    """Featurize, train, evaluate the best checkpoint, and write the folder of the run.

    Args:
        config: Plain config, composed from conf/train.yaml.
        folder: Of the run; it exists.
        resume: Continue from the folder's last checkpoint.

    Returns:
        The monitored metric of the best checkpoint on the validation part; None if there is no such part.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: What cannot be used, and what to do.
        SystemExit: After Ctrl-C or SIGTERM, once everything is kept.
    """
    from potnet.training import setup

    started = time.perf_counter()
    config = setup.with_absolute_source(config)
    setup.check_data(config["data"])  # before the imports that take seconds
    if not resume and (config.get("finetune") or {}).get("from") is not None:
        from potnet.training.finetune import with_source

        config = with_source(config)

    from potnet.runs.log import log_in
    from potnet.training.loggers import common
    from potnet.training.processes import devices
    from potnet.training.processes.launch import launch

    setup.quieten()
    setup.check_seed(config["seed"])
    setup.check_trainer(config["trainer"])
    devices.check_started(config["trainer"])
    ranks = devices.ranks_to_start(config["trainer"])
    if ranks > 1:
        return launch(config, folder, resume, ranks)
    if rank() > 0:
        logging.getLogger().setLevel(logging.ERROR)  # the first rank says it all
    with log_in(folder), common.open_loggers(config, folder) as loggers:
        return _train(config, folder, resume, loggers, started)


def _train(
    config: dict[str, Any], folder: Path, resume: bool, loggers: list[Any], started: float
) -> float | None:
    """This rank's share of `train`, which began at `started` by the clock."""
    from lightning import seed_everything
    from omegaconf import OmegaConf

    from potnet.runs.folder import LAST, RunFolder
    from potnet.runs.results import finish_run, monitored
    from potnet.training import closed_form, finetune, setup
    from potnet.training.callbacks import MetricsTable, SeedEachBatch, checkpoints
    from potnet.training.module import PropertyModule
    from potnet.training.notices import LengthNotices
    from potnet.training.preemption import StopOnSignal
    from potnet.training.progress import TrainingProgress

    run = RunFolder(folder)
    seed_everything(config["seed"], workers=True, verbose=False)

    module = PropertyModule(config["model"], config["target"], config["objective"], config["optimizer"])
    start = (config.get("finetune") or {}).get("from")
    if start is not None and not resume:
        taken = finetune.start_from(module.model, start, config["finetune"]["except"])
        log.info("begins with %d weights of %s", len(taken), start)
    monitor = setup.monitor_of(config, module.targets)
    data = setup.build_data(config, module.model)
    featurizing = time.perf_counter()
    data.prepare_data()
    data.setup()
    seconds = {"featurize": time.perf_counter() - featurizing}  # without the imports before
    if start is not None:
        finetune.check_labels(data)
    validates = bool(data.split.sizes["val"])
    if data.split.sizes["train"] < 2:
        raise ConfigError("the training part has one crystal: nothing can be learned from it; give more data")
    module.prepare(data, config)
    if rank() == 0:
        setup.write_split(folder, data)
        OmegaConf.save(OmegaConf.create(config), run.config)

    table = MetricsTable(run.epochs)
    earlier, interrupted = table.seconds, False
    if closed_form.is_closed_form(module.model):
        if rank() > 0:
            return None
        seconds["train"] = closed_form.fit(module, data, folder)
    else:
        callbacks = [
            table,
            SeedEachBatch(config["seed"]),
            TrainingProgress(module.targets, monitor),
            LengthNotices(config["data"]["batch_size"]),
            *setup.build_callbacks(config["callbacks"], validates, monitor),
            # After a batch it comes behind whatever else its checkpoint keeps, such as averaged weights.
            StopOnSignal(run.checkpoints),
            *checkpoints(run.checkpoints, validates, monitor),
        ]
        derived = bool(module.targets.derived)
        trainer = setup.build_trainer(config["trainer"], callbacks, loggers, folder, derived)
        last = run.checkpoint((LAST,)) if resume else None
        interrupted = setup.fit(trainer, module, data, last)
        if not trainer.is_global_zero:
            return None
        seconds["train"] = table.seconds

    seconds["total"] = earlier + time.perf_counter() - started
    evaluations = finish_run(folder, config, data, table, seconds, interrupted, loggers, monitor)
    if interrupted:
        sys.exit(INTERRUPTED)
    return monitored(evaluations, monitor, table.rows)


@entry_point("train")
def main(config: DictConfig) -> float | None:
    """Train as the command line says."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from potnet.runs.begin import alone_in, check_unused
    from potnet.runs.sweeps import run_job
    from potnet.training.processes import devices

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode == RunMode.MULTIRUN:
        devices.check_alone()
        return run_job(config, folder, train, resumable)
    # The processes that `launch` starts do not come this way, so this one holds the lock for them.
    with alone_in(folder):
        if config.resume is not None:
            return train(resumed(folder, list(hydra.overrides.task)), folder, resume=True)
        check_unused(folder)
        settings = plain(config)
        del settings["allow"]  # what a file may build is never read from a file
        return train(settings, folder)


def resumed(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The config of an earlier run, with those overrides that leave its result alone.

    Args:
        folder: Of the run.
        overrides: Of the command line. A class of the user's is trusted where `allow=[mynet.Net]` names it.

    Raises:
        ConfigError: An override that would change the run, or a config.yaml that asks for a class which
            neither this package nor the user names.
        CheckpointError: There is no run to continue.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from potnet.config import flat, pasteable, read_saved_config
    from potnet.runs.checkpoint import CheckpointError, check_resumable
    from potnet.runs.folder import LAST, RunFolder

    run = RunFolder(folder)
    place = pasteable("resume", folder)
    if not run.config.is_file():
        raise ConfigError(f"{place}: there is no config.yaml here; give the folder of a run")
    last = run.checkpoint((LAST,))
    if last is None:
        raise CheckpointError(
            f"{place}: there is no {LAST}: this run stopped before its first epoch was done, or was "
            "fitted in closed form, without epochs. Start a new run"
        )
    given: dict[str, Any] = {
        override.get_key_element().lstrip("+"): override.value()
        for override in OverridesParser.create().parse_overrides(overrides)
    }
    given.pop("resume", None)
    check_resumable(last)
    saved = read_saved_config(run.config, given.pop("allow", None) or ())
    before = flat(saved)
    changed = {key: value for key, value in given.items() if key not in before or before[key] != value}
    for key, value in changed.items():
        if key not in before or not resumable(key):
            valid = ", ".join(f"{name}*" if name.endswith(".") else name for name in RESUMABLE[:-1])
            why = f"it was {before[key]}" if key in before else "this run has no such setting"
            raise ConfigError(
                f"{key}={value}: {why}; a resumed run keeps its own settings, so that it continues "
                f"exactly. Only {valid} may change. For anything else start a new run"
            )
    config = OmegaConf.create(saved)
    for key, value in changed.items():
        OmegaConf.update(config, key, value)
    resumed: dict[str, Any] = plain(config)
    return resumed


class _Callable(types.ModuleType):
    """A module that is called like a function; a function of this name would hide it, or be hidden."""

    def __call__(self, *overrides: str, **settings: Any) -> Any:
        from potnet.trained import train_from_python

        return train_from_python(*overrides, **settings)


if __name__ == "__main__":
    main()
else:
    sys.modules[__name__].__class__ = _Callable
