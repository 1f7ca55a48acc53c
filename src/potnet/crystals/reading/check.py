"""Whether a structure can be one: distances, density, formula."""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import Crystal, CrystalError, overlaps, thinnest
from potnet.crystals.elements import ATOMIC_NUMBERS, MAX_Z, symbol

logger = logging.getLogger(__name__)

Plausibility = Literal["refuse", "warn", "ignore"]
"""What becomes of a structure that cannot be right: it is refused, or read with a warning, or just read."""

MIN_DISTANCE = 0.5
MIN_DISTANCE_HYDROGEN = 0.4
"""Å. The shortest bond of all, in H2, is 0.74."""

MAX_DENSITY = 30.0
MIN_DENSITY = 0.01
"""g/cm³. Osmium, the densest element, has 22.6."""

FORMULA_TOLERANCE = 0.01
"""Relative; formulas are often rounded."""

_GRAMS_PER_CM3 = 1.66053906660  # of one dalton per Å³
_FORMULA = re.compile(r"(?:[A-Z][a-z]?[0-9.]*\s*)+")
_TERM = re.compile(r"([A-Z][a-z]?)\s*([0-9.]*)")


def settle(problems: Iterable[str], plausibility: Plausibility, source: str = "") -> None:
    """Refuse, log or ignore what is implausible.

    Args:
        problems: What is wrong, one sentence each.
        plausibility: What to do.
        source: What they are about, for the log.

    Raises:
        CrystalError: The first problem, with `plausibility="refuse"`.
        ValueError: `plausibility` is another word.
    """
    if plausibility not in get_args(Plausibility):
        raise ValueError(f"plausibility={plausibility!r}: give 'refuse', 'warn' or 'ignore'")
    if plausibility == "ignore":
        return
    for problem in problems:
        if plausibility == "refuse":
            raise CrystalError(f"{problem} (plausibility=warn reads it nevertheless)")
        logger.warning("%s%s", f"{source}: " if source else "", problem)


def checked(crystal: Crystal, plausibility: Plausibility, boxed: bool = False, source: str = "") -> Crystal:
    """The crystal itself, if its distances and its density are plausible.

    Args:
        crystal: Any crystal.
        plausibility: See `Plausibility`.
        boxed: Whether the vacuum was asked for, so that a low density says nothing.
        source: Where it is from, for the log.

    Raises:
        CrystalError: See `settle`.
    """
    settle(() if plausibility == "ignore" else implausible(crystal, boxed), plausibility, source)
    return crystal


def implausible(crystal: Crystal, boxed: bool = False) -> list[str]:
    """What is wrong with the density and the distances of a crystal; empty for a plausible one."""
    value = density(crystal)
    if value > MAX_DENSITY:
        # Not the distances too: in a cell this small, each atom has thousands of images nearby.
        return [f"the density is {value:.3g} g/cm³, more than {MAX_DENSITY:g}: are lengths in Å?"]
    problems = []
    if value < MIN_DENSITY and not boxed:
        problems.append(f"the density is {value:.3g} g/cm³, less than {MIN_DENSITY:g}: are lengths in Å?")
    pair = closest_pair(crystal, MIN_DISTANCE)
    if pair is not None:
        a, b, distance = pair
        what = f"{symbol(int(crystal.z[a]))}-{symbol(int(crystal.z[b]))}"
        problems.append(
            f"sites {a} and {b} ({what}), or their images, are {distance:.2f} Å apart: no atoms are so close"
        )
    return problems


def density(crystal: Crystal) -> float:
    """Density in g/cm³."""
    return float(_masses()[crystal.z].sum()) * _GRAMS_PER_CM3 / crystal.volume


def closest_pair(crystal: Crystal, cutoff: float) -> tuple[int, int, float] | None:
    """The two atoms, or images of one atom, that are too close to each other, and their distance in Å.

    Args:
        crystal: n atoms.
        cutoff: Å. Pairs with hydrogen may be nearer, by the ratio of the two limits above.
    """
    i, j, d = _near(crystal, cutoff)
    hydrogen = (crystal.z[i] == 1) | (crystal.z[j] == 1)
    limit = np.where(hydrogen, cutoff * MIN_DISTANCE_HYDROGEN / MIN_DISTANCE, cutoff)
    near = np.nonzero(d < limit)[0]
    if not len(near):
        return None
    first = near[np.argmin(d[near])]
    return int(i[first]), int(j[first]), float(d[first])


def _near(
    crystal: Crystal, cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of atoms, images included, within a small cutoff, and their distances."""
    if thinnest(crystal.cell) > 2 * cutoff:
        # The nearest image alone matters, and no atom meets its own.
        pairs = overlaps(crystal.cell, crystal.positions, cutoff)
        i, j = pairs[:, 0], pairs[:, 1]
        offset = (crystal.positions[i] - crystal.positions[j]) @ np.linalg.inv(crystal.cell)
        return i, j, np.linalg.norm((offset - np.rint(offset)) @ crystal.cell, axis=1)
    import vesin

    i, j, d = vesin.NeighborList(cutoff=cutoff, full_list=False).compute(
        points=np.array(crystal.positions), box=np.array(crystal.cell), periodic=True, quantities="ijd"
    )
    return i.astype(np.int64), j.astype(np.int64), np.asarray(d)


def parse_formula(text: str) -> dict[str, float] | None:
    """Amounts of the elements in `_chemical_formula_sum`, deuterium counted as hydrogen.

    >>> parse_formula("H2 Mg O2")
    {'H': 2.0, 'Mg': 1.0, 'O': 2.0}

    Returns:
        None if it is no plain sum, such as `Ca (C O3)`.
    """
    text = text.strip()
    if not text or not _FORMULA.fullmatch(text):
        return None
    amounts: dict[str, float] = {}
    for name, amount in _TERM.findall(text):
        if name not in ATOMIC_NUMBERS:
            return None
        try:
            value = float(amount) if amount else 1.0
        except ValueError:
            return None
        name = symbol(ATOMIC_NUMBERS[name])
        amounts[name] = amounts.get(name, 0.0) + value
    return {name: value for name, value in amounts.items() if value > 0} or None


def formula_mismatch(z: NDArray[np.int64], stated: Mapping[str, float]) -> str | None:
    """How the atoms of a cell contradict a stated formula; None if they do not. Z is not used.

    Hydrogen that is missing is no contradiction: it is often not located.
    """
    read = amounts_of(z)
    heavy = sorted(name for name in {*read, *stated} if name != "H")
    if heavy:
        ratios = [read.get(name, 0) / stated[name] if name in stated else math.inf for name in heavy]
        ratio = float(np.median(ratios))
        fits = math.isfinite(ratio) and ratio > 0
        fits = fits and all(abs(value / ratio - 1) <= FORMULA_TOLERANCE for value in ratios)
        fits = fits and read.get("H", 0) <= ratio * stated.get("H", 0.0) * (1 + FORMULA_TOLERANCE)
    else:
        fits = "H" in read and "H" in stated
    if fits:
        return None
    return f"the file states the formula {_written(stated)}, but its atoms are {_written(read)}"


def missing_hydrogen(z: NDArray[np.int64], stated: Mapping[str, float]) -> bool:
    """Whether the formula, which fits otherwise, has more hydrogen than the atoms."""
    read = amounts_of(z)
    heavy = [name for name in read if name != "H"]
    if not heavy:
        return False
    ratio = read[heavy[0]] / stated[heavy[0]]
    return read.get("H", 0) < ratio * stated.get("H", 0.0) * (1 - FORMULA_TOLERANCE) - 1e-9


def amounts_of(z: NDArray[np.int64]) -> dict[str, float]:
    """How many atoms of each element there are."""
    numbers, counts = np.unique(z, return_counts=True)
    return {symbol(int(n)): float(c) for n, c in zip(numbers, counts, strict=True)}


def _written(amounts: Mapping[str, float]) -> str:
    whole = [int(value) for value in amounts.values() if value == int(value)]
    divisor = math.gcd(*whole) if len(whole) == len(amounts) else 1
    return "".join(
        name + (f"{value / divisor:g}" if value != divisor else "") for name, value in sorted(amounts.items())
    )


@functools.cache
def _masses() -> NDArray[np.float64]:
    import gemmi

    return np.array([gemmi.Element(z).weight for z in range(MAX_Z + 1)])
