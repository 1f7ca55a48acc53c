"""Small tables of crystals for the tests of this folder."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def cubic(id: str, length: float = 4.0, **extra: Any) -> dict[str, Any]:
    """A CsCl-like crystal of two atoms."""
    lattice = [[length, 0, 0], [0, length, 0], [0, 0, length]]
    return {"id": id, "lattice": lattice, "z": [55, 17], "frac": [[0, 0, 0], [0.5, 0.5, 0.5]], **extra}


def write_table(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write records as JSON lines, compressed if the name says so."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def moduli(total: int, **extra: Any) -> list[dict[str, Any]]:
    """`total` crystals c0, c1, ... of different size with a bulk modulus."""
    return [cubic(f"c{i}", 3.5 + 0.05 * i, k_vrh=10.0 + i, **extra) for i in range(total)]
