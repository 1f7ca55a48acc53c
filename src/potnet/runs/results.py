"""How a run ends: its best checkpoint is evaluated, and the results are written, logged and shown."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config.trusted import targets_in
from potnet.crystals.elements import symbol
from potnet.files import csv_text, write_whole
from potnet.inference.predictor import Predictor
from potnet.runs.choice import shortest, to_continue
from potnet.runs.evaluation import (
    Evaluation,
    evaluate,
    formulas_of,
    metrics_by_part,
    print_table,
    worst_crystals,
    write_predictions,
)
from potnet.runs.folder import BEST, ELEMENT_COLUMNS, WORST_COLUMNS, RunFolder
from potnet.runs.periodic_table import ElementError, error_by_element, plot_error_by_element
from potnet.runs.plots import learning_curve, parity_plot
from potnet.training.loggers import common
from potnet.training.temperature import calibrate

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule
    from potnet.data.targets import Targets
    from potnet.training.callbacks import MetricsTable

log = logging.getLogger(__name__)


def finish_run(
    folder: Path,
    config: Mapping[str, Any],
    data: CrystalDataModule,
    table: MetricsTable,
    seconds: dict[str, float],
    interrupted: bool,
    loggers: Sequence[Any],
    monitor: str,
) -> list[Evaluation]:
    """Evaluate the best checkpoint from its file, as `potnet evaluate` does; write, log and print results.

    Args:
        folder: Of the run.
        config: Plain.
        data: Of the run.
        table: The figures by epoch.
        seconds: Time of the stages so far, with their "total".
        interrupted: Whether training was.
        loggers: Get the final figures.
        monitor: Name of the metric that chose the best checkpoint.

    Returns:
        The evaluations of validation and test, as far as there are such parts.
    """
    run, started = RunFolder(folder), time.perf_counter()
    checkpoint = run.checkpoint()
    if checkpoint is None:
        why = "stopped before the first epoch was done" if interrupted else "a trial run keeps nothing"
        print(f"{why}: there is no checkpoint to evaluate", file=sys.stderr)
        return []
    # This run wrote the file, and its user named what is in it.
    own = [path for _, path in targets_in(config)]
    predictor = Predictor.from_checkpoint(checkpoint, allow=own)
    if checkpoint.name == BEST:  # the last one is what the run goes on from
        calibrate(predictor, data, checkpoint)
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
    write_predictions(run.predictions, evaluations)
    if table.rows:
        for key, target in targets.items():
            learning_curve(run.picture("learning_curve", _suffix(key, targets)), table.rows, target)
    tests = [evaluation for evaluation in evaluations if evaluation.part == "test" and evaluation.ids]
    worst = {test.key: worst_crystals(test, data) for test in tests}
    elements = {test.key: _error_by_element(test, data) for test in tests}
    for test in tests:
        _draw(run, test, elements[test.key], targets)
    _write_tables(run, worst, elements)
    # The last of the run's own files: where it is, a run is finished, and a sweep skips it.
    value = monitored(evaluations, monitor, table.rows)
    run.write_results({**metrics_by_part(evaluations), "monitor": monitor, "monitored": value, **facts})
    tables = {
        "worst_test_crystals" if len(targets) == 1 else f"worst_test_crystals_{key}": rows
        for key, rows in worst.items()
        if rows
    }
    results = common.Results(folder, common.summary(evaluations, facts), tables, checkpoint)
    common.log_results(loggers, results)
    if not evaluations:
        log.warning("there is neither a validation nor a test part: nothing to evaluate")
    title = f"{config['name']}: {', '.join(target.title for target in targets.values())}"
    print_table(title, evaluations, _shown(folder, config, facts))
    return evaluations


def monitored(
    evaluations: Sequence[Evaluation], monitor: str, rows: Sequence[Mapping[str, Any]]
) -> float | None:
    """The monitored metric of the best checkpoint; None without a validation part.

    Args:
        evaluations: Of the best checkpoint.
        monitor: Such as "val/k_vrh/mae".
        rows: Of metrics.csv, for a metric that is not evaluated again, such as "val/loss".
    """
    for evaluation in evaluations:
        name = monitor.removeprefix(f"val/{evaluation.key}/")
        if evaluation.part == "val" and name in evaluation.metrics:
            return float(evaluation.metrics[name])
    losses = [float(row[monitor]) for row in rows if row.get(monitor) not in (None, "")]
    return min(losses, default=None)


def _suffix(key: str, targets: Targets) -> str | None:
    """What the name of a picture says of its target: nothing where there is one target only."""
    return None if len(targets) == 1 else key


def _error_by_element(test: Evaluation, data: CrystalDataModule) -> dict[int, ElementError]:
    """Error of each element over the test crystals that contain it, by atomic number."""
    formulas = formulas_of(test, data)
    known = [(f, e) for f, e in zip(formulas, test.errors.tolist(), strict=True) if e == e]
    return error_by_element([formula for formula, _ in known], [error for _, error in known])


def _draw(run: RunFolder, test: Evaluation, elements: Mapping[int, ElementError], targets: Targets) -> None:
    """Predictions against labels, and the error of each element where formulas are known."""
    target, suffix = test.target, _suffix(test.key, targets)
    if not target.is_class:
        there = ~test.label.isnan()
        parity_plot(
            run.picture("parity", suffix),
            test.label[there].numpy(),
            test.prediction[there].numpy(),
            test.metrics,
            target.title,
            target.unit,
            target.scale.axis == "log",
        )
    if elements:
        unit = target.metric_unit if not target.is_class else "1 - probability of the class"
        plot_error_by_element(run.picture("error_by_element", suffix), elements, target.title, unit)


def _write_tables(
    run: RunFolder,
    worst: Mapping[str, Sequence[Sequence[Any]]],
    elements: Mapping[str, Mapping[int, ElementError]],
) -> None:
    """The worst crystals and the errors by element as CSV, where there are any."""
    if any(worst.values()):
        rows = [(key, *row[:-1], f"{row[-1]:.6g}") for key, found in worst.items() for row in found]
        write_whole(run.worst, csv_text(WORST_COLUMNS, rows))
    if any(elements.values()):
        errors = [
            (key, z, symbol(z), f"{error.mae:.6g}", error.crystals)
            for key, found in elements.items()
            for z, error in found.items()
        ]
        write_whole(run.elements, csv_text(ELEMENT_COLUMNS, errors))


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
        "run": str(shortest(folder)),
    }
    if interrupted:
        shown["continue"] = to_continue(folder)
    return shown
