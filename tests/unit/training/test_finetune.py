"""Weights of an earlier run as the beginning of another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra._internal.utils import get_args_parser
from torch import nn

from potnet.config import ConfigError, compose, plain
from potnet.data import Targets
from potnet.finetune import check_folds, train_words
from potnet.finetune import main as finetune
from potnet.pretrained.registry import Entry, RegistryError
from potnet.runs.checkpoint import FORMAT
from potnet.runs.errors import CheckpointError
from potnet.training.finetune import source_file, start_from, with_source
from potnet.training.optimization import build_optimizer


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


def test_the_network_and_features_of_the_source_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "best.ckpt"
    torch.save(
        {
            "state_dict": {"model.body.weight": torch.zeros(1), "model.heads.k.output.bias": torch.zeros(1)},
            "hyper_parameters": {"model": {"_target_": "potnet.models.PotNet", "width": 7}},
            "potnet": {"format": FORMAT, "features": {"symprec": 0.02, "accuracy": None}},
        },
        file,
    )
    config = {
        "model": {"_target_": "potnet.models.CGCNN", "width": 64},
        "features": {"symprec": 0.01, "device": "cpu", "accuracy": 1e-8},
        "optimizer": {"learning_rate": 1e-3, "rates": {}},
        "finetune": {"from": str(file), "except": ["heads"], "freeze": ["atoms"], "rate": 0.1},
    }
    found = with_source(config)
    assert found["model"] == {"_target_": "potnet.models.PotNet", "width": 7}
    # A network without sums says nothing of their accuracy.
    assert found["features"] == {"symprec": 0.02, "device": "cpu", "accuracy": 1e-8}
    assert found["optimizer"]["rates"] == {"body": 0.1, "atoms": 0.0}
    assert config["optimizer"]["rates"] == {}
    assert with_source({"finetune": {"from": None}}) == {"finetune": {"from": None}}


def test_parts_with_their_own_learning_rate() -> None:
    network = Network()
    optimizer, scheduler = build_optimizer(network, 10, 1e-2, 0.1, rates={"body": 0.1})
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] == rates[1] == pytest.approx(10 * rates[2])
    build_optimizer(network, 10, 1e-2, 0.1, rates={"body": 0.0})
    assert not network.body.weight.requires_grad
    assert network.heads.weight.requires_grad
    with pytest.raises(ValueError, match=r"rates\.bodie: the network has no part .* it has body, heads"):
        build_optimizer(network, 10, 1e-2, 0.1, rates={"bodie": 0.0})
    with pytest.raises(ValueError, match="factor"):
        build_optimizer(network, 10, 1e-2, 0.1, rates={"body": -1.0})


def test_the_short_command(tmp_path: Path) -> None:
    table = tmp_path / "my.csv"
    table.touch()
    words = train_words([str(table), "--from=gap", "--target=t", "--unit=eV", "trainer.max_epochs=3"])
    config = plain(compose("train", words))
    assert config["target"]["key"] == "t"
    assert config["target"]["unit"] == "eV"
    assert config["finetune"]["from"] == "gap"
    assert config["data"]["source"]["path"] == str(table)
    assert config["data"]["split"]["by"] == "formula"
    assert config["trainer"]["max_epochs"] == 3
    words = train_words([str(table), "--from=x", "--target=m", "--classes=no,yes", "--freeze=a,b"])
    config = plain(compose("train", words))
    assert config["target"]["classes"] == ["no", "yes"]
    assert config["finetune"]["freeze"] == ["a", "b"]
    folds = train_words([str(table), "--from=x", "--target=t", "--folds=3"])
    assert "data.split.fold=0,1,2" in folds
    read = get_args_parser().parse_args([*folds, "trainer.max_epochs=3"])
    assert read.multirun
    assert read.overrides[-1] == "trainer.max_epochs=3"
    words = train_words([str(table), "--from=x", "--target=a,b", "--unit=GPa,eV", "--transform=log10"])
    targets = Targets.from_config(plain(compose("train", words))["target"])
    assert [(t.key, t.unit, t.transform, t.on_missing) for t in targets.values()] == [
        ("a", "GPa", "log10", "mask"), ("b", "eV", "log10", "mask"),
    ]  # fmt: skip
    for wrong, message in (
        ([], "give one file or folder"),
        ([str(table), "--from=x"], "missing --target"),
        ([str(table), "--from=x", "--target=t", "--fold=3"], "unknown option --fold; did you mean --folds"),
        ([str(tmp_path / "no.csv"), "--from=x", "--target=t"], "no such file"),
        ([str(table), "--from=x", "--target=t", "--folds=1"], "give 2 or more"),
        ([str(table), "--from=x", "--target=a,b,c", "--unit=eV,GPa"], "one for all of a, b, c, or 3"),
        ([str(table), "--from=x", "--target=a,b", "--classes=x,y"], "--classes goes with one"),
        ([str(table), "--from=x", "--target=a", "--unit=eV,GPa"], "--unit=eV,GPa: give one, as there is one"),
        ([str(table), "--from=x", "--target=a", "--transform=log10,none"], "log10,none: give one, as there"),
        ([str(table), "--from=x", "--target=a,b", "--unit=eV,GPa,K"], "one for all of a, b, or 2"),
        ([str(table), "--from=x", "--target=gap,b,gap"], "--target=gap,b,gap: gap is named twice"),
        ([str(table), "--from=x", "--target=,"], "no column is named"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_words(wrong)


def test_more_folds_than_formulas_are_refused_before_a_job_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": f"c{n}", "lattice": (4 * np.eye(3)).tolist(), "z": [n // 2 + 1, 17],
         "frac": [[0, 0, 0], [0.5, 0.5, 0.5]], "gap": 1.0 if n < 12 else None}
        for n in range(20)
    ]  # fmt: skip
    table = tmp_path / "my (1).jsonl"
    table.write_text("\n".join(json.dumps(row) for row in rows))
    words = [str(table), "--from=gap", "--target=gap", "--unit=eV"]
    assert finetune([*words, "--folds=100", "trainer.max_epochs=1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: --folds=100: there are 6 different formulas with a label")
    assert len(said.splitlines()) == 1
    check_folds(train_words([*words, "--folds=6", "trainer.max_epochs=1"]))
    check_folds(train_words([*words, "--folds=12", "data.split.by=crystal"]))
    check_folds(train_words(words))
    check_folds(train_words([*words, "--folds=100", "nonsense=1"]))  # `potnet train` explains it
    both = train_words([str(table), "--from=gap", "--target=gap,bulk", "--folds=7"])
    with pytest.raises(ConfigError, match="there are 6 different formulas"):
        check_folds(both)


def test_a_source_that_is_not_there_is_named_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"finetune\.from=runs/a: no such .*; train that first"):
        source_file("runs/a")


def test_fine_tuning_begins_with_the_member_that_the_entry_names(tmp_path: Path) -> None:
    members = [{"file": f"m.{n}.safetensors", "sha256": "0"} for n in range(2)]
    assert Entry("m", {"members": members, "finetune_member": 1}, tmp_path).finetune_member is members[1]
    assert Entry("m", {"members": members}, tmp_path).finetune_member is members[0]
    with pytest.raises(RegistryError, match="finetune_member=2 is none of its members"):
        Entry("m", {"members": members, "finetune_member": 2}, tmp_path).finetune_member  # noqa: B018
    assert source_file("formation_energy").name == "formation_energy.0.safetensors"
