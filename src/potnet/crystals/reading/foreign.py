"""Files that other libraries read, and their errors in one line."""

from __future__ import annotations

import gzip
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from potnet.crystals.crystal import CrystalError

if TYPE_CHECKING:
    from ase import Atoms


def open_binary(file: Path) -> IO[bytes]:
    """Open a file, perhaps compressed by gzip."""
    return gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb")  # type: ignore[return-value]


def brief(error: Exception) -> str:
    """What a foreign exception says, in one line."""
    if isinstance(error, KeyError):
        return f"unknown element or key {error}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def read_ase(source: str | io.StringIO, format: str | None) -> list[Atoms]:
    """All structures that ASE finds in a file or text.

    Raises:
        CrystalError: It can't read it, for whatever reason; the one class in place of many.
    """
    return list(iterate_ase(source, format))


def iterate_ase(source: str | io.StringIO, format: str | None) -> Iterator[Atoms]:
    """The same, one by one where ASE's reader can.

    Raises:
        CrystalError: As for `read_ase`.
    """
    import ase.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = ase.io.iread(source, index=":", format=format, do_not_split_by_at_sign=True)
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = next(images, None)
            if atoms is None:
                return
            yield atoms
    except ase.io.formats.UnknownFileTypeError:
        raise CrystalError(
            "format not recognised: rename it to .cif, .vasp, .extxyz, .jsonl, or an ending that ASE knows"
        ) from None
    except Exception as error:  # its readers raise anything
        as_what = f" as {format}" if format else ""
        raise CrystalError(f"ASE can't read it{as_what} ({brief(error)})") from None


def format_of(file: Path) -> str | None:
    """ASE's name of a file's format by its ending and first bytes; None if it does not know."""
    import ase.io.formats

    try:
        return str(ase.io.formats.filetype(str(file)))
    except Exception:  # an unknown type, or whatever its sniffing raises
        return None
