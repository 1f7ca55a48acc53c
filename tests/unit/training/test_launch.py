"""Starting ranks, passing signals on, and telling why a run ended: with ranks that do nothing heavy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potnet.training.processes import launch as launching
from potnet.training.processes.launch import RankError, launch

Ranks = Callable[[str], float | None]

PRELUDE = """
import json, os, signal, sys, time
from pathlib import Path
notes, rank = Path(sys.argv[1]), int(os.environ["RANK"])
run = json.loads((notes / "run.json").read_text())
def fail(foreseen, message, at):
    error = {"rank": rank, "time": at, "foreseen": foreseen, "message": message, "traceback": "Traceback ..."}
    (notes / f"error_{rank}.json").write_text(json.dumps(error))
    sys.exit(1)
def write(name, text):
    part = Path(run["folder"]) / (name + ".part")
    part.write_text(text)
    part.rename(Path(run["folder"]) / name)
def wait_for(name):
    while not (Path(run["folder"]) / name).exists():
        time.sleep(0.01)
"""


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """Lets every rank run this program in place of training."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(launching, "PROGRAM", "program_of_a_rank")
    (tmp_path / "run").mkdir()
    wait = launching._wait

    def started(*arguments: Any) -> list[int]:
        (tmp_path / "run" / "started").touch()
        return wait(*arguments)

    monkeypatch.setattr(launching, "_wait", started)

    def run(program: str) -> float | None:
        (tmp_path / "program_of_a_rank.py").write_text(PRELUDE + textwrap.dedent(program))
        return launch({"seed": 1}, tmp_path / "run", resume=False, count=2)

    return run


def test_the_first_rank_gives_the_result_and_nothing_leaks(ranks: Ranks, tmp_path: Path) -> None:
    before = dict(os.environ)
    handlers = [signal.getsignal(number) for number in launching.FORWARDED]
    result = ranks("""
        assert os.environ["WORLD_SIZE"] == "2" and run["config"] == {"seed": 1}
        (Path(run["folder"]) / f"port_{rank}").write_text(os.environ["MASTER_PORT"])
        if rank == 0:
            (notes / "result.json").write_text("0.25")
    """)
    assert result == 0.25
    assert dict(os.environ) == before
    assert [signal.getsignal(number) for number in launching.FORWARDED] == handlers
    ports = {(tmp_path / "run" / f"port_{rank}").read_text() for rank in range(2)}
    assert len(ports) == 1


def test_a_killed_rank_is_named_and_ends_the_other(ranks: Ranks, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(RankError) as error:
        ranks("""
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        """)
    message = str(error.value)
    assert message.startswith("rank 1 of 2 (process ")
    assert "was killed by SIGKILL" in message
    assert f"resume={tmp_path / 'run'}" in message


def test_a_rank_that_fails_as_the_other_was_killed_is_not_blamed(ranks: Ranks) -> None:
    with pytest.raises(RankError, match=r"rank 1 of 2 .* was killed by SIGKILL.*start a new run"):
        ranks("""
            if rank == 1:
                write("pid", str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            wait_for("pid")
            try:
                while True:
                    os.kill(int((Path(run["folder"]) / "pid").read_text()), 0)
                    time.sleep(0.01)
            except ProcessLookupError:
                pass
            fail(False, "RuntimeError: connection closed by peer", 1.0)
        """)


def test_the_first_of_several_errors_is_told(ranks: Ranks, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RankError, match=r"rank 1 of 2 failed \(error of rank 1\)"):
        ranks("""
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (Path(run["folder"]) / f"ready_{rank}").touch()
            wait_for("ready_0"), wait_for("ready_1")
            fail(False, f"error of rank {rank}", 10.0 - rank)
        """)
    assert "Traceback" in capfd.readouterr().err


def test_a_mistake_of_the_user_is_told_as_it_is(ranks: Ranks) -> None:
    with pytest.raises(RankError, match=r"^lower the learning rate$"):
        ranks("""
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (Path(run["folder"]) / f"ready_{rank}").touch()
            wait_for("ready_0"), wait_for("ready_1")
            if rank == 0:
                fail(False, "connection lost", 1.0)
            fail(True, "lower the learning rate", 2.0)
        """)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
@pytest.mark.parametrize("listens", [True, False])
def test_signals_reach_the_ranks(ranks: Ranks, listens: bool, number: signal.Signals, status: int) -> None:
    with pytest.raises(SystemExit) as stopped:
        ranks(f"""
            if {listens}:
                signal.signal({int(number)}, lambda *_: sys.exit({status}))
            (Path(run["folder"]) / f"ready_{{rank}}").touch()
            wait_for("ready_0"), wait_for("ready_1"), wait_for("started")
            if rank == 0:
                os.kill(os.getppid(), {int(number)})
            time.sleep(600)
        """)
    assert stopped.value.code == status


def test_a_rank_that_waits_for_one_that_did_not_listen_yet_is_ended(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "GRACE", 0.5)
    with pytest.raises(SystemExit) as stopped:
        ranks("""
            if rank == 1:
                signal.signal(signal.SIGUSR1, lambda *_: None)
            write(f"ready_{rank}", "")
            wait_for("ready_0"), wait_for("ready_1"), wait_for("started")
            if rank == 0:
                os.kill(os.getppid(), signal.SIGUSR1)
            time.sleep(600)
        """)
    assert stopped.value.code == 138


def test_a_signal_while_ranks_are_being_started_reaches_all(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = launching._start

    def start_and_signal(number: int, *arguments: Any) -> subprocess.Popen[bytes]:
        if number == 1:  # the first one runs, the second one not yet
            os.kill(os.getpid(), signal.SIGTERM)
        return start(number, *arguments)

    monkeypatch.setattr(launching, "_start", start_and_signal)
    with pytest.raises(SystemExit) as stopped:
        ranks("time.sleep(600)")
    assert stopped.value.code == 143


def test_an_exit_from_outside_lets_the_ranks_keep_their_state(ranks: Ranks, tmp_path: Path) -> None:
    """As submitit's handler of SIGUSR2 does it."""
    before = signal.signal(signal.SIGUSR2, lambda *_: sys.exit(7))
    try:
        with pytest.raises(SystemExit) as stopped:
            ranks("""
                def keep(*_):
                    write(f"kept_{rank}", "")
                    sys.exit(143)
                signal.signal(signal.SIGTERM, keep)
                write(f"ready_{rank}", "")
                wait_for("ready_0"), wait_for("ready_1"), wait_for("started")
                if rank == 0:
                    os.kill(os.getppid(), signal.SIGUSR2)
                time.sleep(600)
            """)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert stopped.value.code == 7
    assert all((tmp_path / "run" / f"kept_{rank}").exists() for rank in range(2))


def test_ranks_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    (tmp_path / "program_of_a_rank.py").write_text(
        PRELUDE
        + textwrap.dedent("""
        import threading
        from potnet.training.processes.worker import _end_with_the_parent
        threading.Thread(target=_end_with_the_parent, args=(notes,), daemon=True).start()
        write(f"pid_{rank}", str(os.getpid()))
        time.sleep(600)
        """)
    )
    starter = textwrap.dedent(f"""
        from pathlib import Path
        from potnet.training.processes import launch
        launch.PROGRAM = "program_of_a_rank"
        launch.launch({{}}, Path({str(tmp_path)!r}), False, 2)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", starter],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
            "TMPDIR": str(tmp_path),
        },
    )
    files = [tmp_path / f"pid_{rank}" for rank in range(2)]
    wait_until(lambda: all(file.exists() for file in files))
    process.kill()
    process.wait()
    wait_until(lambda: not any(running(int(file.read_text())) for file in files))
    assert not list(tmp_path.glob("potnet_ranks_*"))


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def running(pid: int) -> bool:
    """Whether a process is there, and is more than the entry of one that nobody waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
