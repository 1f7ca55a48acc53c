"""The figures by which a model is judged."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def regression_metrics(prediction: Tensor, target: Tensor) -> dict[str, Any]:
    """Errors over crystals.

    Args:
        prediction: (n,), in the unit of the metrics.
        target: (n,), the same.

    Returns:
        `mae` = mean |p - t|, `rmse` = sqrt(mean (p - t)²), `r2` = 1 - sum (p - t)² / sum (t - mean t)²
        (None where it is not defined: fewer than two crystals or equal targets), and `n`.
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
