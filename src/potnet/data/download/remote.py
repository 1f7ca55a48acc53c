"""A file over HTTP, by pooch, and which failures are worth another attempt."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from potnet.data.errors import DataError
from potnet.files import write_whole
from potnet.progress import progress_bar

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

_CHUNK = 2**18
_BUSY = {202, 408, 425, 429, 500, 502, 503, 504}
"""Worth another attempt; figshare answers 202 while a file is being made ready."""
LONGEST_WAIT = 120.0
"""Seconds that a server may ask to wait."""


class DownloadError(DataError):
    """A file that cannot be had from the network, or is not what it should be."""


class Final(Exception):
    """Another attempt would not help, or was made often enough."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        name: Under which it is kept; its ending says what it is (.zip, .gz, .pkl).
        url: Where it comes from.
        bytes: Its published size, if there is one.
        checksum: Its published checksum, "sha256:..." or "md5:...", if there is one.

    Raises:
        DataError: A name with a folder in it, or a checksum of another form.
    """

    name: str
    url: str = ""
    bytes: int | None = None
    checksum: str | None = None

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise DataError(f"file {self.name!r} of a data set: give a plain name, without a folder")
        if self.checksum is not None and not re.fullmatch(
            r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", self.checksum
        ):
            raise DataError(
                f"file {self.name} of a data set: checksum {self.checksum!r}: write sha256: or md5: and "
                "the digits, in lower case"
            )

    @property
    def sha256(self) -> str | None:
        """The published sha256, if it is known."""
        return self.checksum[7:] if self.checksum and self.checksum.startswith("sha256:") else None


def fetch_over_http(
    url: str, path: Path, file: RemoteFile, retries: int, timeout: tuple[float, float], progress: bool
) -> None:
    """Fetch a file, with further attempts after failures that pass.

    What has arrived stays beside the file as `NAME.part` until the rest is there. The next attempt, also that
    of a later start, asks for the rest alone, if the server allows it and the file is still the same.

    Args:
        url: Its address.
        path: NAME.new, where it is put once it is complete.
        file: What it has to be; only its size is compared here.
        retries: Number of further attempts.
        timeout: Seconds for the connection and for the next bytes.
        progress: Whether to show a bar on a terminal.

    Raises:
        Final: It cannot be had.
        OSError: It cannot be written.
    """
    import pooch
    import requests

    wanted = urlsplit(url)
    if wanted.scheme not in ("http", "https") or not wanted.hostname:
        raise Final(f"{url or 'no address'}: an address begins with https:// and names a host")
    path.unlink(missing_ok=True)  # whole, but its start was stopped before it was verified
    pooch.get_logger().setLevel("WARNING")  # its messages repeat ours
    try:
        fetcher = pooch.create(
            path=path.parent,
            base_url="",
            registry={path.name: None},
            urls={path.name: url},
            retry_if_failed=retries,
        )
        fetcher.fetch(path.name, downloader=_Download(path, retries, timeout, file.bytes, progress))
    except (requests.exceptions.RequestException, ValueError) as error:
        raise Final(_explained(url, error, retries + 1)) from error


class _Download:
    """Gets one file; pooch calls it for each attempt.

    Args:
        path: NAME.new; NAME.part beside it is what has arrived, NAME.part.json which version that is.
        retries: How many attempts pooch makes after the first.
        timeout: See `fetch_over_http`.
        size: Of the whole file, if it is known.
        progress: Whether to show a bar on a terminal.
    """

    def __init__(
        self, path: Path, retries: int, timeout: tuple[float, float], size: int | None, progress: bool
    ) -> None:
        self.part = path.with_suffix(".part")
        self.version = path.with_suffix(".part.json")
        self.attempts_left = retries
        self.timeout = timeout
        self.size = size
        self.progress = progress

    def __call__(self, url: str, output_file: str | IO[bytes], pooch: Any) -> None:
        """Write the body of an address to a file.

        Raises:
            requests.exceptions.RequestException: Another attempt may help.
            Final: It would not.
        """
        import requests

        # "identity": a .gz file is not to be unpacked on the way.
        headers = {"User-Agent": "potnet", "Accept-Encoding": "identity"}
        start, tag = self._arrived(url)
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        try:
            answer = requests.get(url, headers=headers, stream=True, timeout=self.timeout)
        except (requests.exceptions.TooManyRedirects, requests.exceptions.InvalidURL, ValueError) as error:
            raise Final(f"{url}: {_brief(error)}") from error
        with answer as response:
            if response.status_code in _BUSY:
                self._wait(response)
                raise requests.exceptions.HTTPError(
                    f"the server is not ready (status {response.status_code})"
                )
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if response.status_code == 416 or (response.status_code == 206 and not goes_on):
                self._forget()  # the file has become shorter, or the server sends another piece
                raise requests.exceptions.HTTPError("the server does not send the rest of the file")
            if response.status_code not in (200, 206):
                self._forget()
                raise Final(
                    f"{response.url}: the server refuses (status {response.status_code} {response.reason})"
                )
            if response.status_code == 200:
                start = 0
                self._note_version(url, response.headers)
            else:
                log.info("%s: going on after the %d bytes that had arrived", url, start)
            self._receive(response, start)
        self.version.unlink(missing_ok=True)
        self.part.replace(output_file)  # type: ignore[arg-type]

    def _arrived(self, url: str) -> tuple[int, str]:
        """How many bytes there are of an earlier attempt at this address, and which version they are of."""
        try:
            note = json.loads(self.version.read_text(encoding="utf-8"))
            if note["url"] == url and note["version"]:
                return self.part.stat().st_size, str(note["version"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def _note_version(self, url: str, headers: Mapping[str, str]) -> None:
        """Keep by what the server knows this version of the file (RFC 9110, 13.1.5: no weak tags)."""
        self._forget()
        tag = headers.get("ETag", "")
        version = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
        if version:
            write_whole(self.version, json.dumps({"url": url, "version": version}))

    def _forget(self) -> None:
        for file in (self.part, self.version):
            file.unlink(missing_ok=True)

    def _receive(self, response: requests.Response, start: int) -> None:
        import requests
        import urllib3

        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else self.size
        shown = None if self.progress else False
        with (
            open(self.part, "ab" if start else "wb") as file,
            progress_bar(total, "Fetching", "bytes", shown) as advance,
        ):
            advance(start)
            done = start
            try:
                # Not iter_content, which unpacks a .gz file that a server declares as an encoding.
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    file.write(chunk)
                    done += len(chunk)
                    advance(len(chunk))
            except urllib3.exceptions.HTTPError as error:
                raise requests.exceptions.ConnectionError(_brief(error)) from error
        if length.isdecimal() and done < start + int(length):
            raise requests.exceptions.ConnectionError(f"broke off after {done} of {total} bytes")

    def _wait(self, response: requests.Response) -> None:
        """Wait as long as the server asks for, unless this was the last attempt."""
        self.attempts_left -= 1
        seconds = seconds_to_wait(response.headers.get("Retry-After"))
        if self.attempts_left < 0 or seconds is None:
            return
        if seconds > LONGEST_WAIT:
            raise Final(f"{response.url}: the server asks to come back in {seconds:.0f} s: try again then")
        log.warning("the server asks to wait %.0f s before the next attempt", seconds)
        time.sleep(seconds)


def seconds_to_wait(retry_after: str | None) -> float | None:
    """Seconds from now that the header Retry-After (seconds, or a date) says; None without a valid one."""
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _explained(url: str, error: Exception, attempts: int) -> str:
    """What went wrong at last."""
    import requests

    reason = reason_of(error)
    if reason is not None and isinstance(error, requests.exceptions.ProxyError):
        return f"cannot reach the proxy that HTTPS_PROXY names ({reason}; {attempts} attempts)"
    if reason is not None and isinstance(error, requests.exceptions.ConnectionError):
        return f"cannot reach {urlsplit(url).hostname} ({reason}; {attempts} attempts)"
    return f"{url}: {_brief(error)} ({attempts} attempts)"


def reason_of(error: BaseException) -> str | None:
    """The words of the system in an error of requests, such as "Connection refused"; None without any."""
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return None if found is None else found[1].strip()


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."
