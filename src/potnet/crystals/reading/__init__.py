"""Crystals from files, text, dictionaries and the objects of other libraries."""

from potnet.crystals.reading.check import Plausibility
from potnet.crystals.reading.files import iterate_crystals, read_crystals
from potnet.crystals.reading.names import unique_id
from potnet.crystals.reading.objects import from_ase, from_jarvis, from_pymatgen, from_record
from potnet.crystals.reading.serialized import from_serialized

__all__ = [
    "Plausibility",
    "from_ase",
    "from_jarvis",
    "from_pymatgen",
    "from_record",
    "from_serialized",
    "iterate_crystals",
    "read_crystals",
    "unique_id",
]
