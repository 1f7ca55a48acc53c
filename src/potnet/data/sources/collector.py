"""What sources have in common: crystals come one by one, and some of them cannot be used."""

from __future__ import annotations

from potnet.crystals import Crystal, CrystalError
from potnet.data.errors import DataError
from potnet.data.table import DUPLICATE, UNREADABLE, Dataset, Removal

#: Part of a crystal of which the source does not say anything, as opposed to None: in no part.
NOT_STATED = object()


class Collector:
    """Gathers the crystals of a source; what cannot be used raises, or is listed.

    Args:
        name: Of the data set.
        on_error: "raise", or "skip" to list what cannot be used in `Dataset.removed`.
    """

    def __init__(self, name: str, on_error: str = "raise") -> None:
        self.name = name
        self.skip = on_error == "skip"
        self.crystals: list[Crystal] = []
        self.removed: list[Removal] = []
        self.split: dict[str, str] = {}
        self._has_split = False
        self._ids: set[str] = set()

    def add(self, crystal: Crystal, part: object = NOT_STATED) -> None:
        """Take a crystal.

        Args:
            crystal: With its id and properties.
            part: "train", "val" or "test", None for none of them, `NOT_STATED` if the source has no split.
        """
        if self.skip and crystal.id in self._ids:
            self.removed.append(Removal(crystal.id, DUPLICATE, "the first crystal of this id is kept"))
            return
        self._ids.add(crystal.id)
        self.crystals.append(crystal)
        if part is not NOT_STATED:
            self._has_split = True
            if part is not None:
                self.split[crystal.id] = part  # type: ignore[assignment]  # checked by Dataset

    def refuse(self, id: str, error: CrystalError | DataError) -> None:
        """Raise, or list, what cannot be read.

        Args:
            id: Name of the crystal, or where it stands.
            error: Says what is wrong, and where.

        Raises:
            DataError: Unless `on_error` is "skip".
        """
        if not self.skip:
            raise DataError(str(error)) from error
        self.removed.append(Removal(id, UNREADABLE, str(error)))

    def leave_out(self, id: str, reason: str, detail: str = "") -> None:
        """List a crystal that is left out whatever `on_error` says."""
        self.removed.append(Removal(id, reason, detail))

    def dataset(
        self,
        content_hash: str,
        targets: dict[str, str],
        licence: str = "",
        citation: str = "",
    ) -> Dataset:
        """All that was gathered; the arguments are those of `Dataset`.

        Raises:
            DataError: Nothing is left, or see `Dataset`.
        """
        if self.removed and not self.crystals:
            why = self.removed[0].detail or self.removed[0].id
            raise DataError(f"{self.name}: none of the {len(self.removed)} crystals can be read: {why}")
        return Dataset(
            name=self.name,
            crystals=self.crystals,
            content_hash=content_hash,
            split=self.split if self._has_split else None,
            targets=targets,
            licence=licence,
            citation=citation,
            removed=tuple(self.removed),
        )
