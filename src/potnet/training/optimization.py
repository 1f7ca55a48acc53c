"""The optimizer and the schedule of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


def parameter_groups(
    module: nn.Module, weight_decay: float, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Decay matrices only: biases and the scales of norms, which are vectors, are left alone.

    Args:
        module: Whose parameters are optimised.
        weight_decay: Of matrices.
        rates: See `build_optimizer`; parameters of a part with 0 are frozen here.

    Returns:
        Two groups for each factor, that of 1 first; `factor` is theirs.

    Raises:
        ValueError: A factor that is negative, or of a part that the module does not have.
    """
    rates = rates or {}
    found: dict[float, list[nn.Parameter]] = {1.0: []}
    used = set()
    for name, parameter in module.named_parameters():
        part = max((p for p in rates if name == p or name.startswith(f"{p}.")), key=len, default=None)
        used.add(part)
        factor = 1.0 if part is None else float(rates[part])
        if factor < 0:
            raise ValueError(f"optimizer.rates.{part}={factor}: give 0 (frozen) or a positive factor")
        if factor == 0:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            found.setdefault(factor, []).append(parameter)
    for part in rates:
        if part not in used:
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name, _ in module.named_parameters()))
            raise ValueError(f"optimizer.rates.{part}: the network has no part of this name; it has {parts}")
    groups = []
    for factor, parameters in found.items():
        if parameters or factor == 1:
            groups += [
                {
                    "params": [p for p in parameters if p.ndim > 1],
                    "weight_decay": weight_decay,
                    "factor": factor,
                },
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "factor": factor},
            ]
    return groups


def warmup_length(total_steps: int, warmup_steps: int | None, warmup_fraction: float) -> int:
    """Steps until the peak of the learning rate: what was asked for, as far as the run is long enough."""
    longest = int(warmup_fraction * total_steps)
    return longest if warmup_steps is None else min(warmup_steps, longest)


def build_optimizer(
    module: nn.Module,
    total_steps: int,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.5,
    algorithm: Literal["adamw", "adam", "sgd"] = "adamw",
    schedule: Literal["one_cycle", "constant", "steps", "exponential"] = "one_cycle",
    betas: Sequence[float] = (0.9, 0.999),
    momentum: float = 0.9,
    warmup_steps: int | None = None,
    warmup_fraction: float = 0.3,
    milestones: Sequence[float] = (),
    decay: float = 0.1,
    decay_steps: int = 100_000,
    rates: Mapping[str, float] | None = None,
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
        rates: Part of the network (name of a submodule) -> what its learning rate is multiplied with; 0
            freezes it.

    Raises:
        ValueError: A setting that makes no sense. It names the key.
    """
    _check(learning_rate, weight_decay, betas, momentum, warmup_fraction)
    _check_decay(milestones, decay, decay_steps)
    groups = parameter_groups(module, weight_decay, rates)
    peaks = [learning_rate * group.pop("factor") for group in groups]
    for group, peak in zip(groups, peaks, strict=True):
        group["lr"] = peak
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
        return optimizer, OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=start)

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
