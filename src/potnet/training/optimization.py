"""What training minimises, and how: the loss, AdamW and the cycle of its learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


def loss_function(
    loss: Literal["mse", "mae", "huber"], huber_delta: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of predictions against targets, both (B,).

    Args:
        loss: Squared error, absolute error, or Huber's, which is quadratic up to `huber_delta` and linear
            beyond.
        huber_delta: In the unit of what is compared.
    """
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mse": F.mse_loss,
        "mae": F.l1_loss,
        "huber": partial(F.huber_loss, delta=huber_delta),
    }
    return losses[loss]


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


def adamw_one_cycle(
    module: nn.Module,
    total_steps: int,
    learning_rate: float,
    weight_decay: float,
    betas: Sequence[float],
    warmup_steps: int | None,
    warmup_fraction: float,
) -> tuple[AdamW, OneCycleLR]:
    """AdamW and one cycle of its learning rate over the whole run (Smith and Topin, arXiv:1708.07120).

    Args:
        module: Whose parameters are optimised.
        total_steps: Optimiser steps of the run, at least 1.
        learning_rate: Peak of the cycle.
        weight_decay: Decoupled decay of weight matrices.
        betas: AdamW's two; the cycle moves the first between 0.95 and 0.85, as PyTorch does.
        warmup_steps: Steps until the peak; None is `warmup_fraction` of the run.
        warmup_fraction: Most of the run that may be warm-up.

    Raises:
        ValueError: A rate, decay or fraction that makes no sense.
    """
    if not learning_rate > 0:
        raise ValueError(f"optimizer.learning_rate={learning_rate}: give a positive number")
    if weight_decay < 0:
        raise ValueError(f"optimizer.weight_decay={weight_decay}: give 0 or more")
    if not 0 <= warmup_fraction <= 1:
        raise ValueError(f"optimizer.warmup_fraction={warmup_fraction}: give a part of the run, 0 to 1")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"optimizer.betas={list(betas)}: give two numbers from 0 to below 1")
    first, second = betas
    optimizer = AdamW(parameter_groups(module, weight_decay), lr=learning_rate, betas=(first, second))
    warmup = warmup_length(total_steps, warmup_steps, warmup_fraction)
    # A warm-up of exactly one step divides by zero in PyTorch.
    scheduler = OneCycleLR(
        optimizer,
        max_lr=learning_rate,
        total_steps=total_steps,
        pct_start=warmup / total_steps if 1 < warmup < total_steps else 0.0,
    )
    return optimizer, scheduler
