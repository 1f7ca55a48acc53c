"""Feature shards: some thousand crystals as flat arrays in one safetensors file.

Arrays of one shard with C crystals, N atoms, E local edges, A angles, M ordered pairs and K descriptor
features (see `potnet.crystals.batch`); what was not asked for is absent:

| name | shape | dtype | |
|---|---|---|---|
| num_atoms | (C,) | int32 | |
| z | (N,) | uint8 | atomic numbers |
| positions | (N, 3) | float64 | Å |
| cell | (C, 3, 3) | float64 | rows are lattice vectors, Å |
| num_edges | (C,) | int32 | |
| edge_index | (2, E) | int32 | source, target; counted from 0 in each crystal |
| edge_shift | (E, 3) | int8 | image of the source; int16 or int32 in a shard where it does not fit |
| num_angles | (C,) | int32 | |
| angle_index | (2, A) | int32 | pairs of edges; counted from 0 in each crystal |
| pair_sums | (M, P) | float32 | |
| num_descriptors | (C,) | int32 | |
| descriptor_index | (K,) | int32 | |
| descriptor_value | (K,) | float32 | |
| target.NAME | (C, ...) or (N, ...) | float64 | labels that are arrays, of crystals or of atoms |

Labels that are numbers are in the index of the cache.

The name of a file ends in the beginning of its sha256, so a finished shard vouches for itself: it can be told
from a damaged one before there is a manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potnet.crystals import CrystalGraph
from potnet.crystals.batch import RAGGED, label_array
from potnet.data.features.featurizer import Failure
from potnet.files import file_hash, write_whole

SUFFIX = ".safetensors"
LABEL = "target."
"""Beginning of the names of labels."""
_MARK = 12  # hexadecimal digits of the checksum in a file's name


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest says of one shard.

    Attributes:
        file: Name within the cache folder.
        bytes: Size of the file.
        sha256: Checksum of the file, hexadecimal.
        crystals: How many are in it.
        failures: Crystals of its range that could not be featurized.
    """

    file: str
    bytes: int
    sha256: str
    crystals: int
    failures: tuple[Failure, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> ShardRecord:
        """The inverse of `to_plain`."""
        failures = tuple(Failure(**failure) for failure in plain["failures"])
        return cls(**{**plain, "failures": failures})


def pack(graphs: Sequence[CrystalGraph]) -> dict[str, Tensor]:
    """The arrays of a shard; all graphs must have the same fields. Without any graph there are none."""
    if not graphs:
        return {"num_atoms": torch.empty(0, dtype=torch.int32)}
    arrays = {"cell": torch.stack([graph.cell for graph in graphs])} | _labels(graphs)
    for field in RAGGED:
        parts = [getattr(graph, field.name) for graph in graphs]
        if parts[0] is None:
            continue
        if field.per != "pairs":
            arrays[f"num_{field.per}"] = torch.tensor([field.length(p) for p in parts], dtype=torch.int32)
        arrays[field.name] = _narrowed(torch.cat(parts, field.dim), field.stored).contiguous()
    return arrays


def _labels(graphs: Sequence[CrystalGraph]) -> dict[str, Tensor]:
    """Labels that are arrays, by name of the array in the shard."""
    names = {key for graph in graphs for key, value in graph.targets.items() if isinstance(value, Tensor)}
    sizes = [len(graph.z) for graph in graphs]
    found = {
        key: label_array(key, [graph.targets.get(key) for graph in graphs], sizes) for key in sorted(names)
    }
    return {LABEL + key: label.contiguous() for key, label in found.items() if label is not None}


def _narrowed(value: Tensor, wanted: torch.dtype) -> Tensor:
    """In the type wanted, or the next wider one that holds all values: cells as given may be very skewed."""
    for dtype in (wanted, torch.int16, torch.int32):
        narrow = value.to(dtype)
        if wanted != torch.int8 or torch.equal(narrow.to(value.dtype), value):
            return narrow
    raise ValueError(f"edge shifts up to {int(value.abs().max())} lattice vectors: wrap atoms into the cell")


def write_shard(
    folder: Path, number: int, graphs: Sequence[CrystalGraph], failures: Sequence[Failure]
) -> ShardRecord:
    """Write one shard; it appears under its name complete or not at all.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    from safetensors.torch import save

    notes = {"crystals": len(graphs), "failures": [asdict(failure) for failure in failures]}
    # One entry: safetensors writes several in random order, and equal shards must be equal files.
    content = save(pack(graphs), metadata={"notes": json.dumps(notes)})
    checksum = hashlib.sha256(content).hexdigest()
    name = f"{_stem(number)}-{checksum[:_MARK]}{SUFFIX}"
    write_whole(folder / name, content)
    return ShardRecord(name, len(content), checksum, len(graphs), tuple(failures))


def finished_shard(folder: Path, number: int) -> ShardRecord | None:
    """The shard that an earlier, interrupted run left, if it is there and undamaged."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob(f"{_stem(number)}-*{SUFFIX}")):
        checksum = file_hash(path)
        if path.stem.rpartition("-")[2] != checksum[:_MARK]:
            continue
        try:
            with safe_open(path, framework="pt") as file:
                notes = json.loads(file.metadata()["notes"])
        except SafetensorError:
            continue
        failures = tuple(Failure(**failure) for failure in notes["failures"])
        return ShardRecord(path.name, path.stat().st_size, checksum, notes["crystals"], failures)
    return None


def _stem(number: int) -> str:
    return f"shard-{number:05d}"
