"""Crystals from CIF text. gemmi parses it; symmetry, species, occupancy and plausibility are judged here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import Crystal, CrystalError, overlaps
from potnet.crystals.elements import symbol
from potnet.crystals.reading import check
from potnet.crystals.reading.block import Block, blocks
from potnet.crystals.reading.check import Plausibility
from potnet.crystals.reading.sites import Sites, sites_of
from potnet.crystals.reading.symmetry import IDENTITY, Operations, by_group, listed, order_of
from potnet.crystals.reading.text import uncertain_number

logger = logging.getLogger(__name__)

COINCIDENCE = 0.1
"""Å. Sites of one element closer than this are one site, listed twice."""

_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_MAGNETIC = "_space_group_symop_magn_operation_xyz"
_CENTRINGS = "_space_group_symop_magn_centering_xyz"
_NAMES = ("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_full")
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_MODULATED = ("_space_group_symop_ssg", "_space_group_symop_magn_ssg", "_atom_site_fourier")
_CELL = (
    *(f"_cell_length_{axis}" for axis in "abc"),
    *(f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma")),
)


def crystals_from_cif(
    text: str, plausibility: Plausibility = "refuse", source: str = "CIF"
) -> Iterator[Crystal | CrystalError]:
    """Read every block of a CIF that has atoms.

    A CIF without symmetry is taken at its word: identity only, as the standard has it.

    Args:
        text: Content of the file.
        plausibility: What to do with a structure that cannot be right.
        source: Where it is from, for the log.

    Yields:
        One crystal a block, without an id; or what is wrong with it, naming the site's label.
    """
    try:
        found = blocks(text)
    except CrystalError as error:
        yield error
        return
    for block in _with_atoms(found):
        try:
            if isinstance(block, CrystalError):
                raise block
            yield _crystal(block, plausibility, f"{source}, block {block.name!r}")
        except CrystalError as error:
            yield error


def _with_atoms(found: list[Block | CrystalError]) -> list[Block | CrystalError]:
    """Blocks that hold a structure, or else those that were meant to; not those of text or reflections."""

    def chosen(*prefixes: str) -> list[Block | CrystalError]:
        return [each for each in found if isinstance(each, CrystalError) or each.begins(*prefixes)]

    complete = chosen("_atom_site_fract_", "_atom_site_cartn_")
    return complete or chosen("_atom_site_", "_cell_length_")


@dataclass(frozen=True)
class _Reading:
    """A crystal as one setting gives it, and what speaks against it."""

    crystal: Crystal
    operations: Operations
    problems: list[str]
    remarks: list[str]


def _crystal(block: Block, plausibility: Plausibility, source: str) -> Crystal:
    cell = _cell(block)
    text = block.value("_chemical_formula_sum")
    formula = check.parse_formula(text) if text else None
    sites = sites_of(block, cell, set(formula) if formula else None)
    for line in sites.skipped:
        logger.warning("%s: %s", source, line)
    z_stated = _whole(block.value("_cell_formula_units_z"))
    readings = []
    errors = []
    for operations in _operations(block):
        try:
            crystal, problems, remarks = _expanded(cell, sites, operations)
        except CrystalError as error:
            errors.append(error)
            continue
        misfit = operations.problem(cell)
        problems = [*([misfit] if misfit else []), *check.implausible(crystal), *problems]
        if formula:
            mismatch = check.formula_mismatch(crystal.z, formula)
            problems += [mismatch] if mismatch else []
        readings.append(_Reading(crystal, operations, problems, remarks))
    if not readings:
        raise errors[0]
    chosen = _choose(readings, formula, z_stated)
    check.settle(chosen.problems, plausibility, source)
    if plausibility != "ignore":
        for line in [*chosen.remarks, *_remarks(block, chosen, formula)]:
            logger.warning("%s: %s", source, line)
    return chosen.crystal


def _choose(readings: list[_Reading], formula: dict[str, float] | None, z_stated: int | None) -> _Reading:
    """The one setting that fits cell, distances, formula and number of formula units.

    Raises:
        CrystalError: Several fit and give different crystals.
    """
    if len(readings) == 1:
        return readings[0]
    fewest = min(len(reading.problems) for reading in readings)
    left = [reading for reading in readings if len(reading.problems) == fewest]
    if formula and z_stated:
        heavy = {name: amount for name, amount in formula.items() if name != "H"} or formula
        wanted = z_stated * sum(heavy.values())
        exact = [
            reading
            for reading in left
            if abs(
                sum(n for name, n in check.amounts_of(reading.crystal.z).items() if name in heavy) - wanted
            )
            < 0.5
        ]
        left = exact or left
    first = _fingerprint(left[0].crystal)
    if not all(np.allclose(first, _fingerprint(reading.crystal), rtol=1e-6) for reading in left[1:]):
        names = " or ".join(reading.operations.name for reading in left)
        raise CrystalError(
            f"the setting is not stated: it may be {names}, which give different crystals; write it behind "
            "the name of the space group, or list the operations"
        )
    return left[0]


def _fingerprint(crystal: Crystal) -> NDArray[np.float64]:
    """Numbers that do not depend on the origin: those of atoms, and sums over distances, by elements."""
    import vesin

    cutoff = 2.0 * (crystal.volume / len(crystal)) ** (1 / 3)
    i, j, d = vesin.NeighborList(cutoff=cutoff, full_list=True).compute(
        points=np.array(crystal.positions), box=np.array(crystal.cell), periodic=True, quantities="ijd"
    )
    weight = crystal.z[i.astype(np.int64)] * crystal.z[j.astype(np.int64)] * (1 - d / cutoff) ** 2
    moments = [float(np.sum(weight * np.exp(-k * d))) for k in (0.0, 1.0, 2.0)]
    return np.array([len(crystal), crystal.z.sum(), (crystal.z**2).sum(), *moments], dtype=np.float64)


def _remarks(block: Block, reading: _Reading, formula: dict[str, float] | None) -> Iterator[str]:
    """What is odd, but no reason to refuse."""
    z = reading.crystal.z
    if formula and not check.formula_mismatch(z, formula) and check.missing_hydrogen(z, formula):
        yield "the formula has more hydrogen than the listed sites"
    if reading.operations.name == Operations.name and block.column(_MAGNETIC) is None:
        name, number, m = block.value(*_NAMES), _whole(block.value(*_NUMBERS)), len(reading.operations)
        stated = order_of(name, number)
        if stated is not None and stated > m:
            yield (
                f"{m} operations are listed, but its space group ({name or number}) has {stated}; those "
                "that are listed count"
            )


def _cell(block: Block) -> NDArray[np.float64]:
    texts = [block.value(tag) for tag in _CELL]
    values = [None if text is None else uncertain_number(text) for text in texts]
    absent = [
        f"{tag} is missing" if text is None else f"{tag} is {text!r}, which is not a number"
        for tag, text, value in zip(_CELL, texts, values, strict=True)
        if value is None
    ]
    if absent:
        raise CrystalError(f"block {block.name!r} has no cell: {', '.join(absent)}")
    lengths, angles = np.array(values, dtype=np.float64).reshape(2, 3)
    cosines = np.cos(np.radians(angles))
    cosines[angles == 90] = 0.0
    gram = 1 + 2 * cosines.prod() - (cosines**2).sum()  # squared volume for edges of length 1
    if not (np.isfinite(gram) and lengths.min() > 0 and angles.min() > 0 and gram > 1e-12):
        raise CrystalError(f"the cell has no volume: its lengths and angles are {values}")
    sine = np.sin(np.radians(angles[2]))
    # The first vector along x, the second in the plane of x and y.
    unit = np.array(
        [
            [1.0, 0.0, 0.0],
            [cosines[2], sine, 0.0],
            [cosines[1], (cosines[0] - cosines[1] * cosines[2]) / sine, np.sqrt(gram) / sine],
        ]
    )
    return unit * lengths[:, None]


def _operations(block: Block) -> list[Operations]:
    """The operations that a block states; several where it leaves a choice.

    Raises:
        CrystalError: They cannot be read.
    """
    if block.begins(*_MODULATED):
        raise CrystalError("a modulated structure has no unit cell: give its average or a supercell")
    magnetic = block.column(_MAGNETIC)
    if magnetic:
        return [listed(tuple(magnetic), tuple(block.column(_CENTRINGS) or ()), magnetic=True)]
    for tag in _OPERATIONS:
        texts = block.column(tag)
        if texts:
            return [listed(tuple(texts))]
    number_text = block.value(*_NUMBERS)
    number = _whole(number_text)
    if number_text is not None and number is None:
        raise CrystalError(f"the number of the space group is {number_text!r}, which is not a number")
    return by_group(block.value(*_NAMES), block.value(*_HALL), number)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,4}", text.strip()) else None


def _expanded(
    cell: NDArray[np.float64], sites: Sites, operations: Operations
) -> tuple[Crystal, list[str], list[str]]:
    """All atoms of the cell, what is wrong with them, and what is only odd."""
    positions, kind = _orbits(cell, sites, operations)
    pairs = overlaps(cell, positions @ cell, COINCIDENCE)
    problems = []
    for a, b in kind[pairs]:
        if sites.z[a] != sites.z[b]:
            raise CrystalError(
                f"sites {sites.labels[a]} ({symbol(int(sites.z[a]))}) and {sites.labels[b]} "
                f"({symbol(int(sites.z[b]))}) are at one position: the structure is disordered or wrong"
            )
    remarks = []
    if len(pairs):
        a, b = (sites.labels[i] for i in kind[pairs[0]])
        what = f"sites {a} and {b} are at one position, or less than {COINCIDENCE} Å apart"
        if len(operations) == 1:
            problems.append(f"{what}, and nothing but their list says how many there are")
        else:
            remarks.append(f"{what}: one of them is dropped")
    keep = np.setdiff1d(np.arange(len(kind)), pairs[:, 1])
    return Crystal.from_fractional(cell, positions[keep], sites.z[kind[keep]]), problems, remarks


def _orbits(
    cell: NDArray[np.float64], sites: Sites, operations: Operations
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Copies of n sites by m operations, without repetition: fractional (k, 3), and whose they are (k,).

    A site whose copies lie within its tolerance is on a special position, at the mean of these copies.
    """
    n, m = len(sites.z), len(operations)
    if m == 1 and operations is IDENTITY:
        return sites.fractional, np.arange(n)
    place = sites.fractional
    copies = np.einsum("mij,nj->nmi", operations.rotations, place) + operations.translations
    offset = copies - place[:, None]
    offset -= np.rint(offset)
    same = np.linalg.norm(offset @ cell, axis=2) < sites.tolerance[:, None]  # (n, m)
    count = np.maximum(same.sum(1), 1)
    place = place + (offset * same[..., None]).sum(1) / count[:, None]
    copies = np.einsum("mij,nj->nmi", operations.rotations, place) + operations.translations
    keep = np.ones((n, m), dtype=bool)
    for site in np.nonzero(same.sum(1) > 1)[0]:
        keep[site, overlaps(cell, copies[site] @ cell, COINCIDENCE)[:, 1]] = False
    return copies[keep], np.nonzero(keep)[0]
