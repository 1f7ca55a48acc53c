"""Chemical symbols and atomic numbers of the 118 elements."""

from __future__ import annotations

_PERIODIC_TABLE = (
    "X "  # atomic number 0 is no element; it keeps the index equal to the atomic number
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
