"""`Predictions`: a table of predicted values, one row a crystal."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, overload

import numpy as np
from torch import Tensor

from potnet.data.features.featurizer import Failure
from potnet.data.targets import Target, Targets
from potnet.files import csv_text, naming, write_whole

if TYPE_CHECKING:
    import pandas

FLAGS = "flags"
"""Column of warnings: text, empty where there is none."""

SHOWN = 10
"""Rows that a printed table shows."""


@dataclass
class Predictions:
    """Predicted values in the order of the inputs.

        predictions["k_vrh"]          a column, (n,) NumPy array
        predictions[0]                a row, {"id": ..., "k_vrh": ..., "flags": ...}
        predictions[2:5]              some rows, as Predictions
        predictions.to_dataframe()    pandas, with the ids as index

    Attributes:
        targets: What was predicted.
        ids: n names, all different.
        columns: name -> (n,). Of each target of crystals under its key: numbers in its unit, or names of
            classes; of each class also its probability, under "KEY_probability_CLASS"; of a target with a
            shape a column an element, "KEY_1", "KEY_2", ... Of models with intervals also "std", "lower" and
            "upper" (of several targets "KEY_std", ...), in the target's unit.
        atoms: Of each target of atoms: n arrays (atoms of the crystal, *shape), in the order of the input's
            atoms.
        flags: n texts that say why a value may be wrong, such as "no training crystal has Pu"; mostly
            empty.
        failures: Inputs that could not be predicted, and why.
        index: Of predictions of a pandas DataFrame, the label of its index by id; see `to_dataframe`.
    """

    targets: Targets
    ids: list[str] = field(default_factory=list)
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    atoms: dict[str, list[np.ndarray]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    index: Mapping[str, Hashable] | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Name of the first target."""
        return self.targets.first.key

    @property
    def unit(self) -> str:
        """Unit of the first target."""
        return self.targets.first.unit

    @property
    def values(self) -> np.ndarray:
        """(n,) of the first target."""
        return self[self.key]

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns of the table: id, those of the targets, flags."""
        return ("id", *self.columns, FLAGS)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, as mappings."""
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, key: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Predictions: ...

    def __getitem__(self, key: str | int | slice) -> np.ndarray | dict[str, Any] | Predictions:
        """A column by its name, a row by its number, or some rows.

        Raises:
            KeyError: There is no such column; all are named.
            IndexError: There is no such row.
        """
        if isinstance(key, str):
            if key in self.columns:
                return self.columns[key]
            if key in ("id", FLAGS):
                return np.array(self.ids if key == "id" else self.flags, dtype=object)
            raise KeyError(f"{key}: the columns are {', '.join(self.header)}")
        if isinstance(key, slice):
            return Predictions(
                self.targets,
                self.ids[key],
                {name: column[key] for name, column in self.columns.items()},
                {name: arrays[key] for name, arrays in self.atoms.items()},
                self.flags[key],
                index=self.index,
            )
        row = range(len(self))[key]
        values = {name: column[row].item() if column.dtype.kind == "f" else column[row]
                  for name, column in self.columns.items()}  # fmt: skip
        return {"id": self.ids[row], **values, FLAGS: self.flags[row]}

    def row(self, id: str) -> dict[str, Any]:
        """The row of a crystal, by its name.

        Raises:
            KeyError: There is no such crystal.
        """
        try:
            return self[self.ids.index(id)]
        except ValueError:
            raise KeyError(f"{id}: no crystal of this name was predicted") from None

    def __repr__(self) -> str:
        units = {key: target.unit for key, target in self.targets.items()}
        heads = [f"{name} ({units[name]})" if units.get(name) else name for name in self.header]
        texts = [
            heads,
            *([_text(value) for value in self[row].values()] for row in range(min(len(self), SHOWN))),
        ]
        if not any(self.flags):
            texts = [line[:-1] for line in texts]
        widths = [max(len(line[column]) for line in texts) for column in range(len(texts[0]))]
        lines = [
            "  ".join(cell.ljust(width) if not column or self.header[column] == FLAGS else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in texts
        ]  # fmt: skip
        if len(self) > SHOWN:
            lines.append(f"... {len(self)} rows")
        if self.failures:
            lines.append(f"{len(self.failures)} could not be predicted: see .failures")
        return (
            "\n".join(lines)
            if self.ids
            else f"no predictions of {', '.join(self.targets)}" + (f"; {lines[-1]}" if self.failures else "")
        )

    def _repr_html_(self) -> str:
        """In a notebook."""
        import html

        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_text(v))}</td>" for v in self[row].values()) + "</tr>"
            for row in range(min(len(self), SHOWN))
        )
        more = f"<p>{len(self)} rows</p>" if len(self) > SHOWN else ""
        failed = f"<p>{len(self.failures)} could not be predicted</p>" if self.failures else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}{failed}"

    def to_dataframe(self) -> pandas.DataFrame:
        """The table in pandas, with the ids as its index.

        Predictions of a DataFrame have the index of that frame instead, without rows that could not be
        predicted: `frame.join(model.predict(frame).to_dataframe())`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise ImportError("to_dataframe needs pandas: pip install pandas") from None
        columns = {**self.columns, FLAGS: np.array(self.flags, dtype=object)}
        if self.index is None:
            index = pandas.Index(self.ids, name="id", dtype=object)
        else:
            index = pandas.Index([self.index[id] for id in self.ids])
        return pandas.DataFrame(columns, index=index)

    def rows(self) -> list[list[str]]:
        """The table as text, numbers with six digits."""
        columns = [[_text(value) for value in column.tolist()] for column in self.columns.values()]
        return [list(row) for row in zip(self.ids, *columns, self.flags, strict=True)]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write CSV with a column for each target and one of flags; numbers in their units, six digits."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, csv_text(self.header, self.rows()))


def joined(tables: Sequence[Predictions]) -> Predictions:
    """Several tables of the same targets as one."""
    first = tables[0]
    return Predictions(
        first.targets,
        [id for table in tables for id in table.ids],
        {name: np.concatenate([table.columns[name] for table in tables]) for name in first.columns},
        {key: [array for table in tables for array in table.atoms[key]] for key in first.atoms},
        [flag for table in tables for flag in table.flags],
        [failure for table in tables for failure in table.failures],
    )


def columns_of(target: Target, value: Tensor | None) -> dict[str, np.ndarray]:
    """The columns of one target of crystals.

    Args:
        target: Which.
        value: (n, *shape) float64 in the learned unit, or (n, classes) logits; None gives empty columns.
    """
    if target.is_class:
        classes = target.classes or ()
        chances = np.zeros((0, len(classes))) if value is None else value.double().softmax(-1).numpy()
        names = (
            np.array(classes, dtype=object)[chances.argmax(-1)]
            if len(chances)
            else np.array([], dtype=object)
        )
        return {target.key: names} | {
            f"{target.key}_probability_{name}": chances[:, n] for n, name in enumerate(classes)
        }
    numbers = np.zeros((0, *target.shape)) if value is None else target.physical(value.double()).numpy()
    if not target.shape:
        return {target.key: numbers}
    flat = numbers.reshape(len(numbers), -1) if len(numbers) else np.zeros((0, target.outputs))
    return {f"{target.key}_{n + 1}": flat[:, n] for n in range(flat.shape[1])}


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _shortened(table: Predictions) -> tuple[list[str], list[list[str]]]:
    """Header and rows for the screen: four digits, and each interval in one cell with its value."""
    head, cells = ["id"], [list(table.ids)]
    left_out: set[str] = set()
    for name, values in table.columns.items():
        prefix = "" if "lower" in table.columns else f"{name}_"
        low, high = (table.columns.get(f"{prefix}{end}") for end in ("lower", "upper"))
        unit = table.targets[name].unit if name in table.targets else ""
        text = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        if name in table.targets and low is not None and high is not None:
            left_out |= {f"{prefix}{part}" for part in ("std", "lower", "upper")}
            text = [f"{v} [{a:.4g}, {b:.4g}]" for v, a, b in zip(text, low, high, strict=True)]
        if name not in left_out:
            head.append(f"{name} ({unit})" if unit else name)
            cells.append(text)
    return [*head, FLAGS], [list(row) for row in zip(*cells, table.flags, strict=True)]


class PrintedTable:
    """As `CsvTable`, on the screen: columns of a width that fits the first rows, and few digits.

    Attributes:
        rows: How many were printed.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._widths: list[int] = []

    def __enter__(self) -> PrintedTable:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def add(self, table: Predictions) -> None:
        """Print the rows of a table, and before the first ones the header with units."""
        head, rows = _shortened(table)
        if not rows:
            return
        if not self._widths:
            self._widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
            rows = [head, *rows]
        for row in rows:
            *cells, flags = [
                cell.rjust(width) if number else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(row, self._widths, strict=True))
            ]
            print("  ".join([*cells, flags.strip()]).rstrip())
        self.rows += len(table)


class CsvTable:
    """A CSV file that grows table by table, and is complete whenever it is there.

        with CsvTable(path) as file:
            for table in predictor.tables(inputs):
                file.add(table)

    The file appears when the block ends; after an error in the block, too, with what was added before.

    Args:
        path: Of the file; its folder exists. A pipe is written as it comes.

    Attributes:
        rows: How many were written.
    """  # fmt: skip

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        regular = not path.exists() or path.is_file()
        self._part = path.with_name(path.name + ".part") if regular else path
        self._file: IO[str] | None = None
        self._file_is_empty = True

    def __enter__(self) -> CsvTable:
        self._file = self._part.open("w", encoding="utf-8", newline="")
        return self

    def add(self, table: Predictions) -> None:
        """Write the rows of a table, and before the first ones the header."""
        assert self._file is not None
        with naming(self.path):
            if self._file_is_empty:
                self._file.write(csv_text(table.header, []))
                self._file_is_empty = False
            self._file.write(csv_text([], table.rows()).removeprefix("\r\n"))
        self.rows += len(table)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        assert self._file is not None
        with naming(self.path), self._file as file:
            file.flush()
            if self._part is not self.path:
                os.fsync(file.fileno())
        if self._part is self.path:
            return
        if kind is not None and not self.rows:
            self._part.unlink()
        else:
            self._part.replace(self.path)
