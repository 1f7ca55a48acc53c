"""Featurized crystals that are read from disk as they are needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potnet.crystals import CrystalBatch, CrystalGraph, complete_pairs
from potnet.data.dataset import CrystalTable
from potnet.data.errors import CacheError
from potnet.data.shards import ShardRecord, file_hash

MANIFEST = "manifest.json"


class FeatureStore:
    """A finished feature cache, memory-mapped: nothing is read before a batch asks for it.

    Args:
        folder: Folder of the cache.

    Attributes:
        table: Labels and split of the crystals, row by row.
        failures: Crystals of the source that could not be featurized.

    Raises:
        CacheError: There is no finished cache, or its files are not those of the manifest.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.settings: dict[str, Any]
        self.settings, self.shards, self._index = self._manifest()
        for name, size in self._sizes().items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise CacheError(f"{path} is missing or was cut off (expected {size} bytes)")
        index = json.loads((self.folder / self._index["file"]).read_text(encoding="utf-8"))
        self.table = CrystalTable.from_plain(index)
        self.failures = [failure for shard in self.shards for failure in shard.failures]

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the files itself: maps are shared by the system, tensors would be copied.
        return type(self), (self.folder,)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(self._sizes().values())

    def verify(self) -> None:
        """Read all and compare checksums.

        Raises:
            CacheError: Names the first damaged file.
        """
        expected = {self._index["file"]: self._index["sha256"]} | {s.file: s.sha256 for s in self.shards}
        for name, checksum in expected.items():
            if file_hash(self.folder / name) != checksum:
                raise CacheError(f"{self.folder / name} is damaged: its checksum is not that of the manifest")

    def batch(self, rows: Sequence[int] | np.ndarray | Tensor) -> CrystalBatch:
        """Some crystals as one batch, in the order given.

        Args:
            rows: B row numbers of `table`.
        """
        rows = np.asarray(rows, dtype=np.int64)
        places = self._places[rows]
        atoms, edges, pairs = (self._start[rows, :, kind].tolist() for kind in range(3))
        shard = places.tolist()
        num_atoms = torch.from_numpy(np.diff(self._start[rows, :, 0])[:, 0])
        edge_index = edge_vector = pair_index = pair_sums = None
        if self.settings["features"]["neighbors"] is not None:
            num_edges = torch.from_numpy(np.diff(self._start[rows, :, 1])[:, 0])
            arrays = [self._arrays[s]["edge_index"] for s in shard]
            local = torch.cat([array[:, a:b] for array, (a, b) in zip(arrays, edges, strict=True)], 1)
            edge_index = local.long() + (num_atoms.cumsum(0) - num_atoms).repeat_interleave(num_edges)
            edge_vector = self._cut("edge_vector", shard, edges)
        if self.settings["features"]["potentials"] is not None:
            pair_index = complete_pairs(num_atoms)
            pair_sums = self._cut("pair_sums", shard, pairs)
        within = (rows - self._first[places]).tolist()
        return CrystalBatch(
            ids=[self.table.ids[row] for row in rows],
            z=self._cut("z", shard, atoms).long(),
            batch=torch.arange(len(rows)).repeat_interleave(num_atoms),
            num_atoms=num_atoms,
            cell=torch.stack([self._arrays[s]["cell"][row] for s, row in zip(shard, within, strict=True)]),
            edge_index=edge_index,
            edge_vector=edge_vector,
            pair_index=pair_index,
            pair_sums=pair_sums,
            targets={key: torch.from_numpy(values[rows]) for key, values in self.table.targets.items()},
        )

    def graph(self, row: int) -> CrystalGraph:
        """One crystal."""
        batch = self.batch([row])
        targets = {key: float(value) for key, value in batch.targets.items()}
        return CrystalGraph(
            batch.ids[0],
            batch.z,
            batch.cell[0],
            batch.edge_index,
            batch.edge_vector,
            batch.pair_sums,
            targets,
        )

    @cached_property
    def num_atoms(self) -> np.ndarray:
        """(n,) int64, atoms of each crystal."""
        return np.diff(self._start[:, :, 0])[:, 0]

    @cached_property
    def num_edges(self) -> np.ndarray:
        """(n,) int64, local edges of each crystal; zeros if there are none."""
        return np.diff(self._start[:, :, 1])[:, 0]

    def _cut(self, name: str, shard: list[int], spans: list[list[int]]) -> Tensor:
        return torch.cat([self._arrays[s][name][a:b] for s, (a, b) in zip(shard, spans, strict=True)])

    @cached_property
    def _arrays(self) -> list[dict[str, Tensor]]:
        """The memory-mapped arrays of each shard."""
        from safetensors import safe_open

        found = []
        for shard in self.shards:
            with safe_open(self.folder / shard.file, framework="pt") as file:
                found.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return found

    @cached_property
    def _places(self) -> np.ndarray:
        """(n,) the shard of each crystal."""
        return np.repeat(np.arange(len(self.shards)), [shard.crystals for shard in self.shards])

    @cached_property
    def _first(self) -> np.ndarray:
        """(shards,) the row of the first crystal of each shard."""
        counts = np.array([shard.crystals for shard in self.shards])
        return np.cumsum(counts) - counts

    @cached_property
    def _start(self) -> np.ndarray:
        """(n, 2, 3) begin and end of the atoms, edges and pairs of each crystal in its shard's arrays."""
        spans = []
        for arrays in self._arrays:
            atoms = arrays["num_atoms"].numpy().astype(np.int64)
            edges = (
                arrays["num_edges"].numpy().astype(np.int64)
                if "num_edges" in arrays
                else np.zeros_like(atoms)
            )
            sizes = np.stack([atoms, edges, atoms * atoms], 1)
            ends = sizes.cumsum(0)
            spans.append(np.stack([ends - sizes, ends], 1))
        return np.concatenate(spans)

    def _manifest(self) -> tuple[dict[str, Any], list[ShardRecord], dict[str, Any]]:
        """Settings, shards, and name, size and checksum of the index."""
        path = self.folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            shards = [ShardRecord.from_plain(plain) for plain in manifest["shards"]]
            return manifest["key"], shards, manifest["index"]
        except FileNotFoundError:
            raise CacheError(f"{self.folder}: there is no finished feature cache") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CacheError(f"{path} cannot be read ({type(error).__name__}: {error})") from error

    def _sizes(self) -> dict[str, int]:
        return {self._index["file"]: self._index["bytes"]} | {
            shard.file: shard.bytes for shard in self.shards
        }
