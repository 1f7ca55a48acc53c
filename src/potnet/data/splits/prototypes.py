"""Structure prototypes: what stays of a crystal when names of elements and lengths are forgotten.

A prototype is the space group, the anonymous formula, and for each of its elements the sizes and site
symmetries of its Wyckoff positions. So NaCl and MgO are of one prototype, CsCl of another. Letters of Wyckoff
positions would say more, but they depend on the choice of origin: one structure could then be two prototypes,
and a split by prototype would have it on two sides.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from potnet.crystals import Crystal
from potnet.data.table import Columns, CrystalTable, places
from potnet.files import replacing

if TYPE_CHECKING:
    from potnet.data.sources import Source

log = logging.getLogger(__name__)

SYMPREC = 0.01
"""Å. Tolerance of the symmetry search."""

_FORMAT = 2
_SCHEMA = pa.schema({"id": pa.string(), "prototype": pa.string()})


def prototype(crystal: Crystal, symprec: float = SYMPREC) -> str:
    """The prototype of a crystal, such as `225_AB_1(-3mm)_1(-3mm)` for rock salt.

    Space group number, anonymous formula, and for each element (by amount, then by positions) its orbits:
    atoms of the primitive cell, and the site symmetry's symbol with its signs sorted, as axes may be
    interchanged. Where no symmetry is found, the group is `unknown` and nothing but the formula counts.

    Args:
        crystal: Any cell of it.
        symprec: Tolerance of the symmetry search, Å.
    """
    import moyopy

    cell = moyopy.Cell(crystal.cell.tolist(), crystal.fractional.tolist(), crystal.z.tolist())
    try:
        found = moyopy.MoyoDataset(cell, symprec=symprec)
    except Exception as error:  # moyo has no exception class of its own
        log.info("%s: no symmetry found (%s)", crystal.id, error)
        _, counts = np.unique(crystal.z, return_counts=True)
        return f"unknown_{_anonymous(counts.tolist())}"
    shrink = len(found.prim_std_cell.numbers) / len(crystal)
    elements = []
    for z in np.unique(crystal.z).tolist():
        sites = np.flatnonzero(crystal.z == z).tolist()
        sizes = Counter(found.orbits[site] for site in sites)
        symmetry = {found.orbits[site]: found.site_symmetry_symbols[site] for site in sites}
        orbits = sorted(f"{round(size * shrink)}({_sorted(symmetry[o])})" for o, size in sizes.items())
        elements.append((len(sites), "".join(orbits)))
    elements.sort()
    return "_".join(
        [str(found.number), _anonymous([count for count, _ in elements]), *(text for _, text in elements)]
    )


def _sorted(symbol: str) -> str:
    return "".join(sorted(symbol.replace(".", "")))


def _anonymous(counts: list[int]) -> str:
    divisor = math.gcd(*counts)
    amounts = sorted(count // divisor for count in counts)
    names = [chr(ord("A") + i) if i < 26 else f"Z{i}" for i in range(len(amounts))]
    return "".join(f"{name}{n if n > 1 else ''}" for name, n in zip(names, amounts, strict=True))


def with_prototypes(table: CrystalTable, source: Source, folder: Path) -> CrystalTable:
    """The table with the prototype of each of its crystals, found once and then kept in a file.

    Args:
        table: Crystals of the source, whose structures can be read.
        source: Its name and checksum name the file.
        folder: Of the file.
    """
    file = folder / f"{source.name}-prototypes{_FORMAT}-{source.content_hash()[:16]}.parquet"
    known = _read(file)
    place = places(table.ids, known.column("id").combine_chunks())
    rows = np.flatnonzero(place < 0)
    if len(rows):
        log.info("prototypes of %s: searched once, and kept in %s", source.name, file)
        assert table.structures is not None
        found = map(prototype, table.structures(rows))
        new = [table.ids.take(pa.array(rows)), pa.array(found, pa.string(), size=len(rows))]
        place[rows] = len(known) + np.arange(len(rows))
        known = pa.concat_tables([known, pa.table(new, schema=_SCHEMA)])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(file) as part:
                pq.write_table(known, part, compression="zstd")
        except OSError as error:
            log.warning("prototypes cannot be kept (%s): they are searched again next time", error)
    column = known.column("prototype").take(pa.array(place)).combine_chunks()
    texts = Columns([*table.texts, "prototype"], lambda n: column if n == "prototype" else table.texts[n])
    return replace(table, texts=texts)


def _read(file: Path) -> pa.Table:
    try:
        return pq.ParquetFile(file).read().cast(_SCHEMA)
    except (OSError, ValueError):
        return _SCHEMA.empty_table()
