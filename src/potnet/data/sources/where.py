"""Conditions on the columns of a table, such as `set == "Si" and energy < 0`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, options: value in options,
    ast.NotIn: lambda value, options: value not in options,
}


class Where:
    """A condition on one row of a table.

    Args:
        condition: Text: comparisons (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`) of columns with
            numbers, quoted text or lists, joined by `and`, `or`, `not`. Or a mapping column -> value, or list
            of values, all of which have to hold.
        setting: What it is called in messages.

    Raises:
        DataError: It is neither.
    """

    def __init__(self, condition: str | Mapping[str, Any], setting: str = "data.source.where") -> None:
        self.condition = condition
        self.setting = setting
        self._tree: ast.expr | None = None
        if isinstance(condition, str):
            try:
                self._tree = ast.parse(condition.strip(), mode="eval").body
            except SyntaxError as error:
                raise DataError(
                    f"{setting}={condition}: not a condition ({error.msg}); write it such as "
                    "'set==\"Si\" and energy<0'"
                ) from None
            self._check(self._tree)
        elif not isinstance(condition, Mapping):
            raise DataError(
                f"{setting}={condition!r}: give a condition, such as 'set==\"Si\"', or {{column: value}}"
            )

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Whether the condition holds. A comparison with a missing value, or of text with a number, is false.

        Raises:
            DataError: A column that is not there.
        """
        if self._tree is not None:
            return bool(self._value(self._tree, row))
        for column, wanted in self.condition.items():  # type: ignore[union-attr]
            options = wanted if isinstance(wanted, list | tuple) else [wanted]
            if not any(_equal(self._column(str(column), row), option) for option in options):
                return False
        return True

    @property
    def columns(self) -> list[str]:
        """The columns that it names."""
        if self._tree is None:
            return [str(column) for column in self.condition]
        return [node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)]

    def check_columns(self, names: Iterable[str]) -> None:
        """Refuse a condition on a column that a table does not have, before its rows are there.

        Raises:
            DataError: The column and the nearest one are named.
        """
        known = dict.fromkeys(names)
        for column in self.columns:
            self._column(column, known)

    def _check(self, node: ast.expr) -> None:
        """Refuse what is no comparison before any row is read."""
        parts: list[ast.expr]
        if isinstance(node, ast.BoolOp):
            parts = node.values
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.UAdd):
            parts = [node.operand]
        elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            parts = node.elts
        elif isinstance(node, ast.Name | ast.Constant):
            parts = []
        else:
            raise DataError(
                f"{self.setting}={self.condition}: {ast.unparse(node)!r} is not understood; compare "
                f"columns "
                "with values, joined by and, or, not"
            )
        for part in parts:
            self._check(part)

    def _value(self, node: ast.expr, row: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._column(node.id, row)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [self._value(part, row) for part in node.elts]
        if isinstance(node, ast.BoolOp):
            found = (bool(self._value(part, row)) for part in node.values)
            return all(found) if isinstance(node.op, ast.And) else any(found)
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, row)
            if isinstance(node.op, ast.Not):
                return not value
            return -value if isinstance(node.op, ast.USub) else value
        assert isinstance(node, ast.Compare)
        left = self._value(node.left, row)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = self._value(part, row)
            if not _holds(op, left, right):
                return False
            left = right
        return True

    def _column(self, name: str, row: Mapping[str, Any]) -> Any:
        if name not in row:
            raise DataError(f"{self.setting}: there is no column {name}{did_you_mean(name, map(str, row))}")
        return row[name]


def _holds(op: ast.cmpop, left: Any, right: Any) -> bool:
    if left is None or right is None:
        return False
    if isinstance(right, list):
        found = any(_equal(left, option) for option in right)
        return found if isinstance(op, ast.In) else not found if isinstance(op, ast.NotIn) else False
    if isinstance(op, ast.Eq | ast.NotEq):
        return _equal(left, right) == isinstance(op, ast.Eq)
    left, right = _alike(left, right)
    try:
        return bool(_COMPARE[type(op)](left, right))
    except TypeError:
        return False


def _equal(left: Any, right: Any) -> bool:
    left, right = _alike(left, right)
    return bool(type(left) is type(right) and left == right)


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Both as numbers, where one is a number and the other is one written as text (CSV)."""
    return (_as_number(left), _as_number(right)) if _is_number(left) or _is_number(right) else (left, right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _as_number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
