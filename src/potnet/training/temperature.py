"""Calibrated probabilities of classes: temperature scaling (Guo et al., ICML 2017, section 4.2).

softmax(logits / T), T > 0 with the least log loss on the validation part. The order of the classes, and so
the accuracy, stays. 1 / T is kept as `std` of the target's scaler: whoever reads the checkpoint has it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from potnet.files import replacing
from potnet.training.scaling import scaler_of

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule
    from potnet.inference.predictor import Predictor

log = logging.getLogger(__name__)

LEAST = 50
"""Validation labels from which on a temperature is fitted."""

RANGE = (-3.0, 1.5)
"""Of log(1 / T): a validation part without a wrong answer would make it infinite."""


def log_loss(logits: Tensor, labels: Tensor, factor: float = 1.0) -> float:
    """Mean of -log(probability of the class): (n, classes) logits times the factor, (n,) classes."""
    rows = torch.arange(len(labels))
    return float(-(factor * logits.double()).log_softmax(-1)[rows, labels.long()].mean())


def fit_factor(logits: Tensor, labels: Tensor) -> float:
    """1 / T of least log loss; 1 where there are too few labels to tell.

    Args:
        logits: (n, classes).
        labels: (n,) numbers of classes, no NaN.
    """
    if len(labels) < LEAST:
        return 1.0
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda x: log_loss(logits, labels, float(np.exp(x))), bounds=RANGE, method="bounded"
    )
    return float(np.exp(found.x))


def calibrate(predictor: Predictor, data: CrystalDataModule, file: Path) -> dict[str, float]:
    """Set the temperature of each classification from the validation part, in the model and in its
    checkpoint.

    Args:
        predictor: Loaded from the file; changed in place.
        data: Of the run.
        file: A checkpoint that training wrote; rewritten only if there is something to set.

    Returns:
        Target -> T.
    """
    keys = [key for key, target in predictor.targets.items() if target.is_class]
    if not keys or not data.split.sizes["val"]:
        return {}
    for key in keys:
        scaler_of(predictor.scalers, key).set(0.0, 1.0)
    logits: dict[str, list[Tensor]] = {key: [] for key in keys}
    labels: dict[str, list[Tensor]] = {key: [] for key in keys}
    for batch in data.dataloader("val"):
        found = predictor.learned(batch)
        for key in keys:
            logits[key].append(found[key])
            labels[key].append(batch.targets[key].double().cpu())
    factors = {}
    for key in keys:
        label, value = torch.cat(labels[key]), torch.cat(logits[key])
        known = ~label.isnan()
        factors[key] = factor = fit_factor(value[known], label[known])
        if factor != 1:
            before, after = (log_loss(value[known], label[known], f) for f in (1.0, factor))
            log.info("%s: temperature %.3g from %d validation labels (log loss %.4f, before %.4f)",
                     key, 1 / factor, int(known.sum()), after, before)  # fmt: skip
        scaler_of(predictor.scalers, key).set(0.0, factor)
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    for key, factor in factors.items():
        checkpoint["state_dict"][f"scalers.{key}.std"].fill_(factor)
    with replacing(file) as part:
        torch.save(checkpoint, part)
    return {key: 1 / factor for key, factor in factors.items()}
