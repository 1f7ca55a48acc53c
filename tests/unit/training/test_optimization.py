"""Loss, parameter groups and the cycle of the learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potnet.training.optimization import adamw_one_cycle, loss_function, parameter_groups, warmup_length

SETTINGS = {"learning_rate": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.999), "warmup_fraction": 0.3}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.Linear(4, 1))


def rates(total: int, warmup: int | None) -> list[float]:
    optimizer, scheduler = adamw_one_cycle(network(), total, warmup_steps=warmup, **SETTINGS)  # type: ignore[arg-type]
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("warmup", [None, 0, 1, 2, 5, 2000])
@pytest.mark.parametrize("total", [1, 2, 3, 4, 7, 53, 400])
def test_the_cycle_fits_a_run_of_any_length(total: int, warmup: int | None) -> None:
    found = rates(total, warmup)
    assert all(0 < rate <= 1e-2 * (1 + 1e-9) for rate in found)
    assert found[-1] == pytest.approx(1e-2 / 25e4, rel=1e-3)


def test_the_peak_is_where_the_warmup_ends() -> None:
    found = rates(1000, 100)
    assert found.index(max(found)) == 99
    assert max(found) == pytest.approx(1e-2)
    assert found[0] == pytest.approx(1e-2 / 25)


@pytest.mark.parametrize(
    ("total", "steps", "length"),
    [(26_500, 2000, 2000), (53, 2000, 15), (1, 2000, 0), (100, None, 30), (100, 0, 0)],
)
def test_warmup_is_what_was_asked_for_as_far_as_it_fits(total: int, steps: int | None, length: int) -> None:
    assert warmup_length(total, steps, 0.3) == length


def test_biases_and_norms_are_not_decayed() -> None:
    module = network()
    decayed, free = parameter_groups(module, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[3].weight)}  # type: ignore[index]
    assert len(decayed["params"]) + len(free["params"]) == len(list(module.parameters()))


def test_losses() -> None:
    a, b = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 3.0])
    assert loss_function("mse", 1.0)(a, b) == 5.0
    assert loss_function("mae", 1.0)(a, b) == 2.0
    assert loss_function("huber", 2.0)(a, b) == (0.5 + 2 * (3 - 1)) / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0: give a positive"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0: give 0 or more"),
        ({"warmup_fraction": 2.0}, "warmup_fraction=2.0: give a part"),
    ],
)
def test_senseless_settings(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adamw_one_cycle(network(), 10, warmup_steps=None, **{**SETTINGS, **change})  # type: ignore[arg-type]
