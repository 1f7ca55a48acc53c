"""Commands: what a user reads when the system refuses."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from potnet.config import entry_point


def test_a_full_disk_is_named_although_the_system_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def command(config: Any) -> None:
        raise AssertionError("the run must not begin")

    monkeypatch.setattr("hydra.core.utils._save_config", full)
    monkeypatch.setattr(sys, "argv", ["train", f"runs_dir={tmp_path / 'runs'}"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        entry_point("train")(command)()
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'runs'}/")
    assert said.endswith(": no space left on device; make room, or choose another folder\n")
    assert not (tmp_path / "runs").exists()
