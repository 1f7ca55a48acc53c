"""What every source provides, and what their files have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from potnet.crystals import Crystal, CrystalError
from potnet.data.errors import DataError
from potnet.data.table import UNREADABLE, Dataset, Removal

#: Part of a crystal of which the source does not say anything, as opposed to None: in no part.
NOT_STATED = object()


@dataclass(frozen=True)
class Sample:
    """One crystal of a source.

    Attributes:
        crystal: With its id, and its labels in `properties`: numbers, arrays or text.
        part: Of the split that comes with the data: "train", "val", "test", None for none of them, or
            `NOT_STATED` if the source has no split.
    """

    crystal: Crystal
    part: object = NOT_STATED


#: What a source yields: a crystal, or one that is left out and why.
Item = Sample | Removal


class Source(Protocol):
    """Where crystals come from. `ReadableSource` gives `load` to a class that has the rest."""

    @property
    def name(self) -> str:
        """Short name of the data set, fit for a folder's name."""
        ...

    @property
    def licence(self) -> str:
        """Licence of the data."""
        ...

    @property
    def citation(self) -> str:
        """What to cite."""
        ...

    @property
    def units(self) -> Mapping[str, str]:
        """Label -> unit, for the labels whose units are known ("" where there is none)."""
        ...

    def content_hash(self) -> str:
        """sha256 of all that defines the content, without reading the crystals."""
        ...

    def read(self, on_error: str = "raise") -> Iterator[Item]:
        """The crystals one by one, in the order of the data; no more than a few are in memory at a time.

        Ids need not be unique: whoever collects the crystals checks that.

        Args:
            on_error: Whether a crystal that cannot be read is an error ("raise"), or comes as a `Removal`
                ("skip").

        Raises:
            DataError: The data cannot be read, or (with "raise") a crystal cannot.
        """
        ...

    def load(self, on_error: str = "raise") -> Dataset:
        """All crystals at once, for data sets that fit into memory."""
        ...


class ReadableSource:
    """Adds `load` to a class that has the rest of `Source`."""

    def load(self: Source, on_error: str = "raise") -> Dataset:
        """All crystals at once, for data sets that fit into memory; a run never needs that.

        Args:
            on_error: As for `read`; with "skip", of several crystals with one id the first is kept.

        Raises:
            DataError: As for `read`; also duplicate ids (with "raise"), an unknown part, or no crystal.
        """
        samples: list[Sample] = []
        removed: list[Removal] = []
        for item in self.read(on_error):
            if isinstance(item, Removal):
                removed.append(item)
            else:
                samples.append(item)
        return Dataset.of(
            self.name,
            [sample.crystal for sample in samples],
            self.content_hash(),
            None
            if all(sample.part is NOT_STATED for sample in samples)
            else [None if sample.part is NOT_STATED else sample.part for sample in samples],
            dict(self.units),
            self.licence,
            self.citation,
            removed,
            on_error,
        )


def refused(id: str, error: CrystalError | DataError, on_error: str) -> Removal:
    """What a source yields in place of a crystal that cannot be read.

    Args:
        id: Name of the crystal, or where it stands.
        error: Says what is wrong, and where.
        on_error: "raise" or "skip".

    Raises:
        DataError: Unless `on_error` is "skip".
    """
    if on_error != "skip":
        raise DataError(str(error)) from error
    return Removal(id, UNREADABLE, str(error))
