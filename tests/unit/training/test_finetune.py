"""Weights of an earlier run as the beginning of another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from potnet.config import ConfigError
from potnet.runs.checkpoint import FORMAT
from potnet.training.finetune import start_from


class Network(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.body = nn.Linear(2, width)
        self.heads = nn.Linear(width, 1)


def saved(folder: Path, network: nn.Module) -> Path:
    file = folder / "best.ckpt"
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "potnet": {"format": FORMAT}}, file)
    return file


def test_all_but_the_heads_is_taken_over(tmp_path: Path) -> None:
    old, new = Network(), Network()
    before = new.heads.weight.clone()
    taken = start_from(new, saved(tmp_path, old), ["heads"])
    assert taken == ["body.weight", "body.bias"]
    assert torch.equal(new.body.weight, old.body.weight)
    assert torch.equal(new.heads.weight, before)
    assert not torch.equal(new.heads.weight, old.heads.weight)


def test_a_run_folder_will_do_and_everything_can_be_taken(tmp_path: Path) -> None:
    old, new = Network(), Network()
    saved(tmp_path, old)
    start_from(new, tmp_path, [])
    assert torch.equal(new.heads.weight, old.heads.weight)


@pytest.mark.parametrize(
    ("width", "without", "message"),
    [
        (4, ["heads"], r"body\.weight is of shape \(3, 2\) .* and of shape \(4, 2\) in this run"),
        (3, ["head"], r"the network has no part 'head'; it has body, heads"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, width: int, without: list[str], message: str) -> None:
    file = saved(tmp_path, Network())
    network = Network(width)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ConfigError, match=message):
        start_from(network, file, without)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    old = Network()
    del old.heads
    with pytest.raises(ConfigError, match=r"heads\.weight is missing"):
        start_from(Network(), saved(tmp_path, old), [])
