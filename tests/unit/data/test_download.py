"""Downloads from a server that breaks off, stalls, refuses, redirects, and sends the wrong bytes."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import http_files
import pytest
from http_files import FileServer

from potnet import files
from potnet.data import CacheError, DataError
from potnet.data.download.downloader import Downloader, DownloadError, RemoteFile, local_file
from potnet.data.download.remote import seconds_to_wait
from potnet.data.download.verify import read_record

CONTENT = bytes(range(256)) * 400
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
PART = {"file.bin.part", "file.bin.part.json"}
"""What has arrived of a file, and of which version."""


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with http_files.running(CONTENT) as server:
        yield server


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pooch would have waited between attempts."""
    found: list[float] = []
    monkeypatch.setattr("pooch.core.time.sleep", found.append)
    return found


@pytest.fixture
def downloader(tmp_path: Path, pauses: list[float]) -> Downloader:
    return Downloader(tmp_path / "downloads", 3, (60, 60), progress=False)


def wanted(server: FileServer, name: str = "file.bin", checksum: str | None = CHECKSUM) -> RemoteFile:
    return RemoteFile(name, server.url(), checksum=checksum)


def zipped(content: bytes = CONTENT) -> bytes:
    """An archive of one file, the same bytes at every call: by default it would hold the time."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("data.json"), content)
    return stream.getvalue()


def test_a_file_is_fetched_once(server: FileServer, downloader: Downloader) -> None:
    path = downloader.fetch(wanted(server))
    assert path == downloader.folder / "file.bin"
    assert path.read_bytes() == CONTENT
    assert downloader.fetch(wanted(server)) == path
    assert len(server.requests) == 1
    assert {file.name for file in path.parent.iterdir()} == {"file.bin", "file.bin.lock", "file.bin.record"}
    record = read_record(path)
    assert record is not None
    assert (record.bytes, record.url) == (len(CONTENT), server.url())
    assert "sha256:" + record.sha256 == CHECKSUM


@pytest.mark.parametrize("algorithm", [None, "sha256", "md5"])
def test_a_first_start_hashes_once(
    server: FileServer, downloader: Downloader, monkeypatch: pytest.MonkeyPatch, algorithm: str | None
) -> None:
    """However many objects ask for the file: a check before the start, the source that reads, the record."""
    hashed: list[str] = []
    digest = files.file_hash
    monkeypatch.setattr(
        files, "file_hash", lambda path, name="sha256": hashed.append(name) or digest(path, name)
    )
    checksum = None if algorithm is None else f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    file = wanted(server, checksum=checksum)
    for _ in range(2):
        downloader.fetch(file)
        Downloader(downloader.folder, progress=False).fetch(file)
        downloader.sha256(file)
    assert sorted(hashed) == (["md5", "sha256"] if algorithm == "md5" else ["sha256"])


def test_two_at_once_fetch_once(server: FileServer, downloader: Downloader) -> None:
    threads = [threading.Thread(target=downloader.fetch, args=[wanted(server)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [http_files.truncated, http_files.status(202), http_files.status(503)])
@pytest.mark.parametrize("checksum", [CHECKSUM, None])
def test_what_passes_is_tried_again(
    server: FileServer,
    downloader: Downloader,
    pauses: list[float],
    checksum: str | None,
    reply: http_files.Reply,
) -> None:
    server.script = [reply, reply]
    assert downloader.fetch(wanted(server, checksum=checksum)).read_bytes() == CONTENT
    assert len(server.requests) == 3
    assert pauses == [1, 2]


def test_a_stalled_download_is_tried_again(server: FileServer, downloader: Downloader) -> None:
    # Only the stall may run into the time limit, however slow the machine; so there are many attempts.
    downloader.timeout, downloader.retries = (60, 0.5), 100
    server.script = [http_files.stalled]
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            http_files.status(202),
            r"the server is not ready \(status 202\) \(4 attempts\)\. Wanted: file\.bin",
        ),
        (http_files.truncated, r"\(4 attempts\)"),
    ],
)
def test_attempts_end(
    server: FileServer, downloader: Downloader, pauses: list[float], reply: http_files.Reply, message: str
) -> None:
    server.script = [reply] * 10
    with pytest.raises(DownloadError, match=message):
        downloader.fetch(wanted(server))
    assert pauses == [1, 2, 3]
    assert {file.name for file in downloader.folder.iterdir()} <= {"file.bin.lock", *PART}


HALF = len(CONTENT) // 2
REST = f"bytes={HALF}-"


def test_an_interrupted_download_goes_on_where_it_was(
    server: FileServer, downloader: Downloader, tmp_path: Path
) -> None:
    server.script = [http_files.truncated]
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, REST]
    assert not PART & {file.name for file in downloader.folder.iterdir()}
    # Also after the end of the process: another start, the same folder.
    server.requests.clear()
    server.script = [http_files.truncated]
    with pytest.raises(DownloadError):
        Downloader(tmp_path / "other", 0, (60, 60), progress=False).fetch(wanted(server))
    again = Downloader(tmp_path / "other", 0, (60, 60), progress=False)
    assert again.fetch(wanted(server)).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, REST]


def test_a_file_that_has_changed_is_fetched_from_the_beginning(
    server: FileServer, downloader: Downloader
) -> None:
    def half_of_an_older_one(request: http_files.FileRequest) -> None:
        request.reply(200, b"x" * HALF, len(CONTENT), ETag='"0"')

    server.script = [half_of_an_older_one]
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, REST]  # to which the server sends all of it


@pytest.mark.parametrize("tag", [None, 'W/"1"'])
def test_without_a_strong_tag_nothing_is_joined(
    server: FileServer, downloader: Downloader, tag: str | None
) -> None:
    def half(request: http_files.FileRequest) -> None:
        request.reply(200, CONTENT[:HALF], len(CONTENT), **({"ETag": tag} if tag else {}))

    server.script = [half]
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, None]


def test_a_server_that_sends_another_piece(server: FileServer, downloader: Downloader) -> None:
    def wrong(request: http_files.FileRequest) -> None:
        span = f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"
        request.reply(206, CONTENT[7:], ETag=request.server.etag, Content_Range=span)

    server.script = [http_files.truncated, wrong]
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, REST, None]


def test_a_part_longer_than_the_file(server: FileServer, downloader: Downloader) -> None:
    server.script = [http_files.truncated, http_files.status(416), http_files.serve]
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, REST, None]


def test_the_server_says_how_long_to_wait(
    server: FileServer, downloader: Downloader, pauses: list[float]
) -> None:
    server.script = [http_files.status(429, Retry_After="17"), http_files.status(503, Retry_After="soon")]
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert pauses == [17, 1, 2]
    pauses.clear()
    server.script = [http_files.status(429, Retry_After="5")] * 9
    with pytest.raises(DownloadError, match="not ready"):
        downloader.fetch(wanted(server, "other.bin"))
    assert pauses == [5, 1, 5, 2, 5, 3]  # not after the last attempt
    server.script = [http_files.status(503, Retry_After="86400")]
    with pytest.raises(DownloadError, match="asks to come back in 86400 s"):
        downloader.fetch(wanted(server, "third.bin"))


def test_a_date_to_wait_for() -> None:
    then = datetime.now(UTC) + timedelta(seconds=30)
    assert seconds_to_wait(format_datetime(then, usegmt=True)) == pytest.approx(30, abs=10)
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert seconds_to_wait("soon") is None
    assert seconds_to_wait(None) is None


def test_a_name_server_that_is_slow_once(
    server: FileServer, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, calls = socket.getaddrinfo, []

    def slow(*arguments: object, **settings: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return resolve(*arguments, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert len(calls) == 2


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_final(
    server: FileServer, downloader: Downloader, pauses: list[float], code: int
) -> None:
    server.script = [http_files.status(code)]
    with pytest.raises(DownloadError, match=rf"the server refuses \(status {code}.*Put a copy got elsewhere"):
        downloader.fetch(wanted(server))
    assert len(server.requests) == 1
    assert pauses == []


def test_redirects_are_followed(server: FileServer, downloader: Downloader) -> None:
    server.script = [http_files.redirect("elsewhere")]
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert [path for path, _ in server.requests[:2]] == ["/file.bin", "/elsewhere"]


def test_endless_redirects_end(server: FileServer, downloader: Downloader) -> None:
    server.script = [http_files.redirect("round")] * 100
    with pytest.raises(DownloadError, match="redirects"):
        downloader.fetch(wanted(server))


def test_wrong_bytes_are_removed(server: FileServer, downloader: Downloader) -> None:
    server.script = [http_files.instead(b"x" * len(CONTENT))]
    with pytest.raises(DownloadError, match=r"has another checksum \(sha256 .*; it was removed"):
        downloader.fetch(wanted(server))
    assert [file.name for file in downloader.folder.iterdir()] == ["file.bin.lock"]


def test_a_wrong_size_is_noticed(server: FileServer, downloader: Downloader) -> None:
    with pytest.raises(DownloadError, match="has 102400 bytes where 7 are expected"):
        downloader.fetch(RemoteFile("file.bin", server.url(), bytes=7))


def test_a_web_page_in_place_of_an_archive(server: FileServer, downloader: Downloader) -> None:
    server.script = [http_files.instead(b"<html>please log in</html>")] * 3
    for name, kind in [("a.zip", "zip file"), ("a.json.gz", "gzip file"), ("a.pkl", "whole pickle")]:
        with pytest.raises(DownloadError, match=kind):
            downloader.fetch(wanted(server, name, checksum=None))


def test_an_archive_is_not_unpacked_on_the_way(server: FileServer, downloader: Downloader) -> None:
    server.content = gzip.compress(CONTENT)
    server.script = [http_files.status(200, server.content, Content_Encoding="gzip")]
    assert gzip.decompress(downloader.fetch(wanted(server, "a.gz", None)).read_bytes()) == CONTENT


@pytest.mark.parametrize("content", [b"", zipped()[:-100], zipped().replace(CONTENT[:99], CONTENT[1:100])])
def test_a_broken_zip_of_another_tool_is_fetched_again(
    server: FileServer, downloader: Downloader, content: bytes
) -> None:
    server.content = zipped()
    downloader.folder.mkdir()
    (downloader.folder / "a.zip").write_bytes(content)
    assert downloader.fetch(wanted(server, "a.zip", None)).read_bytes() == zipped()


def test_a_sound_file_put_there_is_taken(server: FileServer, downloader: Downloader) -> None:
    downloader.folder.mkdir()
    path = downloader.folder / "a.zip"
    path.write_bytes(zipped())
    assert downloader.fetch(wanted(server, "a.zip", None)) == path
    assert server.requests == []
    assert downloader.sha256(wanted(server, "a.zip", None)) == hashlib.sha256(zipped()).hexdigest()


def test_a_flipped_byte_is_noticed_later(server: FileServer, downloader: Downloader) -> None:
    path = downloader.fetch(wanted(server))
    path.write_bytes(b"x" + CONTENT[1:])
    assert downloader.fetch(wanted(server)).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_the_checksum_is_known_without_the_file(server: FileServer, downloader: Downloader) -> None:
    file = wanted(server, checksum=None)
    digest = downloader.sha256(file)
    assert "sha256:" + digest == CHECKSUM
    (downloader.folder / "file.bin").unlink()
    assert downloader.sha256(file) == digest
    assert downloader.sha256(wanted(server)) == digest
    assert len(server.requests) == 1


def test_md5_will_do(server: FileServer, downloader: Downloader) -> None:
    md5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
    assert downloader.fetch(wanted(server, checksum=md5)).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="another checksum \\(md5"):
        downloader.fetch(wanted(server, "other.bin", "md5:" + "0" * 32))


def test_a_mirror_in_place_of_the_address(server: FileServer, downloader: Downloader) -> None:
    file = RemoteFile("file.bin", "http://nowhere.invalid/", checksum=CHECKSUM)
    assert downloader.fetch(file, server.url("mirror")).read_bytes() == CONTENT
    assert server.requests == [("/mirror", None)]


def test_proxies_are_honoured(
    server: FileServer, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url("").rstrip("/"))
    file = RemoteFile("file.bin", "http://nowhere.invalid/file.bin", checksum=CHECKSUM)
    assert downloader.fetch(file).read_bytes() == CONTENT
    assert server.requests == [("http://nowhere.invalid/file.bin", None)]


def test_no_network(downloader: Downloader) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        file = RemoteFile("file.zip", f"http://127.0.0.1:{free.getsockname()[1]}/file.zip")
        with pytest.raises(DownloadError) as error:
            downloader.fetch(file)
    message = str(error.value)
    assert "cannot reach 127.0.0.1 (Connection refused; 4 attempts)" in message
    assert f"Wanted: file.zip from {file.url}" in message
    assert f"Put a copy got elsewhere at {downloader.folder / 'file.zip'}" in message
    assert "data.path=" in message
    assert "data=embedded works without a network" in message


@pytest.mark.parametrize("url", ["", "file.zip", "ftp://a/b", "http:///x", "http://a:port/x"])
def test_what_is_no_address(downloader: Downloader, url: str) -> None:
    with pytest.raises(DownloadError, match=r"address|[Pp]ort"):
        downloader.fetch(RemoteFile("file.zip", url))


def test_a_full_disk_leaves_nothing_that_looks_finished(
    server: FileServer, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("potnet.data.download.remote.open", lambda *_: Full(), raising=False)
    with pytest.raises(CacheError, match=r"cannot write the downloads in .*No space left.*POTNET_CACHE"):
        downloader.fetch(wanted(server))
    assert {file.name for file in downloader.folder.iterdir()} <= {"file.bin.lock", *PART}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot write the downloads"):
        Downloader(tmp_path / "file" / "downloads").fetch(RemoteFile("a", "http://nowhere.invalid/a"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a/b"}, "plain name"),
        ({"name": ""}, "plain name"),
        ({"name": "a", "checksum": "0" * 64}, "write sha256: or md5:"),
        ({"name": "a", "checksum": "sha256:12"}, "write sha256: or md5:"),
    ],
)
def test_descriptions_are_checked(settings: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RemoteFile(**settings)


def test_the_users_own_copy(tmp_path: Path) -> None:
    path = tmp_path / "mine.zip"
    path.write_bytes(zipped())
    file = RemoteFile("a.zip", "https://somewhere.invalid/a.zip")
    assert local_file(path, file, alone=True) == path
    with pytest.raises(DataError, match=r"give a folder that holds a\.zip"):
        local_file(path, file, alone=False)
    with pytest.raises(DataError, match=r"a\.zip: no such file"):
        local_file(tmp_path, file, alone=True)
    with pytest.raises(DataError, match=r"mine\.zip has another checksum"):
        local_file(path, RemoteFile("a.zip", checksum=CHECKSUM), alone=True)
    path.write_bytes(zipped()[:-9])
    with pytest.raises(DataError, match=r"mine\.zip is a broken zip file .* get a\.zip again"):
        local_file(path, file, alone=True)
