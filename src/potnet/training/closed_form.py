"""Models that are fitted in closed form: no epochs, no gradients, one checkpoint.

Such a model has `closed_form = True` and a method `fit(batches, targets, report)`; everything else about it,
its config, features, predictions and checkpoint, is as with networks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from potnet.files import csv_text, write_whole
from potnet.progress import Progress, progress_bar
from potnet.runs.folder import RunFolder
from potnet.training.checkpoint_io import AtomicCheckpointIO
from potnet.training.scaling import scaler_of

if TYPE_CHECKING:
    from rich.console import Console

    from potnet.crystals import CrystalBatch
    from potnet.data import CrystalDataModule
    from potnet.nn.ridge import Report, Trial
    from potnet.training.module import PropertyModule

log = logging.getLogger(__name__)


def is_closed_form(model: nn.Module) -> bool:
    """Whether a model is fitted in closed form."""
    return bool(getattr(model, "closed_form", False))


def fit(module: PropertyModule, data: CrystalDataModule, folder: Path) -> float:
    """Fit the training part, and write best.ckpt, which `Predictor` reads as that of a network.

    What cross-validation tried is written to cross_validation.csv. Ctrl-C ends the fit, and nothing is kept.

    Args:
        module: Its model has `closed_form = True`; its scalers are set.
        data: Prepared and set up.
        folder: Of the run.

    Returns:
        Seconds that it took.

    Raises:
        ValueError: The crystals are too many or too few, or no setting that was to be tried works.
    """
    started = time.perf_counter()
    batches = list(data.dataloader("train"))
    target, model = module.targets.first, module.model
    if hasattr(model, "fit_labels"):
        _fit_energy(module, batches, folder)
        _write_best(module, folder)
        return time.perf_counter() - started
    if len(module.targets) > 1 or target.is_class or target.outputs > 1 or target.per == "atom":
        raise ValueError(
            f"{type(model).__name__} is fitted in closed form to one number a crystal, not to "
            f"{', '.join(module.targets)}: choose another model or target"
        )
    scaler = scaler_of(module.scalers, target.key)
    targets = torch.cat([scaler.scaled(target.learned(b.targets[target.key]), b) for b in batches])
    with fit_progress() as report:
        model.fit(batches, targets, report)  # type: ignore[operator]
    scale = float(scaler.std)
    _write_trials(RunFolder(folder).trials, model.trials, scale)  # type: ignore[arg-type]
    chosen: Trial = model.chosen  # type: ignore[assignment]
    log.info(
        "cross-validation: MAE %.5f %s with length %g and noise %g",
        chosen.mae * scale,
        target.learned_unit,
        chosen.length,
        chosen.noise,
    )
    _write_best(module, folder)
    return time.perf_counter() - started


def _write_best(module: PropertyModule, folder: Path) -> None:
    checkpoint = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "potnet": module.record,
    }
    AtomicCheckpointIO().save_checkpoint(checkpoint, RunFolder(folder).best)


def _fit_energy(module: PropertyModule, batches: list[CrystalBatch], folder: Path) -> None:
    """Fit a model that is linear in its coefficients to an energy and its derivatives."""
    targets, model = module.targets, module.model
    energy = next(key for key in targets.direct)
    scaler = scaler_of(module.scalers, energy)
    labels = []
    for batch in batches:
        one = {"energy": scaler.scaled(batch.targets[energy].double(), batch)}
        one |= {key: batch.targets[key].double() / scaler.std for key in targets.derived}
        labels.append(one)
    weights = {"energy": targets[energy].weight} | {key: one.weight for key, one in targets.derived.items()}
    with fit_progress() as report:
        model.fit_labels(batches, labels, weights, report, float(scaler.std))  # type: ignore[operator]
    tried = [(f"{smoothness:g}", f"{loss:.6g}") for smoothness, loss in model.tried.items()]  # type: ignore[union-attr, operator]
    write_whole(RunFolder(folder).trials, csv_text(("smoothness", "held_out_loss"), tried))
    if hasattr(model, "draw"):
        model.draw(folder / "pair_potentials.png", float(scaler.std), targets[energy].unit)  # type: ignore[operator]


def _write_trials(path: Path, trials: list[Trial], scale: float) -> None:
    """CSV of what was tried, the error in the target's learned unit."""
    rows = [(f"{trial.length:g}", f"{trial.noise:g}", f"{trial.mae * scale:.6g}") for trial in trials]
    write_whole(path, csv_text(("length", "noise", "mae"), rows))


@contextmanager
def fit_progress(console: Console | None = None) -> Iterator[Report]:
    """A bar for each stage; where the output is not a terminal, a line.

    Args:
        console: Where to write; stdout by default.
    """
    from rich.console import Console

    console = console or Console(soft_wrap=True)
    with ExitStack() as bars:
        advance: Progress | None = None
        before = 0

        def report(stage: str, done: int, total: int) -> None:
            nonlocal advance, before
            if done == 0 or advance is None:
                bars.close()
                advance, before = bars.enter_context(progress_bar(total, stage, "steps", None, console)), 0
                if not console.is_terminal:
                    console.print(
                        f"fitting: {stage}, {total} step{'s' if total > 1 else ''}", highlight=False
                    )
            advance(done - before)
            before = done

        yield report
