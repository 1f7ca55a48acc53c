"""Chemical symbols and atomic numbers of the 118 elements."""

from __future__ import annotations

import re

_PERIODIC_TABLE = (
    "X "  # atomic number 0 is not an element; it keeps the index equal to the atomic number
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb "
    "Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf "
    "Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)

SYMBOLS = tuple(_PERIODIC_TABLE.split())
"""`SYMBOLS[z]` is the chemical symbol of atomic number z, 1 to 118."""

MAX_Z = len(SYMBOLS) - 1

ATOMIC_NUMBERS = {symbol: z for z, symbol in enumerate(SYMBOLS) if z > 0} | {"D": 1, "T": 1}
"""Atomic number of a chemical symbol. Deuterium and tritium are hydrogen: their electrons are the same."""


def symbol(z: int) -> str:
    """Chemical symbol of an atomic number, or `Z=...` where there is no such element."""
    return SYMBOLS[z] if 0 < z <= MAX_Z else f"Z={z}"


_TYPE = re.compile(r"([A-Za-z]{1,2}?)(?:va|val)?([0-9]*)([+-]?)([0-9]*)\.?")
_GROUPS = frozenset(["CF", "CN", "CO", "CS", "HF", "HO", "NH", "NO", "NP", "PO"])
"""Two elements each, as in NO3 and CO3, that look like one in capitals."""

_MAX_SLOPPY_Z = 94
"""Elements beyond plutonium have to be spelled right: NH is no nihonium, NO no nobelium."""


def element_of_type(text: str) -> int | None:
    """Atomic number of a type symbol of a CIF: `Fe`, `Fe3+`, `O2-`, `Cval`, `FE`, `D`.

    Returns:
        None for what is not an element (`Wat`, `OH`), or not surely one: groups such as `NH4` and `PO4`, and
        `T`, which is a tetrahedral site more often than tritium.
    """
    match = _TYPE.fullmatch(text)
    if match is None:
        return None
    letters, before, sign, after = match.groups()
    if sign and int(before or after or 1) > 9:
        return None  # CO32-
    if letters in ATOMIC_NUMBERS:
        return None if letters == "T" else ATOMIC_NUMBERS[letters]
    z = _sloppy(letters)
    if z is not None and letters.upper() in _GROUPS and (before or after) and sign != "+":
        return None
    return z


def element_of_label(text: str, known: set[str] | None = None) -> int | None:
    """Atomic number of a site by its label alone: `Fe1`, `O1A`, `Na_2`, `CA1`.

    Args:
        text: The label.
        known: Symbols of the elements in the crystal, if they are known. They decide where letters in
            capitals, or letters that are no element together, may be read in two ways.

    Returns:
        None if it is not an element, or not surely one.
    """
    match = re.match(r"[A-Za-z]+", text)
    if match is None:
        return None
    letters = match[0]
    if letters in ATOMIC_NUMBERS and letters != "T":
        return ATOMIC_NUMBERS[letters]
    if known is not None:
        options = {letters[:2].capitalize(), letters[0].upper()} & known
        return ATOMIC_NUMBERS[options.pop()] if len(options) == 1 else None
    return _sloppy(letters) if letters.upper() not in _GROUPS else None


def _sloppy(letters: str) -> int | None:
    """`FE`, `fe` and `o`; not `T`, and not elements that are never written so."""
    z = ATOMIC_NUMBERS.get(letters.capitalize())
    return (
        z if z is not None and z <= _MAX_SLOPPY_Z and letters.upper() != "T" and len(letters) <= 2 else None
    )
