"""Whether a run may begin in a folder: other runs in it, and other processes."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from filelock import FileLock

from potnet.config import ConfigError
from potnet.config.resolvers import remove_unused_run_dir
from potnet.runs.begin import alone_in, check_free, check_unused, in_use, refusal
from potnet.runs.errors import BusyError


@pytest.mark.parametrize(
    "name", ["metrics.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "last.ckpt"]
)
def test_a_folder_that_holds_a_run_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).touch()
    with pytest.raises(ConfigError) as error:
        check_unused(folder)
    said = str(error.value)
    assert said.startswith(f"{folder} holds an earlier run ({name}): ")
    assert said.endswith("give another hydra.run.dir, or remove that folder")
    # One that was fitted in closed form has nothing to go on from.
    assert (f"'resume={folder}' continues it" in said) == name.endswith("last.ckpt")
    assert "give another folder" in str(refusal(folder, "folder"))


def test_a_folder_in_which_nothing_was_kept_may_be_used_again(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".hydra").mkdir()
    for name in ("config.yaml", "log.txt", "split.json", "metrics.csv", ".lock"):
        (tmp_path / name).touch()
    check_unused(tmp_path)
    check_unused(tmp_path / "not there")


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_one_process_trains_in_a_folder(error: type[BaseException] | None, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    try:
        with alone_in(folder):
            assert in_use(folder)
            with pytest.raises(BusyError, match=f"^another process is training in {folder}: wait for it"):
                check_free(folder)
            with pytest.raises(BusyError), alone_in(folder):
                raise AssertionError
            if error is not None:
                raise error
    except BaseException as end:
        assert type(end) is error  # noqa: PT017
    assert not in_use(folder)
    with alone_in(folder):
        pass


def test_looking_leaves_nothing(tmp_path: Path) -> None:
    assert not in_use(tmp_path)
    check_free(tmp_path / "not there")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "variables", [{"RANK": "1"}, {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}]
)
def test_ranks_work_in_the_folder_that_the_first_one_holds(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics.json").touch()
    with alone_in(tmp_path):
        for key, value in variables.items():
            monkeypatch.setenv(key, value)
        if "RANK" in variables:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", "potnet")
        check_free(tmp_path)
        check_unused(tmp_path)
        with alone_in(tmp_path):
            pass
        for key in variables:
            monkeypatch.delenv(key)
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        assert in_use(tmp_path)


def test_a_folder_in_which_another_process_begins_is_not_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with alone_in(folder):
        remove_unused_run_dir(folder)
        assert folder.is_dir()
    remove_unused_run_dir(folder)
    assert not folder.exists()


def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(lock: FileLock, timeout: float) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with caplog.at_level(logging.WARNING), alone_in(tmp_path):
        pass
    assert "this file system has no locks" in caplog.text
