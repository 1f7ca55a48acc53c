"""One crystal a line, as JSON."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potnet.crystals import Crystal, CrystalError, from_record
from potnet.data.dataset import Dataset
from potnet.data.errors import DataError

_NO_SPLIT = object()


class TableSource:
    """A table of crystals with properties: `.jsonl` or `.jsonl.gz`, one crystal a line.

    A line holds `id`, `lattice` (3x3, rows are the lattice vectors, Å), `z` (atomic numbers), `frac`
    (fractional coordinates), any number of properties (numbers; null where missing), and, where the split
    is given, `split` ("train", "val" or "test"; null for neither).

    Args:
        path: The file.
        name: Name of the data set; by default that of the file.
        units: Property -> unit. Properties that are not named are read as well, without a unit.
        licence: Licence of the data, printed once a run and kept in its folder.
        citation: What to cite, likewise.
        sha256: Expected checksum of the file; None does not check.

    Raises:
        DataError: The file is missing, has another layout or another checksum.
    """

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        units: Mapping[str, str] | None = None,
        licence: str = "",
        citation: str = "",
        sha256: str | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        if not self.path.name.endswith((".jsonl", ".jsonl.gz")):
            raise DataError(f"{self.path}: cannot read this kind of table; give a .jsonl or .jsonl.gz file")
        self.name = name or self.path.name.removesuffix(".gz").removesuffix(".jsonl")
        self.units = dict(units or {})
        self.licence = licence
        self.citation = citation
        self.sha256 = sha256

    def content_hash(self) -> str:
        """sha256 of the file as it is stored and of the units, in hexadecimal."""
        return self._hash(self._read())

    def load(self) -> Dataset:
        """Read all crystals.

        Raises:
            DataError: An empty or broken file, an invalid line (its number is named), duplicate ids, an
                unknown part.
        """
        content = self._read()
        content_hash = self._hash(content)
        crystals: list[Crystal] = []
        split: dict[str, str] = {}
        has_split = False
        keys: set[str] = set()
        for number, line in enumerate(self._text(content).splitlines(), 1):
            if not line.strip():
                continue
            crystal, part = self._crystal(line, number)
            crystals.append(crystal)
            keys.update(crystal.properties)
            if part is not _NO_SPLIT:
                has_split = True
                if part is not None:
                    split[crystal.id] = part
        if not crystals:
            raise DataError(f"{self.path}: the table is empty; give at least one crystal")
        return Dataset(
            name=self.name,
            crystals=crystals,
            content_hash=content_hash,
            split=split if has_split else None,
            targets={key: self.units.get(key, "") for key in sorted(keys | set(self.units))},
            licence=self.licence,
            citation=self.citation,
        )

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file (working folder: {Path.cwd()})") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    def _hash(self, content: bytes) -> str:
        found = hashlib.sha256(content).hexdigest()
        if self.sha256 is not None and found != self.sha256:
            raise DataError(
                f"{self.path}: the file is not what it should be (sha256 {found[:16]}..., "
                f"expected {self.sha256[:16]}...); fetch or install it again"
            )
        return hashlib.sha256(json.dumps([found, self.units], sort_keys=True).encode()).hexdigest()

    def _text(self, content: bytes) -> str:
        try:
            if self.path.suffix == ".gz":
                content = gzip.decompress(content)
            return content.decode("utf-8")
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: broken gzip file ({error}); fetch it again") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not a text file in UTF-8 ({error})") from error

    def _crystal(self, line: str, number: int) -> tuple[Crystal, Any]:
        """The crystal of one line, and its part (None for neither, `_NO_SPLIT` if the line does not say)."""
        where = f"{self.path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise DataError(
                f"{where}: expected an object with id, lattice, z and frac; got {type(record).__name__}"
            )
        if record.get("id") in (None, ""):
            raise DataError(f"{where}: the crystal has no id; give each one a name of its own")
        try:
            crystal = from_record(record)
        except CrystalError as error:
            raise DataError(f"{where}: {error}") from error
        return crystal, record.get("split", _NO_SPLIT)
