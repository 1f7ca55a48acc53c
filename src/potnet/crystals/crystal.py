"""`Crystal`: one periodic structure in physical units, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from potnet.crystals.elements import MAX_Z, symbol
from potnet.crystals.labels import is_atom_label

if TYPE_CHECKING:
    from ase import Atoms

MIN_DISTANCE = 0.01
"""Å. Atoms closer than this overlap: a mistake in the input, never a crystal."""

MIN_RELATIVE_VOLUME = 1e-8
"""Smallest volume of a cell relative to the box with the same edges. Rounding alone gives about 1e-16."""

_PAIRS_AT_ONCE = 500_000

_FEW = 200
"""Atoms. Up to here all pairs are faster than a list of neighbours, within 1.5 Å."""

_LISTED = 1.5


class CrystalError(ValueError):
    """A structure that can't be used. The message names the file or id, and the site where there is one.

    Sites are counted from 0, as ASE and pymatgen do.

    Attributes:
        reason: What is wrong and what to do.
        source: File, frame, line or id that it is about; may be empty.
    """

    def __init__(self, reason: str, source: str = "") -> None:
        super().__init__(f"{source}: {reason}" if source else reason)
        self.reason = reason
        self.source = source

    def __reduce__(self) -> tuple[type[CrystalError], tuple[str, str]]:
        # So that it can be sent to another process: unpickling an exception passes its message alone.
        return type(self), (self.reason, self.source)


@dataclass(frozen=True, eq=False)
class Crystal:
    """A periodic structure of n atoms. Arrays are copied and read-only, properties are copied.

    A left-handed or skewed cell is fine, and so are atoms outside the cell.

    Attributes:
        cell: (3, 3) float64, rows are lattice vectors, Å.
        positions: (n, 3) float64, Cartesian, Å.
        z: (n,) int64, atomic numbers, 1 to 118.
        id: Name of the crystal in its data set.
        properties: Known properties in the units of their data set; one that is missing is absent or NaN.
            Numbers, or float64 arrays for labels with a shape: (n, 3) `forces`, (6,) `stress`.

    Raises:
        CrystalError: On wrong shapes, values that are not finite, no atom, a cell without volume, an
            unknown element, a label of atoms (`is_atom_label`) that has not one row for each, or two atoms
            (or images) closer than 0.01 Å.
    """

    cell: NDArray[np.float64]
    positions: NDArray[np.float64]
    z: NDArray[np.int64]
    id: str = ""
    properties: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source = f"crystal {self.id!r}" if self.id else ""
        try:
            cell = _plain(self.cell)
            positions = _plain(self.positions)
            z = np.array(self.z)
        except (TypeError, ValueError) as error:
            raise CrystalError(
                f"cell, positions and z must be plain arrays of numbers ({error})", source
            ) from None
        _check_atoms(positions, z, source)
        _check_cell(cell, source)
        z = z.astype(np.int64)
        _check_overlap(cell, positions, z, source)
        for name, value in (("cell", cell), ("positions", positions), ("z", z)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        properties = {key: _label(key, value, len(z), source) for key, value in self.properties.items()}
        object.__setattr__(self, "properties", properties)

    @classmethod
    def from_fractional(
        cls,
        cell: ArrayLike,
        fractional: ArrayLike,
        z: ArrayLike,
        id: str = "",
        properties: Mapping[str, Any] | None = None,
    ) -> Crystal:
        """Build a crystal from fractional coordinates.

        Args:
            cell: (3, 3), rows are lattice vectors, Å.
            fractional: (n, 3), in units of the lattice vectors.
            z: (n,), atomic numbers.
            id: Name of the crystal.
            properties: Known properties.

        Raises:
            CrystalError: As for the class.
        """
        try:
            positions = _plain(fractional) @ _plain(cell)
        except (TypeError, ValueError) as error:
            source = f"crystal {id!r}" if id else ""
            raise CrystalError(
                f"cell must be (3, 3) and the fractional coordinates (n, 3), plain numbers ({error})", source
            ) from None
        return cls(cell, positions, z, id, dict(properties or {}))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.z)

    def __repr__(self) -> str:
        return f"Crystal({self.id!r}, {self.formula}, {len(self)} atoms, {self.volume:.2f} Å³)"

    @property
    def fractional(self) -> NDArray[np.float64]:
        """(n, 3) float64, positions in units of the lattice vectors; not wrapped into the cell."""
        return np.linalg.solve(self.cell.T, self.positions.T).T.astype(np.float64, copy=False)

    @property
    def volume(self) -> float:
        """Volume of the cell, Å³, positive for either handedness."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def formula(self) -> str:
        """Reduced formula in Hill order (carbon, hydrogen, then alphabetical): the same for every cell."""
        numbers, counts = np.unique(self.z, return_counts=True)
        divisor = math.gcd(*counts.tolist())
        amount = {
            symbol(z): count // divisor for z, count in zip(numbers.tolist(), counts.tolist(), strict=True)
        }
        first = [s for s in ("C", "H") if s in amount] if "C" in amount else []
        order = first + sorted(set(amount) - set(first))
        return "".join(s + (str(amount[s]) if amount[s] > 1 else "") for s in order)

    def to_ase(self) -> Atoms:
        """Convert to ASE, periodic in all directions; id and properties go into `info`."""
        from ase import Atoms

        info: dict[str, Any] = {"id": self.id, **self.properties}
        return Atoms(numbers=self.z, positions=self.positions, cell=self.cell, pbc=True, info=info)


def overlaps(cell: NDArray[np.float64], positions: NDArray[np.float64], distance: float) -> NDArray[np.int64]:
    """Find pairs of atoms, periodic images included, that are closer than a small distance.

    The difference of two atoms is rounded to the nearest lattice vector. That is exact, whatever the
    shape of the cell, if all its heights exceed twice the distance.

    Args:
        cell: (3, 3), rows are lattice vectors, Å.
        positions: (n, 3), Å.
        distance: Å.

    Returns:
        (m, 2) int64, pairs of atoms a < b.
    """
    n = len(positions)
    if n > _FEW:
        return _overlaps_of_many(cell, positions, distance)
    inverse = np.linalg.inv(cell)
    fractional = positions @ inverse
    rows = max(1, _PAIRS_AT_ONCE // n)
    found = []
    for start in range(0, n - 1, rows):
        difference = fractional[start : start + rows, None] - fractional[None, start:]
        difference -= np.rint(difference)
        vector = difference @ cell
        a, b = np.nonzero(np.einsum("abx,abx->ab", vector, vector) < distance * distance)
        found.append(np.stack([a, b], 1)[a < b] + start)
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _overlaps_of_many(
    cell: NDArray[np.float64], positions: NDArray[np.float64], distance: float
) -> NDArray[np.int64]:
    """The same by a list of neighbours, whose cells of less than an Ångström would be too many."""
    import vesin

    i, j, d = vesin.NeighborList(cutoff=max(distance, _LISTED), full_list=True).compute(
        points=np.array(positions), box=np.array(cell), periodic=True, quantities="ijd"
    )
    pairs = np.stack([i, j], axis=1).astype(np.int64)
    return np.unique(pairs[(pairs[:, 0] < pairs[:, 1]) & (d < distance)], axis=0)


def _plain(value: ArrayLike) -> NDArray[np.float64]:
    """A new array of numbers. NumPy would make numbers of text and of truth values too: 15 of `1_5`.

    Raises:
        TypeError: It holds something else.
        ValueError: Its rows differ in length.
    """
    array = np.array(value)
    if array.size and array.dtype.kind not in "iuf":
        raise TypeError(f"got {array.dtype} {array.ravel()[:3].tolist()}")
    return array.astype(np.float64)


def _check_atoms(positions: NDArray[np.float64], z: NDArray[Any], source: str) -> None:
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise CrystalError(f"positions must be (n, 3), got {positions.shape}", source)
    if len(positions) == 0:
        raise CrystalError("there is no atom", source)
    if z.shape != positions.shape[:1]:
        raise CrystalError(
            f"{len(positions)} positions need as many atomic numbers, got shape {z.shape}", source
        )
    if z.dtype.kind not in "iu" and not (z.dtype.kind == "f" and np.all(z == np.rint(z))):
        raise CrystalError(f"atomic numbers must be whole numbers, got {z.dtype} {z[:3]}", source)
    unknown = np.nonzero((z < 1) | (z > MAX_Z))[0]
    if len(unknown):
        site = int(unknown[0])
        raise CrystalError(f"site {site} has atomic number {z[site]}: elements are 1 to {MAX_Z}", source)
    if not np.isfinite(positions).all():
        site = int(np.nonzero(~np.isfinite(positions).all(1))[0][0])
        raise CrystalError(
            f"site {site} ({symbol(int(z[site]))}) has no finite position: {positions[site].tolist()}", source
        )


def _label(key: str, value: Any, n: int, source: str) -> Any:
    """A property as it is kept: arrays are copied, read-only and float64, everything else stays."""
    if not isinstance(value, np.ndarray) or not value.ndim:
        return value
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CrystalError(f"the property {key} must be an array of numbers ({error})", source) from None
    if is_atom_label(key) and len(array) != n:
        raise CrystalError(
            f"{key} is a label of atoms, so it needs one row for each of the {n} atoms, but its shape is "
            f"{array.shape}",
            source,
        )
    array.setflags(write=False)
    return array


def _check_cell(cell: NDArray[np.float64], source: str) -> None:
    if cell.shape != (3, 3):
        raise CrystalError(f"the cell must be (3, 3), rows are lattice vectors, got {cell.shape}", source)
    if not np.isfinite(cell).all():
        raise CrystalError(f"the cell is not finite: {cell.tolist()}", source)
    lengths = np.abs(cell).max(1)
    if not lengths.all():
        raise CrystalError(
            f"lattice vector {int(np.argmin(lengths))} is zero: a crystal needs three lattice vectors", source
        )
    unit = cell / lengths[:, None]
    unit /= np.sqrt((unit * unit).sum(1))[:, None]
    if abs(np.linalg.det(unit)) < MIN_RELATIVE_VOLUME:
        raise CrystalError(f"the cell has no volume, its vectors lie in one plane: {cell.tolist()}", source)


def _check_overlap(
    cell: NDArray[np.float64], positions: NDArray[np.float64], z: NDArray[np.int64], source: str
) -> None:
    if thinnest(cell) < 10 * MIN_DISTANCE:
        # A very skewed cell is as thin as one that is too small: look at its reduced form.
        import moyopy

        try:
            reduced, _ = moyopy.minkowski_reduce(cell.tolist())
        except ValueError as error:
            raise CrystalError(f"the cell {cell.tolist()} can't be reduced ({error})", source) from None
        cell = np.array(reduced)
        if thinnest(cell) < 3 * MIN_DISTANCE:
            raise CrystalError(
                f"lattice planes are {thinnest(cell):.2g} Å apart, so atoms overlap their own images: "
                "lengths are in Å",
                source,
            )
    pairs = overlaps(cell, positions, MIN_DISTANCE)
    if len(pairs):
        a, b = pairs[0].tolist()
        more = f", and {len(pairs) - 1} more pairs do" if len(pairs) > 1 else ""
        raise CrystalError(
            f"sites {a} ({symbol(int(z[a]))}) and {b} ({symbol(int(z[b]))}) overlap: "
            f"they, or periodic images, are closer than {MIN_DISTANCE} Å{more}",
            source,
        )


def thinnest(cell: NDArray[np.float64]) -> float:
    """Smallest distance between opposite faces, Å."""
    reciprocal = np.linalg.inv(cell)
    return float(1.0 / np.sqrt((reciprocal * reciprocal).sum(0).max()))
