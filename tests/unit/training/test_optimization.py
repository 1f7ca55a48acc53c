"""Parameter groups and the cycle of the learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potnet.training.optimization import build_optimizer, parameter_groups, warmup_length

SETTINGS = {"learning_rate": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.999), "warmup_fraction": 0.3}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.Linear(4, 1))


def rates(total: int, warmup: int | None) -> list[float]:
    optimizer, scheduler = build_optimizer(network(), total, warmup_steps=warmup, **SETTINGS)  # type: ignore[arg-type]
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


def factors(total: int, **settings: object) -> list[float]:
    """The learning rate of each step of a run, relative to the first."""
    optimizer, scheduler = build_optimizer(network(), total, 1e-2, 0.0, **settings)  # type: ignore[arg-type]
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"] / 1e-2)
        optimizer.step()
        scheduler.step()
    return found


def test_other_schedules() -> None:
    assert factors(5, schedule="constant") == pytest.approx([1] * 5)
    steps = factors(10, schedule="steps", milestones=[0.3, 0.85], decay=0.5)
    assert steps == pytest.approx([1] * 3 + [0.5] * 6 + [0.25])
    exponential = factors(5, schedule="exponential", decay=0.25, decay_steps=2)
    assert exponential == pytest.approx([1, 0.5, 0.25, 0.125, 0.0625])


@pytest.mark.parametrize("schedule", ["one_cycle", "constant", "steps", "exponential"])
@pytest.mark.parametrize("algorithm", ["adamw", "adam", "sgd"])
def test_a_run_that_is_continued_takes_the_same_steps(algorithm: str, schedule: str) -> None:
    settings = {"algorithm": algorithm, "schedule": schedule, "milestones": [0.5], "decay_steps": 3}

    def run(parts: list[int]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        module, state = nn.Linear(3, 1), None
        for part in parts:
            optimizer, scheduler = build_optimizer(module, 8, 1e-2, 0.1, **settings)  # type: ignore[arg-type]
            if state is not None:
                optimizer.load_state_dict(state[0])
                scheduler.load_state_dict(state[1])
            for _ in range(part):
                optimizer.zero_grad()
                module(torch.ones(2, 3)).square().sum().backward()
                optimizer.step()
                scheduler.step()
            state = optimizer.state_dict(), scheduler.state_dict()
        return [parameter.detach() for parameter in module.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(run([8]), run([3, 5]), strict=True))


def test_algorithms() -> None:
    def built(algorithm: str) -> torch.optim.Optimizer:
        return build_optimizer(network(), 1, 1e-2, 0.1, algorithm, momentum=0.8)[0]  # type: ignore[arg-type]

    assert type(built("adamw")) is torch.optim.AdamW
    assert type(built("adam")) is torch.optim.Adam
    assert isinstance(built("sgd"), torch.optim.SGD)
    decayed, free = built("sgd").param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0: give a positive"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0: give 0 or more"),
        ({"warmup_fraction": 2.0}, "warmup_fraction=2.0: give a part"),
        ({"momentum": 1.0}, "momentum=1.0: give a number"),
        ({"milestones": [0.5, 0.2]}, "milestones=.*ascending"),
        ({"milestones": [100]}, "milestones=.*parts of the run"),
        ({"decay": 0.0}, "decay=0.0: give a factor"),
        ({"decay_steps": 0}, "decay_steps=0: give 1 or more"),
    ],
)
def test_senseless_settings(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_optimizer(network(), 10, warmup_steps=None, **{**SETTINGS, **change})  # type: ignore[arg-type]
