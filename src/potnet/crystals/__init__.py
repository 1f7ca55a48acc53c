"""Crystals: reading, one standard cell, neighbours, and the batch that models take."""

from potnet.crystals.batch import (
    CrystalBatch,
    CrystalGraph,
    collate,
    complete_pairs,
    edge_vectors,
)
from potnet.crystals.convert import from_ase, from_jarvis, from_pymatgen, from_record
from potnet.crystals.crystal import Crystal, CrystalError
from potnet.crystals.descriptor import Descriptor
from potnet.crystals.labels import is_atom_label
from potnet.crystals.neighbors import line_graph, local_edges, local_vectors
from potnet.crystals.read import iterate_crystals, read_crystals
from potnet.crystals.serialized import from_serialized
from potnet.crystals.standardize import standardize

__all__ = [
    "Crystal",
    "CrystalBatch",
    "CrystalError",
    "CrystalGraph",
    "Descriptor",
    "collate",
    "complete_pairs",
    "edge_vectors",
    "from_ase",
    "from_jarvis",
    "from_pymatgen",
    "from_record",
    "from_serialized",
    "is_atom_label",
    "iterate_crystals",
    "line_graph",
    "local_edges",
    "local_vectors",
    "read_crystals",
    "standardize",
]
