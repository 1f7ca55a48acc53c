"""One crystal from however programs write one: text, a dictionary, or an object."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from potnet.crystals.crystal import Crystal, CrystalError
from potnet.crystals.elements import ATOMIC_NUMBERS
from potnet.crystals.reading.check import Plausibility, checked
from potnet.crystals.reading.cif import crystals_from_cif
from potnet.crystals.reading.objects import (
    FULL_OCCUPANCY,
    from_ase,
    from_jarvis,
    from_pymatgen,
    from_record,
)
from potnet.crystals.reading.poscar import crystal_from_poscar
from potnet.crystals.reading.text import decode

KINDS = "CIF, POSCAR, or a dictionary of JARVIS, pymatgen or ASE"


def from_serialized(
    structure: Any, id: str = "", box: float | None = None, plausibility: Plausibility = "ignore"
) -> Crystal:
    """Read one structure, whichever of these it is.

    - text: CIF, POSCAR, or JSON of one of the dictionaries below;
    - a dictionary: of JARVIS (`lattice_mat`, `coords`, `elements`), of pymatgen (`lattice`, `sites`), of ASE
      (`cell`, `positions`, `numbers`), or a record of ours (`lattice`, `frac`, `z`);
    - an object: ASE Atoms, pymatgen Structure, or a Crystal.

    Args:
        structure: One structure.
        id: Name of the crystal.
        box: For ASE; see `from_ase`.
        plausibility: What to do with a structure that cannot be right; see `read_crystals`.

    Returns:
        The crystal without properties.

    Raises:
        CrystalError: It is none of these, holds several structures, or for any reason `Crystal` has.
    """
    source = f"crystal {id!r}" if id else ""
    if isinstance(structure, bytes):
        structure = decode(structure)
    if isinstance(structure, str) and _is_cif(structure):
        crystal = _from_cif(structure, source, plausibility)
        plausibility = "ignore"  # it was looked at, with what else the file says
    elif isinstance(structure, str):
        crystal = _from_text(structure, id, box)
    elif isinstance(structure, Mapping):
        crystal = _from_mapping(structure, id, box)
    elif isinstance(structure, Crystal):
        crystal = structure
    elif hasattr(structure, "get_chemical_symbols"):
        crystal = from_ase(structure, box, id)
    elif hasattr(structure, "lattice") and hasattr(structure, "cart_coords"):
        crystal = from_pymatgen(structure, id)
    elif hasattr(structure, "lattice_mat"):
        crystal = from_jarvis(structure, id)
    else:
        what = "nothing" if structure is None else f"a {type(structure).__name__}"
        raise CrystalError(f"a structure is wanted ({KINDS}), got {what}", source)
    try:
        checked(crystal, plausibility, boxed=box is not None, source=source)
    except CrystalError as error:
        raise CrystalError(error.reason, source) from None
    if crystal.id == (id or crystal.id) and not crystal.properties:
        return crystal  # a copy would be checked once more, which takes as long as reading it
    return replace(crystal, id=id or crystal.id, properties={})


def _is_cif(text: str) -> bool:
    return "_cell_length_a" in text or text.lstrip("\ufeff \t\r\n").lower().startswith("data_")


def _from_cif(text: str, source: str, plausibility: Plausibility) -> Crystal:
    found = list(crystals_from_cif(text, plausibility, source or "CIF"))
    if len(found) != 1:
        raise CrystalError(f"one structure is wanted, the CIF has {len(found)}", source)
    if isinstance(found[0], CrystalError):
        raise CrystalError(found[0].reason, source)
    return found[0]


def _from_text(text: str, id: str, box: float | None) -> Crystal:
    """A dictionary as text, or a POSCAR."""
    source = f"crystal {id!r}" if id else ""
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith("{"):
        return _from_mapping(_dictionary(text, source), id, box)
    if len(text.splitlines()) < 7:
        shown = " ".join(text.split())[:60]
        raise CrystalError(f"a structure is wanted ({KINDS}), got {shown!r}", source)
    try:
        return crystal_from_poscar(text)
    except CrystalError as error:
        raise CrystalError(f"not a POSCAR: {error.reason}", source) from None


def _dictionary(text: str, source: str) -> Mapping[str, Any]:
    """A dictionary written as JSON, or as Python prints it."""
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        try:
            content = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise CrystalError(
                f"the structure is not valid JSON ({error}): write it by json.dumps", source
            ) from None
    if not isinstance(content, Mapping):
        raise CrystalError(f"a structure is wanted ({KINDS}), got a {type(content).__name__}", source)
    return content


def _from_mapping(structure: Mapping[str, Any], id: str, box: float | None) -> Crystal:
    source = f"crystal {id!r}" if id else ""
    if "lattice_mat" in structure:
        return from_jarvis(structure, id)
    if "sites" in structure:
        return _from_pymatgen_dictionary(structure, id)
    if "frac" in structure:
        return from_record({"id": id, **{key: structure.get(key) for key in ("lattice", "frac", "z")}})
    if "positions" in structure and "numbers" in structure:
        return _from_ase_dictionary(structure, id, box)
    keys = ", ".join(map(str, list(structure)[:8])) or "nothing"
    raise CrystalError(f"a structure is wanted ({KINDS}), got a dictionary with {keys}", source)


def _from_ase_dictionary(structure: Mapping[str, Any], id: str, box: float | None) -> Crystal:
    from ase import Atoms

    known = {key: structure[key] for key in ("numbers", "positions", "cell", "pbc") if key in structure}
    try:
        atoms = Atoms(**known)
    except Exception as error:  # ASE checks shapes by numpy, which raises anything
        raise CrystalError(
            f"not a dictionary of ASE Atoms ({' '.join(str(error).split())[:200]})",
            f"crystal {id!r}" if id else "",
        ) from None
    return from_ase(atoms, box, id)


def _from_pymatgen_dictionary(structure: Mapping[str, Any], id: str) -> Crystal:
    """`Structure.as_dict()`, read without pymatgen."""
    source = f"crystal {id!r}" if id else ""
    lattice = structure.get("lattice")
    if not isinstance(lattice, Mapping) or lattice.get("matrix") is None:
        raise CrystalError("the dictionary of pymatgen has no lattice: give a Structure", source)
    z, fractional = [], []
    for number, site in enumerate(structure["sites"] or ()):
        try:
            species, place = site["species"], site["abc"]
            names = [(str(entry["element"]), float(entry.get("occu", 1))) for entry in species]
        except (KeyError, TypeError, ValueError) as error:
            raise CrystalError(
                f"site {number} of the dictionary of pymatgen is not understood ({error})", source
            ) from None
        if len(names) != 1 or abs(names[0][1] - 1) > FULL_OCCUPANCY:
            what = " ".join(f"{name}{amount:g}" for name, amount in names) or "empty"
            raise CrystalError(f"site {number} is disordered or partly occupied ({what}): order it", source)
        element = ATOMIC_NUMBERS.get(names[0][0])
        if element is None:
            raise CrystalError(f"site {number} is {names[0][0]!r}, which is not an element", source)
        z.append(element)
        fractional.append(place)
    if not z:
        raise CrystalError("there is no atom", source)
    return Crystal.from_fractional(lattice["matrix"], fractional, z, id)
