"""The optimizer and the schedule of its learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Decay matrices only: biases and the scales of norms, which are vectors, are left alone."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def warmup_length(total_steps: int, warmup_steps: int | None, warmup_fraction: float) -> int:
    """Steps until the peak of the learning rate: what was asked for, as far as the run is long enough."""
    longest = int(warmup_fraction * total_steps)
    return longest if warmup_steps is None else min(warmup_steps, longest)


def build_optimizer(
    module: nn.Module,
    total_steps: int,
    learning_rate: float,
    weight_decay: float,
    algorithm: Literal["adamw", "adam", "sgd"] = "adamw",
    schedule: Literal["one_cycle", "constant", "steps", "exponential"] = "one_cycle",
    betas: Sequence[float] = (0.9, 0.999),
    momentum: float = 0.9,
    warmup_steps: int | None = None,
    warmup_fraction: float = 0.3,
    milestones: Sequence[float] = (),
    decay: float = 0.1,
    decay_steps: int = 100_000,
) -> tuple[Optimizer, LRScheduler]:
    """An optimizer and the schedule of its learning rate, step by step over a run of known length.

    Args:
        module: Whose parameters are optimised.
        total_steps: Optimiser steps of the run, at least 1.
        learning_rate: The peak of a cycle, or what the run begins with.
        weight_decay: Of weight matrices: decoupled with "adamw", added to the gradient with the others.
        algorithm: "adamw", "adam", or "sgd" with momentum.
        schedule: "one_cycle" rises to the peak and falls to nearly zero (Smith and Topin, arXiv:1708.07120);
            "constant"; "steps" multiplies by `decay` at each milestone; "exponential" multiplies by
            decay^(1 / decay_steps) at every step.
        betas: The two of Adam; the cycle moves the first between 0.95 and 0.85, as PyTorch does.
        momentum: Of SGD; moved by the cycle in the same way.
        warmup_steps: Of the cycle: steps until the peak; None is `warmup_fraction` of the run.
        warmup_fraction: Most of the run that may be warm-up.
        milestones: Of "steps": parts of the run, above 0 and below 1, in ascending order.
        decay: Of "steps" and "exponential": a factor.
        decay_steps: Of "exponential": steps until the learning rate has fallen by the factor.

    Raises:
        ValueError: A setting that makes no sense. It names the key.
    """
    _check(learning_rate, weight_decay, betas, momentum, warmup_fraction)
    _check_decay(milestones, decay, decay_steps)
    groups = parameter_groups(module, weight_decay)
    optimizer: Optimizer
    if algorithm == "sgd":
        optimizer = SGD(groups, lr=learning_rate, momentum=momentum)
    else:
        kind = AdamW if algorithm == "adamw" else Adam
        optimizer = kind(groups, lr=learning_rate, betas=(betas[0], betas[1]))
    if schedule == "one_cycle":
        warmup = warmup_length(total_steps, warmup_steps, warmup_fraction)
        # A warm-up of exactly one step divides by zero in PyTorch.
        start = warmup / total_steps if 1 < warmup < total_steps else 0.0
        return optimizer, OneCycleLR(
            optimizer, max_lr=learning_rate, total_steps=total_steps, pct_start=start
        )

    def factor(step: int) -> float:
        if schedule == "steps":
            return decay ** sum(step >= part * total_steps for part in milestones)
        return decay ** (step / decay_steps) if schedule == "exponential" else 1.0

    # A function of the step alone, so a resumed run goes on exactly.
    return optimizer, LambdaLR(optimizer, factor)


def _check(
    learning_rate: float,
    weight_decay: float,
    betas: Sequence[float],
    momentum: float,
    warmup_fraction: float,
) -> None:
    if not learning_rate > 0:
        raise ValueError(f"optimizer.learning_rate={learning_rate}: give a positive number")
    if weight_decay < 0:
        raise ValueError(f"optimizer.weight_decay={weight_decay}: give 0 or more")
    if not 0 <= warmup_fraction <= 1:
        raise ValueError(f"optimizer.warmup_fraction={warmup_fraction}: give a part of the run, 0 to 1")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"optimizer.betas={list(betas)}: give two numbers from 0 to below 1")
    if not 0 <= momentum < 1:
        raise ValueError(f"optimizer.momentum={momentum}: give a number from 0 to below 1")


def _check_decay(milestones: Sequence[float], decay: float, decay_steps: int) -> None:
    if not all(0 < part < 1 for part in milestones) or list(milestones) != sorted(milestones):
        raise ValueError(
            f"optimizer.milestones={list(milestones)}: give parts of the run, above 0 and below 1, ascending"
        )
    if not 0 < decay <= 1:
        raise ValueError(f"optimizer.decay={decay}: give a factor above 0, at most 1")
    if decay_steps < 1:
        raise ValueError(f"optimizer.decay_steps={decay_steps}: give 1 or more")
