"""Data sets in the form of jarvis-tools: a zipped JSON list of records."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from potnet.crystals import Crystal, from_jarvis
from potnet.data.errors import DataError
from potnet.data.sources.downloaded import DownloadedSource, Record
from potnet.data.sources.json_stream import JsonStream


class JarvisSource(DownloadedSource):
    """JARVIS-DFT, and what else jarvis-tools distributes on figshare.

    A record is an object with an id, `atoms` (`lattice_mat`, `coords`, `elements`, `cartesian`) and labels;
    "na" stands for a missing one. The file is the one that jarvis-tools keeps, fetched by our own downloader,
    as that of jarvis-tools neither checks nor resumes.

    Args:
        id: Key of the id.
        **description: As for `DownloadedSource`.
    """

    def __init__(
        self,
        id: str,
        name: str,
        files: Sequence[Mapping[str, Any]],
        targets: Mapping[str, Mapping[str, Any]],
        path: str | Path | None = None,
        cache_dir: str | Path | None = None,
        crystals: int | None = None,
        licence: str = "",
        citation: str = "",
    ) -> None:
        super().__init__(name, files, targets, path, cache_dir, crystals, licence, citation)
        self.id = id

    def records(self, paths: Sequence[Path]) -> Iterator[Record]:
        """The records of all files."""
        for path in paths:
            try:
                with _open(path) as text:
                    for number, entry in enumerate(JsonStream(text).elements()):
                        yield record_of(entry, self.id, f"{path}, record {number}")
            except json.JSONDecodeError as error:
                raise DataError(f"{path}: not a JSON list of records ({error})") from error
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: not a text file in UTF-8 ({error})") from error
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(f"{path}: cannot be read ({error})") from error

    def crystal(self, record: Record) -> Crystal:
        """The crystal of an `atoms` dictionary."""
        return from_jarvis(record.structure, record.id)


def record_of(entry: Any, id: str, where: str, part: Any = None) -> Record:
    """A record of jarvis-tools.

    Args:
        entry: The object.
        id: Key of its id.
        where: It stands, for messages.
        part: Of the published split, if there is one.

    Raises:
        DataError: It is no object, or has no id or atoms.
    """
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: an object with {id} and atoms is wanted, got {type(entry).__name__}")
    absent = [key for key in (id, "atoms") if entry.get(key) in (None, "")]
    if absent:
        raise DataError(
            f"{where}: there is no {' and no '.join(absent)}; it has {', '.join(map(str, entry))}"
        )
    return Record(str(entry[id]), entry["atoms"], entry, **({} if part is None else {"part": part}))


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    """The JSON file, perhaps the only one in a zip archive."""
    if not zipfile.is_zipfile(path):
        with path.open(encoding="utf-8") as text:
            yield text
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".json")]
        if len(names) != 1:
            raise DataError(f"{path}: one .json file is wanted in it, there are {len(names)}")
        with archive.open(names[0]) as binary, io.TextIOWrapper(binary, encoding="utf-8") as text:
            yield text
