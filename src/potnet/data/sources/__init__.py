"""Where crystals come from: one file a source.

A source is a small object with a `name`, a cheap `content_hash()` (so that a cache can be found without
reading the data) and `load()`, which returns a `Dataset`. A new source is one file that provides these three.
"""

from typing import Protocol

from potnet.data.dataset import Dataset
from potnet.data.sources.embedded import EmbeddedSource
from potnet.data.sources.table import TableSource

__all__ = ["EmbeddedSource", "Source", "TableSource"]


class Source(Protocol):
    """What a source provides."""

    @property
    def name(self) -> str:
        """Short name of the data set, fit for a folder's name."""
        ...

    def content_hash(self) -> str:
        """sha256 of all that defines the content, without reading the crystals."""
        ...

    def load(self) -> Dataset:
        """Read everything."""
        ...
