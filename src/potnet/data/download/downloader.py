"""Files from the network: fetched once, verified before use, and found again.

A file that is being fetched is called `NAME.part`; it gets its name once it is complete and verified, so what
has the name can be used. Beside it lies `NAME.record` with its size and sha256, which later starts compare.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from potnet.data.download.remote import (
    DownloadError,
    Final,
    RemoteFile,
    Transient,
    check_reachable,
    new_session,
    receive,
)
from potnet.data.download.verify import FileRecord, problem_of, read_record, sha256_of, write_record
from potnet.data.errors import CacheError, DataError

log = logging.getLogger(__name__)

__all__ = ["DownloadError", "Downloader", "RemoteFile"]

_ENOUGH_PROGRESS = 2**20
_LONGEST_PAUSE = 60.0


class Downloader:
    """Fetches files into one folder.

    Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY). Processes that want the same file wait for
    the one that fetches it. An interrupted download goes on where it stopped, if the server can do that.

    Args:
        folder: Where files are kept.
        retries: How often to try again, without progress, after a break, a stall, or a server that is busy.
        backoff: Seconds before the first of these; doubled each time.
        reach_timeout: Seconds after which a server that does not answer at all means: no network.
        connect_timeout, read_timeout: Seconds to wait for a connection later on, and for the next bytes.
        sleep: Waits between attempts.
        progress: Whether to show a bar on a terminal.
    """

    def __init__(
        self,
        folder: str | Path,
        retries: int = 5,
        backoff: float = 1.0,
        reach_timeout: float = 2.5,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
        sleep: Callable[[float], object] = time.sleep,
        progress: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.retries = retries
        self.backoff = backoff
        self.reach_timeout = reach_timeout
        self.timeout = (connect_timeout, read_timeout)
        self.sleep = sleep
        self.progress = progress

    def fetch(self, file: RemoteFile, mirror: str | None = None) -> Path:
        """The verified file: the one in the folder, or a new one from the network.

        Args:
            file: What is wanted.
            mirror: Address to use in place of `file.url`.

        Raises:
            DownloadError: It cannot be had, or is not what it should be. The message says where to put a
                file got elsewhere.
            CacheError: The folder cannot be written.
        """
        path = self.folder / file.name
        if path.is_file() and self._verified(path, file) is None:
            return path
        with self._alone(path):
            reason = None
            if path.is_file():
                reason = self._verified(path, file)  # another process may have fetched it meanwhile
                if reason is None:
                    return path
                log.warning("%s %s: it is fetched again", path, reason)
            self._download(file, mirror or file.url, path)
        return path

    def sha256(self, file: RemoteFile, mirror: str | None = None) -> str:
        """Checksum of the content, without reading the file if it is known; else the file is fetched.

        Raises:
            DownloadError, CacheError: As for `fetch`.
        """
        if file.sha256 is not None:
            return file.sha256
        path = self.folder / file.name
        record = read_record(path)
        if record is None or (path.is_file() and not record.untouched(path)):
            path = self.fetch(file, mirror)
            record = read_record(path)
        return record.sha256 if record is not None else sha256_of(path)

    def _verified(self, path: Path, file: RemoteFile) -> str | None:
        """What is wrong with a file in the folder; None if it can be used."""
        record = read_record(path)
        digest = sha256_of(path)
        known = record is not None and record.sha256 == digest
        # Without published figures, a file that was found whole needs no second look into the archive.
        if not (known and file.checksum is None and file.bytes is None):
            problem = problem_of(path, file, digest)
            if problem is not None:
                return problem
        if record is not None and not known:
            log.warning("%s is sound, but not the file that was here before: another version?", path)
        if record is None or not known or not record.untouched(path):
            self._record(path, digest, record.url if record is not None and known else "")
        return None

    def _record(self, path: Path, digest: str, url: str) -> None:
        stat = path.stat()
        fetched = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            write_record(path, FileRecord(stat.st_size, stat.st_mtime_ns, digest, url, fetched))
        except OSError as error:  # somebody else's folder: the file is verified again next time
            log.info("%s: no record is kept (%s)", path, error.strerror)

    def _download(self, file: RemoteFile, url: str, path: Path) -> None:
        part = path.with_name(path.name + ".part")
        try:
            check_reachable(url, self.reach_timeout)
            with new_session() as session:
                fresh = False
                while True:
                    resumed = self._receive(session, url, file, part)
                    digest = sha256_of(part)
                    problem = problem_of(part, file, digest)
                    if problem is None:
                        break
                    part.unlink()
                    if fresh or not resumed:
                        raise Final(f"what came from {url} {problem}; it was removed")
                    log.warning("%s, put together from several attempts, %s: once more", path.name, problem)
                    fresh = True
        except Final as error:
            raise DownloadError(f"{error}. {self._advice(file, path)}") from error
        with self._writing():
            part.replace(path)
        self._record(path, digest, url)

    def _receive(self, session: Any, url: str, file: RemoteFile, part: Path) -> bool:
        """Bring the part file to its full length; whether it was begun by an earlier attempt.

        Raises:
            Final: It cannot be had, or not after all attempts.
        """
        failures = 0
        resumed = part.exists()
        log.info("fetching %s", url)
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                with self._bar(file.name) as show, self._writing():
                    receive(session, url, part, self.timeout, file.bytes, show)
                return resumed
            except Transient as error:
                gained = (part.stat().st_size if part.exists() else 0) - before
                failures = 1 if gained >= _ENOUGH_PROGRESS else failures + 1
                resumed = True
                if failures > self.retries:
                    raise Final(f"{url}: {error} ({failures} attempts)") from error
                pause = min(error.wait or self.backoff * 2 ** (failures - 1), _LONGEST_PAUSE)
                log.warning("%s: %s; again in %g s (%d of %d)", url, error, pause, failures, self.retries)
                self.sleep(pause)

    def _advice(self, file: RemoteFile, path: Path) -> str:
        return (
            f"Wanted: {file.name} from {file.url or 'nowhere: its description gives no address'}. Put a copy "
            f"got elsewhere at {path}, or give a copy or a mirror by data.path=; data=embedded works without "
            "a network"
        )

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        from filelock import FileLock, Timeout

        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_name(path.name + ".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.warning("another process is fetching %s; waiting for it", path.name)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of the file system into one that says where, and what to do."""
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"cannot write the downloads in {self.folder}: {error.strerror or error}. "
                "Make room, or choose another folder with data.cache_dir or POTNET_CACHE"
            ) from error

    def _bar(self, name: str) -> Any:
        from rich.console import Console

        console = Console(stderr=True)
        return download_bar(name, console) if self.progress and console.is_terminal else nullcontext(None)


@contextmanager
def download_bar(name: str, console: Any) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar; call it with the bytes that are there and the bytes in all (None if unknown)."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def local_file(folder_or_file: str | Path, file: RemoteFile, alone: bool) -> Path:
    """The user's own copy of a file, checked like a download.

    Args:
        folder_or_file: The file, or a folder that holds it under its name.
        file: What it has to be.
        alone: Whether the data set has just this file; then a file of any name will do.

    Raises:
        DataError: There is no such file, or it is broken or another one.
    """
    path = Path(folder_or_file).expanduser()
    if path.is_dir():
        path = path / file.name
    elif not alone and path.exists():
        raise DataError(f"data.path={folder_or_file}: give a folder that holds {file.name} and the others")
    if not path.is_file():
        raise DataError(
            f"data.path: {path}: no such file (working folder: {Path.cwd()}); {file.name} is wanted here, "
            f"as from {file.url}"
        )
    problem = problem_of(path, file, sha256_of(path))
    if problem is not None:
        raise DataError(f"data.path: {path} {problem}; get {file.name} again, as from {file.url}")
    return path
