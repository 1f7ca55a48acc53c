"""Bytes to text, and text to numbers, without guesses."""

from __future__ import annotations

import codecs
import math
import re

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_UNCERTAIN = re.compile(r"(.+?)\([0-9]+\)")
# The longer mark first: UTF-32 begins with the mark of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(content: bytes) -> str:
    """Text in UTF-8, in UTF-16 or UTF-32 with a byte order mark, or else in Latin-1.

    Only comments and names of authors ever need more than ASCII, and those do not matter here.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.removeprefix(codecs.BOM_UTF8).decode("latin-1")


def number(text: str, finite: bool = False) -> float | None:
    """A number in ASCII digits; None for anything else, such as `1_5`, `0,5` or Arabic digits.

    `float` would take the first for 15.

    Args:
        text: Blanks around it do not matter.
        finite: Whether `nan` and `inf` are not numbers either.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text) or (not finite and _NOT_FINITE.fullmatch(text)):
        value = float(text)
        return value if math.isfinite(value) or not finite else None  # 1e400 is infinite too
    return None


def uncertain_number(text: str) -> float | None:
    """A finite number, perhaps with its uncertainty: `1.234(5)`; None for anything else."""
    match = _UNCERTAIN.fullmatch(text.strip())
    return number(match[1] if match else text, finite=True)
