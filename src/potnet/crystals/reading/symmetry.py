"""Symmetry operations of a CIF block: listed, or by Hall symbol, Hermann-Mauguin symbol or number.

What is listed counts. Otherwise a symbol counts before the number, which does not tell settings apart. Where
several settings fit what the file says (two origins, hexagonal or rhombohedral axes), all of them are given:
the cell and the atoms decide, or nobody can.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import CrystalError

if TYPE_CHECKING:
    import gemmi

METRIC_TOLERANCE = 0.02
"""Largest change of the metric tensor under an operation, relative to its largest element."""

TRANSLATION_TOLERANCE = 0.01
"""Translations are the same if they differ by less, in units of the lattice vectors: 0.333 is a third."""

_TERM = re.compile(r"([+-]?)(?:([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:/([0-9]+))?\*?)?([xyz]?)(?:/([0-9]+))?")
_MANY = 400


@dataclass(frozen=True)
class Operations:
    """m operations, `x -> rotation @ x + translation` in fractional coordinates.

    Attributes:
        rotations: (m, 3, 3) float64.
        translations: (m, 3) float64.
        name: Where they come from, for messages.
    """

    rotations: NDArray[np.float64]
    translations: NDArray[np.float64]
    name: str = "the listed operations"

    def __len__(self) -> int:
        return len(self.rotations)

    def problem(self, cell: NDArray[np.float64]) -> str | None:
        """Why these cannot be the symmetry of a crystal with this cell, (3, 3) in Å; None if they can."""
        metric = cell @ cell.T
        # x = f @ cell, and f' = R f: R^T G R is G for an isometry.
        changed = np.einsum("mji,jk,mkl->mil", self.rotations, metric, self.rotations)
        deviation = np.abs(changed - metric).max(axis=(1, 2)) / np.abs(metric).max()
        if deviation.max() > METRIC_TOLERANCE:
            lengths = np.sqrt(np.diag(metric))
            angles = np.degrees(np.arccos((metric / np.outer(lengths, lengths))[[1, 0, 0], [2, 2, 1]]))
            shown = " ".join(f"{value:g}" for value in [*lengths.round(4), *angles.round(3)])
            return f"the cell ({shown}) does not have the symmetry of {self.name}"
        if self.name == Operations.name and not self._closed():
            return f"the {len(self)} listed operations are not a group: some are missing or wrong"
        return None

    def _closed(self) -> bool:
        """Whether the product of any two is among them, up to lattice translations."""
        m = len(self)
        if m > _MANY:
            return True  # a supercell's; too many to compare in pairs
        products = np.einsum("aij,bjk->abik", self.rotations, self.rotations).reshape(m * m, 9)
        shifts = np.einsum("aij,bj->abi", self.rotations, self.translations) + self.translations[:, None]
        # There are few different rotations, so products are looked up by them first.
        code = np.array([1, 7, 53, 401, 3001, 22501, 168761, 1265707, 9492803])
        own = np.rint(self.rotations.reshape(m, 9) * 24).astype(np.int64) @ code
        found = np.rint(products * 24).astype(np.int64) @ code
        for rotation in np.unique(found):
            among = self.translations[own == rotation]
            difference = shifts.reshape(m * m, 1, 3)[found == rotation] - among
            difference -= np.rint(difference)
            # False too where none is among them.
            if not (np.abs(difference) < TRANSLATION_TOLERANCE).all(-1).any(-1).all():
                return False
        return True


IDENTITY = Operations(np.eye(3)[None], np.zeros((1, 3)), "no symmetry")


def parse_operation(text: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation (3, 3) and translation (3,) of an operation such as `-1/2x-3/2y, x+2z, 1/2+z`.

    gemmi reads neither of the first two (0.7.5), nor denominators other than those of space groups.

    Raises:
        CrystalError: It is none, or its determinant is not 1 or -1.
    """
    rows = re.sub(r"\s+", "", text).lower().rstrip(";,").split(",")
    rotation, translation = np.zeros((3, 3)), np.zeros(3)
    try:
        if len(rows) != 3:
            raise ValueError
        for number, row in enumerate(rows):
            place = 0
            while place < len(row) or not row:
                match = _TERM.match(row, place)
                if match is None or match.end() == place or (place and not match[1]):
                    raise ValueError
                sign, amount, divisor, axis, after = match.groups()
                if not (amount or axis):
                    raise ValueError
                value = Fraction(amount or 1) / Fraction(divisor or 1) / Fraction(after or 1)
                value = -value if sign == "-" else value
                if axis:
                    rotation[number, "xyz".index(axis)] += float(value)
                else:
                    translation[number] += float(_exact(value))
                place = match.end()
        if abs(abs(np.linalg.det(rotation)) - 1) > 1e-6:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise CrystalError(
            f"{text!r} is no symmetry operation, such as 'x, y+1/2, -z': put each one in quotes"
        ) from None
    return rotation, translation


def _exact(value: Fraction) -> Fraction:
    """0.333 and 0.6667 are meant as thirds."""
    near = Fraction(round(value * 24), 24)
    return near if abs(near - value) < Fraction(1, 900) else value


@functools.lru_cache(maxsize=64)
def listed(texts: tuple[str, ...], centrings: tuple[str, ...] = (), magnetic: bool = False) -> Operations:
    """Operations as they are listed.

    Args:
        texts: One each; a text may hold several on lines of its own.
        centrings: Further translations, by which all operations are multiplied (magCIF).
        magnetic: Whether each ends with its time reversal, which does not move atoms: `x,y,z,+1`.

    Raises:
        CrystalError: One cannot be read.
    """

    def parsed(items: Iterable[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lines = [line.strip() for item in items for line in item.splitlines() if line.strip()]
        if magnetic:
            lines = [re.sub(r",\s*[+-]?1?\s*$", "", line) for line in lines]
        both = [parse_operation(line) for line in lines]
        return np.array([r for r, _ in both]), np.array([t for _, t in both])

    rotations, translations = parsed(texts)
    if centrings:
        outer, shifts = parsed(centrings)
        translations = np.concatenate(
            [translations @ r.T + shift for r, shift in zip(outer, shifts, strict=True)]
        )
        rotations = np.concatenate([r @ rotations for r in outer])
    translations = translations - np.floor(translations + 1e-9)
    rows = np.concatenate([rotations.reshape(-1, 9), translations], axis=1)
    _, first = np.unique(rows.round(4), axis=0, return_index=True)
    order = np.sort(first)
    return _frozen(rotations[order], translations[order], Operations.name)


def by_group(name: str | None, hall: str | None, number: int | None) -> list[Operations]:
    """Operations of a space group: one entry for each setting that the file may mean.

    Args:
        name: Hermann-Mauguin symbol, any usual spelling, with or without setting.
        hall: Hall symbol.
        number: 1 to 230; it must agree with the symbols.

    Raises:
        CrystalError: They are unknown, or contradict each other.
    """
    import gemmi

    if number is not None and not 1 <= number <= 230:
        raise CrystalError(f"there is no space group number {number}: they are 1 to 230")
    by_name = settings_of(name) if name else []
    by_hall = _from_hall(hall) if hall else None
    if by_hall is not None:
        group = gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(_hall(str(hall))))
        if by_name and group is not None and all(group.hall != each.hall for each in by_name):
            raise CrystalError(
                f"the Hall symbol {hall!r} is {group.xhm()}, but the name {name!r} is {by_name[0].xhm()}: "
                "list the operations"
            )
        if number is not None and group is not None and group.number != number:
            raise CrystalError(f"the Hall symbol {hall!r} has number {group.number}, not {number}")
        return [by_hall]
    if name and not by_name:
        raise CrystalError(
            f"the space group {name!r} is not known, and no operations are listed: list them in "
            "_space_group_symop_operation_xyz"
        )
    if by_name and number is not None and by_name[0].number != number:
        raise CrystalError(
            f"the space group {name!r} has number {by_name[0].number}, but the file says {number}"
        )
    if not by_name and number is not None:
        by_name = _standard(number)
    if not by_name and hall:
        raise CrystalError(f"the Hall symbol {hall!r} cannot be read: list the operations")
    return [_of(each.hall, each.xhm()) for each in by_name] or [IDENTITY]


def order_of(name: str | None, number: int | None) -> int | None:
    """How many operations the conventional cell of a stated group has; None if it is not known."""
    groups = settings_of(name) if name else []
    if not groups and number is not None and 1 <= number <= 230:
        groups = _standard(number)
    return len(groups[0].operations()) if groups else None


def settings_of(name: str) -> Sequence[gemmi.SpaceGroup]:
    """The settings that a Hermann-Mauguin symbol may mean; none if it is not known."""
    return _settings_of(_cleaned(name))


@functools.lru_cache(maxsize=1024)
def _settings_of(name: str) -> tuple[gemmi.SpaceGroup, ...]:
    import gemmi

    base, _, stated = name.partition(":")
    found = gemmi.find_spacegroup_by_name(name)
    if found is None and stated:
        # An origin that is stated where there is no choice, as in `P m -3 m :1`.
        found = gemmi.find_spacegroup_by_name(base)
        if found is not None and found.ext != "\0":
            found = None
    if found is None:
        found = _by_full_name(name)
    if found is None:
        return ()
    if found.ext == "\0" or stated:
        return (found,)
    return tuple(
        each for each in gemmi.spacegroup_table() if each.number == found.number and each.hm == found.hm
    )


def _by_full_name(name: str) -> gemmi.SpaceGroup | None:
    """Full symbols, `F 4/m -3 2/m`, which gemmi does not know, from the tables of moyo."""
    import gemmi

    base, _, stated = name.partition(":")
    hall = _full_names().get((_bare(base), stated)) or _full_names().get((_bare(base), ""))
    if hall is None:
        return None
    return gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(hall))


@functools.cache
def _full_names() -> dict[tuple[str, str], str]:
    import moyopy

    names: dict[tuple[str, str], str] = {}
    for hall_number in range(1, 531):
        entry = moyopy.HallSymbolEntry(hall_number)
        setting = str(entry.setting) if str(entry.setting) in ("1", "2", "H", "R") else ""
        for key in ((_bare(entry.hm_full), setting), (_bare(entry.hm_full), "")):
            names.setdefault(key, entry.hall_symbol)
    return names


def _bare(name: str) -> str:
    return re.sub(r"[\s_]", "", name).lower()


def _cleaned(name: str) -> str:
    """One spelling for the many: `P2(1)/c`, `P 2_1/c`, `F d -3 m Z` (ICSD), `Fd-3m O2`, `P m -3 m (#221)`."""
    name = re.sub(r"\(?#.*$", "", name.strip()).strip()
    name = re.sub(r"(?<=\d)\((\d)\)", r"\1", name)
    name = re.sub(r"(?<=\d)_(?=\d)", "", name).replace("_", " ")
    name = re.sub(r"[\s:(]*origin\s*(?:choice)?\s*([12])\)?$", r":\1", name, flags=re.IGNORECASE)
    name = re.sub(r"\s*:?\s*O([12])$", r":\1", name)
    name = re.sub(r"\s*:\s*([12HR])$", r":\1", name, flags=re.IGNORECASE)
    name = re.sub(r"(?<=\S)\s*:?S$", ":1", name)
    name = re.sub(r"(?<=\S)\s*:?Z$", ":2", name)
    if re.match(r"R", name, flags=re.IGNORECASE):
        name = re.sub(r"(?<=[\dmc])\s*([HR])S?$", r":\1", name)
    head, colon, stated = name.partition(":")
    return head[:1].upper() + head[1:] + colon + stated.upper()


def _standard(number: int) -> list[gemmi.SpaceGroup]:
    """The standard setting of a number, with either origin or either axes."""
    import gemmi

    reference = gemmi.get_spacegroup_reference_setting(number)
    return [each for each in gemmi.spacegroup_table() if each.number == number and each.hm == reference.hm]


def _hall(text: str) -> str:
    return text.replace("_", " ").strip()


def _from_hall(text: str) -> Operations | None:
    try:
        return _of(_hall(text), f"the Hall symbol {text!r}")
    except (RuntimeError, ValueError):
        return None


@functools.lru_cache(maxsize=1024)
def _of(hall: str, name: str) -> Operations:
    import gemmi

    operations = list(gemmi.symops_from_hall(hall))
    scale = float(gemmi.Op.DEN)
    return _frozen(
        np.array([each.rot for each in operations]) / scale,
        np.array([each.tran for each in operations]) / scale,
        name,
    )


def _frozen(rotations: NDArray[np.float64], translations: NDArray[np.float64], name: str) -> Operations:
    rotations.setflags(write=False)
    translations.setflags(write=False)
    return Operations(rotations, translations, name)
