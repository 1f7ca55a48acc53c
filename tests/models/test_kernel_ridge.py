"""Kernel ridge regression against its formulas written out on dense vectors."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from potnet.crystals import CrystalBatch
from potnet.descriptors.mbtr import FIRST_FEATURE
from potnet.models import KernelRidge
from potnet.nn import sparse
from potnet.nn.ridge import median_of_pairs, solve
from potnet.nn.sparse import SparseRows, overlaps

WEIGHTS = [1.0, 0.5, 0.25]
WIDTH = 6
"""Features of each term in these tests."""


def vectors(n: int, seed: int = 0) -> Tensor:
    """(n, 3 * WIDTH) float64, half of it zero, exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.rand(n, 3 * WIDTH, generator=generator) * torch.tensor([1.0, 10.0, 0.1]).repeat_interleave(
        WIDTH
    )
    return (value * (torch.rand(n, 3 * WIDTH, generator=generator) < 0.5)).double()


def batch_of(x: Tensor) -> CrystalBatch:
    """Crystals of one atom with these descriptors."""
    number = torch.cat([torch.arange(first, first + WIDTH) for first in FIRST_FEATURE[:3]])
    n = len(x)
    row, column = x.nonzero(as_tuple=True)
    return CrystalBatch(
        ids=[str(i) for i in range(n)],
        z=torch.ones(n, dtype=torch.long),
        batch=torch.arange(n),
        num_atoms=torch.ones(n, dtype=torch.long),
        positions=torch.zeros(n, 3, dtype=torch.float64),
        cell=torch.eye(3, dtype=torch.float64).expand(n, 3, 3),
        num_descriptors=torch.bincount(row, minlength=n),
        descriptor_index=number[column],
        descriptor_value=x[row, column].float(),
    )


def targets_of(x: Tensor) -> Tensor:
    return (x[:, 0] - x[:, 5] + 0.1 * x[:, 7]).sin() + 3.0


def dense_kernel(kernel: str, x: Tensor, y: Tensor, training: Tensor, length: float | None) -> Tensor:
    """The table in the head of potnet.models.baselines.kernel_ridge; `length` is a multiple of the median."""
    power = 1 if kernel == "laplacian" else 2
    c = torch.cat(
        [
            torch.full((WIDTH,), weight / float(part.pow(power).sum(1).mean()))
            for weight, part in zip(WEIGHTS, training.split(WIDTH, 1), strict=True)
        ]
    ).double()

    def compared(a: Tensor, b: Tensor) -> Tensor:
        if kernel == "linear":
            return (c * a[:, None] * b[None]).sum(-1)
        d = (c * (a[:, None] - b[None]).abs().pow(power)).sum(-1)
        return d if kernel == "laplacian" else d.sqrt()

    if kernel == "linear":
        return compared(x, y)
    pairs = compared(training, training)
    scale = length * pairs[~torch.eye(len(pairs), dtype=torch.bool)].median()
    d = compared(x, y) / scale
    return (-d).exp() if kernel == "laplacian" else (-0.5 * d**2).exp()


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "linear"])
def test_predictions_are_those_of_the_formula(kernel: Any) -> None:
    x, new = vectors(30), vectors(7, seed=1)
    y = targets_of(x)
    model = KernelRidge(kernel, lengths=[1.5], noises=[1e-3], term_weights=WEIGHTS, folds=3)
    model.fit([batch_of(x[:20]), batch_of(x[20:])], y)
    matrix = dense_kernel(kernel, x, x, x, 1.5)
    dual = torch.linalg.solve(matrix + 1e-3 * torch.eye(30), y - y.mean())
    wanted = dense_kernel(kernel, new, x, x, 1.5) @ dual + y.mean()
    torch.testing.assert_close(model(batch_of(new))["value"], wanted, rtol=1e-6, atol=1e-6)


def test_cross_validation_tries_all_and_takes_the_best() -> None:
    x = vectors(40)
    y = targets_of(x)
    lengths, noises = [0.3, 1.0, 3.0], [1e-1, 1e-4]
    model = KernelRidge("gaussian", lengths, noises, folds=4, term_weights=WEIGHTS, seed=5)
    model.fit([batch_of(x)], y)
    assert [(trial.length, trial.noise) for trial in model.trials] == [
        (a, b) for a in lengths for b in noises
    ]
    assert model.chosen == min(model.trials, key=lambda trial: trial.mae)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    for trial in model.trials:
        matrix = dense_kernel("gaussian", x, x, x, trial.length)
        errors = []
        for held in order.split(10):
            kept = torch.tensor([i for i in range(40) if i not in held.tolist()])
            regular = matrix[kept][:, kept] + trial.noise * torch.eye(30)
            dual = torch.linalg.solve(regular, y[kept] - y[kept].mean())
            errors.append((matrix[held][:, kept] @ dual + y[kept].mean() - y[held]).abs())
        assert trial.mae == pytest.approx(float(torch.cat(errors).mean()), rel=1e-5)


def test_little_noise_reproduces_the_training_targets() -> None:
    """What five steps of training are to a network."""
    x = vectors(20)
    model = KernelRidge(noises=[1e-8], folds=2)
    model.fit([batch_of(x)], targets_of(x))
    torch.testing.assert_close(model(batch_of(x))["value"], targets_of(x), rtol=0, atol=1e-4)


def test_saved_weights_alone_suffice() -> None:
    x = vectors(20)
    model = KernelRidge("laplacian", noises=[1e-3], folds=2)
    model.fit([batch_of(x)], targets_of(x))
    other = KernelRidge("laplacian")
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(batch_of(x))["value"], model(batch_of(x))["value"])
    assert sum(parameter.numel() for parameter in other.parameters()) == 20
    assert not any(parameter.requires_grad for parameter in other.parameters())


def test_crystals_without_common_features_get_the_mean() -> None:
    x = vectors(20)
    model = KernelRidge("linear", noises=[1e-3], folds=2)
    model.fit([batch_of(x)], targets_of(x))
    foreign = batch_of(vectors(3, seed=2))
    assert foreign.descriptor_index is not None
    foreign.descriptor_index.add_(WIDTH)
    torch.testing.assert_close(model(foreign)["value"], targets_of(x).mean().expand(3))
    empty = batch_of(torch.zeros(2, 3 * WIDTH, dtype=torch.float64))
    torch.testing.assert_close(model(empty)["value"], targets_of(x).mean().expand(2))


@pytest.mark.parametrize("block", [1, 5, 10**6])
@pytest.mark.parametrize("of", [torch.mul, torch.minimum])
def test_overlaps_equal_dense_sums(block: int, of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_BLOCK", block)
    x, y = vectors(6), vectors(9, seed=3)
    x[2] = 0

    def rows(dense: Tensor) -> SparseRows:
        row, column = dense.nonzero(as_tuple=True)
        return SparseRows(torch.bincount(row, minlength=len(dense)), column, dense[row, column])

    c = torch.linspace(1, 2, x.shape[1]).double()
    found = overlaps(rows(x), rows(y).columns(), c[rows(x).index], of)
    torch.testing.assert_close(found, (c * of(x[:, None], y[None])).sum(-1))


def test_the_median_leaves_the_diagonal_out() -> None:
    distance = torch.arange(16.0).view(4, 4)
    wanted = distance[~torch.eye(4, dtype=torch.bool)].median()
    assert median_of_pairs(distance) == float(wanted)
    assert median_of_pairs(torch.zeros(3, 3)) == 1.0


def test_equal_crystals_are_no_obstacle() -> None:
    x = vectors(1).expand(6, -1)
    model = KernelRidge(noises=[1e-2], folds=3)
    model.fit([batch_of(x)], torch.linspace(0, 1, 6))
    assert model(batch_of(x))["value"].isfinite().all()
    assert solve(-torch.eye(3).double(), torch.ones(3).double(), 0.5) is None


def test_a_best_at_the_edge_is_said(caplog: pytest.LogCaptureFixture) -> None:
    x = vectors(30)
    model = KernelRidge(lengths=[1e-3, 1e-2, 1e-1], noises=[1e-2], folds=3)
    with caplog.at_level(logging.WARNING):
        model.fit([batch_of(x)], targets_of(x))
    assert model.chosen is not None
    assert model.chosen.length == 0.1
    assert "model.lengths: the best, 0.1, is the largest that was tried" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "gausian"}, "model.kernel=gausian"),
        ({"lengths": []}, "model.lengths"),
        ({"noises": [0.0]}, "model.noises"),
        ({"folds": 1}, "model.folds=1"),
        ({"term_weights": [1.0, 1.0]}, "model.term_weights"),
        ({"term_weights": [0.0, 0.0, 0.0]}, "model.term_weights"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelRidge(**settings)


def test_one_scalar_of_crystals_is_all_it_learns() -> None:
    x = vectors(20)
    model = KernelRidge(noises=[1e-3], folds=2, heads={"k_vrh": {}})
    model.fit([batch_of(x)], targets_of(x))
    assert list(model(batch_of(x))) == ["k_vrh"]
    for heads in (
        {"a": {}, "b": {}},
        {"a": {"outputs": 2}},
        {"a": {"per": "atom"}},
        {"a": {"extensive": True}},
    ):
        with pytest.raises(ValueError, match="kernel ridge regression learns one number of crystals"):
            KernelRidge(heads=heads)


def test_what_cannot_be_fitted_is_refused() -> None:
    x = vectors(20)
    with pytest.raises(ValueError, match="call fit first"):
        KernelRidge()(batch_of(x))
    with pytest.raises(ValueError, match="at least two"):
        KernelRidge().fit([batch_of(x[:1])], torch.ones(1))
    with pytest.raises(ValueError, match=r"model\.memory_gib=1e-06: raise it, or use fewer"):
        KernelRidge(memory_gib=1e-6).fit([batch_of(x)], targets_of(x))
    with pytest.raises(ValueError, match="without negative values"):
        KernelRidge("laplacian").fit([batch_of(-x)], targets_of(x))
    twice = torch.cat([x, x])
    with pytest.raises(ValueError, match="try larger ones"):
        KernelRidge(noises=[1e-300]).fit([batch_of(twice)], targets_of(twice))
