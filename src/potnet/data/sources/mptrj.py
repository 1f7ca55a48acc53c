"""MPtrj: frames of the relaxations of the Materials Project, with energies, forces and stress."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potnet.crystals import Crystal, CrystalError, from_serialized
from potnet.data.errors import DataError
from potnet.data.sources.downloaded import DownloadedSource, Record
from potnet.data.sources.json_stream import JsonStream
from potnet.data.sources.labels import voigt

KBAR = 1602.176634
"""In one eV/Å³."""


class MPtrjSource(DownloadedSource):
    """The published file: an object `{material: {frame: {...}}}`, read frame by frame.

    A frame has `structure` (a dictionary of pymatgen), energies (`corrected_total_energy`,
    `uncorrected_total_energy`, eV of the cell), `force` (n, 3) eV/Å and `stress` (3, 3) in kbar as VASP
    writes it, compression positive; null where there is none. Its id is that of the frame, and `material`,
    a label, that of its material.

    Crystals get `forces` (n, 3) eV/Å and `stress` (6,) eV/Å³, xx yy zz yz xz xy, positive under tension.

    Args:
        **description: As for `DownloadedSource`; `targets` are the numbers of a frame.
    """

    @property
    def units(self) -> dict[str, str]:
        """Target -> unit, with those of forces and stress."""
        return {**super().units, "forces": "eV/Å", "stress": "eV/Å³"}

    def records(self, paths: Sequence[Path]) -> Iterator[Record]:
        """The frames of the file."""
        (path,) = paths
        where = "its beginning"
        try:
            with path.open(encoding="utf-8") as text:
                stream = JsonStream(text)
                for material in stream.entries():
                    for frame in stream.entries():
                        where = f"{material}, {frame}"
                        entry = stream.value()
                        if not isinstance(entry, Mapping) or "structure" not in entry:
                            raise DataError(
                                f"{path}, {where}: a frame with structure, force and stress is wanted"
                            )
                        yield Record(frame, entry["structure"], {**entry, "material": material})
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}: not the file of MPtrj, {{material: {{frame: ...}}}}, or it breaks off after "
                f"{where} ({error})"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error

    def crystal(self, record: Record) -> Crystal:
        """The crystal of a frame, with forces and stress."""
        crystal = from_serialized(record.structure, record.id)
        where = f"crystal {record.id!r}"
        crystal.properties["material"] = str(record.columns["material"])
        forces = _array(record.columns.get("force"), "force", where)
        if forces is not None:
            if forces.shape != (len(crystal), 3):
                raise CrystalError(
                    f"force has the shape {forces.shape}, and there are {len(crystal)} atoms", where
                )
            crystal.properties["forces"] = forces
        stress = _array(record.columns.get("stress"), "stress", where)
        if stress is not None:
            if stress.shape != (3, 3):
                raise CrystalError(f"stress has the shape {stress.shape}: (3, 3) is wanted", where)
            crystal.properties["stress"] = -voigt(stress) / KBAR
        return crystal


def _array(value: Any, name: str, where: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CrystalError(f"{name} is no array of numbers ({error})", where) from error
