"""A file server on this machine that misbehaves as it is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = Callable[["FileRequest"], None]


class FileServer(ThreadingHTTPServer):
    """Serves `content` under every path, with ranges; but first the replies of the script, one a request."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), FileRequest)
        self.content = content
        self.script: list[Reply] = []
        self.etag = '"1"'
        self.requests: list[tuple[str, str | None]] = []
        """Path and range of each."""
        self.over = threading.Event()

    def url(self, path: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class FileRequest(BaseHTTPRequestHandler):
    """One request."""

    server: FileServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        script = self.server.script
        (script.pop(0) if script else serve)(self)

    def reply(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


def serve(request: FileRequest) -> None:
    """As a good server does: ranges, of the same version only."""
    content, etag = request.server.content, request.server.etag
    found = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
    if found is None or request.headers.get("If-Range", etag) != etag:
        request.reply(200, content, ETag=etag)
    elif int(found[1]) >= len(content):
        request.reply(416, Content_Range=f"bytes */{len(content)}")
    else:
        start = int(found[1])
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.reply(206, content[start:], ETag=etag, Content_Range=span)


def without_ranges(request: FileRequest) -> None:
    """Always the whole file."""
    request.reply(200, request.server.content)


def truncated(request: FileRequest) -> None:
    """Half of the file, and the connection ends."""
    content = request.server.content
    request.reply(200, content[: len(content) // 2], len(content), ETag=request.server.etag)


def stalled(request: FileRequest) -> None:
    """Half of the file, and then nothing."""
    content = request.server.content
    request.reply(200, content[: len(content) // 2], len(content), ETag=request.server.etag)
    request.server.over.wait()


def status(code: int, body: bytes = b"<html>no</html>", **headers: str) -> Reply:
    """An answer other than the file."""
    return lambda request: request.reply(code, body, **headers)


def redirect(path: str) -> Reply:
    """To another path of the same server."""
    return lambda request: request.reply(302, Location=request.server.url(path))


def instead(body: bytes) -> Reply:
    """Something else than the file, as if it were the file."""
    return lambda request: request.reply(200, body)


@contextmanager
def running(content: bytes) -> Iterator[FileServer]:
    """A server for the time of a test."""
    server = FileServer(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
