"""Bulk and shear moduli with the split that crystal networks are compared on: one pickle for each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from potnet.config.suggest import did_you_mean
from potnet.crystals import Crystal, from_jarvis
from potnet.data.errors import DataError
from potnet.data.sources.downloaded import DownloadedSource, Record
from potnet.data.sources.jarvis import record_of
from potnet.data.sources.plain_pickle import load_plain
from potnet.data.table import PARTS


class ElasticSource(DownloadedSource):
    """One modulus of figshare project 165430: pickled lists of records in the form of jarvis-tools.

    The two moduli are separate data sets, of slightly different crystals.

    Args:
        property: The target, which chooses among `moduli`.
        moduli: Target -> `column`, `unit`, `scale` as in `Column`, and `files`: part of the split -> `name`,
            `url`, `checksum` as in `RemoteFile`, and the number of its `crystals` (null takes any).
        name: Of the data set; the target is appended.
        id: Key of a record's id.
        path, cache_dir, licence, citation: As for `DownloadedSource`; `path` is a folder.

    Raises:
        DataError: There is no such modulus, or a description that cannot be used.
    """

    def __init__(
        self,
        property: str,
        moduli: Mapping[str, Mapping[str, Any]],
        name: str,
        id: str = "id",
        path: str | Path | None = None,
        cache_dir: str | Path | None = None,
        licence: str = "",
        citation: str = "",
    ) -> None:
        if property not in moduli:
            raise DataError(f"{name} has no target {property!r}{did_you_mean(property, moduli)}")
        chosen = moduli[property]
        files = {part: dict(chosen["files"][part]) for part in PARTS if part in chosen["files"]}
        self.parts = list(files)
        self.counts = [entry.pop("crystals", None) for entry in files.values()]
        column = {key: value for key, value in chosen.items() if key != "files"}
        super().__init__(
            f"{name}_{property}",
            list(files.values()),
            {property: column},
            path,
            cache_dir,
            None,
            licence,
            citation,
        )
        self.id = id

    def records(self, paths: Sequence[Path]) -> Iterator[Record]:
        """Part by part."""
        for path, part, count in zip(paths, self.parts, self.counts, strict=True):
            entries = load_plain(path.read_bytes(), str(path))
            if not isinstance(entries, list):
                raise DataError(f"{path}: a list of records is wanted, got {type(entries).__name__}")
            if count is not None and len(entries) != count:
                raise DataError(
                    f"{path}: it holds {len(entries)} crystals, but the {part} part has {count}: this is "
                    "another file"
                )
            for number, entry in enumerate(entries):
                yield record_of(entry, self.id, f"{path}, record {number}", part)

    def crystal(self, record: Record) -> Crystal:
        """The crystal of an `atoms` dictionary."""
        return from_jarvis(record.structure, record.id)
