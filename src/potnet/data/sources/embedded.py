"""The data sets that ship with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError
from potnet.data.sources.table import TableSource


class EmbeddedSource(TableSource):
    """A small data set in the package, by default 4 273 crystals of the Materials Project with bulk (`k_vrh`)
    and shear (`g_vrh`) moduli in GPa.

    Each comes with a fixed split. Description, licence and citation stand beside the data in
    `embedded/NAME.json`.

    Args:
        name: "mp_elastic_2018", or "mlearn_si": silicon with energies, forces and stress.

    Raises:
        DataError: There is none of this name.
    """

    def __init__(self, name: str = "mp_elastic_2018") -> None:
        folder = Path(str(files("potnet.data"))) / "embedded"
        if not (folder / f"{name}.json").is_file():
            known = sorted(file.stem for file in folder.glob("*.json"))
            raise DataError(f"data.source.name={name}{did_you_mean(name, known)}")
        description = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        super().__init__(
            path=folder / description["file"],
            name=description["name"],
            units=description["targets"],
            licence=description["licence"],
            citation=description["citation"],
            sha256=description["sha256"],
            plausibility=description.get("plausibility", "refuse"),
        )
