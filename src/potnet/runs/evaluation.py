"""Judging a trained model on the parts of a split, target by target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from potnet.data.errors import DataError
from potnet.data.targets import Target
from potnet.files import csv_text, write_whole
from potnet.inference.predictor import Predictor
from potnet.runs.folder import PREDICTION_COLUMNS
from potnet.training.metrics import classification_metrics, known, regression_metrics
from potnet.training.outputs import measured

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule


MOST_GROUPS = 100
"""Into which a part is divided."""

WORST_COLUMNS = ("id", "formula", "atoms", "value", "prediction", "error")


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions of one target on one part of a split.

    Attributes:
        part: "train", "val" or "test".
        target: Which.
        ids: n names; empty for targets of atoms or with a shape, whose labels are not one a crystal.
        label: (n,) float64, physical unit, or number of the class; NaN where missing.
        prediction: (n,) float64, physical unit, or number of the most probable class.
        errors: (n,) absolute errors in the target's metric unit; of a class 1 - its probability.
        metrics: `mae`, `rmse`, `r2` (or `accuracy`, `f1`, `roc_auc`, `log_loss`), `n` and `unit`.
        probability: (n, classes) of a classification.
        group: What the crystals have in the column by which a part was divided; None of a whole part.
    """

    part: str
    target: Target
    ids: list[str]
    label: Tensor
    prediction: Tensor
    errors: Tensor
    metrics: dict[str, Any]
    probability: Tensor | None = field(default=None, repr=False)
    group: str | None = None

    @property
    def key(self) -> str:
        """Name of the target."""
        return self.target.key


def evaluate(
    predictor: Predictor,
    data: CrystalDataModule,
    parts: Sequence[str] = ("val", "test"),
    by: str | None = None,
) -> list[Evaluation]:
    """Predict every crystal of the parts once, in the order of the split; empty parts are left out.

    Args:
        predictor: Of the model.
        data: Set up.
        parts: Of the split.
        by: Column of the data; each of its values is evaluated by itself.

    Returns:
        One for each part, group and target, in that order.

    Raises:
        DataError: There is no such column, or it has more than `MOST_GROUPS` values.
    """
    found = []
    for part in parts:
        if not data.split.sizes[part]:
            continue
        if by is None:
            found += evaluate_part(predictor, part, data.dataloader(part))
            continue
        for group, rows in groups_of(data, part, by).items():
            of_group = evaluate_part(predictor, part, data.dataloader(part, rows))
            found += [replace(evaluation, group=group) for evaluation in of_group]
    return found


def groups_of(data: CrystalDataModule, part: str, by: str) -> dict[str, np.ndarray]:
    """Rows of the crystals of a part, by what they have in a column of the data, in alphabetic order.

    Raises:
        DataError: There is no such column, or it has more than `MOST_GROUPS` values.
    """
    rows = data.split.rows(part)
    found: dict[str, list[int]] = {}
    for row, value in zip(rows.tolist(), data.store.table.values(by)[rows].tolist(), strict=True):
        text = f"{value:g}" if isinstance(value, float) else str(value)
        found.setdefault(text, []).append(row)
    if len(found) > MOST_GROUPS:
        raise DataError(
            f"by={by}: {part} has {len(found)} values of it, more than {MOST_GROUPS}: give a column that "
            "names groups"
        )
    return {text: np.array(found[text]) for text in sorted(found)}


def evaluate_part(predictor: Predictor, part: str, batches: Iterable[Any]) -> list[Evaluation]:
    """One evaluation a target of batches that carry their labels."""
    targets = predictor.targets
    ids: list[str] = []
    values: dict[str, list[Tensor]] = {key: [] for key in targets}
    labels: dict[str, list[Tensor]] = {key: [] for key in targets}
    scaled: dict[str, list[tuple[Tensor, Tensor]]] = {key: [] for key in targets}
    for batch in batches:
        ids += batch.ids
        for key, value in predictor.learned(batch).items():
            label = targets[key].learned(batch.targets[key].double().cpu())
            values[key].append(value)
            labels[key].append(label)
            if not targets[key].is_class:
                pair = (measured(targets, key, x, batch) for x in (value, label))
                scaled[key].append(known(*pair))
    found = []
    for key, target in targets.items():
        value, label = torch.cat(values[key]), torch.cat(labels[key])
        names = ids if target.per == "crystal" and not target.shape else []
        if target.is_class:
            found.append(_of_classes(part, target, names, value, label))
            continue
        prediction, wanted = (torch.cat(both) for both in zip(*scaled[key], strict=True))
        metrics = {**regression_metrics(prediction, wanted), "unit": target.metric_unit}
        errors = (prediction - wanted).abs()
        if names and len(errors) < len(names):  # some labels are missing
            everywhere = torch.full((len(names),), float("nan"), dtype=torch.float64)
            everywhere[~label.isnan()] = errors
            errors = everywhere
        found.append(
            Evaluation(part, target, names, target.physical(label), target.physical(value), errors, metrics)
        )
    return found


def _of_classes(part: str, target: Target, ids: list[str], logits: Tensor, label: Tensor) -> Evaluation:
    probability = torch.softmax(logits, -1)
    metrics = {**classification_metrics(*known(probability, label)), "unit": ""}
    rows = torch.arange(len(label))
    errors = 1 - probability[rows, label.nan_to_num().long()]
    errors[label.isnan()] = float("nan")
    predicted = probability.argmax(-1).double()
    return Evaluation(part, target, ids, label, predicted, errors, metrics, probability)


def metrics_by_part(evaluations: Iterable[Evaluation]) -> dict[str, dict[str, dict[str, Any]]]:
    """The content of metrics.json: part -> target -> figures."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.part, {})[evaluation.key] = evaluation.metrics
    return found


def write_predictions(path: Path, evaluations: Iterable[Evaluation]) -> None:
    """CSV `id,split,target,value,prediction`, one row a crystal and target, in physical units.

    Of a classification value and prediction are names of classes. Targets of atoms or with a shape are left
    out.
    """
    rows = []
    for evaluation in evaluations:
        if not evaluation.ids:
            continue
        shown = (
            _text(evaluation.target, column.tolist()) for column in (evaluation.label, evaluation.prediction)
        )
        rows += [
            (id, evaluation.part, evaluation.key, label, prediction)
            for id, label, prediction in zip(evaluation.ids, *shown, strict=True)
        ]
    write_whole(path, csv_text(PREDICTION_COLUMNS, rows))


def _text(target: Target, values: list[float]) -> list[str]:
    if target.is_class:
        classes = target.classes or ()
        return ["" if value != value else classes[int(value)] for value in values]
    return ["" if value != value else f"{value:.6g}" for value in values]


def formulas_of(evaluation: Evaluation, data: CrystalDataModule) -> list[str]:
    """n reduced formulas."""
    rows = pa.array(data.split.rows(evaluation.part))
    return data.store.table.texts["formula"].take(rows).to_pylist()


def worst_crystals(evaluation: Evaluation, data: CrystalDataModule, count: int = 20) -> list[tuple[Any, ...]]:
    """Rows of `WORST_COLUMNS`, the largest error first.

    Label and prediction are in the physical unit, the error in that of the metrics.
    """
    errors = evaluation.errors.nan_to_num(nan=-1.0).tolist()
    formulas = formulas_of(evaluation, data)
    atoms = data.store.num_atoms[data.split.rows(evaluation.part)]
    worst = sorted((n for n in range(len(errors)) if errors[n] >= 0), key=lambda n: -errors[n])[:count]
    return [
        (
            evaluation.ids[n],
            formulas[n],
            int(atoms[n]),
            float(evaluation.label[n]),
            float(evaluation.prediction[n]),
            errors[n],
        )
        for n in worst
    ]


def print_table(title: str, evaluations: Iterable[Evaluation], facts: dict[str, str] | None = None) -> None:
    """A short table of the figures, and further facts below them."""
    from rich.console import Console
    from rich.table import Table

    evaluations = list(evaluations)
    console = Console(soft_wrap=True)
    several = len({evaluation.key for evaluation in evaluations}) > 1
    grouped = any(evaluation.group is not None for evaluation in evaluations)
    for kind, columns in (
        (False, (("mae", "MAE"), ("rmse", "RMSE"), ("r2", "R²"))),
        (True, (("accuracy", "accuracy"), ("f1", "F1"), ("roc_auc", "ROC AUC"))),
    ):
        rows = [evaluation for evaluation in evaluations if evaluation.target.is_class == kind]
        if not rows:
            continue
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in ("split", *(["group"] if grouped else []), *(["target"] if several else [])):
            table.add_column(column, no_wrap=True)
        for _, column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("unit", no_wrap=True)
        table.add_column("labels", justify="right", no_wrap=True)
        for evaluation in rows:
            figures = [evaluation.metrics[name] for name, _ in columns]
            # Without labels there is no error.
            shown = ["-" if figure is None or figure != figure else f"{figure:.5f}" for figure in figures]
            which = [evaluation.part, *([evaluation.group or ""] if grouped else [])]
            which += [evaluation.key] if several else []
            table.add_row(*which, *shown, evaluation.metrics["unit"], str(evaluation.metrics["n"]))
        # A narrow terminal wraps lines, but no figure is cut.
        needed = console.measure(table, options=console.options.update_width(1000)).maximum
        Console(soft_wrap=True, width=max(console.width, needed)).print(table)
    for name, value in (facts or {}).items():
        console.print(f"{name:<12}{value}", highlight=False)
