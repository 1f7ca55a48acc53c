"""Featurizing in several processes: they can fail or be killed, and outlive nobody."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from crystal_tables import moduli, write_table

from potnet.crystals import CrystalError
from potnet.data import CacheError, DataError, Failure, Featurizer, TableSource
from potnet.data.errors import ProcessKilled
from potnet.data.features import build, ray_tasks, workers
from potnet.data.features.cache import cached_features
from potnet.data.features.staging import stage
from potnet.data.features.workers import run_tasks

_MODULE = '''
import errno, logging, os, signal, sys, time
from dataclasses import dataclass
from potnet.lattice import Coulomb

def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def pause():
    os.write(1, f"{os.getpid()}\\n".encode())  # at once: other processes write lines to the same pipe
    time.sleep(1000)

@dataclass(frozen=True)
class Odd(Coulomb):
    """Does something else before it says what to sum."""
    def terms(self, volume):
        seventh = ((volume - 3.85**3).abs() < 1e-6).any()  # c7
        DO
        return super().terms(volume)
'''


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_SHARD_CRYSTALS", 4)


@pytest.fixture
def source(tmp_path: Path) -> TableSource:
    return TableSource(write_table(tmp_path / "tiny.jsonl", moduli(14, split="train")))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def odd(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, do: str) -> Featurizer:
    """A featurizer with a potential that misbehaves, in a module that other processes can import."""
    (folder / f"{name}.py").write_text(_MODULE.replace("DO", do))
    monkeypatch.syspath_prepend(str(folder))
    return Featurizer(potentials=[{"_target_": f"{name}.Odd"}])


def run_one(source: TableSource, featurizer: Featurizer, folder: Path, **settings: Any) -> None:
    """All crystals as the work of one other process."""
    staged = stage(source, folder.with_name("stage"), "raise")
    folder.mkdir()
    rows = (np.arange(6), np.arange(6, 14))
    tasks = [
        build.ShardTask(number, found, 2, staged.folder, folder, featurizer, False)
        for number, found in enumerate(rows)
    ]
    for _ in run_tasks(build.featurize_shard, tasks, 1, **settings):
        pass


def test_several_processes_write_the_bytes_of_one(
    source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    featurizer = odd(tmp_path, monkeypatch, "refuses", "if seventh: raise ValueError('refused')")
    alone = cached_features(source, featurizer, tmp_path / "alone", workers=1, on_error="skip")
    # Two shards are there, as if an earlier run had been cut off, and two are still to be made.
    folder = tmp_path / "shared" / alone.folder.name
    shutil.copytree(alone.folder, folder)
    for number in (0, 3):
        (folder / alone.shards[number].file).unlink()
    (folder / "manifest.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("shard*")}
    assert len(before) == 2
    shown: list[float] = []

    @contextmanager
    def progress_bar(total: int) -> Iterator[Any]:
        yield shown.append

    other = odd(tmp_path, monkeypatch, "refuses", "if seventh: raise ValueError('refused')")
    shared = cached_features(
        source, other, tmp_path / "shared", workers=2, on_error="skip", progress_bar=progress_bar
    )
    assert files(alone.folder) == files(shared.folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert shared.failures == [Failure("c7", "refused")]
    assert sum(shown) == pytest.approx(14)
    assert other.seconds["standardize"] > 0
    assert other.seconds["sums"] > 0


def test_a_crystal_that_fails_and_what_is_logged_before(
    source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    do = "if seventh: logging.getLogger('potnet.odd').warning('v %.1f', volume[-1]); raise ValueError('bad')"
    featurizer = odd(tmp_path, monkeypatch, "warns", do)
    with caplog.at_level(logging.WARNING), pytest.raises(CrystalError) as caught:
        run_one(source, featurizer, tmp_path / "cache")
    assert str(caught.value) == "crystal 'c7': bad"
    assert ("potnet.odd", logging.WARNING, "v 57.1") in caplog.record_tuples
    # The shard before stays.
    assert [path.name[:11] for path in (tmp_path / "cache").iterdir()] == ["shard-00000"]


def test_killed_for_its_memory(source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    featurizer = odd(tmp_path, monkeypatch, "dies", "os.kill(os.getpid(), signal.SIGKILL)")
    message = r"killed by SIGKILL at shard 0 \(crystals of up to 2 atoms\).*data\.featurize_workers=1"
    with pytest.raises(CacheError, match=message), build._advice():
        run_one(source, featurizer, tmp_path / "cache")


@pytest.mark.slow
def test_full_disk(source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    featurizer = odd(tmp_path, monkeypatch, "fills", "if seventh: os.fsync = full")
    folder = tmp_path / "cache"
    message = r"cannot write the feature cache in .*cache: No space left .*data\.cache_dir"
    with pytest.raises(CacheError, match=message), build.writing(folder):
        run_one(source, featurizer, folder)
    assert [path.name[:11] for path in folder.iterdir()] == ["shard-00000"]


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_brings_its_traceback(
    source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    featurizer = odd(tmp_path, monkeypatch, "errs", "raise ZeroDivisionError('odd')")
    with pytest.raises(ZeroDivisionError, match="odd") as caught:
        run_one(source, featurizer, tmp_path / "cache")
    assert "in terms" in caught.value.__notes__[0]


def test_a_caller_who_stops(source: TableSource, tmp_path: Path):
    """Whatever ends the loop, such as Ctrl-C, ends the processes."""
    results = run_tasks(time.sleep, iter([0.0] + [1000.0] * 5), 2)
    next(results)
    children = psutil.Process().children(recursive=True)
    assert len(children) >= 2
    results.close()
    _, alive = psutil.wait_procs([child for child in children if "loky" in " ".join(_command(child))], 10)
    assert not [child for child in alive if "resource_tracker" not in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
def test_what_is_defined_in_a_notebook(source: TableSource):
    @dataclass(frozen=True)
    class Own:
        factor: int

        def __call__(self, value: int) -> int:
            return self.factor * value

    Own.__module__ = "__main__"
    assert sorted(run_tasks(Own(3), range(5), 2)) == [0, 3, 6, 9, 12]


def test_backends(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=r"backend=rya; did you mean ray\?"):
        run_tasks(abs, [1], 1, backend="rya")
    monkeypatch.setattr(ray_tasks, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'pip install "potnet\[ray\]"'):
        list(run_tasks(abs, [1], 1, backend="ray"))


LONDON = "potnet.lattice.potentials.London"


def test_tasks_of_processes_that_are_killed_are_done_again(monkeypatch: pytest.MonkeyPatch):
    killed: list[int] = []

    def pool(function: Any, tasks: Iterator[int], workers: int) -> Iterator[int]:
        taken = [next(tasks), next(tasks)]
        if len(killed) < 2:
            killed.append(1)
            raise ProcessKilled("a process was killed", taken)
        yield from map(function, [*taken, *tasks])

    monkeypatch.setattr(workers, "_by_one_pool", pool)
    assert sorted(run_tasks(abs, range(5), 2, tries=3)) == [0, 1, 2, 3, 4]
    killed.clear()
    with pytest.raises(ProcessKilled, match="a process was killed at 0 or 1: use fewer"):
        list(run_tasks(abs, range(5), 2, tries=2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray, which leaves sockets and processes to the interpreter's end
def test_ray_writes_the_bytes_of_one_process(source: TableSource, tmp_path: Path):
    pytest.importorskip("ray", reason='Ray is not installed: pip install "potnet[ray]"')
    featurizer = Featurizer(potentials=[{"_target_": LONDON}])
    alone = cached_features(source, featurizer, tmp_path / "alone", workers=1)
    there = cached_features(source, featurizer, tmp_path / "there", backend="ray")
    assert len(there.shards) == 4
    assert files(there.folder) == files(alone.folder)


_PROCESS = """
import os, sys
from contextlib import contextmanager
from potnet.data import Featurizer, TableSource
from potnet.data.features import build, cache

@contextmanager
def progress_bar(total):
    def progress(crystals):
        os.write(1, f"{crystals} crystals\\n".encode())
        if crystals:
            sys.stdin.readline()  # until the test says go on

    yield progress

build._SHARD_CRYSTALS = int(sys.argv[4])
featurizer = Featurizer(potentials=[{"_target_": sys.argv[3]}])
cache.cached_features(
    TableSource(sys.argv[1]), featurizer, sys.argv[2], workers=2, progress_bar=progress_bar
)
"""


def process(source: TableSource, folder: Path, potential: str, shard: int = 4) -> subprocess.Popen[str]:
    """A process that featurizes with two others, in a script that has no `if __name__ == "__main__"`.

    It prints how many crystals are there from before, and then a line for each shard that is done, after
    which it waits for a line on its standard input. It never has more than two shards at hand.
    """
    script = source.path.parent / "script.py"
    script.write_text(_PROCESS)
    command = [sys.executable, str(script), str(source.path), str(folder), potential, str(shard)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_nobody_outlives_one_that_is_killed(
    source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    odd(tmp_path, monkeypatch, "waits", "if seventh: pause()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with process(source, tmp_path / "cache", "waits.Odd") as child:
        # A process is in the midst of its shard.
        assert int(next(line for line in child.stdout if line.strip().isdigit())) != child.pid
        child.kill()
        # The pipes are at their end when the last process that holds them is gone.
        child.communicate()
    assert not list((tmp_path / "cache").glob("*/manifest.json"))


@pytest.mark.slow
def test_killed_after_each_few_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "_SHARD_CRYSTALS", 1)
    source = TableSource(write_table(tmp_path / "many.jsonl", moduli(24, split="train")))
    done: dict[Path, tuple[int, int]] = {}
    for more in (1, 5, 9):
        with process(source, tmp_path / "killed", LONDON, shard=1) as child:
            assert child.stdout.readline() == f"{len(done)} crystals\n"
            for number in range(more):
                if number or done:
                    child.stdin.write("go on\n")
                    child.stdin.flush()
                assert child.stdout.readline() == "1 crystals\n"
            child.kill()
            child.communicate()  # until the last of its processes is gone
        found = shards_in(tmp_path / "killed")
        assert len(done) + more <= len(found) <= len(done) + more + 2
        assert done.items() <= found.items()
        done = found
    featurizer = Featurizer(potentials=[{"_target_": LONDON}])
    killed = cached_features(source, featurizer, tmp_path / "killed", workers=1)
    assert done.items() <= shards_in(tmp_path / "killed").items()
    whole = cached_features(source, featurizer, tmp_path / "whole", workers=1)
    assert files(killed.folder) == files(whole.folder)


def shards_in(cache: Path) -> dict[Path, tuple[int, int]]:
    """The shards that are written: path -> inode and time, which a shard that is kept does not change."""
    found = {path: path.stat() for path in cache.glob("*/shard*.safetensors")}
    return {path: (status.st_ino, status.st_mtime_ns) for path, status in found.items()}
