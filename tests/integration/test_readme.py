"""README.md: its Python runs as printed, and its commands mean something."""

from __future__ import annotations

import glob
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from potnet.config import compose
from potnet.config.arguments import readable
from potnet.data.__main__ import parser
from potnet.finetune import train_words

Run = Any  # conftest.Run
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
EXAMPLES = [text for language, text in FENCES if language == "python"]
BLOCKS = [text for language, text in FENCES if language != "python"]
COMMANDS = [match for text in BLOCKS for match in re.findall(r"^potnet (\w+) ([^#\n]*)", text, re.MULTILINE)]


def test_the_readme_has_its_examples_and_its_commands() -> None:
    assert len(EXAMPLES) == 3
    assert {entry for entry, _ in COMMANDS} == {
        *("train", "evaluate", "predict", "report", "data", "finetune", "screen", "serve")
    }
    # Own crystals, training and prediction are on the first screen.
    first = "\n".join(README.splitlines()[:25])
    assert all(text in first for text in ("data=folder", "potnet train", "potnet predict new/*.cif"))


def test_own_crystals_as_printed(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, potnet: Callable[..., Any]
) -> None:
    """The commands of the first screen, with a smaller network and one epoch."""
    structures = tmp_path / "structures"
    (tmp_path / "new").mkdir()
    structures.mkdir()
    lines = ["file,gap"]
    for number, symbol in enumerate(("Cu", "Al", "Si", "Ge", "Ag", "Au", "Ni", "Pd", "Pt", "Pb")):
        bulk(symbol).write(structures / f"{symbol}.cif")
        lines.append(f"{symbol}.cif,{number / 4}")
    (structures / "id_prop.csv").write_text("\n".join(lines) + "\n")
    bulk("NaCl", "rocksalt", a=5.64).write(tmp_path / "new" / "salt.cif")
    monkeypatch.chdir(tmp_path)
    own = [(entry, shlex.split(text)) for entry, text in COMMANDS[:2]]
    assert [entry for entry, _ in own] == ["train", "predict"]
    small = [
        "model.width=16",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        f"data.cache_dir={cache_dir}",
    ]
    done = potnet("train", *own[0][1], *small, cwd=tmp_path)
    assert done.status == 0, done.err
    predicted = [str(path) for word in own[1][1] for path in (glob.glob(word) or [word])]  # as the shell does
    done = potnet("predict", *predicted, cwd=tmp_path)
    assert done.status == 0, done.err
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert rows[0].startswith("id,gap")
    assert rows[1].startswith("salt")


def test_training_from_python_as_printed(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POTNET_CACHE", str(cache_dir))
    example = EXAMPLES[0].replace('"limit": 200', '"limit": 60').replace('"max_epochs": 5', '"max_epochs": 1')
    assert example.count("60") == example.count('"max_epochs": 1') == 1
    exec(compile(example, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    (folder,) = Path("runs/mp_bulk_modulus").iterdir()
    assert re.search(rf"^test MAE [\d.]+ in {folder}$", shown, re.MULTILINE)
    table = shown.splitlines()
    assert any("k_vrh (GPa)" in line for line in table)
    assert any(re.match(r"1 +[\d.]+", line.strip()) for line in table[-3:])


def test_the_sums_are_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(EXAMPLES[2], "README.md", "exec"), {})
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
    assert [line[0] for line in lines[:3]] == ["Al", "Cu", "Si"]
    assert all(float(line[1]) > 0 and line[2] == "GPa" for line in lines[:3])


@pytest.mark.parametrize(("entry", "arguments"), COMMANDS, ids=[" ".join(c).strip() for c in COMMANDS])
def test_the_commands_compose(
    entry: str, arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if entry == "finetune":
        monkeypatch.chdir(tmp_path)
        (tmp_path / "my.csv").touch()
        compose("train", train_words(shlex.split(arguments)))
        return
    if entry == "data":
        parser().parse_args(shlex.split(arguments))
        return
    overrides = [word for word in readable(entry, shlex.split(arguments)) if word != "-m"]
    if "-m" in shlex.split(arguments):
        # A sweep gives one config for each value: one of them stands for all.
        overrides = [override for override in overrides if not re.search(r"glob\(|,", override)]
    compose(entry, overrides)
