"""One attempt to get a file over HTTP, and which of its failures are worth another attempt."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from potnet.data.errors import DataError

if TYPE_CHECKING:
    from requests import Response, Session

_CHUNK = 2**18
_BUSY = {202, 408, 425, 429, 500, 502, 503, 504}
"""Worth another attempt; figshare answers 202 while a file is being made ready."""


class DownloadError(DataError):
    """A file that cannot be had from the network, or is not what it should be."""


class Final(Exception):
    """Another attempt would not help."""


class Transient(Exception):
    """Another attempt may help.

    Attributes:
        wait: Seconds that the server asks to wait, if it does.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        name: Under which it is kept; its ending tells what it is (.zip, .gz, .pkl).
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


def new_session() -> Session:
    """A session that says who is asking and wants files as they are."""
    import requests

    session = requests.Session()
    # "identity": a .gz file is not to be unpacked on the way.
    session.headers.update({"User-Agent": "potnet", "Accept-Encoding": "identity"})
    return session


def check_reachable(url: str, seconds: float) -> None:
    """Find out in bounded time that there is no network, which a resolver and many addresses can draw out.

    Raises:
        Final: The host (or the proxy in front of it) does not answer, or the address is none.
    """
    from requests.utils import get_environ_proxies, select_proxy

    wanted = urlsplit(url)
    if wanted.scheme not in ("http", "https") or not wanted.hostname:
        raise Final(f"{url or 'no address'}: an address begins with https:// and names a host")
    place = urlsplit(select_proxy(url, get_environ_proxies(url)) or url)
    host = place.hostname or ""
    try:
        port = place.port or (443 if place.scheme == "https" else 80)
    except ValueError as error:
        raise Final(f"{url}: {error}") from error
    outcome: list[str | None] = []

    def knock() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            outcome.append(None)
        except UnicodeError as error:
            outcome.append(f"no name of a host: {error}")
        except OSError as error:
            outcome.append(error.strerror or str(error) or type(error).__name__)

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(seconds)
    reason = outcome[0] if outcome else f"no answer within {seconds:g} s"
    if reason is not None:
        raise Final(f"cannot reach {host} ({reason})")


def receive(
    session: Session,
    url: str,
    part: Path,
    timeout: tuple[float, float],
    size: int | None,
    show: Callable[[int, int | None], None] | None,
) -> None:
    """Complete a part file, from where it ends if the server can do that, else from the beginning.

    Args:
        session: Of `new_session`.
        url: Address of the file.
        part: Begun or not.
        timeout: Seconds for the connection and for the next bytes.
        size: Of the whole file, if it is known.
        show: Told the bytes that are there and the bytes in all.

    Raises:
        Transient, Final: It is not complete.
        OSError: The part file cannot be written.
    """
    import requests
    import urllib3

    have = part.stat().st_size if part.exists() else 0
    if size is not None and have > size:
        part.unlink()
        have = 0
    if size is not None and have == size:
        return
    tag = part.with_name(part.name + ".etag")
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.exists():  # continue the same version only
            headers["If-Range"] = tag.read_text(encoding="ascii")
    try:
        with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
            start = _start(response, have, part)
            if start is None:
                return
            etag = response.headers.get("ETag", "")
            if etag.startswith('"') and etag.isascii():
                tag.write_text(etag, encoding="ascii")
            else:
                tag.unlink(missing_ok=True)
            total = _total(response, start)
            done = _write(response, part, start, total, show)
    except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:
        raise Final(f"{url}: {_brief(error)}") from error
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.HTTPError,
    ) as error:
        raise Transient(f"the connection broke or stalled ({_brief(error)})") from error
    except requests.exceptions.RequestException as error:
        raise Final(f"{url}: {_brief(error)}") from error
    wanted = size if size is not None else total
    if wanted is not None and done < wanted:
        raise Transient(f"broke off after {done} of {wanted} bytes")
    tag.unlink(missing_ok=True)


def _start(response: Response, have: int, part: Path) -> int | None:
    """Where the body belongs in the file; None if the file is complete without it."""
    status = response.status_code
    if status == 206:
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != have:
            part.unlink(missing_ok=True)
            raise Transient("the server sent another piece than the one asked for")
        return have
    if status == 416:  # asked for what is beyond the end
        if re.fullmatch(rf"bytes \*/{have}", response.headers.get("Content-Range", "")):
            return None
        part.unlink(missing_ok=True)
        raise Transient("the server has nothing to continue with")
    if status in _BUSY:
        wait = response.headers.get("Retry-After", "")
        raise Transient(
            f"the server is not ready (status {status})", float(wait) if wait.isdecimal() else None
        )
    if status != 200:
        raise Final(f"{response.url}: the server refuses (status {status} {response.reason})")
    return 0


def _total(response: Response, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None


def _write(
    response: Response,
    part: Path,
    start: int,
    total: int | None,
    show: Callable[[int, int | None], None] | None,
) -> int:
    """Append the body; the length of the file afterwards."""
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        done = start
        # Not iter_content, which unpacks a .gz file that a server declares as an encoding.
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            file.write(chunk)
            done += len(chunk)
            if show is not None:
                show(done, total)
    return done


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."
