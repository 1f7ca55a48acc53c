"""Temperature scaling where the right temperature is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from small_models import checkpoint

import potnet
from potnet.data import Target
from potnet.training.temperature import RANGE, calibrate, fit_factor, log_loss

KIND = Target("kind", kind="classification", classes=("a", "b", "c"))


def drawn(n: int, sharpness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are too sharp by a factor, and labels drawn from what they should have been."""
    torch.manual_seed(0)
    logits = torch.randn(n, 3) * 2
    labels = torch.multinomial(logits.softmax(-1), 1).squeeze(1).double()
    return logits * sharpness, labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_it_finds_the_temperature(sharpness: float) -> None:
    logits, labels = drawn(20_000, sharpness)
    factor = fit_factor(logits, labels)
    assert 1 / factor == pytest.approx(sharpness, rel=0.05)
    assert log_loss(logits, labels, factor) <= log_loss(logits, labels) + 1e-9


def test_few_labels_and_answers_without_an_error_are_not_trusted() -> None:
    logits, labels = drawn(49, 3.0)
    assert fit_factor(logits, labels) == 1.0
    perfect = torch.eye(3).repeat(30, 1)
    assert fit_factor(perfect, torch.arange(3).repeat(30)) <= np.exp(RANGE[1])


def test_the_checkpoint_predicts_calibrated_probabilities(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "best.ckpt", 0, KIND)
    model = potnet.load(file, device="cpu")
    logits, labels = drawn(2000, 3.0)
    batches = [SimpleNamespace(targets={"kind": labels})]
    data: Any = SimpleNamespace(split=SimpleNamespace(sizes={"val": 1}), dataloader=lambda part: batches)
    before = model.predict(bulk("Cu"))
    real, model.learned = model.learned, lambda batch: {"kind": logits}  # type: ignore[method-assign]
    found = calibrate(model, data, file)
    model.learned = real  # type: ignore[method-assign]
    assert found["kind"] == pytest.approx(3.0, rel=0.15)
    columns = [f"kind_probability_{name}" for name in "abc"]
    after = potnet.load(file, device="cpu").predict(bulk("Cu"))
    one, other = (np.log([table[name][0] for name in columns]) for table in (before, after))
    np.testing.assert_allclose((one - one[0]) / found["kind"], other - other[0], atol=1e-6)
    assert after["kind"][0] == before["kind"][0]
    np.testing.assert_allclose(model.predict(bulk("Cu"))[columns[0]], after[columns[0]])
