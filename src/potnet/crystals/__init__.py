"""Crystals: reading, one standard cell, neighbours, and the batch that models take."""

from potnet.crystals.batch import (
    CrystalBatch,
    CrystalGraph,
    collate,
    complete_pairs,
    edge_vectors,
)
from potnet.crystals.batched_neighbors import batched_edges
from potnet.crystals.crystal import Crystal, CrystalError
from potnet.crystals.descriptor import Descriptor
from potnet.crystals.labels import is_atom_label
from potnet.crystals.neighbors import line_graph, local_edges, local_vectors
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
    "batched_edges",
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
    "unique_id",
]
