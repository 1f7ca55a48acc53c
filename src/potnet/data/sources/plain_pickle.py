"""Pickles of plain data, read without running anything that is in them."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from potnet.data.errors import DataError


def load_plain(content: bytes, where: str) -> Any:
    """Unpickle containers, numbers, text and numpy arrays, and nothing else.

    A pickle is a program that may call any function it names. Here it can name only what puts these kinds of
    data together.

    Args:
        content: The pickle.
        where: It comes from, for messages.

    Raises:
        DataError: It names anything else, or is broken.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content)).load()
    except _NotPlain as error:
        raise DataError(
            f"{where}: the pickle asks for {error}, which is not plain data: nothing of it was run. "
            "This is not the file it should be"
        ) from None
    except Exception as error:  # broken pickles raise anything
        raise DataError(f"{where}: broken pickle ({type(error).__name__}: {error})") from None


class _NotPlain(Exception):
    """The name of what a pickle may not ask for."""


def _latin1(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, by which old pickles write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _NotPlain(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _dtype(*arguments: Any) -> np.dtype[Any]:
    """numpy.dtype of numbers and text: arrays of objects and of named fields are not plain."""
    found: np.dtype[Any] = np.dtype(*arguments)
    if found.kind not in "biufcSUO" or found.fields is not None:
        raise _NotPlain(f"numpy.dtype({arguments[0]!r})")
    return found


# What puts arrays and numpy's numbers together has moved between versions of numpy; ask numpy for it.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
_FROM_BUFFER = np.empty(0).__reduce_ex__(5)[0]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): dict,
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")  # the latter in old protocols
        for kind in (set, frozenset, complex, bytearray, bytes)
    },
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _RECONSTRUCT),
            ("multiarray", "scalar", _SCALAR),
            ("numeric", "_frombuffer", _FROM_BUFFER),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _NotPlain(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _NotPlain("a persistent object")
