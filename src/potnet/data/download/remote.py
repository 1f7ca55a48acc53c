"""A file over HTTP, by pooch, and which failures are worth another attempt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from potnet.data.errors import DataError
from potnet.progress import progress_bar

_CHUNK = 2**18
_BUSY = {202, 408, 425, 429, 500, 502, 503, 504}
"""Worth another attempt; figshare answers 202 while a file is being made ready."""


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

    Args:
        url: Its address.
        path: Where it is put once it is complete.
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
    path.unlink(missing_ok=True)
    pooch.get_logger().setLevel("WARNING")  # its messages repeat ours
    try:
        fetcher = pooch.create(
            path=path.parent,
            base_url="",
            registry={path.name: None},
            urls={path.name: url},
            retry_if_failed=retries,
        )
        fetcher.fetch(path.name, downloader=_Download(timeout, file.bytes, progress))
    except (requests.exceptions.RequestException, ValueError) as error:
        raise Final(_explained(url, error, retries + 1)) from error


class _Download:
    """Gets one file; pooch calls it for each attempt."""

    def __init__(self, timeout: tuple[float, float], size: int | None, progress: bool) -> None:
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
        import urllib3

        # "identity": a .gz file is not to be unpacked on the way.
        headers = {"User-Agent": "potnet", "Accept-Encoding": "identity"}
        try:
            answer = requests.get(url, headers=headers, stream=True, timeout=self.timeout)
        except (requests.exceptions.TooManyRedirects, requests.exceptions.InvalidURL, ValueError) as error:
            raise Final(f"{url}: {_brief(error)}") from error
        with answer as response:
            if response.status_code in _BUSY:
                raise requests.exceptions.HTTPError(
                    f"the server is not ready (status {response.status_code})"
                )
            if response.status_code != 200:
                raise Final(
                    f"{response.url}: the server refuses (status {response.status_code} {response.reason})"
                )
            length = response.headers.get("Content-Length", "")
            total = self.size if self.size is not None else int(length) if length.isdecimal() else None
            shown = None if self.progress else False
            with (
                open(output_file, "wb") as file,  # type: ignore[arg-type]
                progress_bar(total, "Fetching", "bytes", shown) as advance,
            ):
                done = 0
                try:
                    # Not iter_content, which unpacks a .gz file that a server declares as an encoding.
                    for chunk in response.raw.stream(_CHUNK, decode_content=False):
                        file.write(chunk)
                        done += len(chunk)
                        advance(len(chunk))
                except urllib3.exceptions.HTTPError as error:
                    raise requests.exceptions.ConnectionError(_brief(error)) from error
        if length.isdecimal() and done < int(length):
            raise requests.exceptions.ConnectionError(f"broke off after {done} of {length} bytes")


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
