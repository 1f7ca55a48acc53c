"""Words of a command line that Hydra would not read, and commands that are printed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from potnet.config import ConfigError, compose, pasteable
from potnet.config.arguments import hydra_quoted, readable

NAMES = [
    "a(1).cif",
    "runs/x=1,y=2",
    "my file.cif",
    "Größe.cif",
    "it's.cif",
    "#1.cif",
    "a\\b",
    "2024",
    "1e5",
    "007",
]


def value(override: str) -> object:
    return OverridesParser.create().parse_override(override).value()


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.cif", "x=1.cif"):
        Path(name).touch()


@pytest.mark.parametrize("name", [*NAMES, "\\'", "a\\", "\\\\'x'"])
def test_quotes_keep_a_text_as_it_is(name: str) -> None:
    assert value(f"key={hydra_quoted(name)}") == name


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_command_can_be_pasted(name: str) -> None:
    (word,) = shlex.split(pasteable("resume", name))  # what the shell hands over
    assert compose("train", readable("train", [word])).resume == name


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_read_as_they_are(name: str) -> None:
    (override,) = readable("predict", [f"checkpoint={name}"])
    assert value(override) == name
    if "=" not in name:
        (override,) = readable("predict", [name])
        assert value(override) == name


def test_files_need_no_key() -> None:
    ready = readable("predict", ["a.cif", "b(2).cif", "x=1.cif", "checkpoint=runs/a", "device=cpu"])
    assert ready[:2] == ["checkpoint=runs/a", "device=cpu"]
    assert value(ready[2]) == ["a.cif", "b(2).cif", "x=1.cif"]
    assert readable("evaluate", ["runs/a"]) == ["checkpoint='runs/a'"]
    assert readable("train", ["runs/a"]) == ["runs/a"]  # which Hydra refuses
    with pytest.raises(ConfigError, match=r"a\.cif: give inputs either as words or as inputs="):
        readable("predict", ["a.cif", "inputs=b.cif"])


def test_a_comma_in_the_name_of_a_file_is_no_list() -> None:
    assert value(readable("predict", ["inputs=a,b.cif"])[0]) == "a,b.cif"
    assert readable("predict", ["inputs=a,c.cif"]) == ["inputs=a,c.cif"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=potnet", "trainer.max_epochs=3", "optimizer.betas=[0.9,0.99]", "data.source.units={a: GPa}"],
        ["-m", "ablation=glob(*)", "seed=0,1,2", "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))"],
        ["--config-dir", "my conf", "experiment=mine", "~callbacks.ema", "++trainer.max_time=null"],
        ["name='a b'", "seed=range(1,4)"],
    ],
)
def test_what_is_meant_for_hydra_is_left_alone(arguments: list[str]) -> None:
    assert readable("train", arguments) == arguments


def test_a_group_of_one_option_takes_no_list() -> None:
    """Hydra would merge them, and the last would win."""
    with pytest.raises(ConfigError, match=r"target takes one option; several properties .*target=columns"):
        readable("train", ["target=[k_vrh,g_vrh]"])
    with pytest.raises(ConfigError, match=r"model takes one .* model=potnet,cgcnn with -m"):
        readable("train", ["model=[potnet,cgcnn]"])
