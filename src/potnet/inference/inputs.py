"""Inputs of a prediction: files, folders, patterns and objects, as crystals with distinct names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from potnet.crystals import (
    Crystal,
    CrystalError,
    Plausibility,
    from_serialized,
    unique_id,
)
from potnet.data.features.featurizer import Failure
from potnet.data.sources.structures import open_structures, structure_files
from potnet.inference.frames import Named, frame_rows, is_frame

Inputs = str | os.PathLike[str] | Crystal | Any | Sequence[Any]
"""A file, a folder, a pattern, a `Crystal`, ASE Atoms, a pymatgen Structure, a list of these, or a pandas
DataFrame with a column of structures."""

Outcome = tuple[int, Crystal | CrystalError]
"""The number of an input, and a crystal of it or what is wrong with it."""

CHUNK = 512
"""Most crystals that are featurized at a time: the sums are computed together, memory stays bounded."""

CHUNK_PAIRS = 4_000_000
"""Most pairs of atoms that are featurized at a time, unless one crystal has more."""


def expand(inputs: Inputs) -> list[Any]:
    """The files and objects that inputs mean: folders and patterns become sorted lists of files.

    Raises:
        CrystalError: Nothing matches; the path or pattern is named.
        ConfigError: A DataFrame without structures.
    """
    # A structure of pymatgen is a sequence, too: of its sites.
    if isinstance(inputs, Iterator) or (
        isinstance(inputs, Sequence)
        and not isinstance(inputs, str | bytes | Mapping)
        and not hasattr(inputs, "sites")
    ):
        return [item for entry in inputs for item in expand(entry)]
    if not isinstance(inputs, str | os.PathLike):
        return list(frame_rows(inputs)) if is_frame(inputs) else [inputs]
    if not os.fspath(inputs):
        raise CrystalError("an empty path: give a file, a folder or a pattern")
    path = Path(inputs).expanduser()
    if path.exists():
        return list(structure_files(path))
    files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not files:
        raise CrystalError(f"no such file, and no file matches (working folder: {Path.cwd()})", str(path))
    return list(files)


def crystals_of(items: Sequence[Any], box: float | None, plausibility: Plausibility) -> Iterator[Outcome]:
    """The crystals of files and objects, in order, each with an id of its own.

    Args:
        items: From `expand`.
        box: Å of vacuum around molecules; None refuses them.
        plausibility: See `read_crystals`.
    """
    taken: dict[str, Path | None] = {}
    for number, item in enumerate(items):
        for outcome in _outcomes(item, box, plausibility, number):
            if isinstance(outcome, Crystal):
                file = item if isinstance(item, Path) else None
                if outcome.id in taken:
                    outcome = replace(outcome, id=unique_id(outcome.id, taken, file))
                taken[outcome.id] = file
            yield number, outcome


def name_of(item: Any, number: int) -> str:
    """What an item is called in a list of failures."""
    if isinstance(item, Named):
        return item.name
    return str(item) if isinstance(item, Path) else f"input {number}"


def chunks(
    items: list[Any], outcomes: Iterator[Outcome], skip: bool
) -> Iterator[tuple[list[Crystal], list[Failure]]]:
    """Crystals of some inputs at a time, with the inputs between them that could not be read."""
    crystals: list[Crystal] = []
    failures: list[Failure] = []
    pairs = 0
    for number, outcome in outcomes:
        if isinstance(outcome, CrystalError):
            if not skip:
                raise outcome
            failures.append(Failure(name_of(items[number], number), str(outcome)))
            continue
        if crystals and (len(crystals) == CHUNK or pairs + len(outcome) ** 2 > CHUNK_PAIRS):
            yield crystals, failures
            crystals, failures, pairs = [], [], 0
        crystals.append(outcome)
        pairs += len(outcome) ** 2
    yield crystals, failures


def _outcomes(
    item: Any, box: float | None, plausibility: Plausibility, number: int
) -> Iterator[Crystal | CrystalError]:
    if isinstance(item, Path):
        yield from open_structures(item, box, plausibility)
        return
    name, structure = (item.name, item.structure) if isinstance(item, Named) else (str(number), item)
    try:
        crystal = _from_object(structure, box, plausibility, name)
        yield replace(crystal, id=name) if isinstance(item, Named) and crystal.id != name else crystal
    except CrystalError as error:
        yield error


def _from_object(item: Any, box: float | None, plausibility: Plausibility, name: str) -> Crystal:
    """A crystal from an object or dictionary of ours or another library, named by its place in the list.

    A `Crystal` is taken as it is.
    """
    if isinstance(item, Crystal):
        return item if item.id else replace(item, id=name)
    return from_serialized(item, name, box, plausibility)
