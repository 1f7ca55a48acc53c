"""The listed sites of a CIF block: elements, positions, occupancy."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import CrystalError
from potnet.crystals.elements import element_of_label, element_of_type, symbol
from potnet.crystals.reading.block import Block
from potnet.crystals.reading.objects import FULL_OCCUPANCY
from potnet.crystals.reading.text import uncertain_number

TOLERANCE = 0.1
MAX_TOLERANCE = 0.4
"""Å. Copies of a site that are closer than this are one, on a special position: the first for coordinates of
many digits, up to the second where they are rounded (0.33)."""

_SITE = "_atom_site_"
_TYPE, _LABEL = "_atom_site_type_symbol", "_atom_site_label"
_ORDERED = (None, "0")


@dataclass(frozen=True)
class Sites:
    """n listed sites.

    Attributes:
        z: (n,) int64, atomic numbers.
        fractional: (n, 3) float64.
        tolerance: (n,) float64, Å: how far rounding may have moved a site's copies apart.
        labels: n names.
        skipped: A line for each site that is left out, and why.
    """

    z: NDArray[np.int64]
    fractional: NDArray[np.float64]
    tolerance: NDArray[np.float64]
    labels: list[str]
    skipped: list[str]


def sites_of(block: Block, cell: NDArray[np.float64], elements: set[str] | None) -> Sites:
    """Read the sites of a block.

    Args:
        block: Of the CIF.
        cell: (3, 3), rows are lattice vectors, Å, the first along x, the second in the plane of x and y.
        elements: Those of the stated formula, which tell `CA1` (carbon) from calcium; None if unknown.

    Raises:
        CrystalError: There is none; or one has no element or position, is partly occupied or disordered.
    """
    rows = _Rows(block)
    fractional, texts = _positions(block, rows, cell)
    keep, skipped, numbers = [], [], []
    for site in range(rows.count):
        flag = (rows.get("calc_flag", site) or "").lower()
        if flag.startswith("dum"):
            skipped.append(f"site {rows.labels[site]} is left out: a dummy atom (_atom_site_calc_flag)")
            continue
        z = _element(rows, site, elements)
        _refuse_disorder(rows, site, z)
        if not np.isfinite(fractional[site]).all():
            shown = " ".join("?" if text is None else text for text in texts[site])
            raise CrystalError(f"site {rows.labels[site]} has no position: {shown}")
        keep.append(site)
        numbers.append(z)
    if not keep:
        raise CrystalError(f"block {block.name!r} lists no atoms but dummy ones")
    lengths = np.linalg.norm(cell, axis=1)
    tolerance = np.array([_rounding(texts[site], lengths) for site in keep])
    return Sites(
        np.array(numbers, dtype=np.int64),
        fractional[keep],
        tolerance,
        [rows.labels[site] for site in keep],
        skipped,
    )


class _Rows:
    """The columns of the sites' loop, of one length."""

    def __init__(self, block: Block) -> None:
        anchor = next(
            (
                tag
                for tag in ("_atom_site_fract_x", "_atom_site_cartn_x", _LABEL, _TYPE)
                if tag in block.columns
            ),
            None,
        )
        if anchor is None:
            raise CrystalError(
                f"block {block.name!r} lists no atoms (_atom_site_label, _atom_site_fract_x ...)"
            )
        self.count = len(block.columns[anchor])
        loop = block.loops.get(anchor)
        self._columns = {
            tag.removeprefix(_SITE): values
            for tag, values in block.columns.items()
            if tag.startswith(_SITE) and block.loops.get(tag) == loop and len(values) == self.count
        }
        elsewhere = [tag for tag in (_LABEL, _TYPE) if tag in block.columns]
        if not elsewhere:
            raise CrystalError(
                f"block {block.name!r} lists no atoms (_atom_site_label, _atom_site_fract_x ...)"
            )
        if self.count == 0:
            raise CrystalError(f"block {block.name!r} lists no atoms: its loop of sites is empty")
        if not any(tag.removeprefix(_SITE) in self._columns for tag in elsewhere):
            raise CrystalError("labels and positions of the sites stand in different loops")
        labels = self._columns.get("label") or self._columns["type_symbol"]
        self.labels = [label if label is not None else f"number {i}" for i, label in enumerate(labels)]

    def get(self, name: str, site: int) -> str | None:
        """A value of a site; None if it is not given."""
        column = self._columns.get(name)
        return None if column is None else column[site]

    def triple(self, stem: str) -> list[list[str | None]] | None:
        """Three columns, one for each axis."""
        columns = [self._columns.get(stem + axis) for axis in "xyz"]
        if any(column is None for column in columns):
            return None
        return [list(row) for row in zip(*columns, strict=True)]


def _element(rows: _Rows, site: int, elements: set[str] | None) -> int:
    """Atomic number of a site, by its type or else by its label.

    Raises:
        CrystalError: It is not an element, or not surely one.
    """
    label, kind = rows.labels[site], rows.get("type_symbol", site)
    if kind is not None:
        z = element_of_type(kind.strip())
        if z is None:
            raise CrystalError(f"site {label} is {kind!r}, which is not an element")
        return z
    z = element_of_label(label.strip(), elements)
    if z is None:
        raise CrystalError(
            f"site {label} is {label!r}, which is not an element for certain: give its element in {_TYPE}"
        )
    return z


def _refuse_disorder(rows: _Rows, site: int, z: int) -> None:
    label, text = rows.labels[site], rows.get("occupancy", site)
    if text is not None:
        occupancy = uncertain_number(text)
        if occupancy is None:
            raise CrystalError(f"the occupancy of site {label} is {text!r}, which is not a number")
        if abs(occupancy - 1) > FULL_OCCUPANCY:
            raise CrystalError(f"site {label} ({symbol(z)}) is partly occupied ({occupancy:g}): order it")
    group = rows.get("disorder_group", site)
    if group not in _ORDERED:
        raise CrystalError(f"site {label} is disordered (group {group}): order it")


def _positions(
    block: Block, rows: _Rows, cell: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[list[str | None]]]:
    """Fractional coordinates (n, 3), NaN where there are none, and their texts."""
    texts = rows.triple("fract_")
    cartesian = texts is None
    if texts is None:
        texts = rows.triple("cartn_")
    if texts is None:
        raise CrystalError(f"block {block.name!r} has atoms but no coordinates (_atom_site_fract_x, _y, _z)")
    values = np.full((rows.count, 3), np.nan)
    for site, row in enumerate(texts):
        for axis, text in enumerate(row):
            if text is None:
                continue
            value = uncertain_number(text)
            if value is None:
                raise CrystalError(f"site {rows.labels[site]} has no position: {text!r} is not a number")
            values[site, axis] = value
    if cartesian:
        values = _from_cartesian(block, values, cell)
        texts = [[None] * 3 for _ in texts]  # their digits say nothing about fractions
    return values, texts


def _from_cartesian(
    block: Block, values: NDArray[np.float64], cell: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fractions of Cartesian coordinates, by the stated matrix or else in the usual orientation."""
    matrix = np.full((3, 3), np.nan)
    vector = np.zeros(3)
    for i in range(3):
        for j in range(3):
            text = block.value(f"_atom_sites_cartn_tran_matrix_{i + 1}{j + 1}")
            value = None if text is None else uncertain_number(text)
            matrix[i, j] = np.nan if value is None else value
        text = block.value(f"_atom_sites_cartn_tran_vector_{i + 1}")
        vector[i] = (uncertain_number(text) if text is not None else None) or 0.0
    if np.isfinite(matrix).all():
        if not np.allclose(matrix.T @ matrix, cell @ cell.T, rtol=0.02, atol=0.02 * np.abs(cell).max() ** 2):
            raise CrystalError("_atom_sites_Cartn_tran_matrix does not belong to this cell")
        return (values - vector) @ np.linalg.inv(matrix).T
    return values @ np.linalg.inv(cell)


def _rounding(texts: list[str | None], lengths: NDArray[np.float64]) -> float:
    """Å. How far apart rounding may move copies of a site on a special position.

    Half a unit in the last place of the coarsest coordinate moves the site, and up to four times as much its
    copies. One digit or none, as in .5 and 0, is exact.
    """
    units = np.zeros(3)
    for axis, text in enumerate(texts):
        digits = re.sub(r"\(.*", "", text or "").partition(".")[2]
        if len(digits) >= 2 and digits.isdigit():
            units[axis] = 0.5 * 10.0 ** -len(digits)
    return float(np.clip(4 * (units * lengths).max(), TOLERANCE, MAX_TOLERANCE))
