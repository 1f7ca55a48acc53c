"""Screening: nothing lost and nothing twice, whatever ends it."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from ase.build import bulk
from small_models import GAP, K, registry

import potnet
from potnet.config import ConfigError
from potnet.crystals import CrystalError
from potnet.data import DataError
from potnet.screen import screen
from potnet.screening.work import Worker

SYMBOLS = ("Cu", "Si", "Al", "Ag", "Au", "Ni", "Pd")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "below").mkdir(parents=True)
    for symbol in SYMBOLS:
        bulk(symbol).write(folder / f"{symbol}.cif")
    (folder / "below" / "bad.cif").write_text("hello")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    file = registry(tmp_path, k_vrh=K)
    return {"models": "k_vrh", "registry": str(file), "piece": 2, "device": "cpu", "workers": 1}


def content(folder: Path) -> dict[str, Any]:
    """Rows by where they are from; none is there twice."""
    rows = pyarrow.parquet.read_table(folder).to_pylist()  # reads the folder as other programs do
    found = {row["source"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_it_goes_on_where_it_stopped(source: Path, tmp_path: Path) -> None:
    file = registry(tmp_path, k_vrh=K, gap=GAP)
    settings: dict[str, Any] = {
        "models": ["k_vrh", "gap"], "registry": str(file), "piece": 2, "device": "cpu", "workers": 1,
    }  # fmt: skip
    output = source / "out"  # not read itself
    found = screen(str(source), str(output), where="band_gap > -100", sort="-k_vrh", best=3, **settings)
    assert (found.predicted, found.failed) == (7, 1)
    first = content(output)
    assert {row["id"] for row in first.values() if not row["failure"]} == set(SYMBOLS)
    bad = first[str(source / "below" / "bad.cif")]
    assert bad["k_vrh"] is None
    assert bad["failure"]
    values = sorted(row["k_vrh"] for row in first.values() if row["k_vrh"] is not None)
    assert [row["k_vrh"] for row in found.best] == values[:3]
    expected = potnet.load(["k_vrh", "gap"], device="cpu", registry=file).predict(source / "Cu.cif")
    one = first[str(source / "Cu.cif")]
    assert one["band_gap_upper"] == pytest.approx(expected["band_gap_upper"][0], rel=1e-6)

    parts = sorted(output.glob("part-*.parquet"))
    assert len(parts) == 4
    parts[1].unlink()
    (output / "_unfinished-1").write_bytes(b"half a file")
    times = {path: path.stat().st_mtime_ns for path in parts if path.exists()}
    screen(str(source), str(output), **settings)
    assert content(output) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert not (output / "_unfinished-1").exists()


def test_what_is_refused_before_any_work(source: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    output = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(CrystalError, match="no structure file in this folder"):
        screen(str(tmp_path / "empty"), str(output), **settings)
    with pytest.raises(DataError, match="where: there is no column k_vhr; did you mean k_vrh"):
        screen(str(source), str(output), where="k_vhr > 3", **settings)
    with pytest.raises(
        ConfigError, match="sort=-k_vrhh: there is no column of numbers k_vrhh; did you mean k_vrh"
    ):
        screen(str(source), str(output), sort="-k_vrhh", **settings)
    with pytest.raises(ConfigError, match="workers=0"):
        screen(str(source), str(output), **{**settings, "workers": 0})
    with pytest.raises(ConfigError, match="must not be empty"):
        screen("", str(output), **settings)
    with pytest.raises(ConfigError, match="must not be empty"):
        screen(str(source), "", **settings)
    with pytest.raises(ConfigError, match="address=auto: processes of this machine have none"):
        screen(str(source), str(output), address="auto", **settings)
    assert not list(output.glob("part-*"))
    screen(str(source / "Cu.cif"), str(output), **settings)
    with pytest.raises(ConfigError, match="with other piece"):
        screen(str(source / "Cu.cif"), str(output), **{**settings, "piece": 3})
    with pytest.raises(ConfigError, match=r"with other source \(1 files, .*, now 8 files"):
        screen(str(source), str(output), **settings)
    file = registry(tmp_path, gap=GAP)
    with pytest.raises(ConfigError, match="with other targets"):
        screen(str(source / "Cu.cif"), str(output), **{**settings, "registry": str(file), "models": "gap"})
    file = registry(tmp_path, k_vrh=K)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "part-0000000.parquet").touch()
    with pytest.raises(ConfigError, match="something else"):
        screen(str(source), str(tmp_path / "foreign"), **settings)


def test_tables_are_cut_and_read_like_the_whole(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Each kind of file, in pieces of two, gives what reading it as one gives."""
    import ase.db
    import ase.io

    atoms = [bulk(symbol) for symbol in SYMBOLS]
    folder = tmp_path / "tables"
    folder.mkdir()
    ase.io.write(folder / "a.extxyz", atoms)
    with ase.db.connect(folder / "b.db") as database:
        for entry in atoms:
            database.write(entry)
    records = [
        {"id": f"m{n}", "lattice": a.cell.tolist(), "z": a.numbers.tolist(), "frac": [[0, 0, 0]] * len(a)}
        for n, a in enumerate(atoms)
    ]
    records[1]["frac"] = [[0, 0, 0], [0.25, 0.25, 0.25]]
    lines = [json.dumps(record) + "\n" for record in records]
    lines[4:4] = ["\n", "no JSON\n"]
    (folder / "c.jsonl").write_text("".join(lines))
    with gzip.open(folder / "d.jsonl.gz", "wt") as packed:
        packed.write("".join(lines))
    with (folder / "e.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["id", "cif"])
        for symbol, entry in zip(SYMBOLS, atoms, strict=True):
            entry.write(tmp_path / "x.cif")
            out.writerow([symbol, (tmp_path / "x.cif").read_text()])
    columns = {key: [record[key] for record in records] for key in records[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "f.parquet", row_group_size=3)

    found = screen(str(folder), str(tmp_path / "out"), **settings)
    rows = content(tmp_path / "out")
    assert (found.predicted, found.failed) == (6 * len(SYMBOLS), 2)
    one = potnet.load("k_vrh", device="cpu", registry=settings["registry"])
    for file in sorted(folder.iterdir()):
        expected = one.predict(file, on_error="skip")
        here = [row for where, row in rows.items() if where.startswith(str(file)) and not row["failure"]]
        assert {row["id"]: row["k_vrh"] for row in here} == pytest.approx(
            dict(zip(expected.ids, expected.values, strict=True)), rel=1e-5
        )
        failed = [row for where, row in rows.items() if where.startswith(str(file)) and row["failure"]]
        assert [row["failure"] for row in failed] == [failure.reason for failure in expected.failures]
    assert rows[f"{folder / 'c.jsonl'}, line 6"]["failure"].startswith(
        f"{folder / 'c.jsonl'}, line 6: not valid"
    )
    last = len((folder / "e.csv").read_text().splitlines())
    assert rows[f"{folder / 'e.csv'}, line {last}"]["id"] == "Pd"
    assert {row["id"] for where, row in rows.items() if "a.extxyz" in where} == {f"a:{n}" for n in range(7)}


def test_files_cut_off(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    line = json.dumps(
        {"id": "a", "lattice": [[3, 0, 0], [0, 3, 0], [0, 0, 3]], "z": [29], "frac": [[0, 0, 0]]}
    )
    whole = gzip.compress((line + "\n").encode() * 3)
    (folder / "a.jsonl.gz").write_bytes(whole[:-9])
    (folder / "b.parquet").write_bytes(b"PAR1")
    (folder / "c.csv").write_text('id,cif\nx,"never closed\n')
    found = screen(str(folder), str(tmp_path / "out"), **settings)
    failures = {row["source"]: row["failure"] for row in content(tmp_path / "out").values() if row["failure"]}
    assert found.failed == 3
    for name, reason in (
        ("a.jsonl.gz", "broken gzip"),
        ("b.parquet", "not a valid Parquet"),
        ("c.csv", "CSV"),
    ):
        (text,) = (text for where, text in failures.items() if name in where)
        assert reason in text


def test_a_crystal_that_breaks_the_code(
    source: Path, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from potnet.inference.ensemble import Ensemble

    plain = Ensemble.table

    def table(self: Any, crystals: list[Any], *rest: Any) -> Any:
        if any(crystal.id == "Ag" for crystal in crystals):
            raise ZeroDivisionError("odd")
        return plain(self, crystals, *rest)

    monkeypatch.setattr(Ensemble, "table", table)
    found = screen(str(source), str(tmp_path / "out"), **settings)
    assert (found.predicted, found.failed) == (6, 2)
    assert content(tmp_path / "out")[str(source / "Ag.cif")]["failure"] == "unexpected ZeroDivisionError: odd"


def test_a_file_that_breaks_the_code_that_reads_it(
    source: Path, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from potnet.screening import listing

    plain = listing.iterate_crystals

    def read(file: Path, *rest: Any) -> Any:
        if file.name == "Ag.cif":
            raise MemoryError("odd")
        return plain(file, *rest)

    monkeypatch.setattr(listing, "iterate_crystals", read)
    found = screen(str(source), str(tmp_path / "out"), **settings)
    assert (found.predicted, found.failed) == (6, 2)
    failure = content(tmp_path / "out")[str(source / "Ag.cif")]["failure"]
    assert "unexpected MemoryError: odd" in failure


def test_a_damaged_part_is_done_again(
    source: Path, tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    screen(str(source), str(output), **settings)
    first = content(output)
    part = sorted(output.glob("part-*.parquet"))[1]
    for size in (0, 500):
        part.write_bytes(part.read_bytes()[:size])
        screen(str(source), str(output), **settings)
        assert content(output) == first
        assert any("is damaged and done again" in message for message in caplog.messages)
        caplog.clear()


def test_a_file_that_was_edited_is_another_source(
    source: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    screen(str(source), str(tmp_path / "out"), **settings)
    bulk("Cu", a=3.9).write(source / "Cu.cif")
    with pytest.raises(ConfigError, match="with other source"):
        screen(str(source), str(tmp_path / "out"), **settings)


def test_a_large_cell_costs_no_other_crystal(tmp_path: Path) -> None:
    large = bulk("Cu", cubic=True).repeat((10, 10, 5))
    large.rattle(0.05, seed=0)
    rows = [
        {"id": id, "lattice": a.cell.tolist(), "z": a.numbers.tolist(), "positions": a.positions.tolist()}
        for id, a in (("large", large), ("small", bulk("Cu")))
    ]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source, output = str(tmp_path / "two.jsonl"), str(tmp_path / "out")
    found = screen(source, output, "k_vrh", workers=1, device="cpu", max_memory_gib=0.1)
    assert (found.predicted, found.failed) == (1, 1)
    (failure,) = (row["failure"] for row in content(tmp_path / "out").values() if row["failure"])
    assert failure.startswith("2000 atoms take about 0.45 GiB, and the limit is 0.1 GiB (max_memory_gib)")


@pytest.mark.slow
def test_killed_and_given_again(source: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    for number in range(60):
        bulk("Cu", a=3.5 + 0.005 * number).write(source / f"{number}.cif")
    screen(str(source), str(tmp_path / "one"), **settings)
    words = {**settings, "source": source, "output": tmp_path / "two", "workers": 2}
    command = [
        sys.executable,
        "-m",
        "potnet.cli",
        "screen",
        *(f"{key}={value}" for key, value in words.items()),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while not list((tmp_path / "two").glob("part-*")) and run.poll() is None:
            time.sleep(0.005)
        run.kill()
        run.communicate()  # at its end when the last process that holds the pipes is gone
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("part-*")}
    assert 0 < len(there) < 34
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{len(there)} parts are done already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert content(tmp_path / "two") == content(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(
    source: Path, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen(str(source), str(tmp_path / "one"), **settings)
    marker = tmp_path / "killed"
    monkeypatch.setattr("potnet.screening.work.Worker", _Fatal)
    monkeypatch.setenv("MARKER", str(marker))
    screen(str(source), str(tmp_path / "two"), **{**settings, "workers": 2})
    assert marker.exists()
    assert content(tmp_path / "two") == content(tmp_path / "one")


class _Fatal(Worker):
    """Ends the process that gets the third task, once."""

    def __call__(self, task: Any) -> int:
        if task.name == "files-0000002" and not os.path.exists(os.environ["MARKER"]):
            Path(os.environ["MARKER"]).touch()
            os._exit(9)
        return super().__call__(task)
