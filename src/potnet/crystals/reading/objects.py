"""`Crystal` from the objects and dictionaries of other libraries, none of which is imported."""

from __future__ import annotations

import functools
import logging
import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import Crystal, CrystalError
from potnet.crystals.elements import ATOMIC_NUMBERS

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

log = logging.getLogger(__name__)

FULL_OCCUPANCY = 1e-3
"""Occupancies this close to one are one."""


def from_ase(atoms: Atoms, box: float | None = None, id: str = "") -> Crystal:
    """Convert ASE Atoms.

    Atoms that are periodic in some direction and have three lattice vectors, as slabs do, count as periodic
    in all: the vacuum in their cell is what separates the images. Numbers in `atoms.info` and in
    the results of its calculator become properties.

    Args:
        atoms: One structure.
        box: Vacuum in Å on each side of a structure in those directions in which it isn't periodic and,
            if it is periodic at all, has no lattice vector. None: such a structure is refused.
        id: Name of the crystal.

    Raises:
        CrystalError: If a site is partly occupied or disordered, there is no periodicity (and no box),
            or for any reason `Crystal` has.
    """
    source = f"crystal {id!r}" if id else ""
    _refuse_partial_occupancy(atoms, source)
    results = getattr(atoms.calc, "results", {})  # where ASE's readers put energies
    properties = {
        str(key): float(value)
        for key, value in {**atoms.info, **results}.items()
        if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    }
    cell, positions = np.array(atoms.cell[:]), np.array(atoms.positions)
    missing = np.array([not atoms.pbc.any() or not vector.any() for vector in cell])
    if missing.any() and len(atoms):
        if box is None:
            what = "it has no periodicity" if missing.all() else "it has fewer than three lattice vectors"
            raise CrystalError(
                f"{what}: molecules are put in a box of vacuum only if asked, as by box=10 (Å)",
                source,
            )
        cell, positions = _put_in_box(cell, positions, missing, box)
    if not (atoms.pbc | missing).all():
        _say_periodic()
    return Crystal(cell, positions, atoms.numbers, id, properties)


@functools.cache
def _say_periodic() -> None:
    """Once: a source may have thousands of slabs."""
    log.warning(
        "structures that are not periodic in a direction in which they have a lattice vector (slabs, pbc) "
        "count as periodic in it too: the vacuum of their cell separates the images"
    )


def from_pymatgen(structure: Structure, id: str = "") -> Crystal:
    """Convert a pymatgen Structure. It counts as periodic in all directions of its lattice.

    Raises:
        CrystalError: If a site is partly occupied or disordered, a species is not an element, the object
            has no lattice, or for any reason `Crystal` has.
    """
    source = f"crystal {id!r}" if id else ""
    if not hasattr(structure, "lattice"):
        raise CrystalError(f"a {type(structure).__name__} has no lattice: give a Structure", source)
    z = []
    for i, site in enumerate(structure):
        if not site.is_ordered:
            raise CrystalError(f"site {i} is disordered ({site.species_string}): order it", source)
        number = getattr(site.specie, "Z", None)
        if site.specie.symbol not in ATOMIC_NUMBERS or number is None:
            raise CrystalError(f"site {i} is {site.species_string}, which is not an element", source)
        z.append(int(number))
    return Crystal(structure.lattice.matrix, structure.cart_coords, np.array(z, dtype=np.int64), id)


def from_jarvis(atoms: Mapping[str, Any], id: str = "") -> Crystal:
    """Convert the `atoms` dictionary of a JARVIS record, or a JARVIS Atoms object.

    Args:
        atoms: `lattice_mat` (3, 3) in Å, `coords` (n, 3), fractional unless `cartesian` is true, and
            `elements`, n symbols.
        id: Name of the crystal, such as the record's `jid`.

    Raises:
        CrystalError: If a key is missing, a symbol is unknown, or for any reason `Crystal` has.
    """
    source = f"crystal {id!r}" if id else ""
    if hasattr(atoms, "to_dict"):
        atoms = atoms.to_dict()
    if not isinstance(atoms, Mapping):
        raise CrystalError(f"a JARVIS atoms dictionary is wanted, got {type(atoms).__name__}", source)
    absent = [key for key in ("lattice_mat", "coords", "elements") if key not in atoms]
    if absent:
        raise CrystalError(
            f"a JARVIS atoms dictionary needs {', '.join(absent)}; it has {', '.join(map(str, atoms))}",
            source,
        )
    z = np.array(
        [_atomic_number(s, f"site {i}", source) for i, s in enumerate(atoms["elements"])], dtype=np.int64
    )
    if _truth(atoms.get("cartesian", False), source):
        return Crystal(atoms["lattice_mat"], atoms["coords"], z, id)
    return Crystal.from_fractional(atoms["lattice_mat"], atoms["coords"], z, id)


def from_record(record: Mapping[str, Any]) -> Crystal:
    """Convert one record of a JSON-lines file.

    Args:
        record: `lattice` (3, 3) in Å, `frac` (n, 3), `z` n atomic numbers, `id` if there is one. Every
            other number is a property; null is a missing one; texts and lists are left out.

    Raises:
        CrystalError: If a key is missing, or for any reason `Crystal` has.
    """
    if not isinstance(record, Mapping):
        raise CrystalError(f"a record with lattice, frac and z is wanted, got {type(record).__name__}")
    id = str(record.get("id", ""))
    absent = [key for key in ("lattice", "frac", "z") if record.get(key) is None]
    if absent:
        raise CrystalError(
            f"the record has no {', '.join(absent)}; it has {', '.join(record) or 'nothing'}",
            f"crystal {id!r}" if id else "",
        )
    properties = {
        key: float(value)
        for key, value in record.items()
        if type(value) in (int, float) and key != "id"  # bool is an int, but no property
    }
    crystal = Crystal.from_fractional(record["lattice"], record["frac"], record["z"], id, properties)
    stated = record.get("positions")
    if stated is not None and not _same_positions(crystal, stated):
        raise CrystalError(
            "the record has frac and positions, which do not agree: leave one of them out",
            f"crystal {id!r}" if id else "",
        )
    return crystal


def _same_positions(crystal: Crystal, stated: Any) -> bool:
    """Whether Cartesian coordinates are those of a crystal, within a thousandth of an Å."""
    try:
        positions = np.asarray(stated, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return positions.shape == crystal.positions.shape and np.allclose(positions, crystal.positions, 0, 1e-3)


def _truth(value: Any, source: str) -> bool:
    """A truth value, perhaps as text: "False" is false."""
    if isinstance(value, bool | np.bool_) or value is None:
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        return value.strip().lower() == "true"
    if isinstance(value, numbers.Real) and value in (0, 1):
        return bool(value)
    raise CrystalError(f"cartesian has to be true or false, got {value!r}", source)


def _atomic_number(symbol: Any, site: str, source: str) -> int:
    number = ATOMIC_NUMBERS.get(str(symbol).strip())
    if number is None:
        raise CrystalError(f"{site} is {symbol!r}, which is not an element", source)
    return number


def _refuse_partial_occupancy(atoms: Atoms, source: str) -> None:
    """ASE keeps the main species of a partly occupied site and notes the rest in `info`."""
    occupancy = atoms.info.get("occupancy")
    if not isinstance(occupancy, Mapping):
        return
    kinds = atoms.arrays.get("spacegroup_kinds", np.arange(len(atoms)))
    for kind, species in occupancy.items():
        if not isinstance(species, Mapping):
            continue
        if len(species) > 1 or any(abs(x - 1) > FULL_OCCUPANCY for x in species.values()):
            sites = np.nonzero(kinds == int(kind))[0]
            what = " ".join(f"{name}{amount:g}" for name, amount in species.items())
            site = sites[0] if len(sites) else kind
            raise CrystalError(f"site {site} is disordered or partly occupied ({what}): order it", source)


def _put_in_box(
    cell: NDArray[np.float64], positions: NDArray[np.float64], missing: NDArray[np.bool_], box: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Complete a cell by vectors normal to those it has, with vacuum on both sides of the atoms."""
    if not 0 < box < math.inf:
        raise ValueError(f"box must be a positive number of Å of vacuum, got {box}")
    if missing.all():
        normals = np.eye(3)
    else:
        # The last right-singular vectors span the directions in which there is no periodicity.
        normals = np.zeros((3, 3))
        normals[missing] = np.linalg.svd(cell)[2][3 - int(missing.sum()) :]
    cell = cell.copy()
    for axis in np.nonzero(missing)[0]:
        height = positions @ normals[axis]
        cell[axis] = normals[axis] * (np.ptp(height) + 2 * box)
        positions = positions + normals[axis] * (box - height.min())
    return cell, positions
