"""How a run ends: its best checkpoint is judged, and the results are written, logged and shown."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import pasteable
from potnet.files import write_whole
from potnet.training.loggers import tracking
from potnet.runs.checkpoint import checkpoint_of
from potnet.runs.evaluation import Evaluation, evaluate, print_table, write_predictions
from potnet.runs.periodic_table import error_by_element, plot_error_by_element
from potnet.runs.plots import learning_curve, parity_plot
from potnet.inference.predictor import Predictor

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule
    from potnet.data.targets import Target
    from potnet.training.callbacks import MetricsTable

log = logging.getLogger(__name__)


def conclude(
    folder: Path,
    config: Mapping[str, Any],
    data: CrystalDataModule,
    table: MetricsTable,
    seconds: dict[str, float],
    interrupted: bool,
    loggers: Sequence[Any],
) -> list[Evaluation]:
    """Evaluate the best checkpoint from its file, as `potnet.evaluate` does, and write and show the results.

    Args:
        folder: Of the run.
        config: Plain.
        data: Of the run.
        table: The figures by epoch.
        seconds: Time of the stages so far, with their "total".
        interrupted: Whether training was.
        loggers: Told the final figures.

    Returns:
        The evaluations of validation and test, as far as there are such parts.
    """
    started = time.perf_counter()
    checkpoint = checkpoint_of(folder)
    if checkpoint is None:
        why = "stopped before the first epoch was done" if interrupted else "a trial run keeps nothing"
        print(f"{why}: there is no checkpoint to evaluate", file=sys.stderr)
        return []
    predictor = Predictor.from_checkpoint(checkpoint)
    evaluations = evaluate(predictor, data)
    seconds["test"] = time.perf_counter() - started
    seconds["total"] += seconds["test"]
    facts = {
        "parameters": sum(parameter.numel() for parameter in predictor.model.parameters()),
        "epochs": len(table.rows),
        "devices": table.devices,
        "seconds": {stage: round(seconds[stage], 3) for stage in ("featurize", "train", "test", "total")},
        "checkpoint": checkpoint.name,
        "interrupted": interrupted,
    }
    target = predictor.target
    write_predictions(folder / "predictions.csv", evaluations)
    if table.rows:
        learning_curve(folder / "learning_curve.png", table.rows, target.learned_unit)
    test = next((evaluation for evaluation in evaluations if evaluation.part == "test"), None)
    if test is not None:
        _draw(folder, test, target, data)
    # The last of the run's own files: where it is, a run is finished, and a sweep skips it.
    content = {evaluation.part: evaluation.metrics for evaluation in evaluations} | facts
    write_whole(folder / "metrics.json", json.dumps(content, indent=2) + "\n")
    worst = tracking.worst_crystals(test, target, data) if test is not None else []
    tracking.log_results(
        loggers, tracking.Results(folder, tracking.summary(evaluations, facts), worst, checkpoint)
    )
    if not evaluations:
        log.warning("there is neither a validation nor a test part: nothing to evaluate")
    print_table(f"{config['name']}: {target.name}", evaluations, _shown(folder, config, facts))
    return evaluations


def _draw(folder: Path, test: Evaluation, target: Target, data: CrystalDataModule) -> None:
    """Predictions against targets, and the error of each element where formulas are known."""
    parity_plot(
        folder / "parity.png",
        test.target.numpy(),
        test.prediction.numpy(),
        test.metrics,
        target.name,
        target.unit,
        target.settings()["transform"] == "log10",
    )
    errors = tracking.absolute_errors(test, target)
    by_element = error_by_element(tracking.formulas_of(test, data) or [""] * len(errors), errors)
    if by_element:
        plot_error_by_element(folder / "error_by_element.png", by_element, target.name, target.learned_unit)


def _shown(folder: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """What is printed below the figures: the facts of the run as a person reads them."""
    interrupted = facts["interrupted"]
    epochs = (
        f"{facts['epochs']} of {config['trainer']['max_epochs']}{' (interrupted)' if interrupted else ''}"
    )
    shown = {
        "parameters": f"{facts['parameters']:,}".replace(",", " "),
        "epochs": epochs if facts["epochs"] else "none: fitted in closed form",
        "time": "  ".join(f"{stage} {value:.1f} s" for stage, value in facts["seconds"].items()),
        "checkpoint": f"checkpoints/{facts['checkpoint']}",
        "run": str(_shortest(folder)),
    }
    if interrupted:
        shown["continue"] = f"potnet train {pasteable('resume', _shortest(folder))}"
    return shown


def _shortest(path: Path) -> Path:
    """Relative to the working folder, where it lies inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
