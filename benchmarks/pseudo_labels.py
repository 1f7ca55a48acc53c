"""Moduli that trained networks predict, as labels of crystals without any: what a network is pretrained on.

    python benchmarks/small_crystals.py mp_megnet_2018.jsonl.gz study_data/mp20.jsonl.gz
    python benchmarks/pseudo_labels.py study_data/mp20.jsonl.gz study_data/mp20_moduli.jsonl.gz
    potnet train experiment=pretrained_pseudo_labels

Each crystal gets `k_vrh` and `g_vrh` (GPa), the mean of the networks of shipped ensembles, or of --models
(names of shipped models, folders of runs). Crystals whose reduced formula is in the validation or test
part of the embedded set get none, so that nothing about those crystals enters. Learning from the mean of an
ensemble: Hinton et al., arXiv:1503.02531; from its labels of new examples: Xie et al., CVPR 2020.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from _common import save_rows

import potnet
from potnet.crystals import Crystal
from potnet.data import EmbeddedSource

KEYS = ("k_vrh", "g_vrh")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="JSON lines, gzip: id, lattice, z, frac and others")
    parser.add_argument("result", type=Path)
    parser.add_argument("--models", nargs="+", default=KEYS, help="together they predict both moduli")
    options = parser.parse_args()
    embedded = EmbeddedSource().load()
    parts = embedded.split or {}
    kept_out = {crystal.formula for crystal in embedded.crystals if parts[crystal.id] != "train"}
    with gzip.open(options.source, "rt", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [json.loads(line) for line in file]
    crystals = [Crystal.from_fractional(row["lattice"], row["frac"], row["z"], row["id"]) for row in rows]
    wanted = [crystal for crystal in crystals if crystal.formula not in kept_out]
    found: dict[str, dict[str, list[float]]] = {crystal.id: {} for crystal in wanted}
    for model in options.models:
        table = potnet.load(model).predict(wanted, on_error="skip", plausibility="ignore", progress=True)
        for values in table:
            for key in KEYS:
                if key in values:
                    found[values["id"]].setdefault(key, []).append(values[key])
    for row in rows:
        # Moduli are learned as logarithms, which zero has none of.
        labels = found.get(row["id"], {}).items()
        row |= {key: max(round(geometric_mean(values), 2), 0.01) for key, values in labels}
    save_rows(options.result, rows)
    labelled = sum(all(key in row for key in KEYS) for row in rows)
    print(f"{options.result}: {len(rows)} crystals, {labelled} with both moduli")


if __name__ == "__main__":
    main()
