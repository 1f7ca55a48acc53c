"""Commands: what a user reads when the system refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HYDRA_MEETS_A_FULL_DISK = """
import errno
import os

import hydra.core.utils

from potnet.config import entry_point


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def command(config):
    raise AssertionError("the run must not begin")


hydra.core.utils._save_config = full
entry_point("train")(command)()
"""


def test_a_full_disk_is_named_although_the_system_does_not(tmp_path: Path) -> None:
    # In a process of its own: Hydra sets up the logging of the process that it runs in.
    done = subprocess.run(
        [sys.executable, "-c", HYDRA_MEETS_A_FULL_DISK, f"runs_dir={tmp_path / 'runs'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'runs'}/")
    assert done.stderr.endswith(": no space left on device; make room, or choose another folder\n")
    assert not (tmp_path / "runs").exists()
