"""Where crystals come from: one file a source.

A source is a small object: what is known of the data set before it is read, a cheap `content_hash()` (so that
a cache can be found without reading the crystals), and `read()`, which yields the crystals one by one. A new
source is one file here with a class that provides what `base.Source` lists; `conf/data/` gives it a name.
"""

from potnet.data.sources.base import ReadableSource, Sample, Source
from potnet.data.sources.elastic import ElasticSource
from potnet.data.sources.embedded import EmbeddedSource
from potnet.data.sources.folder import FolderSource
from potnet.data.sources.jarvis import JarvisSource
from potnet.data.sources.matbench import MatbenchSource
from potnet.data.sources.mp_api import MaterialsProjectSource
from potnet.data.sources.mptrj import MPtrjSource
from potnet.data.sources.structures import open_structures, structure_files
from potnet.data.sources.table import TableSource

__all__ = [
    "ElasticSource",
    "EmbeddedSource",
    "FolderSource",
    "JarvisSource",
    "MPtrjSource",
    "MatbenchSource",
    "MaterialsProjectSource",
    "ReadableSource",
    "Sample",
    "Source",
    "TableSource",
    "open_structures",
    "structure_files",
]
