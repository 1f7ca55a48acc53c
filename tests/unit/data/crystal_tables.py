"""Small tables of crystals for the tests of this folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potnet.data import CrystalTable, Removal
from potnet.data.table import Removals, texts_of


def cubic(id: str, length: float = 4.0, **extra: Any) -> dict[str, Any]:
    """A CsCl-like crystal of two atoms."""
    lattice = [[length, 0, 0], [0, length, 0], [0, 0, length]]
    return {"id": id, "lattice": lattice, "z": [55, 17], "frac": [[0, 0, 0], [0.5, 0.5, 0.5]], **extra}


def write_table(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write records as JSON lines, compressed if the name says so."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def table_of(
    ids: Sequence[str],
    targets: Mapping[str, np.ndarray] | None = None,
    units: dict[str, str] | None = None,
    removed: Sequence[Removal] = (),
    **texts: Sequence[str | None],
) -> CrystalTable:
    """A table of crystals in memory; `texts` are part, formula and prototype."""
    columns = {name: texts_of(column) for name, column in {"id": ids, **texts}.items()}
    return CrystalTable(columns, targets or {}, units or {}, Removals.listed(removed))


def moduli(total: int, **extra: Any) -> list[dict[str, Any]]:
    """`total` crystals c0, c1, ... of different size with a bulk modulus."""
    return [cubic(f"c{i}", 3.5 + 0.05 * i, k_vrh=10.0 + i, **extra) for i in range(total)]
