"""The elements of a long JSON list one by one, so that no more than one is unpacked at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from typing import Any


def elements(text: str, start: int = 0) -> Iterator[Any]:
    """The elements of a list.

    A hundred thousand crystals take ten times the room of their text when they are all unpacked.

    Args:
        text: JSON.
        start: Where the list begins, white space before it aside.

    Raises:
        json.JSONDecodeError: It is no list, or breaks off.
    """
    decoder = json.JSONDecoder()
    place = _skip(text, start)
    if text[place : place + 1] != "[":
        raise json.JSONDecodeError("a list is wanted", text, place)
    place = _skip(text, place + 1)
    if text[place : place + 1] == "]":
        return
    while True:
        value, place = decoder.raw_decode(text, place)
        yield value
        place = _skip(text, place)
        mark = text[place : place + 1]
        if mark == "]":
            return
        if mark != ",":
            raise json.JSONDecodeError("the list breaks off", text, place)
        place = _skip(text, place + 1)


def member(text: str, key: str) -> int:
    """Where the value of a key of an object begins; the values before it are unpacked and thrown away.

    Raises:
        json.JSONDecodeError: It is no object.
        KeyError: It has no such key.
    """
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    if text[place : place + 1] != "{":
        raise json.JSONDecodeError("an object is wanted", text, place)
    while text[place : place + 1] in ("{", ","):
        place = _skip(text, place + 1)
        if text[place : place + 1] == "}":
            break
        name, place = decoder.raw_decode(text, place)
        place = _skip(text, place)
        if text[place : place + 1] != ":":
            raise json.JSONDecodeError("a colon is wanted", text, place)
        place = _skip(text, place + 1)
        if name == key:
            return place
        _, place = decoder.raw_decode(text, place)
        place = _skip(text, place)
    raise KeyError(key)


def _skip(text: str, place: int) -> int:
    return WHITESPACE.match(text, place).end()
