"""Featurized crystals that are read from disk as they are needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from potnet.crystals import Crystal, CrystalBatch, CrystalGraph, is_atom_label
from potnet.crystals.batch import RAGGED, RaggedField, batch_of, joined
from potnet.data.errors import CacheError
from potnet.data.features.label_file import read_labels
from potnet.data.features.shards import LABEL, ShardRecord
from potnet.files import file_hash

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
        self.settings, self.shards, self._files = self._manifest()
        for name, size in self._sizes().items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise CacheError(f"{path} is missing or was cut off (expected {size} bytes)")
        for name, known in self._files.items():
            if file_hash(self.folder / name) != known["sha256"]:
                raise CacheError(_damaged(self.folder / name))
        self.table = replace(read_labels(self.folder), structures=self._crystals)
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

    @property
    def checksums(self) -> dict[str, str]:
        """sha256 of each file but the manifest, hexadecimal."""
        labels = {name: known["sha256"] for name, known in self._files.items()}
        return labels | {shard.file: shard.sha256 for shard in self.shards}

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Read files and compare checksums.

        Args:
            names: Which, of `checksums`; None takes all.

        Raises:
            CacheError: Names the first damaged file.
        """
        for name in self.checksums if names is None else names:
            if file_hash(self.folder / name) != self.checksums[name]:
                raise CacheError(_damaged(self.folder / name))

    def batch(self, rows: Sequence[int] | np.ndarray | Tensor, numbers: bool = True) -> CrystalBatch:
        """Some crystals as one batch, in the order given.

        Args:
            rows: B row numbers of `table`.
            numbers: Whether `targets` has all labels that are numbers; those that are arrays are always
            there.
        """
        rows = np.asarray(rows, dtype=np.int64)
        places = np.searchsorted(self._first, rows, side="right") - 1
        shard, first = places.tolist(), self._first[places]
        within = (rows - first).tolist()
        lengths, spans = {}, {}
        for kind, ends in self._ends.items():
            lengths[kind] = torch.from_numpy(ends[rows + 1] - ends[rows])
            spans[kind] = np.stack([ends[rows] - ends[first], ends[rows + 1] - ends[first]], 1).tolist()
        arrays = {}
        for field in self._fields:
            parts = [
                field.cut(self._arrays[s][field.name], a, b)
                for s, (a, b) in zip(shard, spans[field.per], strict=True)
            ]
            arrays[field.name] = joined(field, parts, lengths)
        targets = {}
        if numbers:
            targets = {key: torch.from_numpy(values[rows]) for key, values in self._numbers.items()}
        for key, shape in self._labels.items():
            if is_atom_label(key):
                parts = [
                    self._label(s, key, (b - a, *shape), a, b)
                    for s, (a, b) in zip(shard, spans["atoms"], strict=True)
                ]
            else:
                parts = [
                    self._label(s, key, (1, *shape), row, row + 1)
                    for s, row in zip(shard, within, strict=True)
                ]
            targets[key] = torch.cat(parts)
        return batch_of(
            ids=self.table.ids.take(pa.array(rows)).to_pylist(),
            cell=torch.stack([self._arrays[s]["cell"][row] for s, row in zip(shard, within, strict=True)]),
            lengths=lengths,
            arrays=arrays,
            targets=targets,
        )

    def _label(self, shard: int, key: str, size: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Some rows of a label that is an array; NaN where the shard lacks it."""
        array = self._arrays[shard].get(LABEL + key)
        return torch.full(size, float("nan"), dtype=torch.float64) if array is None else array[start:stop]

    @cached_property
    def _numbers(self) -> dict[str, np.ndarray]:
        """(n,) float64 each, the labels that are numbers; read when a batch wants them."""
        return {key: values for key, values in self.table.targets.items() if values.dtype != object}

    def graph(self, row: int) -> CrystalGraph:
        """One crystal."""
        batch = self.batch([row])
        targets: dict[str, float | Tensor] = {}
        for key, value in batch.targets.items():
            if key in self._labels:
                targets[key] = value if is_atom_label(key) else value[0]
            else:
                targets[key] = float(value)
        arrays = {field.name: getattr(batch, field.name) for field in RAGGED}
        return CrystalGraph(id=batch.ids[0], cell=batch.cell[0], targets=targets, **arrays)

    def structures(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Elements and cells of all crystals, shard by shard.

        Yields:
            Row of the shard's first crystal; (N,) int64 atomic numbers of its n crystals; (n, 3, 3) float64
            cells, Å; (n,) int64 atoms of each.
        """
        for shard, arrays in enumerate(self._arrays):
            if "z" not in arrays:  # all of its crystals failed
                continue
            cell, atoms = arrays["cell"].double().numpy(), arrays["num_atoms"].long().numpy()
            yield int(self._first[shard]), arrays["z"].long().numpy(), cell, atoms

    def _crystals(self, rows: np.ndarray) -> Iterator[Crystal]:
        """Some crystals one by one, in the order given: the cell that was featurized, without labels."""
        for row in rows.tolist():
            graph = self.graph(row)
            yield Crystal(graph.cell.numpy(), graph.positions.numpy(), graph.z.numpy(), graph.id)

    @property
    def num_atoms(self) -> np.ndarray:
        """(n,) int64, atoms of each crystal."""
        return np.diff(self._ends["atoms"])

    @property
    def num_edges(self) -> np.ndarray:
        """(n,) int64, local edges of each crystal; zeros if there are none."""
        return np.diff(self._ends["edges"]) if "edges" in self._ends else np.zeros_like(self.num_atoms)

    @cached_property
    def _fields(self) -> list[RaggedField]:
        """The ragged arrays that this cache has."""
        # A shard whose crystals all failed has none.
        names = set().union(*self._arrays)
        return [field for field in RAGGED if field.name in names]

    @cached_property
    def _labels(self) -> dict[str, tuple[int, ...]]:
        """Labels that are arrays, and the shape of a row of each."""
        found: dict[str, tuple[int, ...]] = {}
        for arrays in self._arrays:
            for name, array in arrays.items():
                key, shape = name.removeprefix(LABEL), tuple(array.shape[1:])
                if name.startswith(LABEL) and found.setdefault(key, shape) != shape:
                    raise CacheError(
                        f"{key} has a different shape in different crystals: {found[key]} and {shape}; "
                        "give all the same, and leave it out where it is missing"
                    )
        return found

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
    def _first(self) -> np.ndarray:
        """(shards,) the row of the first crystal of each shard."""
        counts = np.array([shard.crystals for shard in self.shards])
        return np.cumsum(counts) - counts

    @cached_property
    def _ends(self) -> dict[str, np.ndarray]:
        """(n + 1,) int64 by kind: crystal i has the rows ends[i] to ends[i + 1] of all shards on end."""
        shards = [arrays for arrays in self._arrays if "z" in arrays]
        return {
            kind: np.cumsum(np.concatenate([[0], *(_counts(kind, arrays) for arrays in shards)]))
            for kind in sorted({field.per for field in self._fields})
        }

    def _manifest(self) -> tuple[dict[str, Any], list[ShardRecord], dict[str, Any]]:
        """Settings, shards, and name, size and checksum of the files with labels."""
        path = self.folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest.pop("sha256") != _seal(manifest):
                raise ValueError("its checksum is wrong")
            shards = [ShardRecord.from_plain(plain) for plain in manifest["shards"]]
            return manifest["key"], shards, manifest["labels"]
        except FileNotFoundError:
            raise CacheError(f"{self.folder}: there is no finished feature cache") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CacheError(f"{path} cannot be read ({type(error).__name__}: {error})") from error

    def _sizes(self) -> dict[str, int]:
        labels = {name: known["bytes"] for name, known in self._files.items()}
        return labels | {shard.file: shard.bytes for shard in self.shards}


def manifest_file(content: dict[str, Any]) -> bytes:
    """The manifest as it is written, with its own checksum in it."""
    return canonical_json({**content, "sha256": _seal(content)})


def canonical_json(value: Any) -> bytes:
    """Canonical JSON: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _damaged(path: Path) -> str:
    return f"{path} is damaged: its checksum is not that of the manifest"


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _counts(kind: str, arrays: dict[str, Tensor]) -> np.ndarray:
    """(C,) int64, rows of each crystal of one shard."""
    count = arrays["num_atoms" if kind == "pairs" else f"num_{kind}"].numpy().astype(np.int64)
    return count * count if kind == "pairs" else count
