"""Data: sources, targets, splits, features and their cache, and the LightningDataModule."""

from typing import TYPE_CHECKING, Any

from potnet.data.errors import CacheError, DataError
from potnet.data.features.featurizer import Failure, Featurizer
from potnet.data.loading import CrystalDataset
from potnet.data.sources import EmbeddedSource, FolderSource, MaterialsProjectSource, Source, TableSource
from potnet.data.splits.files import FileSplit
from potnet.data.splits.grouped import FoldSplit, RatioSplit
from potnet.data.splits.published import MatbenchFold, PublishedSplit
from potnet.data.splits.recipes import GivenSplit, ListedSplit, ShuffledSplit, Split
from potnet.data.table import CrystalTable, Dataset, Removal
from potnet.data.targets import Target, Targets

if TYPE_CHECKING:
    from potnet.data.datamodule import CrystalDataModule

__all__ = [
    "CacheError",
    "CrystalDataModule",
    "CrystalDataset",
    "CrystalTable",
    "DataError",
    "Dataset",
    "EmbeddedSource",
    "Failure",
    "Featurizer",
    "FileSplit",
    "FoldSplit",
    "FolderSource",
    "GivenSplit",
    "ListedSplit",
    "MatbenchFold",
    "MaterialsProjectSource",
    "PublishedSplit",
    "RatioSplit",
    "Removal",
    "ShuffledSplit",
    "Source",
    "Split",
    "TableSource",
    "Target",
    "Targets",
]


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import; prediction from Python and --help do without it.
    if name == "CrystalDataModule":
        from potnet.data.datamodule import CrystalDataModule

        return CrystalDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
