"""Every bad input gets one message, and docs/bad_input.md lists it.

`python tests/unit/data/test_bad_input.py` writes that page anew.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import http_files
import pytest
from bad_inputs import BAD_INPUTS, BadInput
from omegaconf import OmegaConf

from potnet.config import compose, message_of, plain

PAGE = Path(__file__).parents[3] / "docs" / "bad_input.md"
AREAS = ("Files", "Labels", "Ids", "Splits", "Settings", "Network", "Disk")
INTRODUCTION = """# Bad input

What is wrong, and the message that `potnet train` ends with (exit status 1, no traceback, nothing
trained). The tests try each of these and generate this page: `python tests/unit/data/test_bad_input.py`.
`…` stands for the words of another library. Crystals that cannot be read or featurized, and repeated ids, may
be skipped with `data.on_error=skip`, crystals without a label with `target.on_missing=drop`: they are then
counted in the log and listed in `removed.csv` in the folder of the run.
"""
SMALL = ("model.width=8", "model.layers=1", "trainer.accelerator=cpu")


@contextmanager
def refusing_client() -> Iterator[tuple[str, ...]]:
    with _client(RuntimeError("REST query returned with error status code 403: invalid credentials")):
        yield ()


@contextmanager
def unreachable_client() -> Iterator[tuple[str, ...]]:
    with _client(ConnectionError("Name or service not known")):
        yield ()


@contextmanager
def _client(error: Exception) -> Iterator[None]:
    def connect(key: str) -> Any:
        raise error

    with patch("potnet.data.sources.mp_api.mp_rester", connect), patch.dict(os.environ, MP_API_KEY="x" * 32):
        yield


@contextmanager
def offline() -> Iterator[tuple[str, ...]]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with patch.dict(os.environ, HTTPS_PROXY=address, https_proxy=address, NO_PROXY="", no_proxy=""):
            yield ()


@contextmanager
def gone() -> Iterator[tuple[str, ...]]:
    with _serving(http_files.status(404)) as overrides:
        yield overrides


@contextmanager
def page() -> Iterator[tuple[str, ...]]:
    with _serving(http_files.instead(b"<html>please log in</html>")) as overrides:
        yield overrides


@contextmanager
def _serving(reply: http_files.Reply) -> Iterator[tuple[str, ...]]:
    with http_files.running(b"") as server:
        server.script = [reply] * 3
        yield (f"data.path={server.url('megnet.json.zip')}",)


@contextmanager
def full_disk() -> Iterator[tuple[str, ...]]:
    def fsync(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with patch("os.fsync", fsync):
        yield ()


WORLDS = {
    world.__name__: world for world in (refusing_client, unreachable_client, offline, gone, page, full_disk)
}


@functools.cache
def composed(groups: tuple[str, ...]) -> Any:
    return compose("train", groups)


def train(overrides: tuple[str, ...], folder: Path) -> None:
    """As `potnet train` does."""
    from potnet.train import train

    groups = tuple(
        text for text in overrides if "." not in text.partition("=")[0] and not text.startswith("seed")
    )
    config = composed(groups).copy()
    for text in overrides:
        key = text.partition("=")[0]
        if text not in groups:
            if OmegaConf.select(config, key, default=config) is config:
                compose("train", overrides)  # which refuses the key
            OmegaConf.update(config, key, OmegaConf.from_dotlist([f"value={text.partition('=')[2]}"]).value)
    run = folder / "run"
    run.mkdir()
    train(plain(config), run)


def _refuse(*_: Any) -> None:
    raise AssertionError("it would have been trained on")


def message(bad: BadInput, folder: Path) -> str:
    """What a user sees.

    Raises:
        AssertionError: There was no error, or it would end in a traceback.
    """
    for name, content in bad.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    environment = {"POTNET_CACHE": str(folder / "cache"), "NO_PROXY": "*", "no_proxy": "*", **bad.environment}
    before = Path.cwd()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment))
        stack.callback(os.chdir, before)
        stack.enter_context(patch("potnet.training.setup.fit", _refuse))
        os.chdir(folder)
        more = stack.enter_context(WORLDS[bad.world]()) if bad.world else ()
        text = None
        try:
            train((*SMALL, *bad.overrides, *more), folder)
        except Exception as error:
            text = message_of(error)
            if text is None:
                raise  # a traceback, as for a user
    assert text is not None, "there is no error"
    return readable(text, folder, bad.foreign)


def readable(text: str, folder: Path, foreign: str) -> str:
    """The message without what differs from machine to machine."""
    text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), "here")
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", text)
    text = re.sub(r"-[0-9a-f]{16}\b", "-0123456789abcdef", text)
    return re.sub(foreign, "(…)", text) if foreign else text


def row(bad: BadInput, text: str) -> str:
    cell = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return f"| {bad.what} | {cell} |"


def rendered(rows: dict[str, list[str]]) -> str:
    parts = [INTRODUCTION]
    for area in AREAS:
        parts.append(f"\n## {area}\n\n| input | message |\n|---|---|\n" + "\n".join(rows[area]) + "\n")
    return "".join(parts)


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=[f"{bad.area}: {bad.what}" for bad in BAD_INPUTS])
def test_one_message(bad: BadInput, tmp_path: Path):
    text = row(bad, message(bad, tmp_path))
    assert text in PAGE.read_text(encoding="utf-8").splitlines(), "write docs/bad_input.md anew: see the top"


def test_the_page_lists_these_and_no_others():
    assert len(BAD_INPUTS) >= 40
    assert {bad.area for bad in BAD_INPUTS} == set(AREAS)
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(INTRODUCTION)
    named = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    expected = [bad.what for area in AREAS for bad in BAD_INPUTS if bad.area == area]
    assert [name for name in named if name != "input"] == expected


def write_page() -> None:
    """Try everything, and write the page."""
    rows: dict[str, list[str]] = {area: [] for area in AREAS}
    for bad in BAD_INPUTS:
        with tempfile.TemporaryDirectory() as folder:
            print(bad.what, file=sys.stderr)
            rows[bad.area].append(row(bad, message(bad, Path(folder).resolve())))
    PAGE.write_text(rendered(rows), encoding="utf-8")


if __name__ == "__main__":
    write_page()
