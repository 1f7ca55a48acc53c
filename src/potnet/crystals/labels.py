"""Which labels belong to the atoms of a crystal, and which to the crystal as a whole."""

from __future__ import annotations

#: Names of labels whose arrays have one row for each atom: those of ASE.
ATOM_LABELS = frozenset({"forces", "stresses", "energies", "charges", "magmoms"})

#: Names that begin with this are labels of atoms, too.
ATOM_PREFIX = "atom_"


def is_atom_label(key: str) -> bool:
    """Whether an array label of this name has one row for each atom, as `forces` and `atom_spin` have.

    Other arrays belong to the crystal as a whole, as `stress` does. The shape cannot tell: stress has six
    entries, as have the charges of six atoms.
    """
    return key in ATOM_LABELS or key.startswith(ATOM_PREFIX)


def shape_problem(key: str, shape: tuple[int, ...]) -> str | None:
    """What is wrong with the shape of a label whose name says its shape; None if nothing is.

    Args:
        key: Of the label.
        shape: Of its array.
    """
    if key == "forces" and shape[1:] != (3,):
        return f"forces have the shape {shape}: give three components for each atom, eV/Å"
    if key == "stress" and shape not in ((6,), (3, 3)):
        return f"stress has the shape {shape}: give six numbers, xx yy zz yz xz xy, tension positive"
    return None
