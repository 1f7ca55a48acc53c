"""Before a run begins: its folder holds no other run, and no other process trains in it."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from potnet.config.arguments import pasteable
from potnet.config.errors import ConfigError
from potnet.process_rank import rank
from potnet.runs.errors import BusyError
from potnet.runs.folder import LAST, RunFolder

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system answers that has no locks."""


def refusal(folder: Path, option: str = "hydra.run.dir") -> str | None:
    """Why a new run may not begin in a folder, and what to do; None if it may.

    It may where an earlier run kept nothing: neither a checkpoint nor metrics.json.

    Args:
        folder: It need not exist.
        option: By which the user named it.
    """
    kept = RunFolder(folder).kept()
    if not kept:
        return None
    names = ", ".join(str(path.relative_to(folder)) for path in kept)
    has_last = any(path.name == LAST for path in kept)
    go_on = f"{pasteable('resume', folder)} continues it; " if has_last else ""
    return (
        f"{folder} holds an earlier run ({names}): {go_on}for a new one give another {option}, or remove "
        "that folder"
    )


def check_unused(folder: Path) -> None:
    """Refuse to begin a new run in the folder of another.

    Raises:
        ConfigError: Names what is there, and says what to do.
    """
    why = refusal(folder) if rank() == 0 else None
    if why:
        raise ConfigError(why)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder: by the process that leads, so that its ranks may work in there.

    Args:
        folder: It is made if it is not there.

    Raises:
        BusyError: Another process holds it.
    """
    if rank() > 0:
        yield
        return
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(RunFolder(folder).lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _busy(folder) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        log.warning("%s: this file system has no locks; let no other process train in there", folder)
    try:
        yield
    finally:
        lock.release()


def in_use(folder: Path) -> bool:
    """Whether a process holds the lock of a folder; leaves nothing there."""
    from filelock import FileLock, Timeout

    file = RunFolder(folder).lock
    if not file.is_file():
        return False
    try:
        with FileLock(file).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def check_free(folder: Path) -> None:
    """Refuse a folder in which a process trains.

    Raises:
        BusyError: There is one.
    """
    if rank() == 0 and in_use(folder):
        raise _busy(folder)


def _busy(folder: Path) -> BusyError:
    return BusyError(f"another process is training in {folder}: wait for it, or end it")


class FolderCheck(Callback):
    """Refuses the folder of a single run before Hydra writes into it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End with a message where the folder is in use, or holds a run that is not to be continued.

        Raises:
            SystemExit: With status 1; Hydra turns other errors into warnings.
        """
        with suppress(OmegaConfBaseException):  # Hydra meets it next, and explains it
            folder = Path(str(config.hydra.run.dir))
            try:
                check_free(folder)
                if config.resume is None:
                    check_unused(folder)
            except (BusyError, ConfigError) as error:
                print(f"error: {error}", file=sys.stderr)
                sys.exit(1)
