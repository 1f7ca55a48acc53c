"""Feature shards: some thousand crystals as flat arrays in one safetensors file.

Arrays of one shard with C crystals, N atoms, E local edges, A angles, M ordered pairs and K descriptor
features (see `potnet.crystals.batch`); what was not asked for is absent:

| name | shape | dtype | |
|---|---|---|---|
| num_atoms | (C,) | int32 | |
| z | (N,) | uint8 | atomic numbers |
| cell | (C, 3, 3) | float32 | rows are lattice vectors, Å |
| num_edges | (C,) | int32 | |
| edge_index | (2, E) | int32 | source, target; counted from 0 in each crystal |
| edge_vector | (E, 3) | float32 | from target to source, Å |
| num_angles | (C,) | int32 | |
| angle_index | (2, A) | int32 | pairs of edges; counted from 0 in each crystal |
| pair_sums | (M, P) | float32 | |
| num_descriptors | (C,) | int32 | |
| descriptor_index | (K,) | int32 | |
| descriptor_value | (K,) | float32 | |

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
from potnet.crystals.batch import RAGGED
from potnet.data.features.featurizer import Failure
from potnet.files import file_hash, write_whole

SUFFIX = ".safetensors"
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
    arrays = {"cell": torch.stack([graph.cell for graph in graphs]).to(torch.float32)}
    for field in RAGGED:
        parts = [getattr(graph, field.name) for graph in graphs]
        if parts[0] is None:
            continue
        if field.per != "pairs":
            arrays[f"num_{field.per}"] = torch.tensor([field.length(p) for p in parts], dtype=torch.int32)
        arrays[field.name] = torch.cat(parts, field.dim).to(field.stored).contiguous()
    return arrays


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
