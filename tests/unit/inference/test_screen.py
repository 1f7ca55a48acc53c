"""Screening: nothing lost and nothing twice, whatever ends it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from ase.build import bulk
from small_models import GAP, K, registry

import potnet
from potnet.config import ConfigError
from potnet.screen import best_rows, screen

SYMBOLS = ("Cu", "Si", "Al", "Ag", "Au", "Ni", "Pd")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for symbol in SYMBOLS:
        bulk(symbol).write(folder / f"{symbol}.cif")
    (folder / "bad.cif").write_text("hello")
    return folder


def content(folder: Path) -> dict[str, Any]:
    rows = [
        row
        for path in sorted(folder.glob("part-*.parquet"))
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_it_goes_on_where_it_stopped(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = registry(tmp_path, k_vrh=K, gap=GAP)
    settings: dict[str, Any] = {
        "models": ["k_vrh", "gap"],
        "registry": str(file),
        "piece": 2,
        "device": "cpu",
    }
    output = tmp_path / "out"
    best = screen(str(source), str(output), where="band_gap > -100", sort="-k_vrh", best=3, **settings)
    first = content(output)
    assert {name for name, row in first.items() if not row["failure"]} == set(SYMBOLS)
    (bad,) = (row for name, row in first.items() if "bad.cif" in name)
    assert bad["k_vrh"] is None
    assert bad["failure"]
    values = sorted(row["k_vrh"] for row in first.values() if row["k_vrh"] is not None)
    assert [row["k_vrh"] for row in best] == values[:3]
    expected = potnet.load(["k_vrh", "gap"], device="cpu", registry=file).predict(source / "Cu.cif")
    assert first["Cu"]["band_gap_upper"] == pytest.approx(expected["band_gap_upper"][0], rel=1e-6)

    parts = sorted(output.glob("part-*.parquet"))
    assert len(parts) == 4
    parts[1].unlink()
    parts[0].with_name("part-0000001.parquet.part").write_bytes(b"half a file")
    times = {path: path.stat().st_mtime_ns for path in parts if path.exists()}
    screen(str(source), str(output), **settings)
    assert content(output) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(ConfigError, match="with other piece"):
        screen(str(source), str(output), **{**settings, "piece": 3})
    with pytest.raises(ConfigError, match="with other targets"):
        screen(str(source), str(output), **{**settings, "models": "gap"})
    with pytest.raises(ConfigError, match="sort=k_vrhh: the columns are id, k_vrh"):
        best_rows(output, None, "k_vrhh", 3)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = registry(tmp_path, k_vrh=K)
    settings: dict[str, Any] = {"models": "k_vrh", "registry": str(file), "piece": 2, "device": "cpu"}
    screen(str(source), str(tmp_path / "one"), **settings)
    marker = tmp_path / "killed"
    monkeypatch.setattr("potnet.screen._predict", _Fatal(str(marker)))
    screen(str(source), str(tmp_path / "two"), workers=2, **settings)
    assert marker.exists()
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, row in one.items():
        assert row["k_vrh"] is None or two[name]["k_vrh"] == pytest.approx(row["k_vrh"], rel=1e-5)


class _Fatal:
    """Ends the worker that gets the third piece, once."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __call__(self, piece: Any) -> None:
        from potnet import screen

        if piece.number == 2 and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os._exit(9)
        assert screen._state is not None
        predictor, folder, level = screen._state
        screen.predict_piece(predictor, piece, folder, level)


def test_other_folders_are_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-0000000.parquet").touch()
    file = registry(tmp_path, k_vrh=K)
    with pytest.raises(ConfigError, match="something else"):
        screen(str(source), str(tmp_path / "out"), models="k_vrh", registry=str(file), device="cpu")
    with pytest.raises(ConfigError, match="workers=0"):
        screen(str(source), str(tmp_path / "new"), workers=0)
