"""The data of a training run, in Lightning's form."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader

from potnet.config.suggest import did_you_mean
from potnet.crystals import CrystalBatch
from potnet.data.consistency import problems_of
from potnet.data.errors import DataError
from potnet.data.features.cache import cached_features
from potnet.data.features.featurizer import Featurizer
from potnet.data.features.packing import Packing, limited_batches
from potnet.data.features.sampling import CrystalBatchSampler, EpochSampler
from potnet.data.features.store import FeatureStore
from potnet.data.features.workers import BACKENDS
from potnet.data.loading import CrystalDataset, SharedLoader, as_is, leave_signals_to_the_parent
from potnet.data.references import aligned
from potnet.data.sources import Source
from potnet.data.splits.prototypes import with_prototypes
from potnet.data.splits.recipes import GivenSplit, Split, SplitRecipe
from potnet.data.table import (
    NOT_FEATURIZED,
    NOT_IN_SPLIT,
    PARTS,
    CrystalTable,
    Removal,
    Removals,
)
from potnet.data.targets import Target, Targets
from potnet.files import cache_root
from potnet.progress import progress_bar

log = logging.getLogger(__name__)


class CrystalDataModule(lightning.LightningDataModule):
    """Featurizes a data set once, and serves batches of it.

    `prepare_data` does the work and writes the cache; `setup` only reads. Training batches come in a new
    order each epoch, set by seed and epoch alone; a last batch of a single crystal is left out of that
    epoch. Validation and test batches hold every crystal once, in the order of the split. On several devices
    each takes its share of every batch: `trainer.fit(module, datamodule=data)` takes the steps of one device.

    Args:
        source: Where the crystals come from.
        targets: What is learned; crystals that lack a label are treated as `Target.on_missing` says.
        featurizer: The features, as an object or as its settings; None takes those of the command.
        split: Divides the crystals (see `splits`); by default the split that comes with the data.
        batch_size: Crystals of a batch, over all devices.
        limit: Keep this many crystals only, in the proportions of the source's split; None keeps all.
        seed: Of the order of training crystals.
        num_workers: Processes that load batches; 0 loads them in the training process.
        cache_dir: Where features are kept; by default $POTNET_CACHE or the user's cache folder.
        needs: Features to build, as the model declares them: any of `potnet.data.features.featurizer.NEEDS`.
        on_error: Whether a crystal that cannot be read or featurized, or has the id of another, is an
            error ("raise"), or listed in `removed` and left out ("skip").
        max_atoms: Leave out crystals with more atoms in the cell as given, and list them in `removed`; None
            keeps all.
        featurize_workers: Processes that featurize; by default one a usable core, as far as there is work for
            them.
        max_edges: Most local edges of a batch, over all devices; None is no limit. A crystal that has more
            gets a batch of its own.
        max_pairs: Likewise, most ordered pairs of atoms of a batch, if pairs are among the needs.
        featurize_backend: Where those processes are: "processes" of this machine, or a cluster by "ray".

    Raises:
        DataError: A setting that cannot be used.
    """

    def __init__(
        self,
        source: Source,
        targets: Targets | Target | Mapping[str, Any],
        featurizer: Featurizer | Mapping[str, Any] | None = None,
        split: SplitRecipe | None = None,
        batch_size: int = 64,
        limit: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | Path | None = None,
        needs: Iterable[str] = ("edges", "pairs"),
        on_error: str = "raise",
        max_atoms: int | None = None,
        featurize_workers: int | None = None,
        max_edges: int | None = None,
        max_pairs: int | None = 500_000,
        featurize_backend: str = "processes",
    ) -> None:
        super().__init__()
        sizes = {"limit": limit, "max_atoms": max_atoms, "max_edges": max_edges, "max_pairs": max_pairs}
        for name, most in sizes.items():
            if most is not None and most < 1:
                raise DataError(f"data.{name}={most}: give at least 1, or null for no limit")
        if featurize_workers is not None and featurize_workers < 1:
            raise DataError(f"data.featurize_workers={featurize_workers}: give at least 1, or null to choose")
        if batch_size < 1:
            raise DataError(f"data.batch_size={batch_size}: give at least 1")
        if num_workers < 0:
            raise DataError(f"data.num_workers={num_workers}: give 0 (none) or more")
        if on_error not in ("raise", "skip"):
            raise DataError(f"data.on_error={on_error!r}{did_you_mean(str(on_error), ('raise', 'skip'))}")
        if featurize_backend not in BACKENDS:
            hint = did_you_mean(str(featurize_backend), BACKENDS)
            raise DataError(f"data.featurize_backend={featurize_backend}{hint}")
        if not isinstance(featurizer, Featurizer):
            featurizer = Featurizer(**(featurizer or {}))
        self.source = source
        self.targets = Targets.from_config(targets)
        self.featurizer = featurizer.restricted(needs)
        if self.featurizer.cell != "as_given":
            _refuse_labels_of_the_cell(self.targets)
        self.split_recipe = split if split is not None else GivenSplit()
        self.batch_size = batch_size
        self.limit = limit
        self.seed = seed
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.on_error = on_error
        self.max_atoms = max_atoms
        self.featurize_workers = featurize_workers
        self.max_edges = max_edges
        self.max_pairs = max_pairs
        self.featurize_backend = featurize_backend
        self.seconds: dict[str, float] = {}
        self._store: FeatureStore | None = None
        self._split: Split | None = None
        self._removed = Removals()
        self._labels: dict[str, np.ndarray] = {}

    def prepare_data(self) -> None:
        """Featurize the crystals, unless the cache holds them."""
        if self._store is not None:
            return
        start = time.perf_counter()
        before = dict(self.featurizer.seconds)
        store = self._features(lambda total: progress_bar(total, "Featurizing"))
        stages = {stage: spent - before[stage] for stage, spent in self.featurizer.seconds.items()}
        self.seconds = {**stages, "total": time.perf_counter() - start}
        log.info("features: %s", self._describe(store))

    def setup(self, stage: str | None = None) -> None:
        """Open the features, and divide the crystals."""
        if self._store is not None:
            return
        store = self._features(None)
        failed = Removals.listed(Removal(f.id, NOT_FEATURIZED, f.reason) for f in store.failures)
        table = replace(store.table, removed=store.table.removed + failed)
        self._split, self._removed, self._labels = self._divide(table)
        self._align(store)
        self._store = store
        used = np.concatenate([self._split.rows(part) for part in PARTS])
        for problem in problems_of(self.targets, self._labels, store, used):
            log.warning("%s", problem)
        if len(self._removed):
            log.warning("%s", self._describe_removed())
        if not self._split.sizes["val"]:
            log.warning(
                "the split has no crystal for validation, of %d in all: the last checkpoint counts as the "
                "best. "
                "Give more crystals, or validation a larger share",
                sum(self._split.sizes.values()),
            )
        if not self._split.sizes["test"]:
            log.warning("the split has no crystal for the test")

    def train_dataloader(self) -> DataLoader[CrystalBatch]:
        """Batches for training, in a new order each epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[CrystalBatch] | list[Any]:
        """Batches for validation; an empty list if the split has no such part."""
        return self._loader("val") if self.split.sizes["val"] else []

    def test_dataloader(self) -> DataLoader[CrystalBatch] | list[Any]:
        """Batches for the test; an empty list if the split has no such part."""
        return self._loader("test") if self.split.sizes["test"] else []

    def dataloader(self, part: str, rows: np.ndarray | None = None) -> DataLoader[CrystalBatch]:
        """Batches of "train", "val" or "test", every crystal once, in the order of the split, on any rank.

        Args:
            part: Of the split.
            rows: Some of its crystals, as rows of `store`, in the order wanted; None is all.
        """
        return self._loader(part, shared=False, rows=rows)

    def dataset(self, part: str, rows: np.ndarray | None = None) -> CrystalDataset:
        """The crystals of "train", "val" or "test", or some of them.

        Raises:
            DataError: There is no such part.
        """
        labels = {
            key: values for key, values in self._labels.items() if not _with_features(self.targets[key])
        }
        chosen = self.split.rows(part) if rows is None else rows
        return CrystalDataset(self.store, chosen, labels)

    @property
    def store(self) -> FeatureStore:
        """The features, once `setup` has run."""
        if self._store is None:
            self.setup()
        assert self._store is not None
        return self._store

    @property
    def split(self) -> Split:
        """The rows of `store` that are in each part, and their ids, once `setup` has run."""
        if self._split is None:
            self.setup()
        assert self._split is not None
        return self._split

    @property
    def removed(self) -> Removals:
        """The crystals that are in the source but not used, once `setup` has run; none but these."""
        return self._removed

    def summary(self) -> dict[str, Any]:
        """What a log should say: name, size of each part, crystals left out by reason, cache."""
        return {
            "name": self.source.name,
            "crystals": self.split.sizes,
            "removed": self._removed.counts(),
            "split_hash": self.split.hash(),
            "cache": str(self.store.folder),
            "cache_mib": round(self.store.bytes / 2**20, 1),
        }

    def _features(self, bar: Any) -> FeatureStore:
        return cached_features(
            self.source,
            self.featurizer,
            cache_dir=self.cache_dir,
            limit=self.limit,
            on_error=self.on_error,
            check=self._check,
            progress_bar=bar,
            max_atoms=self.max_atoms,
            workers=self.featurize_workers,
            backend=self.featurize_backend,
        )

    def _check(self, table: CrystalTable) -> None:
        """Refuse before the work what `setup` would refuse after it."""
        self._divide(table)

    def _divide(self, table: CrystalTable) -> tuple[Split, Removals, dict[str, np.ndarray]]:
        """The split, the crystals left out, and the label of every row for each target, NaN where missing."""
        self._check_arrays(table)
        rows, known, unlabelled = self.targets.select(table)
        removed = table.removed + unlabelled
        labels = {key: np.full(len(table), np.nan) for key in known}
        for key, values in known.items():
            labels[key][rows] = values
        labelled = replace(table.take(rows), removed=removed)
        if getattr(self.split_recipe, "needs_prototypes", False):
            labelled = with_prototypes(labelled, self.source, cache_root(self.cache_dir))
        split = self.split_recipe(labelled)
        unused = np.ones(len(rows), dtype=bool)
        for part in PARTS:
            unused[split.rows(part)] = False
        removed += Removals.of(labelled.ids.filter(pa.array(unused)), NOT_IN_SPLIT)
        return Split(table.ids, *(rows[split.rows(part)] for part in PARTS)), removed, labels

    def _align(self, store: FeatureStore) -> None:
        """Put energies of several sources on one scale, where a target asks for it."""
        from scipy.sparse import csr_array, vstack

        assert self._split is not None
        for key, target in self.targets.items():
            if target.reference_by is None:
                continue
            parts = []
            for start in range(0, len(store), 256):
                batch = store.batch(np.arange(start, min(start + 256, len(store))), numbers=False)
                # Entries of the same place add up.
                place = batch.batch.numpy(), batch.z.numpy()
                parts.append(csr_array((np.ones(len(batch.z)), place), shape=(batch.num_crystals, 119)))
            counts = vstack(parts, format="csr")
            sources = store.table.values(target.reference_by)
            train = self._split.rows("train")
            self._labels[key] = aligned(self._labels[key], counts, sources, train, key)

    def _check_arrays(self, table: CrystalTable) -> None:
        """Refuse targets that are arrays where the data have none, or the cell is another."""
        for key, target in self.targets.items():
            if not _with_features(target):
                continue
            if key not in table.arrays:
                raise DataError(
                    f"{key} is to be an array of shape {target.shape}"
                    f"{' for each atom' if target.per == 'atom' else ''}, and the data have no such label"
                    f"{did_you_mean(key, table.arrays)}"
                )
            if self.featurizer.cell != "as_given":
                raise DataError(
                    f"{key} belongs to the cell as it is given, but features.cell={self.featurizer.cell} "
                    f"reduces "
                    "it: set features.cell=as_given"
                )

    def _describe_removed(self) -> str:
        counts = Counter(self._removed.counts())
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        used = sum(self.split.sizes.values())
        return f"{len(self._removed)} crystals of {self.source.name} are not used ({reasons}); {used} are"

    def _describe(self, store: FeatureStore) -> str:
        worked = sum(self.seconds[stage] for stage in self.featurizer.seconds) > 0
        stages = ", ".join(f"{stage} {spent:.1f} s" for stage, spent in self.seconds.items())
        how = f"computed ({stages})" if worked else f"read in {self.seconds['total']:.1f} s"
        size = f"{store.bytes / 2**20:.0f} MiB in {store.folder}"
        skipped = f"; {len(store.failures)} left out" if store.failures else ""
        return f"{len(store)} crystals of {self.source.name} {how}, {size}{skipped}"

    def _loader(
        self, part: str, shuffle: bool = False, shared: bool = True, rows: np.ndarray | None = None
    ) -> DataLoader[CrystalBatch]:
        dataset = self.dataset(part, rows)
        sampler = EpochSampler(len(dataset), shuffle, self.seed)
        rank, world_size = 0, 1
        if shared and self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return SharedLoader(
            dataset,
            batch_sampler=CrystalBatchSampler(
                sampler, self.batch_size, shuffle, rank, world_size, self._packing(dataset, shuffle)
            ),
            collate_fn=as_is,  # type: ignore[arg-type]
            num_workers=self.num_workers,
            worker_init_fn=leave_signals_to_the_parent,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _packing(self, dataset: CrystalDataset, shuffle: bool) -> Packing | None:
        """How the limits on edges and pairs divide a part, where they matter."""
        pairs = self.max_pairs if self.featurizer.potentials is not None else None
        edges = self.store.num_edges[dataset.rows]
        atoms = self.store.num_atoms[dataset.rows]
        return limited_batches(self.batch_size, shuffle, edges, atoms * atoms, self.max_edges, pairs)


def _with_features(target: Target) -> bool:
    """Whether the labels are kept with the features: one for each atom, or arrays."""
    return target.per == "atom" or bool(target.shape)


def _refuse_labels_of_the_cell(targets: Targets) -> None:
    """Refuse labels that hold for the cell as given alone: those that grow with it, of atoms, and tensors."""
    keys = [key for key, target in targets.items() if target.extensive or _with_features(target)]
    if keys:
        raise DataError(
            f"target {', '.join(keys)}: such a label belongs to the cell as it is given, but "
            "features.cell=primitive reduces it to fewer atoms: set features.cell=as_given"
        )
