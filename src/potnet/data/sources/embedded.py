"""The elastic data set that ships with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from potnet.data.sources.table import TableSource


class EmbeddedSource(TableSource):
    """4 273 crystals of the Materials Project with bulk (`k_vrh`) and shear (`g_vrh`) moduli in GPa.

    Comes with a fixed split by reduced formula. Description, licence and citation stand beside
    the data in `embedded/mp_elastic_2018.json`.
    """

    def __init__(self) -> None:
        folder = Path(str(files("potnet.data"))) / "embedded"
        description = json.loads((folder / "mp_elastic_2018.json").read_text(encoding="utf-8"))
        super().__init__(
            path=folder / description["file"],
            name=description["name"],
            units=description["targets"],
            licence=description["licence"],
            citation=description["citation"],
            sha256=description["sha256"],
        )
