"""The embedded moduli with disturbed copies of the crystals for training, labels unchanged.

    python benchmarks/augmented_moduli.py strain study_data/strained.jsonl.gz
    potnet train experiment=mp_bulk_modulus data=table data.source.path=study_data/strained.jsonl.gz \
      'data.source.units={k_vrh: GPa, g_vrh: GPa}' split=given trainer.max_epochs=30

`strain` multiplies each copy's cell with 1 + e, e symmetric with normal components (default size 0.005);
`displacement` moves each atom of it by a normal vector (default size 0.03 Å a component). Validation and
test parts stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from _common import embedded_rows, save_rows

SIZES = {"strain": 0.005, "displacement": 0.03}


def disturbed(row: dict[str, Any], kind: str, size: float, rng: np.random.Generator) -> dict[str, Any]:
    cell, frac = np.array(row["lattice"]), np.array(row["frac"])
    if kind == "strain":
        e = rng.normal(scale=size, size=(3, 3))
        cell = cell @ (np.eye(3) + (e + e.T) / 2)
    else:
        frac = frac + rng.normal(scale=size, size=frac.shape) @ np.linalg.inv(cell)
    return row | {"id": f"{row['id']} {kind}", "lattice": cell.tolist(), "frac": frac.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=sorted(SIZES))
    parser.add_argument("result", type=Path)
    parser.add_argument("--size", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size = SIZES[options.kind] if options.size is None else options.size
    rng = np.random.default_rng(options.seed)
    rows = embedded_rows()
    copies = [disturbed(row, options.kind, size, rng) for row in rows if row["split"] == "train"]
    save_rows(options.result, rows + copies)
    print(f"{options.result}: {len(rows)} crystals and {len(copies)} copies")


if __name__ == "__main__":
    main()
