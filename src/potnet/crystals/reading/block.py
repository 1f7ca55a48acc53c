"""Blocks of a CIF as gemmi parses them: columns by tag, without quotes, missing values as None."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from potnet.crystals.crystal import CrystalError

_USED = (
    "_cell_",
    "_atom_site",
    "_symmetry_",
    "_space_group_",
    "_chemical_formula_sum",
)
_MINUS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"), "-")
_BLANK = dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2009\u202f\u3000"), " ")
_NOTHING = dict.fromkeys(map(ord, "\ufeff\u200b\x1a\x00"), None)
_QUOTED = re.compile(r"""'(?:[^'\n]|'(?=\S))*'|"(?:[^"\n]|"(?=\S))*"|\S+""")


@dataclass(frozen=True)
class Block:
    """What a block says about a structure.

    Attributes:
        name: The block's.
        columns: Tag in lower case, with `_` for `.` -> values; a value outside of a loop is a column of
            one. A value is None for `?`, `.` and where it is missing.
        loops: Tag -> number of its loop; tags outside of loops are absent.
    """

    name: str
    columns: dict[str, list[str | None]]
    loops: dict[str, int]

    def begins(self, *prefixes: str) -> bool:
        """Whether there is a tag that begins so."""
        return any(tag.startswith(prefixes) for tag in self.columns)

    def column(self, tag: str) -> list[str] | None:
        """All values of a tag; None if there is none that is known."""
        values = [value for value in self.columns.get(tag, ()) if value is not None]
        return values or None

    def value(self, *tags: str) -> str | None:
        """The value of the first of these tags that has one."""
        for tag in tags:
            for value in self.columns.get(tag, ()):
                if value is not None and value.strip():
                    return " ".join(value.split())
        return None


def blocks(text: str) -> list[Block | CrystalError]:
    """Parse a CIF.

    Signs outside of ASCII, which CIF does not allow, are replaced: minus signs and blanks by the ordinary
    ones, others by `~`. They only matter in names of authors.

    Returns:
        The blocks, or what is wrong with one.

    Raises:
        CrystalError: It is no CIF; line and reason are named.
    """
    from gemmi import cif

    text = text.translate(_MINUS | _BLANK | _NOTHING).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[^\x00-\x7f]", "~", text).replace("\x0c", " ").replace("\x0b", " ")
    if not text.strip():
        return []
    if not re.search(r"^\s*data_", text, flags=re.IGNORECASE | re.MULTILINE):
        raise CrystalError("not a valid CIF: no line begins with data_; is this the right file, and whole?")
    try:
        document = cif.read_string(text, 0)
    except (ValueError, RuntimeError) as error:
        raise CrystalError(f"not a valid CIF: {_explained(str(error), text)}") from None
    return [_block(each) for each in document]


def _block(block: Any) -> Block | CrystalError:
    from gemmi import cif

    columns: dict[str, list[str | None]] = {}
    loops: dict[str, int] = {}
    for number, item in enumerate(block):
        for tag, values in _columns(item):
            tag = tag.lower().replace(".", "_")
            if not tag.startswith(_USED):
                continue
            clean = [None if not raw or cif.is_null(raw) else _unquoted(cif.as_string(raw)) for raw in values]
            before = columns.get(tag)
            if before is not None and any(before):
                if any(clean) and before != clean:
                    return CrystalError(f"{tag} is given twice, with different values")
                continue
            columns[tag] = clean
            if item.loop is not None:
                loops[tag] = number
    return Block(block.name.strip(), columns, loops)


def _columns(item: Any) -> Iterator[tuple[str, list[str]]]:
    if item.pair is not None:
        tag, value = item.pair
        yield tag, [value]
    elif item.loop is not None:
        tags, values = list(item.loop.tags), list(item.loop.values)
        for place, tag in enumerate(tags):
            yield tag, values[place :: len(tags)]


def _unquoted(value: str) -> str | None:
    """Quoted question marks are question marks too."""
    return None if value.strip() in ("?", ".", "") else value


def _explained(message: str, text: str) -> str:
    """gemmi's message in our words, with the row that has too few or too many values."""
    match = re.match(r"string:(\d+):\d+\(\d+\): (.*)", message, flags=re.DOTALL)
    if match is None:
        return " ".join(message.split())[:200]
    line, reason = int(match[1]), " ".join(match[2].split())
    lines = text.split("\n")
    if "Wrong number of values" in reason:
        return _odd_row(lines, line - 1) or f"line {line}: {reason}"
    shown = lines[line - 1].strip()[:60] if line <= len(lines) else ""
    return f"line {line}: {reason}, got {shown!r}" if shown else f"line {line}: {reason}"


def _odd_row(lines: list[str], start: int) -> str | None:
    """The first row of a loop, which begins at a line, with another number of values than columns."""
    width = 0
    for number in range(start, len(lines)):
        tokens = _QUOTED.findall(re.sub(r"(?:^|(?<=\s))#.*", "", lines[number]))
        if tokens and tokens[0].lower() == "loop_" and number == start:
            tokens = tokens[1:]
        while tokens and tokens[0].startswith("_") and not (width < 0):
            width += 1
            tokens = tokens[1:]
        if not tokens:
            continue
        if tokens[0].startswith(";") or tokens[0].lower().startswith(("loop_", "data_")):
            break
        if len(tokens) != width:
            shown = lines[number].strip()[:60]
            return f"line {number + 1} has {len(tokens)} values for {width} columns: {shown!r}"
    return f"a loop of {width} columns ends with an incomplete row (line {start + 1})" if width else None
