"""Frames of extended XYZ, by ASE, whose rows are checked first.

ASE drops values beyond the announced columns, takes `1_5` for 15 and the id `007` for 7.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from potnet.crystals.crystal import CrystalError
from potnet.crystals.elements import ATOMIC_NUMBERS
from potnet.crystals.reading.foreign import open_binary, read_ase
from potnet.crystals.reading.text import decode, number

if TYPE_CHECKING:
    from ase import Atoms

_DEFAULT = "species:S:1:pos:R:3"
_ITEM = re.compile(r"""([^\s="]+|"[^"]*")\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s]+)""")


class WrittenNumber(float):
    """A number that remembers how it was written: `str` of 007 is `007`, so that ids stay apart."""

    text: str

    def __new__(cls, text: str) -> WrittenNumber:
        self = super().__new__(cls, float(text))
        self.text = text
        return self

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[WrittenNumber], tuple[str]]:
        return type(self), (self.text,)


def xyz_frames(file: Path) -> Iterator[tuple[str, Atoms | CrystalError]]:
    """Read extended XYZ frame by frame, so that a bad one doesn't end the file.

    Yields:
        Where it stands ("frame 0"), and the frame with its `info`, or what is wrong with it. Numbers in
        `info` are `WrittenNumber`.
    """
    with open_binary(file) as binary:
        yield from frames_of(binary)


def frames_of(content: Iterable[bytes], first: int = 0) -> Iterator[tuple[str, Atoms | CrystalError]]:
    """The same of some lines, whose first frame has this number."""
    lines = (decode(line) for line in content)
    for frame_number in itertools.count(first):
        head = next((line for line in lines if line.strip()), None)
        if head is None:
            return
        where = f"frame {frame_number}"
        if not re.fullmatch(r"[0-9]+", head.strip()):
            text = head.strip()[:60]
            yield where, CrystalError(f"a frame begins with its number of atoms, got {text!r}")
            return
        count = int(head)
        frame = [head.strip() + "\n", *islice(lines, count + 1)]
        if len(frame) < count + 2:
            there = max(0, len(frame) - 2)
            yield where, CrystalError(f"it breaks off: {count} atoms announced, {there} there")
            return
        try:
            yield where, _frame(frame)
        except CrystalError as error:
            yield where, error


def _frame(frame: list[str]) -> Atoms:
    stated = written(frame[1])
    columns = stated.get("Properties")
    rows = _checked_rows(frame[2:], columns or _DEFAULT, exact=columns is not None)
    lattice = stated.get("Lattice")
    if lattice is not None:
        values = [number(token, finite=True) for token in lattice.split()]
        if len(values) != 9 or None in values:
            raise CrystalError(f"Lattice has to be nine numbers, got {lattice[:60]!r}")
    atoms = read_ase(io.StringIO("".join([*frame[:2], *rows])), "extxyz")[0]
    info: dict[str, Any] = {}
    for key, value in atoms.info.items():
        text = stated.get(str(key))
        if text is None or isinstance(value, bool) or np.ndim(value) > 0:
            info[key] = value
        else:
            info[key] = text if number(text) is None else WrittenNumber(text)
    atoms.info = info
    return atoms


def written(comment: str) -> dict[str, str]:
    """The `key=value` pairs of a comment line as they are written, without quotes."""
    return {key.strip('"'): value.strip("\"'") for key, value in _ITEM.findall(comment)}


def _checked_rows(rows: list[str], properties: str, exact: bool) -> list[str]:
    """Rows that ASE reads as they are meant, deuterium as hydrogen.

    Raises:
        CrystalError: A row has fewer or more values than columns, an unknown element, or a position that is
            no number; the site is named.
    """
    width, places, species = _layout(properties)
    clean = []
    for site, line in enumerate(rows):
        tokens = line.split()
        if len(tokens) < width or (exact and len(tokens) > width):
            raise CrystalError(
                f"site {site} has {len(tokens)} values for {width} columns: {line.strip()[:60]!r}"
            )
        if species is not None:
            name = tokens[species]
            if not re.fullmatch(r"[0-9]+", name):
                z = ATOMIC_NUMBERS.get(name) or ATOMIC_NUMBERS.get(name.capitalize())
                if z is None:
                    raise CrystalError(f"site {site} is {name!r}, which is not an element")
                tokens[species] = "H" if name.upper() in ("D", "T") else name.capitalize()
        bad = [tokens[place] for place in places if number(tokens[place]) is None]
        if bad:
            raise CrystalError(f"site {site} has no position: {bad[0]!r} is not a number")
        clean.append(" ".join(tokens) + "\n")
    return clean


def _layout(properties: str) -> tuple[int, list[int], int | None]:
    """Number of columns, those of the positions, and that of the symbols."""
    parts = properties.split(":")
    if len(parts) % 3 or not all(re.fullmatch(r"[0-9]+", amount) for amount in parts[2::3]):
        raise CrystalError(f"Properties has to be name:kind:columns, got {properties[:60]!r}")
    width, places, species = 0, [], None
    for name, amount in zip(parts[::3], map(int, parts[2::3]), strict=True):
        if name == "pos":
            places = list(range(width, width + amount))
        elif name == "species":
            species = width
        width += amount
    if len(places) != 3:
        raise CrystalError("Properties has no pos:R:3: there are no positions")
    return width, places, species
