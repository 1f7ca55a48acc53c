"""Judging a trained model on the parts of a split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from potnet.files import csv_text, write_whole
from potnet.inference.predictor import Predictor
from potnet.training.metrics import regression_metrics

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions of one part of a split.

    Attributes:
        part: "train", "val" or "test".
        ids: n names.
        target: (n,) float64, physical unit.
        prediction: (n,) float64, physical unit.
        metrics: `mae`, `rmse`, `r2`, `n` and their `unit`, the learned one.
    """

    part: str
    ids: list[str]
    target: Tensor
    prediction: Tensor
    metrics: dict[str, Any]


def evaluate(
    predictor: Predictor, data: CrystalDataModule, parts: Sequence[str] = ("val", "test")
) -> list[Evaluation]:
    """Predict every crystal of the parts once, in the order of the split; empty parts are left out."""
    found = []
    for part in parts:
        if not data.split[part]:
            continue
        ids, prediction, target = predictor.predict_batches(data.dataloader(part))
        metrics = {**regression_metrics(prediction, target), "unit": predictor.target.learned_unit}
        inverse = predictor.target.inverse
        found.append(Evaluation(part, ids, inverse(target), inverse(prediction), metrics))
    return found


def write_predictions(path: Path, evaluations: Iterable[Evaluation]) -> None:
    """CSV `id,split,target,prediction`, the latter two in the physical unit."""
    rows = [
        (id, evaluation.part, f"{target:.6g}", f"{prediction:.6g}")
        for evaluation in evaluations
        for id, target, prediction in zip(
            evaluation.ids, evaluation.target.tolist(), evaluation.prediction.tolist(), strict=True
        )
    ]
    write_whole(path, csv_text(("id", "split", "target", "prediction"), rows))


def print_table(title: str, evaluations: Iterable[Evaluation], facts: dict[str, str] | None = None) -> None:
    """A short table of the figures, and further facts below them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("split", "MAE", "RMSE", "R²", "unit", "crystals"):
        table.add_column(column, justify="left" if column in ("split", "unit") else "right")
    for evaluation in evaluations:
        m = evaluation.metrics
        r2 = "-" if m["r2"] is None else f"{m['r2']:.4f}"
        table.add_row(evaluation.part, f"{m['mae']:.5f}", f"{m['rmse']:.5f}", r2, m["unit"], str(m["n"]))
    console = Console(soft_wrap=True)
    if table.row_count:
        console.print(table)
    for name, value in (facts or {}).items():
        console.print(f"{name:<12}{value}", highlight=False)
