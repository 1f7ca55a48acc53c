"""The figures by which a model is judged, of each target on the labels that are there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def known(prediction: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and labels without those that are missing: (n,) each, or (n, classes) and (n,)."""
    if prediction.dim() > label.dim():  # classes
        there = ~label.isnan()
        return prediction[there], label[there]
    prediction, label = prediction.flatten(), label.flatten()
    there = ~label.isnan()
    return prediction[there], label[there]


def regression_metrics(prediction: Tensor, target: Tensor) -> dict[str, Any]:
    """Errors over crystals, or over atoms and components.

    Args:
        prediction: (n,), in the unit of the metrics.
        target: (n,), the same.

    Returns:
        `mae` = mean |p - t|, `rmse` = sqrt(mean (p - t)²), `r2` = 1 - sum (p - t)² / sum (t - mean t)²
        (None where it is not defined: fewer than two values or equal targets), and `n`.
    """
    from torchmetrics.functional import mean_absolute_error, mean_squared_error, r2_score

    prediction, target = prediction.double(), target.double()
    n = len(target)
    r2 = None
    if n >= 2 and bool((target != target[0]).any()):
        r2 = float(r2_score(prediction, target))
    return {
        "mae": float(mean_absolute_error(prediction, target)) if n else math.nan,
        "rmse": float(torch.sqrt(mean_squared_error(prediction, target))) if n else math.nan,
        "r2": r2,
        "n": n,
    }


def classification_metrics(probability: Tensor, label: Tensor) -> dict[str, Any]:
    """Figures of a classification.

    Args:
        probability: (n, classes).
        label: (n,) numbers of classes.

    Returns:
        `accuracy`, `f1` (of class 1 for two classes, else the mean over classes), `roc_auc` (the same; None
        where only one class occurs), `log_loss` (mean of -log p of the right class, nats), and `n`.
    """
    from torchmetrics.functional.classification import multiclass_auroc, multiclass_f1_score

    n, classes = len(label), probability.shape[1]
    number = label.long()
    if not n:
        return {"accuracy": math.nan, "f1": math.nan, "roc_auc": None, "log_loss": math.nan, "n": 0}
    scores = multiclass_f1_score(probability, number, classes, average=None)
    auc = None
    if len(number.unique()) == classes:
        areas = multiclass_auroc(probability, number, classes, average=None)
        auc = float(areas[1] if classes == 2 else areas.mean())
    right = probability[torch.arange(n), number].clamp(min=1e-300)
    return {
        "accuracy": float((probability.argmax(-1) == number).double().mean()),
        "f1": float(scores[1] if classes == 2 else scores.mean()),
        "roc_auc": auc,
        "log_loss": float(-right.log().mean()),
        "n": n,
    }
