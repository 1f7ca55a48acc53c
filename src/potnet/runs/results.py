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
from potnet.runs.evaluation import (
    Evaluation,
    evaluate,
    metrics_by_part,
    print_table,
    write_predictions,
)
from potnet.runs.periodic_table import error_by_element, plot_error_by_element
from potnet.runs.plots import learning_curve, parity_plot
from potnet.inference.predictor import Predictor

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule
    from potnet.data.targets import Targets
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
    monitor: str,
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
        monitor: Name of the metric that chose the best checkpoint.

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
    targets = predictor.targets
    write_predictions(folder / "predictions.csv", evaluations)
    if table.rows:
        for key, target in targets.items():
            learning_curve(folder / picture("learning_curve", key, targets), table.rows, target)
    tests = [evaluation for evaluation in evaluations if evaluation.part == "test" and evaluation.ids]
    for test in tests:
        _draw(folder, test, targets, data)
    # The last of the run's own files: where it is, a run is finished, and a sweep skips it.
    content = {"format": 2, **metrics_by_part(evaluations), "monitor": monitor, **facts}
    write_whole(folder / "metrics.json", json.dumps(content, indent=2) + "\n")
    worst = tracking.worst_crystals(tests[0], data) if tests else []
    tracking.log_results(
        loggers, tracking.Results(folder, tracking.summary(evaluations, facts), worst, checkpoint)
    )
    if not evaluations:
        log.warning("there is neither a validation nor a test part: nothing to evaluate")
    print_table(f"{config['name']}: {', '.join(t.title for t in targets.values())}", evaluations, _shown(folder, config, facts))
    return evaluations


def picture(name: str, key: str, targets: Targets) -> str:
    """File of a picture of one target: "parity.png", or "parity_k_vrh.png" where there are several."""
    return f"{name}.png" if len(targets) == 1 else f"{name}_{key}.png"


def _draw(folder: Path, test: Evaluation, targets: Targets, data: CrystalDataModule) -> None:
    """Predictions against labels, and the error of each element where formulas are known."""
    target = test.target
    if not target.is_class:
        parity_plot(
            folder / picture("parity", test.key, targets),
            test.label.numpy(),
            test.prediction.numpy(),
            test.metrics,
            target.title,
            target.unit,
            target.scale.axis == "log",
        )
    errors = test.errors.tolist()
    by_element = error_by_element(tracking.formulas_of(test, data) or [""] * len(errors), errors)
    if by_element:
        unit = target.metric_unit if not target.is_class else "1 - probability of the class"
        path = folder / picture("error_by_element", test.key, targets)
        plot_error_by_element(path, by_element, target.title, unit)


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
