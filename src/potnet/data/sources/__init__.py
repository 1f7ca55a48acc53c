"""Where crystals come from: one file a source.

A source is a small object: what is known of the data set before it is read, a cheap `content_hash()` (so that
a cache can be found without reading the crystals), and `load()`. A new source is one file here with a class
that provides what `Source` lists; `conf/data/` gives it a name.
"""

from typing import Protocol

from potnet.data.sources.elastic import ElasticSource
from potnet.data.sources.embedded import EmbeddedSource
from potnet.data.sources.folder import FolderSource
from potnet.data.sources.jarvis import JarvisSource
from potnet.data.sources.matbench import MatbenchSource
from potnet.data.sources.mp_api import MaterialsProjectSource
from potnet.data.sources.table import TableSource
from potnet.data.table import Dataset

__all__ = [
    "ElasticSource",
    "EmbeddedSource",
    "FolderSource",
    "JarvisSource",
    "MatbenchSource",
    "MaterialsProjectSource",
    "Source",
    "TableSource",
]


class Source(Protocol):
    """What a source provides."""

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

    def content_hash(self) -> str:
        """sha256 of all that defines the content, without reading the crystals."""
        ...

    def load(self, on_error: str = "raise") -> Dataset:
        """Read everything.

        Args:
            on_error: Whether a crystal that cannot be read, or whose id another has, is an error
                ("raise"), or is left out and listed in `Dataset.removed` ("skip"). See `Collector`.
        """
        ...
