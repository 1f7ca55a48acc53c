"""Today's Materials Project, through its client mp-api: asked once, then read from a verified file."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from potnet.config.suggest import did_you_mean
from potnet.crystals import CrystalError, from_serialized
from potnet.data.errors import DataError
from potnet.data.sources.base import Item, ReadableSource
from potnet.data.sources.mp_client import checked_key, connected, get, mp_rester, search, shown
from potnet.data.sources.table import TableSource
from potnet.files import cache_root, write_whole

log = logging.getLogger(__name__)

LICENCE = "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)"
CITATION = (
    "A. Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323; for elastic moduli also "
    "M. de Jong et al., Scientific Data 2, 150009 (2015), doi:10.1038/sdata.2015.9"
)

#: Property key -> unit, field of a summary document, and key within that field.
PROPERTIES: dict[str, tuple[str, str, str | None]] = {
    "formation_energy_per_atom": ("eV/atom", "formation_energy_per_atom", None),
    "total_energy_per_atom": ("eV/atom", "energy_per_atom", None),
    "energy_above_hull": ("eV/atom", "energy_above_hull", None),
    "band_gap": ("eV", "band_gap", None),
    "k_vrh": ("GPa", "bulk_modulus", "vrh"),
    "g_vrh": ("GPa", "shear_modulus", "vrh"),
    "k_voigt": ("GPa", "bulk_modulus", "voigt"),
    "g_voigt": ("GPa", "shear_modulus", "voigt"),
}
_FIELDS = ("material_id", "structure", *dict.fromkeys(field for _, field, _ in PROPERTIES.values()))
_PAGE = 500
# Moduli outside of this, GPa, are failed calculations.
_MODULI = (0, 10_000)


class MaterialsProjectSource(ReadableSource):
    """Crystals of the Materials Project, as its server has them on the day of the first use.

    The answer is kept in `<cache>/downloads/mp_api/` with the version of the database and the query, and
    it is not asked again: to fetch again, delete the file that the log names. The key is
    MP_API_KEY, from the environment or from `.env`.

    Args:
        elements: Elements that each crystal must have.
        exclude_elements: Elements that none may have.
        num_sites: Smallest and largest number of atoms in the primitive cell.
        energy_above_hull: Largest energy above the convex hull, eV/atom.
        is_stable: Only crystals on the hull (true), or none of them (false).
        include_gnome: Whether crystals of the GNoME collection count, whose licence is another.
        require: Properties that a crystal must have to be fetched at all. Without any filter everything is
            fetched: some 200 000 crystals.
        cache_dir: As for `potnet.files.cache_root`.
        connect: Makes a client from a key; by default that of mp-api.

    Raises:
        DataError: A filter that cannot be used.
    """

    name = "mp_api"
    licence = LICENCE

    def __init__(
        self,
        elements: Sequence[str] | None = None,
        exclude_elements: Sequence[str] | None = None,
        num_sites: Sequence[int] | None = None,
        energy_above_hull: float | None = None,
        is_stable: bool | None = None,
        include_gnome: bool = False,
        require: Sequence[str] = (),
        cache_dir: str | Path | None = None,
        connect: Callable[[str], Any] | None = None,
    ) -> None:
        for key in require:
            if key not in PROPERTIES:
                raise DataError(f"the Materials Project has no {key!r}{did_you_mean(key, PROPERTIES)}")
        if num_sites is not None and (len(num_sites) != 2 or not 1 <= num_sites[0] <= num_sites[1]):
            raise DataError(f"data.source.num_sites={list(num_sites)}: give [smallest, largest]")
        self._connect = connect or mp_rester
        self._cache_dir = cache_dir
        self.query = _query(
            elements, exclude_elements, num_sites, energy_above_hull, is_stable, include_gnome, require
        )

    def content_hash(self) -> str:
        """sha256 of the crystals and of the query; asks the server if there is no answer yet.

        Raises:
            DataError: No key, a wrong one, no network, or a damaged file.
        """
        return self._table.content_hash()

    @property
    def citation(self) -> str:
        """What to cite; once the answer is there, with the version of the database."""
        return self._table.citation if "_table" in vars(self) else CITATION

    @property
    def units(self) -> dict[str, str]:
        """Property -> unit."""
        return {key: unit for key, (unit, _, _) in PROPERTIES.items()}

    def read(self, on_error: str = "raise") -> Iterator[Item]:
        """Read the crystals, asking the server if there is no answer yet.

        Args:
            on_error: See `Source`.

        Raises:
            DataError: As for `content_hash`.
        """
        return self._table.read(on_error)

    @property
    def file(self) -> Path:
        """Where the answer to this query is kept."""
        digest = hashlib.sha256(json.dumps(self.query, sort_keys=True).encode()).hexdigest()
        return cache_root(self._cache_dir) / "downloads" / "mp_api" / f"{digest[:16]}.jsonl.gz"

    @cached_property
    def _table(self) -> TableSource:
        """The kept answer; fetched first, if need be, by one process while others wait."""
        from filelock import FileLock

        notes = self.file.with_suffix("").with_suffix(".json")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.file.with_name(self.file.name + ".lock")):
                if not (notes.is_file() and self.file.is_file()):
                    self._fetch(notes)
        except OSError as error:
            raise DataError(
                f"cannot write {self.file.parent}: {error.strerror or error}. Make room, or choose another "
                "folder with data.cache_dir or POTNET_CACHE"
            ) from error
        try:
            known = json.loads(notes.read_text(encoding="utf-8"))
            checksum = known["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{notes} is damaged ({error}): delete it to fetch the data again") from error
        return TableSource(
            self.file,
            self.name,
            units=self.units,
            licence=LICENCE,
            citation=f"{CITATION}. Database version {known.get('database_version')}",
            sha256=checksum,
        )

    def _fetch(self, notes: Path) -> None:
        key = checked_key(self.query)
        with connected(self._connect, key) as client:
            version = str(getattr(client, "db_version", None) or "unknown")
            lines = [json.dumps(record, sort_keys=True) for record in self._records(client)]
        content = gzip.compress("".join(line + "\n" for line in lines).encode(), mtime=0)
        facts = {
            "query": self.query,
            "database_version": version,
            "crystals": len(lines),
            "fetched": date.today().isoformat(),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        write_whole(self.file, content)
        write_whole(notes, json.dumps(facts, indent=1) + "\n")
        log.info(
            "Materials Project %s: %d crystals kept in %s; delete %s to fetch them again",
            version,
            len(lines),
            self.file,
            notes.name,
        )

    def _records(self, client: Any) -> Iterator[dict[str, Any]]:
        """The crystals of the query: first their ids, then page by page, so that none can get lost."""
        found = search(client, fields=["material_id"], **self.query)
        ids = sorted({str(get(document, "material_id")) for document in found})
        if not ids:
            raise DataError(f"the Materials Project has no crystal for this query: {shown(self.query)}")
        for start in range(0, len(ids), _PAGE):
            page = ids[start : start + _PAGE]
            documents = {
                str(get(doc, "material_id")): doc
                for doc in search(client, material_ids=page, fields=list(_FIELDS), deprecated=False)
            }
            missing = [id for id in page if id not in documents]
            if missing:
                raise DataError(
                    f"the Materials Project sent {len(page) - len(missing)} of {len(page)} crystals that it "
                    f"has ({missing[0]} is missing): try again later"
                )
            log.info("Materials Project: %d of %d crystals", start + len(page), len(ids))
            for id in page:
                yield _record(id, documents[id])


def _record(id: str, document: Any) -> dict[str, Any]:
    """One line of the kept table. A structure that cannot be used is kept as it came: `load` reports it."""
    record: dict[str, Any] = {"id": id}
    structure = get(document, "structure")
    try:
        crystal = from_serialized(structure, id)
    except CrystalError:
        record["structure"] = structure.as_dict() if hasattr(structure, "as_dict") else structure
    else:
        record |= {
            "lattice": crystal.cell.tolist(),
            "frac": crystal.fractional.tolist(),
            "z": crystal.z.tolist(),
        }
    for key, (_, field, inner) in PROPERTIES.items():
        value = get(document, field)
        if inner is not None and value is not None:
            value = get(value, inner)
        record[key] = None if value is None else float(value)
    return record


def _query(
    elements: Sequence[str] | None,
    exclude_elements: Sequence[str] | None,
    num_sites: Sequence[int] | None,
    energy_above_hull: float | None,
    is_stable: bool | None,
    include_gnome: bool,
    require: Sequence[str],
) -> dict[str, Any]:
    """Arguments of the client's search, as plain data."""
    query: dict[str, Any] = {"deprecated": False, "include_gnome": bool(include_gnome)}
    if elements:
        query["elements"] = sorted(elements)
    if exclude_elements:
        query["exclude_elements"] = sorted(exclude_elements)
    if num_sites is not None:
        query["num_sites"] = [int(size) for size in num_sites]
    if energy_above_hull is not None:
        query["energy_above_hull"] = [0.0, float(energy_above_hull)]
    if is_stable is not None:
        query["is_stable"] = bool(is_stable)
    moduli = sorted(key for key in set(require) if PROPERTIES[key][2] is not None)
    if moduli:
        query["has_props"] = ["elasticity"]
        query |= {key: list(_MODULI) for key in moduli}
    return query
