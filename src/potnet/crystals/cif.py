"""Crystals from CIF text. ASE parses it; occupancy, disorder and coinciding sites are checked here.

ASE's own conversion keeps the main species of a mixed site and drops coinciding sites, both silently.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.convert import FULL_OCCUPANCY
from potnet.crystals.crystal import Crystal, CrystalError, overlaps
from potnet.crystals.elements import ATOMIC_NUMBERS, symbol

COINCIDENCE = 0.1
"""Å. Sites of one element closer than this are one site, listed twice or rounded off a special position."""


def crystals_from_cif(text: str) -> Iterator[Crystal | CrystalError]:
    """Read every block of a CIF that has atoms.

    A CIF without symmetry is taken at its word: identity only, as the standard has it.

    Args:
        text: Content of the file.

    Yields:
        One crystal a block, without an id; or what is wrong with it, naming the site's label.
    """
    from ase.io.cif import parse_cif

    if text.strip() and not re.search(r"^\s*data_", text, flags=re.IGNORECASE | re.MULTILINE):
        yield CrystalError("not a valid CIF: no line begins with data_; is this the right file, and whole?")
        return
    blocks = parse_cif(io.BytesIO(text.encode("utf-8")))
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                block = next(blocks, None)
        except Exception as error:  # whatever the parser trips over
            yield CrystalError(f"not a valid CIF ({brief(error)})")
            return
        if block is None:
            return
        if not any(key.startswith(("_atom_site_", "_cell_length")) for key in block):
            continue  # a block of text, such as the publication's
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome: Crystal | CrystalError = _crystal(block)
        except CrystalError as error:
            outcome = error
        except Exception as error:
            outcome = CrystalError(f"block {block.name!r} can't be understood ({brief(error)})")
        yield outcome


def _crystal(block: Any) -> Crystal:
    cell = _cell(block)
    z, labels = _species(block)
    _refuse_disorder(block, z, labels)
    rotations, translations = _operations(block)
    orbits = []
    for site in _coordinates(block, cell, labels):
        orbit = rotations @ site + translations
        orbits.append(np.delete(orbit, overlaps(cell, orbit @ cell, COINCIDENCE)[:, 1], axis=0))
    kind = np.repeat(np.arange(len(orbits)), [len(orbit) for orbit in orbits])
    fractional = np.concatenate(orbits)
    keep = _without_coinciding(cell, fractional, kind, z, labels)
    return Crystal.from_fractional(cell, fractional[keep], z[kind[keep]])


def _cell(block: Any) -> NDArray[np.float64]:
    from ase.geometry import cellpar_to_cell

    cellpar = [_number(block.get(tag)) for tag in block.cell_tags]
    absent = [tag for tag, value in zip(block.cell_tags, cellpar, strict=True) if value is None]
    if absent:
        raise CrystalError(f"block {block.name!r} has no cell: {', '.join(absent)} missing or no number")
    lengths, angles = np.array(cellpar, dtype=np.float64).reshape(2, 3)
    cosines = np.cos(np.radians(angles))
    gram = 1 + 2 * cosines.prod() - (cosines**2).sum()  # squared volume for edges of length 1
    if not (np.isfinite(gram) and lengths.min() > 0 and gram > 1e-12):
        raise CrystalError(f"the cell has no volume: its lengths and angles are {cellpar}")
    return np.array(cellpar_to_cell(cellpar), dtype=np.float64)


def _operations(block: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotations (m, 3, 3) and translations (m, 3) in fractional coordinates.

    Operations that are listed count; the name and number of the group, whose setting and origin can
    be ambiguous, only serve where there are none.
    """
    from ase.spacegroup.spacegroup import parse_sitesym

    listed = [
        _column(block, tag)
        for tag in (
            "_space_group_symop_operation_xyz",
            "_space_group_symop.operation_xyz",
            "_symmetry_equiv_pos_as_xyz",
        )
    ]
    texts = next((texts for texts in listed if texts), None)
    if texts:
        texts = [str(text).strip("'\" ") for text in texts]
        rotations, translations = parse_sitesym(texts)
        for text, rotation in zip(texts, rotations, strict=True):
            if abs(round(np.linalg.det(rotation))) != 1:
                raise CrystalError(f"{text!r} is no symmetry operation")
    else:
        rotations, translations = zip(*block.get_spacegroup(subtrans_included=True).get_symop(), strict=True)
    return np.array(rotations, dtype=np.float64), np.array(translations, dtype=np.float64)


def _column(block: Any, tag: str) -> list[Any] | None:
    values = block.get(tag)
    return values if values is None or isinstance(values, list) else [values]


def _species(block: Any) -> tuple[NDArray[np.int64], list[str]]:
    """Atomic numbers and labels of the listed sites."""
    symbols = _column(block, "_atom_site_type_symbol") or _column(block, "_atom_site_label")
    if not symbols:
        raise CrystalError(f"block {block.name!r} lists no atoms (_atom_site_label, _atom_site_fract_x ...)")
    labels = [str(label) for label in _column(block, "_atom_site_label") or symbols]
    z = []
    for text, label in zip(map(str, symbols), labels, strict=True):
        # Fe, Fe1, Fe3+, but not Wat1: letters up to the first other sign.
        match = re.match(r"[A-Za-z]+", text)
        name = match.group(0) if match else text
        number = ATOMIC_NUMBERS.get(name) or ATOMIC_NUMBERS.get(name.capitalize() if len(name) == 2 else name)
        if number is None:
            raise CrystalError(f"site {label} is {text!r}, which is no element")
        z.append(number)
    return np.array(z, dtype=np.int64), labels


def _coordinates(block: Any, cell: NDArray[np.float64], labels: list[str]) -> NDArray[np.float64]:
    """(n, 3) fractional coordinates of the listed sites."""
    for stem in ("_atom_site_fract_", "_atom_site_cartn_"):
        columns = [_column(block, stem + axis) for axis in "xyz"]
        if any(column is None for column in columns):
            continue
        rows = []
        for label, row in zip(labels, zip(*columns, strict=True), strict=True):
            values = [_number(value) for value in row]
            if None in values:
                raise CrystalError(f"site {label} has no position: {' '.join(map(str, row))}")
            rows.append(values)
        coordinates = np.array(rows, dtype=np.float64)
        return coordinates if "fract" in stem else coordinates @ np.linalg.inv(cell)
    raise CrystalError(f"block {block.name!r} has atoms but no coordinates (_atom_site_fract_x, _y, _z)")


def _refuse_disorder(block: Any, z: NDArray[np.int64], labels: list[str]) -> None:
    for label, number, value in zip(labels, z, _column(block, "_atom_site_occupancy") or [], strict=False):
        occupancy = _number(value)
        if occupancy is not None and abs(occupancy - 1) > FULL_OCCUPANCY:
            raise CrystalError(
                f"site {label} ({symbol(int(number))}) is partly occupied ({occupancy:g}): order it"
            )
    for label, group in zip(labels, _column(block, "_atom_site_disorder_group") or [], strict=False):
        if str(group) not in (".", "?", "0"):
            raise CrystalError(f"site {label} is disordered (group {group}): order it")


def _without_coinciding(
    cell: NDArray[np.float64],
    fractional: NDArray[np.float64],
    kind: NDArray[np.int64],
    z: NDArray[np.int64],
    labels: list[str],
) -> NDArray[np.int64]:
    """Indices of atoms without repetition; two elements on one site are disorder."""
    pairs = overlaps(cell, fractional @ cell, COINCIDENCE)
    for a, b in kind[pairs]:
        if z[a] != z[b]:
            raise CrystalError(
                f"sites {labels[a]} ({symbol(int(z[a]))}) and {labels[b]} ({symbol(int(z[b]))}) are at one "
                "position: the structure is disordered or wrong"
            )
    return np.setdiff1d(np.arange(len(kind)), pairs[:, 1])


def _number(value: Any) -> float | None:
    """A CIF number, perhaps with its uncertainty, `1.234(5)`; None for `.`, `?` and texts."""
    try:
        return float(re.sub(r"\(\d+\)$", "", str(value).strip("'\" ")))
    except ValueError:
        return None


def brief(error: Exception) -> str:
    """What a foreign exception says, in one line."""
    if isinstance(error, KeyError):
        return f"unknown element or key {error}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
