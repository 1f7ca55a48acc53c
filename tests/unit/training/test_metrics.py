"""The figures of an evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from potnet.training.metrics import classification_metrics, regression_metrics


def test_figures_by_hand() -> None:
    prediction = torch.tensor([1.0, 2.0, 3.0, 5.0])
    target = torch.tensor([1.0, 2.0, 4.0, 3.0])
    found = regression_metrics(prediction, target)
    assert found["mae"] == pytest.approx(0.75)
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 4))
    assert found["r2"] == pytest.approx(1 - 5 / np.var([1, 2, 4, 3]) / 4)
    assert found["n"] == 4


@pytest.mark.parametrize("target", [[2.0], [2.0, 2.0]])
def test_r2_is_absent_where_it_is_not_defined(target: list[float]) -> None:
    found = regression_metrics(torch.ones(len(target)), torch.tensor(target))
    assert found["r2"] is None
    assert found["mae"] == 1.0


def test_float64_is_kept() -> None:
    target = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert regression_metrics(target + 1e-12, target)["mae"] == pytest.approx(1e-12, rel=1e-3)


def test_classification_against_hand_counted_figures() -> None:
    probability = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], dtype=torch.float64)
    found = classification_metrics(probability, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert found["accuracy"] == 0.75
    assert found["f1"] == pytest.approx(2 / 3)  # of class 1: precision 1, recall 1/2
    assert found["roc_auc"] == pytest.approx(3 / 4)
    expected = -(math.log(0.9) + math.log(0.6) + math.log(0.8) + math.log(0.3)) / 4
    assert found["log_loss"] == pytest.approx(expected)
    assert classification_metrics(probability, torch.zeros(4))["roc_auc"] is None
