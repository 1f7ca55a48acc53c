"""What `potnet report` writes."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from potnet.config import ConfigError
from potnet.runs.report.command import main, write_report

PNG = b"\x89PNG"


def test_markdown_csv_and_png(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "report"
    written = write_report([str(study)], output)
    assert {path.name for path in written} == {path.name for path in output.iterdir()}
    text = (output / "report.md").read_text()
    table = [line for line in text.splitlines() if line.startswith(("| **complete", "| pairs_none"))]
    assert table[0].split(" | ")[1:7] == [
        "2", "0.2150 ± 0.0071", "0.2050 ± 0.0071", "+0.0500 ± 0.0000", "+0.0110 to +0.0890", "0.027",
    ]  # fmt: skip
    assert table[1].split(" | ")[:5] == [
        "| **complete**", "2 of 3", "0.1650 ± 0.0071", "0.1550 ± 0.0071", "reference",
    ]  # fmt: skip
    assert "Published: 0.04 log10(GPa) (A paper, 2023, on other_set)" in text
    assert "paired t test over crystals" in text
    assert "unfinished, 2 of 3 epochs" in text
    assert "failed: data.limit=0: must be positive" in text
    assert text.rstrip() in capsys.readouterr().out
    for name in ("errors_k_vrh.png", "learning_k_vrh.png"):
        assert f"({name})" in text
        assert (output / name).read_bytes()[:4] == PNG
    with (output / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["pairs_none", "complete", "radius_4"]
    assert float(rows[0]["difference"]) == pytest.approx(0.05)
    assert float(rows[0]["seconds_per_epoch"]) == 3.0
    assert (rows[0]["published"], rows[0]["parameters"]) == ("0.04", "1234")
    assert rows[1]["difference"] == ""


def test_a_sweep_without_a_finished_run(study: Path, tmp_path: Path) -> None:
    for file in study.glob("*/metrics.json"):
        file.unlink()
    written = write_report([str(study)], tmp_path / "report")
    assert "errors_k_vrh.png" not in {path.name for path in written}
    assert "unfinished, 3 of 3 epochs" in (tmp_path / "report" / "report.md").read_text()


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_command(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(f"runs={study}", "format=csv", "part=val", "output=out", monkeypatch=monkeypatch) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.csv"]
    assert {path.name for path in tmp_path.iterdir()} == {"multirun", "out"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("format=htm", "did you mean html?"),
        ("part=tst", "did you mean test?"),
        ("reference=complet", "did you mean complete?"),
        ("runs=nowhere", "no such folder"),
    ],
)
def test_mistakes_are_named(
    argument: str,
    message: str,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"runs": str(study), **dict([argument.split("=")])}
    arguments = [f"{key}={value}" for key, value in settings.items()]
    assert command(*arguments, monkeypatch=monkeypatch) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_several_folders_to_write_to_are_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output=\['a'\]: give one folder"):
        write_report([str(study)], ["a"])  # type: ignore[arg-type]
