"""Crystals: reading, one standard cell, neighbours, and the batch that models take."""

from potnet.crystals.crystal import Crystal, CrystalError
from potnet.crystals.descriptor import Descriptor
from potnet.crystals.graph import CrystalBatch, CrystalGraph, collate, complete_pairs
from potnet.crystals.neighbors import line_graph, local_edges
from potnet.crystals.reading import (
    Plausibility,
    from_ase,
    from_jarvis,
    from_pymatgen,
    from_record,
    from_serialized,
    iterate_crystals,
    read_crystals,
    unique_id,
)
from potnet.crystals.standardize import standardize

__all__ = [
    "Crystal",
    "CrystalBatch",
    "CrystalError",
    "CrystalGraph",
    "Descriptor",
    "Plausibility",
    "collate",
    "complete_pairs",
    "from_ase",
    "from_jarvis",
    "from_pymatgen",
    "from_record",
    "from_serialized",
    "iterate_crystals",
    "line_graph",
    "local_edges",
    "read_crystals",
    "standardize",
    "unique_id",
]
