from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from crystal_tables import cubic, moduli, write_table
from torch import Tensor, nn

from potnet.config import build, compose, plain
from potnet.crystals import Crystal, CrystalError
from potnet.data import (
    CrystalDataModule,
    DataError,
    EmbeddedSource,
    Featurizer,
    ListedSplit,
    Removal,
    ShuffledSplit,
    TableSource,
    Target,
    Targets,
)
from potnet.data.features.sampling import CrystalBatchSampler, EpochSampler
from potnet.training.setup import data_settings, write_split

BULK = Target("k_vrh", "", transform="log10")


def from_table(
    folder: Path, records: list[dict[str, Any]], target: Target = BULK, **settings: Any
) -> CrystalDataModule:
    source = TableSource(write_table(folder / "t.jsonl", records))
    settings = {"featurizer": Featurizer(neighbors={"cutoff": 3.0}), "needs": ["edges"], **settings}
    return CrystalDataModule(source, target, cache_dir=folder / "cache", **settings)


def test_every_crystal_once(small_data: CrystalDataModule):
    for part, loader in (
        ("train", small_data.train_dataloader()),
        ("val", small_data.val_dataloader()),
        ("test", small_data.test_dataloader()),
    ):
        ids = [id for batch in loader for id in batch.ids]
        assert sorted(ids) == sorted(small_data.split[part])
        if part != "train":
            assert ids == list(small_data.split[part])
            assert ids == small_data.dataset(part).ids


def test_batches_are_collated(small_data: CrystalDataModule, embedded: Any):
    batch = next(iter(small_data.val_dataloader()))
    assert batch.num_crystals == 16
    assert batch.edge_index.max() < len(batch.z)
    assert batch.pair_sums.shape == (int((batch.num_atoms**2).sum()), 3)
    assert (batch.batch[batch.edge_index[0]] == batch.batch[batch.edge_index[1]]).all()
    expected = {c.id: c.properties["k_vrh"] for c in embedded.crystals}
    assert batch.targets["k_vrh"].tolist() == [expected[id] for id in batch.ids]
    assert batch.targets["k_vrh"].dtype == torch.float64


def test_summary_counts_everything(small_data: CrystalDataModule):
    summary = small_data.summary()
    assert summary["crystals"] == {"train": 157, "val": 21, "test": 22}
    assert summary["removed"] == {}
    assert summary["split_hash"] == small_data.split.hash()


def test_second_start_reads(small_data: CrystalDataModule, feature_settings: dict[str, Any], cache_dir: Path):
    again = CrystalDataModule(
        EmbeddedSource(),
        Target("g_vrh", "GPa", transform="log10"),
        feature_settings,
        limit=200,
        cache_dir=cache_dir,
    )
    again.prepare_data()
    assert again.seconds["standardize"] == again.seconds["sums"] == 0
    assert again.store.folder == small_data.store.folder


def orders(data: CrystalDataModule, epochs: int) -> list[list[str]]:
    loader = data.train_dataloader()
    found = []
    for epoch in range(epochs):
        loader.batch_sampler.sampler.set_epoch(epoch)
        found.append([id for batch in loader for id in batch.ids])
    return found


def test_order_depends_on_seed_and_epoch_alone(tmp_path: Path):
    data = from_table(tmp_path, moduli(20, split="train"), batch_size=8, seed=3)
    first = orders(data, 3)
    torch.manual_seed(99)
    assert orders(data, 3) == first
    assert first[0] != first[1] != first[2]
    assert orders(from_table(tmp_path, moduli(20, split="train"), batch_size=8, seed=4), 1)[0] != first[0]


@pytest.mark.parametrize(
    ("size", "batch_size", "drop", "sizes"),
    [
        (9, 4, True, [4, 4]),
        (9, 4, False, [4, 4, 1]),
        (10, 4, True, [4, 4, 2]),
        (1, 4, True, [1]),
        (3, 1, True, [1] * 3),
    ],
)
def test_last_batch_of_one(size: int, batch_size: int, drop: bool, sizes: list[int]):
    sampler = CrystalBatchSampler(EpochSampler(size, shuffle=True), batch_size, drop)
    assert [len(batch) for batch in sampler] == sizes
    assert len(sampler) == len(sizes)


def test_workers_give_the_same_batches(tmp_path: Path):
    data = from_table(tmp_path, moduli(12, split="train"), batch_size=5)
    expected = orders(data, 2)
    data.num_workers = 1
    assert orders(data, 2) == expected


class _Recorder(lightning.LightningModule):
    """Learns nothing of use, and notes the ids of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[list[str]]] = {"train": [], "val": []}

    def on_train_epoch_start(self) -> None:
        self.seen["train"].append([])

    def on_validation_epoch_start(self) -> None:
        self.seen["val"].append([])

    def training_step(self, batch: Any, index: int) -> Tensor:
        self.seen["train"][-1] += batch.ids
        return (self.weight - batch.targets["k_vrh"].float()).square().mean()

    def validation_step(self, batch: Any, index: int) -> None:
        self.seen["val"][-1] += batch.ids

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def trainer(folder: Path, **settings: Any) -> lightning.Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return lightning.Trainer(default_root_dir=folder, num_sanity_val_steps=0, **quiet, **settings)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
def test_lightning_runs_and_resumes_in_the_same_order(tmp_path: Path):
    records = [
        {**record, "split": "val" if row % 4 == 0 else "train"} for row, record in enumerate(moduli(16))
    ]
    whole = _Recorder()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        whole, from_table(tmp_path, records, batch_size=5)
    )
    train, val = whole.seen["train"], whole.seen["val"]
    assert len({tuple(order) for order in train}) == 3
    assert val == [["c0", "c4", "c8", "c12"]] * 3

    half = trainer(tmp_path, max_epochs=2, enable_checkpointing=False)
    half.fit(_Recorder(), from_table(tmp_path, records, batch_size=5))
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = _Recorder()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        resumed,
        from_table(tmp_path, records, batch_size=5),
        ckpt_path=tmp_path / "half.ckpt",
        weights_only=True,
    )
    assert resumed.seen["train"] == [train[2]]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore:Total length of .list. across ranks is zero")
def test_no_validation_part(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = from_table(tmp_path, moduli(6, split="train"), batch_size=4)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert "the split has no crystal for validation" in caplog.text
    assert data.val_dataloader() == []
    module = _Recorder()
    trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(module, data)
    assert len(module.seen["train"][0]) == 6


def test_bad_targets_stop_before_any_work(tmp_path: Path):
    records = [
        cubic("good", k_vrh=5.0, split="train"),
        cubic("bad", k_vrh=-5.0, split="train"),
        cubic("none"),
    ]
    data = from_table(tmp_path, records[:2])
    with pytest.raises(DataError, match=r"no log10, .*: bad \(-5"):
        data.prepare_data()
    with pytest.raises(DataError, match=r"1 of 2 crystals have no k_vrh .*: none"):
        from_table(tmp_path, [records[0], records[2]]).prepare_data()
    with pytest.raises(DataError, match="unknown target 'k_vhr'; did you mean k_vrh"):
        from_table(tmp_path, records, Target("k_vhr")).prepare_data()
    assert not list((tmp_path / "cache").glob("*/shard*"))


@pytest.mark.parametrize(
    "options", [{"extensive": True}, {"shape": (6,)}, {"per": "atom"}], ids=["extensive", "tensor", "atoms"]
)
def test_labels_of_the_cell_as_given_need_that_cell(tmp_path: Path, options: dict[str, Any]):
    """An energy of eight atoms is not a label of the two that are left in the primitive cell."""
    target = Target("k_vrh", **options)
    with pytest.raises(DataError, match=r"target k_vrh: .* set features\.cell=as_given"):
        from_table(tmp_path, moduli(4), target)
    from_table(tmp_path, moduli(4), target, featurizer=Featurizer("as_given", neighbors={"cutoff": 3.0}))


def test_missing_targets_are_counted(tmp_path: Path):
    records = [*moduli(3, split="train"), cubic("none", split="train")]
    data = from_table(tmp_path, records, Target("k_vrh", on_missing="drop"))
    assert data.summary()["removed"] == {"no k_vrh": 1}
    assert list(data.removed) == [Removal("none", "no k_vrh", "absent, null, NaN or not a number")]
    assert data.split["train"] == ("c0", "c1", "c2")


def test_everything_that_is_left_out_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    large = cubic("large", k_vrh=1.0, split="train")
    records = [
        *moduli(4, split="train"),
        cubic("c1", 9.0, split="train"),
        {**cubic("bad"), "z": [999, 1]},
        {**large, "z": [*large["z"], 8], "frac": [*large["frac"], [0.5, 0, 0]]},
        cubic("none", 5.0, split="train"),
        cubic("nowhere", 5.1, k_vrh=3.0, split=None),
        cubic("odd", 5.2, k_vrh=3.0, split="train"),
    ]
    local = Featurizer._local

    def refuse_odd(self: Featurizer, crystal: Crystal) -> Any:
        if crystal.id == "odd":
            raise CrystalError("refused")
        return local(self, crystal)

    monkeypatch.setattr(Featurizer, "_local", refuse_odd)
    for _ in range(2):  # computed, and read from the cache
        data = from_table(tmp_path, records, Target("k_vrh", on_missing="drop"), on_error="skip", max_atoms=2)
        data.prepare_data()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            data.setup()
        assert data.split["train"] == ("c0", "c1", "c2", "c3")
        assert [(entry.id, entry.reason) for entry in data.removed] == [
            ("c1", "duplicate id"),
            ("bad", "unreadable"),
            ("large", "too many atoms"),
            ("odd", "not featurized"),
            ("none", "no k_vrh"),
            ("nowhere", "in no part of the split"),
        ]
        assert len(data.removed) + 4 == len(records)
        lines = [record.message for record in caplog.records if "are not used" in record.message]
        assert len(lines) == 1
        assert lines[0].startswith("6 crystals of t are not used (1 duplicate id, 1 unreadable, ")
        assert lines[0].endswith("); 4 are")
    write_split(tmp_path, data)
    with (tmp_path / "removed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["c1", "bad", "large", "odd", "none", "nowhere"]
    assert rows[2]["detail"] == "3 atoms, more than data.max_atoms=2"
    with pytest.raises(DataError, match="t: several crystals have the id c1; give each its own"):
        from_table(tmp_path, records, Target("k_vrh", on_missing="drop"), max_atoms=2).prepare_data()


def test_max_atoms(tmp_path: Path):
    with pytest.raises(DataError, match=r"data\.max_atoms=0: give at least 1"):
        from_table(tmp_path, moduli(2, split="train"), max_atoms=0).prepare_data()
    with pytest.raises(DataError, match=r"max_atoms=1: none of the 2 crystals .* the smallest has 2 atoms"):
        from_table(tmp_path, moduli(2, split="train"), max_atoms=1).prepare_data()


def test_one_crystal(tmp_path: Path):
    with pytest.raises(DataError, match="no crystal for training"):
        from_table(tmp_path, moduli(1), split=ShuffledSplit()).prepare_data()
    data = from_table(tmp_path, moduli(1), split=ListedSplit({"train": ["c0"]}))
    assert [batch.ids for batch in data.train_dataloader()] == [["c0"]]


def test_settings_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(DataError, match=r"data\.batch_size=0"):
        from_table(tmp_path, moduli(2), batch_size=0)
    with pytest.raises(DataError, match=r"data\.num_workers=-1"):
        from_table(tmp_path, moduli(2), num_workers=-1)
    with pytest.raises(DataError, match=r"data\.on_error='skp'; did you mean skip"):
        from_table(tmp_path, moduli(2), on_error="skp")
    with pytest.raises(DataError, match="needs pair sums"):
        from_table(tmp_path, moduli(2), needs=["edges", "pairs"])
    with pytest.raises(DataError, match="comes without a split"):
        from_table(tmp_path, moduli(2)).prepare_data()


class _Ids(_Recorder):
    """Writes the ids of each rank's batches to a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_fit_end(self) -> None:
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(self.seen))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_devices_by_hand(tmp_path: Path):
    """Each rank gets its share of the batches of one device, without any setting of the Trainer."""
    records = [
        {**record, "split": "val" if row % 4 == 0 else "train"} for row, record in enumerate(moduli(17))
    ]
    seen = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        strategy = {"strategy": "ddp_fork"} if devices > 1 else {}
        trainer(folder, max_epochs=2, devices=devices, enable_checkpointing=False, **strategy).fit(
            _Ids(folder), datamodule=from_table(tmp_path, records, batch_size=5)
        )
        seen.append([json.loads((folder / f"{rank}.json").read_text()) for rank in range(devices)])
    ((one,), two) = seen
    for part in ("train", "val"):
        for epoch in range(2):
            shares = [rank[part][epoch] for rank in two]
            assert len(shares[0] + shares[1]) == len(set(shares[0] + shares[1]))
            assert sorted(shares[0] + shares[1]) == sorted(one[part][epoch])
            assert abs(len(shares[0]) - len(shares[1])) <= 3


def test_defaults_are_those_of_the_command(tmp_path: Path):
    """In Python and on the command line the same crystals get the same features, batches and split."""
    config = plain(compose("train", []))
    source = TableSource(write_table(tmp_path / "t.jsonl", moduli(4, split="train")))
    ours = CrystalDataModule(source, BULK)
    theirs = CrystalDataModule(
        source,
        BULK,
        config["features"],
        build(config["data"]["split"], "data.split"),
        **{
            key: value
            for key, value in data_settings(config["data"]).items()
            if key not in ("_target_", "source", "split", "seed")
        },
    )
    assert Featurizer().settings() == Featurizer(**config["features"]).settings()
    assert ours.featurizer.settings() == theirs.featurizer.settings()
    simple = (int, float, str, type(None))
    for name, value in vars(theirs).items():
        if isinstance(value, simple) and not name.startswith("_") and name != "seed":
            assert getattr(ours, name) == value, name
    assert type(ours.split_recipe) is type(theirs.split_recipe)


def test_a_featurizer_without_settings_can_be_used(tmp_path: Path):
    data = CrystalDataModule(
        TableSource(write_table(tmp_path / "t.jsonl", moduli(4, split="train"))),
        BULK,
        Featurizer(),
        cache_dir=tmp_path / "cache",
    )
    assert next(iter(data.train_dataloader())).pair_sums.shape[1] == 3


def forces_rows(total: int) -> list[dict[str, Any]]:
    labels = {"forces": [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], "stress": [0.1] * 6}
    return [
        cubic(f"c{i}", 4 + 0.1 * i, energy=float(i), split="train", magmoms=[1.0] * 2, **labels)
        for i in range(total)
    ]


def test_arrays_need_the_cell_as_given(tmp_path: Path):
    targets = [
        Target("energy", "eV", extensive=True),
        Target("forces", per="atom", shape=(3,), derived_from="energy"),
    ]
    settings = {"neighbors": {"cutoff": 3.0}}
    with pytest.raises(
        DataError, match=r"such a label belongs to the cell as it is given.*features\.cell=as_given"
    ):
        from_table(tmp_path, forces_rows(4), Targets(targets), featurizer=settings).prepare_data()
    given = {**settings, "cell": "as_given"}
    unknown = Targets([BULK, Target("spin", shape=(2,))])
    with pytest.raises(DataError, match="the data have no such label"):
        from_table(tmp_path, moduli(4, split="train"), unknown, featurizer=given).prepare_data()
    batch = next(
        iter(from_table(tmp_path, forces_rows(4), Targets(targets), featurizer=given).train_dataloader())
    )
    assert batch.targets["forces"].shape == (8, 3)
    # Without a target for them they do not stand in the way of another cell.
    energy = from_table(tmp_path, forces_rows(4), Target("energy"), featurizer=settings)
    assert "forces" not in next(iter(energy.train_dataloader())).targets
