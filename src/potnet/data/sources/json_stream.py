"""The parts of a long JSON file one by one: neither its text nor its content is in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from typing import Any, TextIO

_BLOCK = 2**20


class JsonStream:
    """JSON that is read from its beginning, block by block.

    Args:
        text: Where it comes from.

    Raises:
        json.JSONDecodeError: From all methods; it is not what it should be, or breaks off. Places in the
            message count from the block that is being read.
    """

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._buffer = ""
        self._place = 0
        self._ended = False
        self._decoder = json.JSONDecoder()

    def find(self, key: str) -> None:
        """Go to the value of a key of an object; the values before it are passed over.

        Raises:
            KeyError: The object has no such key.
        """
        self._expect("{", "an object is wanted")
        if self._mark() == "}":
            raise KeyError(key)
        while True:
            name = self.value()
            self._expect(":", "a colon is wanted")
            if name == key:
                return
            self.value()
            if self._mark() != ",":
                raise KeyError(key)
            self._place += 1

    def elements(self) -> Iterator[Any]:
        """The elements of the list that comes next."""
        self._expect("[", "a list is wanted")
        if self._mark() == "]":
            return
        while True:
            yield self.value()
            mark = self._mark()
            if mark == "]":
                return
            if mark != ",":
                raise json.JSONDecodeError("the list breaks off", self._buffer, self._place)
            self._place += 1

    def entries(self) -> Iterator[str]:
        """The keys of the object that comes next. What a key stands for comes after it and has to be read, by
        any method, before the next key is asked for.
        """
        self._expect("{", "an object is wanted")
        if self._mark() == "}":
            self._place += 1
            return
        while True:
            name = self.value()
            self._expect(":", "a colon is wanted")
            yield name
            mark = self._mark()
            if mark not in (",", "}"):
                raise json.JSONDecodeError("the object breaks off", self._buffer, self._place)
            self._place += 1
            if mark == "}":
                return

    def value(self) -> Any:
        """The value that comes next."""
        self._mark()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._place)
            except json.JSONDecodeError:
                # It may go on in the next block.
                if not self._fill():
                    raise
                continue
            # So may a number: `2.` and `1e-` at the end of a block are read as 2 and 1.
            if not self._buffer[end:].strip("0123456789+-.eE") and self._fill():
                continue
            self._place = end
            return value

    def _expect(self, mark: str, message: str) -> None:
        if self._mark() != mark:
            raise json.JSONDecodeError(message, self._buffer, self._place)
        self._place += 1

    def _mark(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self._place = WHITESPACE.match(self._buffer, self._place).end()
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._fill():
                return ""

    def _fill(self) -> bool:
        """Add a block, and forget what has been read; false at the end."""
        block = "" if self._ended else self._text.read(_BLOCK)
        self._ended = not block
        self._buffer = self._buffer[self._place :] + block
        self._place = 0
        return bool(block)
