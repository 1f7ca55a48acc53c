"""Files from the network: fetched once by pooch, verified before use, and found again.

pooch gives a file its name once it is complete, and tries again after a break. Ours is what it cannot know:
that an interrupted download goes on where it was, what an archive must contain, the record of a file without
a published checksum, which answers of a server are final, and that two processes fetch once. Beside a file
lies `NAME.record` with its size and sha256, which later starts compare.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from potnet.data.download.remote import DownloadError, Final, RemoteFile, fetch_over_http
from potnet.data.download.verify import FileRecord, problem_of, read_record, write_record
from potnet.data.errors import CacheError, DataError
from potnet.files import file_hash_once, remember_hash

log = logging.getLogger(__name__)

__all__ = ["DownloadError", "Downloader", "RemoteFile"]


class Downloader:
    """Fetches files into one folder.

    Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY). Processes that want the same file wait for
    the one that fetches it.

    Args:
        folder: Where files are kept.
        retries: How often to try again after a break, a stall, no answer, or a server that is busy; pauses
            grow from 1 s to 10 s, after what the server asks for (Retry-After, at most 120 s).
        timeout: Seconds to wait for a connection (host names included, where the system allows), and for the
            next bytes.
        progress: Whether to show a bar on a terminal.
    """

    def __init__(
        self,
        folder: str | Path,
        retries: int = 3,
        timeout: tuple[float, float] = (15.0, 30.0),
        progress: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.retries = retries
        self.timeout = timeout
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
        return record.sha256 if record is not None else file_hash_once(path)

    def _verified(self, path: Path, file: RemoteFile) -> str | None:
        """What is wrong with a file in the folder; None if it can be used."""
        record = read_record(path)
        digest = file_hash_once(path)
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
        log.info("fetching %s", url)
        arriving = path.with_name(path.name + ".new")
        try:
            with self._writing():
                fetch_over_http(url, arriving, file, self.retries, self.timeout, self.progress)
            digest = file_hash_once(arriving)
            problem = problem_of(arriving, file, digest)
            if problem is not None:
                raise Final(f"what came from {url} {problem}; it was removed")
        except Final as error:
            arriving.unlink(missing_ok=True)
            raise DownloadError(f"{error}. {self._advice(file, path)}") from error
        with self._writing():
            arriving.replace(path)
        remember_hash(path, digest)
        if file.checksum is not None and file.sha256 is None:
            remember_hash(path, file.checksum.partition(":")[2], "md5")
        self._record(path, digest, url)

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
    problem = problem_of(path, file, file_hash_once(path))
    if problem is not None:
        raise DataError(f"data.path: {path} {problem}; get {file.name} again, as from {file.url}")
    return path
