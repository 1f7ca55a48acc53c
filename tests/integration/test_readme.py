"""README.md: its Python runs as printed, and its commands mean something."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from potnet.config import compose
from potnet.data.__main__ import parser

Run = Any  # conftest.Run
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
EXAMPLES = [text for language, text in FENCES if language == "python"]
COMMANDS = [
    match
    for language, text in FENCES
    if language != "python"
    for match in re.findall(r"python -m potnet\.(\w+) ([^#\n]*)", text)
]


def test_the_readme_has_its_two_examples_and_its_commands() -> None:
    assert len(EXAMPLES) == 2
    assert {entry for entry, _ in COMMANDS} == {"train", "evaluate", "predict", "report", "data"}


def test_the_sums_are_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(EXAMPLES[0], "README.md", "exec"), {})
    name, value, error = re.fullmatch(
        r"(Madelung constant) (\S+) error at most \[(.*)\]\n", capsys.readouterr().out
    ).groups()  # type: ignore[union-attr]
    assert (name, float(value)) == ("Madelung constant", pytest.approx(1.7475645946, abs=1e-8))
    assert all(0 < float(bound) <= 1e-10 for bound in error.split(","))
    assert "1.7475645946" in README


def test_the_prediction_is_as_printed(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.folder, tmp_path / "runs" / "mp_bulk_modulus" / "2026-01-31_12-00-00")
    (tmp_path / "structures").mkdir()
    for symbol in ("Cu", "Al", "Si"):
        bulk(symbol).write(tmp_path / "structures" / f"{symbol}.cif")
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[1], "README.md", "exec"), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(name, unit) for name, _, unit in lines] == [("Al", "GPa"), ("Cu", "GPa"), ("Si", "GPa")]
    assert all(float(value) > 0 for _, value, _ in lines)


@pytest.mark.parametrize(("entry", "arguments"), COMMANDS, ids=[" ".join(c).strip() for c in COMMANDS])
def test_the_commands_compose(entry: str, arguments: str) -> None:
    if entry == "data":
        parser().parse_args(shlex.split(arguments))
        return
    overrides = [word for word in shlex.split(arguments) if word != "-m"]
    if "-m" in shlex.split(arguments):
        # A sweep gives one config for each value: one of them stands for all.
        overrides = [override for override in overrides if not re.search(r"glob\(|,", override)]
    compose(entry, overrides)
