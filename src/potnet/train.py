"""Train a network: `python -m potnet.train --help`."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import INTERRUPTED, ConfigError, entry_point, plain
from potnet.ranks import rank

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

RESUMABLE = (
    "trainer.",
    "data.num_workers",
    "data.featurize_workers",
    "data.cache_dir",
    "callbacks.early_stopping.",
    "comparison_epochs.",  # of all models; that of the run is trainer.max_epochs
)
"""What may be changed when a run is continued: nothing that its result depends on, up to when it stops."""


def resumable(key: str) -> bool:
    """Whether a run may be continued with another value of this setting."""
    return key.startswith(RESUMABLE) and key != "trainer.max_epochs"


def train(config: dict[str, Any], folder: Path, resume: bool = False) -> float | None:
    """Featurize, train, evaluate the best checkpoint, and write the folder of the run.

    Args:
        config: Plain config, composed from conf/train.yaml.
        folder: Of the run; it exists.
        resume: Continue from the folder's last checkpoint.

    Returns:
        MAE of the best checkpoint on the validation part, in the target's learned unit; None if there is
        no such part.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: What cannot be used, and what to do.
        SystemExit: After Ctrl-C or SIGTERM, once everything is kept.
    """
    from potnet.training import recipe

    started = time.perf_counter()
    config = recipe.with_absolute_source(config)
    recipe.check_data(config["data"])  # before the imports that take seconds

    from potnet.training import distributed, tracking
    from potnet.training.launch import launch

    recipe.quieten()
    recipe.check_seed(config["seed"])
    recipe.check_trainer(config["trainer"])
    ranks = distributed.ranks_to_start(config["trainer"])
    if ranks > 1:
        return launch(config, folder, resume, ranks)
    if rank() > 0:
        logging.getLogger().setLevel(logging.ERROR)  # the first rank says it all
    with tracking.opened(config, folder) as loggers:
        return _train(config, folder, resume, loggers, started)


def _train(
    config: dict[str, Any], folder: Path, resume: bool, loggers: list[Any], started: float
) -> float | None:
    """This rank's share of `train`, which began at `started` by the clock."""
    from lightning import seed_everything
    from omegaconf import OmegaConf

    from potnet.training import closed_form, finetune, recipe
    from potnet.training.callbacks import MetricsTable, SeedEachBatch, checkpoints
    from potnet.training.checkpoint import LAST, checkpoint_of
    from potnet.training.conclusion import conclude
    from potnet.training.module import PropertyModule
    from potnet.training.preemption import StopOnSignal
    from potnet.training.progress import TrainingProgress

    seed_everything(config["seed"], workers=True, verbose=False)

    module = PropertyModule(config["model"], config["target"], config["objective"], config["optimizer"])
    if (start := (config.get("finetune") or {}).get("from")) is not None and not resume:
        taken = finetune.start_from(module.model, start, config["finetune"]["except"])
        log.info("begins with %d weights of %s", len(taken), start)
    data = recipe.build_data(config, module.model)
    data.prepare_data()
    data.setup()
    if len(data.split.train) < 2:
        raise ConfigError("the training part has one crystal: nothing can be learned from it; give more data")
    module.set_statistics(*data.statistics())
    module.record = recipe.record_of(config, data)
    if rank() == 0:
        recipe.write_split(folder, data)
        OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    seconds = {"featurize": time.perf_counter() - started}

    table = MetricsTable(folder / "metrics.csv")
    earlier, interrupted = table.seconds, False
    if closed_form.is_closed_form(module.model):
        if rank() > 0:
            return None
        seconds["train"] = closed_form.fit(module, data, folder)
    else:
        callbacks = [
            table,
            SeedEachBatch(config["seed"]),
            TrainingProgress(module.target.learned_unit),
            *recipe.build_callbacks(config["callbacks"], validates=bool(data.split.val)),
            # After a batch it comes behind whatever else its checkpoint keeps, such as averaged weights.
            StopOnSignal(folder / "checkpoints"),
            *checkpoints(folder / "checkpoints", validates=bool(data.split.val)),
        ]
        trainer = recipe.build_trainer(config["trainer"], callbacks, loggers, folder)
        last = checkpoint_of(folder, (LAST,)) if resume else None
        interrupted = recipe.fit(trainer, module, data, last)
        if not trainer.is_global_zero:
            return None
        seconds["train"] = table.seconds

    seconds["total"] = earlier + time.perf_counter() - started
    evaluations = conclude(folder, config, data, table, seconds, interrupted, loggers)
    if interrupted:
        sys.exit(INTERRUPTED)
    return next((e.metrics["mae"] for e in evaluations if e.part == "val"), None)


@entry_point("train")
def main(config: DictConfig) -> float | None:
    """Train as the command line says."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from potnet.sweeps import run_job
    from potnet.training import distributed

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode == RunMode.MULTIRUN:
        distributed.check_alone()
        return run_job(config, folder, train, resumable)
    if config.resume is not None:
        return train(resumed(folder, list(hydra.overrides.task)), folder, resume=True)
    return train(plain(config), folder)


def resumed(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The config of an earlier run, with those overrides that leave its result alone.

    Raises:
        ConfigError: An override that would change the run.
        CheckpointError: There is no run to continue.
    """
    from omegaconf import OmegaConf

    from potnet.training.checkpoint import LAST, CheckpointError, checkpoint_of

    file = folder / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"resume={folder}: there is no config.yaml here; give the folder of a run")
    if checkpoint_of(folder, (LAST,)) is None:
        raise CheckpointError(
            f"resume={folder}: there is no {LAST}: this run stopped before its first epoch was done, or was "
            "fitted in closed form, without epochs. Start a new run"
        )
    saved = OmegaConf.load(file)
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key == "resume":
            continue
        if not resumable(key):
            raise ConfigError(
                f"{override}: a resumed run keeps its own settings, so that it continues exactly; besides "
                "resume only trainer.* (but max_epochs), data.num_workers, data.cache_dir and "
                "callbacks.early_stopping.* can be given. For anything else start a new run"
            )
        OmegaConf.update(saved, key, OmegaConf.from_dotlist([f"value={value}"]).value)
    config: dict[str, Any] = plain(saved)
    return config


if __name__ == "__main__":
    main()
