"""What data sets that download have in common: a description in `conf/data/NAME.yaml` becomes crystals."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potnet.config.suggest import did_you_mean
from potnet.crystals import Crystal, CrystalError
from potnet.data.download.downloader import Downloader, RemoteFile, local_file
from potnet.data.errors import DataError
from potnet.data.sources.base import NOT_STATED, Item, ReadableSource, Sample, refused
from potnet.data.sources.labels import number_of
from potnet.files import cache_root, file_hash_once

log = logging.getLogger(__name__)

_SCALES = ("none", "log10")


@dataclass(frozen=True)
class Column:
    """Where a target stands in the files of a data set.

    Attributes:
        column: Its name there.
        unit: Of the target, once read.
        scale: "log10" if the files hold the logarithm: the source gives 10 to that power, so that a target
            is the same quantity in every data set.
    """

    column: str
    unit: str = ""
    scale: str = "none"

    def __post_init__(self) -> None:
        if self.scale not in _SCALES:
            raise DataError(
                f"scale of column {self.column!r}: {self.scale!r}{did_you_mean(self.scale, _SCALES)}"
            )

    def read(self, record: Mapping[str, Any]) -> float | None:
        """The target of one record in its unit; None if it is missing ("na", null, text)."""
        value = number_of(record.get(self.column), from_text=True)
        return 10.0**value if value is not None and self.scale == "log10" else value


@dataclass(frozen=True)
class Record:
    """One crystal of a file.

    Attributes:
        id: Its name; it may not be the only one of that name.
        structure: For `from_structure` of the source.
        columns: Labels and whatever else the file holds.
        part: Of the published split, if the files have one.
    """

    id: str
    structure: Any
    columns: Mapping[str, Any]
    part: object = NOT_STATED


class DownloadedSource(ReadableSource, ABC):
    """A published data set. Subclasses read one kind of file.

    Args:
        name: Of the data set.
        files: Name, url, and, where they are published, bytes and checksum of each file (`RemoteFile`).
        targets: Target -> `Column`.
        path: A file got elsewhere (a folder, if there are several), or the address of a mirror; by default
            the files are fetched from where their description says.
        cache_dir: Downloads are kept in `<cache>/downloads`; see `potnet.files.cache_root`.
        crystals: How many there are. Another version of the data set has another number.
        licence: Licence of the data.
        citation: What to cite.
        downloader: By default one for the folder above.

    Raises:
        DataError: A description that cannot be used.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        targets: Mapping[str, Mapping[str, Any]],
        path: str | Path | None = None,
        cache_dir: str | Path | None = None,
        crystals: int | None = None,
        licence: str = "",
        citation: str = "",
        downloader: Downloader | None = None,
    ) -> None:
        self.name = name
        self.licence = licence
        self.citation = citation
        self.files = [_described(RemoteFile, entry, f"{name}: files") for entry in files]
        self.columns = {
            key: _described(Column, entry, f"{name}: targets.{key}") for key, entry in targets.items()
        }
        self.path = path
        self.crystals = crystals
        self._cache_dir = cache_dir
        self._downloader = downloader
        self._content_hash: str | None = None

    @abstractmethod
    def records(self, paths: Sequence[Path]) -> Iterator[Record]:
        """The crystals of the files, in their order.

        Args:
            paths: The verified files, in the order of the description.

        Raises:
            DataError: A file has another layout.
        """

    @abstractmethod
    def crystal(self, record: Record) -> Crystal:
        """The crystal of a record.

        Raises:
            CrystalError: It cannot be used.
        """

    def content_hash(self) -> str:
        """sha256 of the checksums of the files and of what is read from them; fetches them if it must."""
        if self._content_hash is None:
            shape = {key: [c.column, c.unit, c.scale] for key, c in self.columns.items()}
            content = [type(self).__name__, self._checksums(), shape]
            self._content_hash = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self._content_hash

    @property
    def units(self) -> dict[str, str]:
        """Target -> unit."""
        return {key: column.unit for key, column in self.columns.items()}

    def read(self, on_error: str = "raise") -> Iterator[Item]:
        """Fetch what is not there yet, verify it, and read the crystals one by one.

        Where several crystals have one id, the further ones are called `ID#2`, `ID#3`: the published splits
        count them all.

        Raises:
            DataError: Files that cannot be had or are not those described, or (with "raise") a crystal that
                cannot be used.
        """
        seen: Counter[str] = Counter()
        for record in self.records(self.fetch()):
            seen[record.id] += 1
            id = record.id if seen[record.id] == 1 else f"{record.id}#{seen[record.id]}"
            try:
                crystal = self.crystal(Record(id, record.structure, record.columns, record.part))
            except CrystalError as error:
                yield refused(id, error, on_error)
                continue
            for key, column in self.columns.items():
                value = column.read(record.columns)
                if value is not None:
                    crystal.properties[key] = value
            yield Sample(crystal, record.part)
        self._check_count(seen.total())
        repeated = seen.total() - len(seen)
        if repeated:
            log.info(
                "%s: %d crystals have the id of another and are called ID#2 and so on", self.name, repeated
            )

    def fetch(self) -> list[Path]:
        """The verified files, in the order of the description."""
        if self._is_local:
            return [local_file(str(self.path), file, len(self.files) == 1) for file in self.files]
        return [self._downloads.fetch(file, self._mirror(file)) for file in self.files]

    @property
    def _is_local(self) -> bool:
        return self.path is not None and not is_address(self.path)

    @property
    def _downloads(self) -> Downloader:
        if self._downloader is None:
            self._downloader = Downloader(cache_root(self._cache_dir) / "downloads")
        return self._downloader

    def _checksums(self) -> list[str]:
        if self._is_local:
            return [
                file.sha256 or file_hash_once(path)
                for file, path in zip(self.files, self.fetch(), strict=True)
            ]
        return [self._downloads.sha256(file, self._mirror(file)) for file in self.files]

    def _mirror(self, file: RemoteFile) -> str | None:
        """The address in place of the file's own; one that ends with / or stands for several is a folder."""
        if self.path is None:
            return None
        address = str(self.path)
        if len(self.files) > 1 or address.endswith("/"):
            return f"{address.rstrip('/')}/{file.name}"
        return address

    def _check_count(self, found: int) -> None:
        if self.crystals is not None and found != self.crystals:
            raise DataError(
                f"{self.name}: the files hold {found} crystals, but this data set has {self.crystals}: "
                "this is another version. Give the right one, or take it as it is with "
                "data.source.crystals=null"
            )


def is_address(path: str | Path) -> bool:
    """Whether a path is an address on the network."""
    return str(path).startswith(("http://", "https://"))


def _described(kind: type[Any], entry: Mapping[str, Any], where: str) -> Any:
    """One entry of a description."""
    known = kind.__dataclass_fields__
    for key in entry:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}{did_you_mean(str(key), known)}")
    try:
        return kind(**entry)
    except TypeError as error:
        raise DataError(f"{where}: {error}") from error
