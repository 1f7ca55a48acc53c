"""Crystals from POSCAR and CONTCAR, of VASP 5 and later.

Not by ASE (3.29), which takes words of the comment of a VASP 4 file for elements, or those of a POTCAR that
lies in the working folder, and reads neither deuterium, `NA CL`, comments behind the coordinates, nor
comments that are not UTF-8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import Crystal, CrystalError
from potnet.crystals.elements import element_of_type
from potnet.crystals.reading.text import number

_COMMENT = re.compile(r"[!#].*")


def crystal_from_poscar(text: str) -> Crystal:
    """Read a POSCAR.

    Velocities and whatever follows an empty line behind the coordinates are not read.

    Raises:
        CrystalError: It is none, does not name its elements, has fewer or more atoms than it announces, or
            for any reason `Crystal` has. Lines are counted from 1.
    """
    lines = _Lines(text.splitlines(), 1)  # after the comment
    scale = _scale(lines)
    cell = np.array([lines.numbers(f"lattice vector {axis}", 3) for axis in "abc"])
    names, counts = _species(lines)
    line = lines.next("`Direct` or `Cartesian`")
    if line[:1] in "sS" and line:
        line = lines.next("`Direct` or `Cartesian`")
    if line[:1] not in tuple("dDcCkK"):
        raise lines.error(f"`Direct` or `Cartesian` is wanted, got {line[:40]!r}")
    cartesian = line[:1] not in "dD"
    total = sum(counts)
    places, symbols = _coordinates(lines, total)
    z = _atomic_numbers(lines, names, counts, symbols)
    if len(scale) == 1 and scale[0] < 0:
        scale = np.full(1, (abs(scale[0]) / abs(np.linalg.det(cell))) ** (1 / 3))
    cell = cell * scale
    return Crystal(cell, places * scale if cartesian else places @ cell, z)


@dataclass
class _Lines:
    """Lines one after the other, and the number of the last one."""

    lines: list[str]
    at: int

    def next(self, what: str) -> str:
        """The next line, without comment and blanks around it.

        Raises:
            CrystalError: There is none.
        """
        if self.at >= len(self.lines):
            raise CrystalError(f"it breaks off after line {self.at}: {what} is missing")
        self.at += 1
        return _COMMENT.sub("", self.lines[self.at - 1]).strip()

    def peek(self) -> str:
        """The line after the last one; empty at the end."""
        return self.lines[self.at].strip() if self.at < len(self.lines) else ""

    def error(self, reason: str) -> CrystalError:
        return CrystalError(f"line {self.at}: {reason}")

    def numbers(self, what: str, count: int) -> list[float]:
        """The numbers that the next line begins with.

        Raises:
            CrystalError: There are fewer.
        """
        line = self.next(what)
        values = [_fortran(token) for token in line.split()[:count]]
        if len(values) < count or None in values:
            raise self.error(f"{what}: {count} numbers are wanted, got {line[:60]!r}")
        return [value for value in values if value is not None]


def _fortran(token: str) -> float | None:
    """A finite number; Fortran writes 1.0D-3 too."""
    return number(re.sub(r"(?<=[0-9.])[dD](?=[+-]?[0-9])", "e", token), finite=True)


def _scale(lines: _Lines) -> NDArray[np.float64]:
    """One factor, a volume if it is negative; or three, one for each Cartesian direction."""
    line = lines.next("a scale")
    values = [_fortran(token) for token in line.split()]
    known = [value for value in values[: values.index(None) if None in values else 3] if value is not None]
    if not known or known[0] == 0 or (len(known) >= 3 and min(known[:3]) <= 0):
        raise lines.error(f"a scale other than zero is wanted, got {line[:40]!r}")
    return np.array(known[:3] if len(known) >= 3 else known[:1])


def _species(lines: _Lines) -> tuple[list[str] | None, list[int]]:
    """Symbols, None if they are not stated, and numbers of atoms. Either may take several lines.

    Raises:
        CrystalError: They do not fit together.
    """
    names: list[str] = []
    tokens = lines.next("the symbols of the elements").split()
    while tokens and not tokens[0].isdecimal():
        names += tokens
        tokens = lines.next("the number of atoms of each element").split()
    counts: list[int] = []
    while True:
        for token in tokens:
            if not re.fullmatch(r"[0-9]+", token):
                raise lines.error(
                    f"the number of atoms of each element is wanted, got {' '.join(tokens)[:40]!r}"
                )
            counts.append(int(token))
        following = lines.peek().split()
        if not names or len(counts) >= len(names) or not following or not following[0].isdecimal():
            break
        tokens = lines.next("the number of atoms of each element").split()
    if names and len(names) != len(counts):
        raise lines.error(
            f"{len(names)} elements ({' '.join(names)[:40]}), but {len(counts)} numbers of atoms"
        )
    if sum(counts) == 0:
        raise lines.error("there is no atom")
    return names or None, counts


def _coordinates(lines: _Lines, total: int) -> tuple[NDArray[np.float64], list[str | None]]:
    """Coordinates (n, 3), and the word behind each, if it may be a symbol."""
    places: list[list[float]] = []  # not allocated beforehand: the announced number may be nonsense
    words: list[str | None] = []
    for atom in range(total):
        if not _COMMENT.sub("", lines.peek()).strip():
            raise CrystalError(f"it breaks off: {total} atoms announced, {atom} there")
        line = lines.next("an atom")
        tokens = line.split()
        values = [value for token in tokens[:3] if (value := _fortran(token)) is not None]
        if len(values) < 3:
            raise lines.error(f"site {atom} has no position: {line[:60]!r}")
        places.append(values)
        rest = [token for token in tokens[3:] if token.strip(".").upper() not in ("T", "F", "TRUE", "FALSE")]
        words.append(rest[0] if rest else None)
    more = [_fortran(token) for token in lines.peek().split()[:3]]
    if len(more) == 3 and None not in more:
        raise CrystalError(f"{total} atoms announced, but line {lines.at + 1} has one more")
    return np.array(places), words


def _atomic_numbers(
    lines: _Lines, names: list[str] | None, counts: list[int], words: list[str | None]
) -> NDArray[np.int64]:
    """(n,) of the stated symbols, or of those behind the coordinates.

    Raises:
        CrystalError: There are neither, or one is not an element.
    """
    behind = [None if word is None else element_of_type(word) for word in words]
    if names is None:
        if None in behind:
            raise CrystalError(
                "it does not state its elements, as in files of VASP 4: write them into a line of their own "
                "before the numbers of atoms"
            )
        return np.array(behind, dtype=np.int64)
    elements = []
    for name in names:
        # Names of POTCAR: Na_pv, Fe/0f3c. H.75 is a part of a hydrogen, not one.
        element = element_of_type(re.split(r"[_/]", name)[0]) if "." not in name else None
        if element is None:
            raise CrystalError(f"{name!r} is not an element: {' '.join(names)[:60]!r}")
        elements.append(element)
    z = np.repeat(np.array(elements, dtype=np.int64), counts)
    if None not in behind and not np.array_equal(z, np.array(behind)):
        site = int(np.nonzero(z != np.array(behind))[0][0])
        raise CrystalError(
            f"site {site} is {words[site]!r} by the word behind it, but not by the numbers of atoms"
        )
    return z
