"""Labels by networks: who gets them, and that their logarithms exist."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from potnet.data import EmbeddedSource

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Soft:
    """A network that finds every crystal softer than a label with two digits can say."""

    def predict(self, crystals: list[Any], **options: Any) -> list[dict[str, Any]]:
        return [{"id": crystal.id, "k_vrh": 0.001, "g_vrh": 40.0} for crystal in crystals]


class Stiff(Soft):
    def predict(self, crystals: list[Any], **options: Any) -> list[dict[str, Any]]:
        return [{"id": crystal.id, "g_vrh": 90.0} for crystal in crystals]


def test_labels_are_positive_means_and_leave_out_validation_and_test_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: Any
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pseudo_labels

    parts = embedded.split
    held = next(crystal for crystal in embedded.crystals if parts[crystal.id] == "test")
    kept_out = {crystal.formula for crystal in embedded.crystals if parts[crystal.id] != "train"}
    free = next(crystal for crystal in embedded.crystals if crystal.formula not in kept_out)
    rows = [
        {
            "id": name,
            "lattice": crystal.cell.tolist(),
            "frac": crystal.fractional.tolist(),
            "z": crystal.z.tolist(),
        }
        for name, crystal in (("held", held), ("free", free))
    ]
    source, result = tmp_path / "source.jsonl.gz", tmp_path / "result.jsonl.gz"
    with gzip.open(source, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    monkeypatch.setattr(EmbeddedSource, "load", lambda self: embedded)
    monkeypatch.setattr("potnet.load", lambda name: {"soft": Soft(), "stiff": Stiff()}[name])
    monkeypatch.setattr(
        sys, "argv", ["pseudo_labels.py", str(source), str(result), "--models", "soft", "stiff"]
    )

    pseudo_labels.main()

    with gzip.open(result, "rt", encoding="utf-8") as file:
        found = {row["id"]: row for row in map(json.loads, file)}
    assert "k_vrh" not in found["held"]
    assert "g_vrh" not in found["held"]
    assert found["free"]["k_vrh"] == 0.01
    assert found["free"]["g_vrh"] == pytest.approx(60.0)  # sqrt(40 * 90)
