from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from crystal_tables import table_of

from potnet.data import CrystalTable, DataError, GivenSplit, ListedSplit, ShuffledSplit, Split
from potnet.data.splits import recipes
from potnet.data.splits.recipes import shuffled_indices


def table(total: int, split: list[str | None] | None = None) -> CrystalTable:
    ids = [f"c{i}" for i in range(total)]
    return table_of(ids, {"k": np.ones(total)}, {"k": ""}, **({"part": split} if split else {}))


def split_of(**parts: list[str]) -> Split:
    return ListedSplit(parts).split


def test_given_split_keeps_order():
    split = GivenSplit()(table(5, ["test", "train", None, "val", "train"]))
    assert split.to_plain() == {"train": ["c1", "c4"], "val": ["c3"], "test": ["c0"]}
    assert split.rows("train").tolist() == [1, 4]
    assert split.sizes == {"train": 2, "val": 1, "test": 1}


def test_given_split_without_validation():
    assert GivenSplit()(table(2, ["train", "test"]))["val"] == ()


def test_given_split_needs_a_split():
    with pytest.raises(DataError, match=r"comes without a split: .*split=shuffled"):
        GivenSplit()(table(3))


def test_nothing_to_train_on():
    with pytest.raises(DataError, match=r"no crystal for training \(1 for validation, 1 for test\)"):
        GivenSplit()(table(2, ["val", "test"]))


def test_one_crystal_cannot_be_divided():
    with pytest.raises(DataError, match="no crystal for training"):
        ShuffledSplit()(table(1))


def test_published_shuffle_is_pythons():
    random.seed(123)
    expected = list(range(1000))
    random.shuffle(expected)
    assert shuffled_indices(1000, 123).tolist() == expected
    # Guards against another shuffle in another Python.
    assert shuffled_indices(10, 123).tolist() == [8, 7, 5, 9, 2, 3, 6, 1, 4, 0]


@pytest.mark.parametrize(
    ("total", "parts", "sizes"),
    [
        (55_723, {}, (44_578, 5_572, 5_572)),
        (55_371, {}, (44_296, 5_537, 5_537)),
        (18_172, {}, (14_537, 1_817, 1_817)),
        (69_239, {"train": 60_000, "val": 5_000, "test": 4_239}, (60_000, 5_000, 4_239)),
    ],
)
def test_published_sizes(total: int, parts: dict[str, int], sizes: tuple[int, ...]):
    split = ShuffledSplit(**parts)(table(total))
    assert tuple(split.sizes.values()) == sizes
    order = shuffled_indices(total, 123)
    assert split["train"][0] == f"c{order[0]}"
    assert split["test"][-1] == f"c{order[-1]}"
    assert split["val"][-1] == f"c{order[total - sizes[2] - 1]}"


def test_seed_and_ratio():
    one = ShuffledSplit(0.5, 0.25, 0.25, seed=1)(table(8))
    other = ShuffledSplit(0.5, 0.25, 0.25, seed=2)(table(8))
    assert one.sizes == {"train": 4, "val": 2, "test": 2}
    assert one.hash() != other.hash()
    assert one.hash() == ShuffledSplit(0.5, 0.25, 0.25, seed=1)(table(8)).hash()
    assert sorted(one["train"] + one["val"] + one["test"]) == [f"c{i}" for i in range(8)]


def test_hash_knows_the_part():
    assert split_of(train=["a", "b"], val=["c"]).hash() != split_of(train=["a"], val=["b", "c"]).hash()


def test_hash_and_file_do_not_depend_on_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = {"train": ["c2", 'a "b"', "Å"], "val": [], "test": ["c1"]}
    split = split_of(**plain)
    # The hash of runs that are there already.
    known = "792dadbbc6bae88bed8795e1083cbc78ef5db77c63931afb1a6e6e86ded03e39"
    assert split.hash() == known
    for piece in (1, 2, 65_536):
        monkeypatch.setattr(recipes, "_PIECE", piece)
        assert split.hash() == known
        split.write(tmp_path / "split.json")
        written = json.dumps({"hash": split.hash(), **plain}, indent=1) + "\n"
        assert (tmp_path / "split.json").read_text() == written


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": 1.5}, r"data\.split\.train=1\.5"),
        ({"val": -1}, r"data\.split\.val=-1"),
        ({"train": 0.9, "val": 0.2}, "the fractions add up to 1.2"),
    ],
)
def test_impossible_fractions(parts: dict[str, float], message: str):
    with pytest.raises(DataError, match=message):
        ShuffledSplit(**parts)


def test_more_than_there_is():
    with pytest.raises(DataError, match=r"asks for 12 crystals .* but there are 5"):
        ShuffledSplit(train=10, val=1, test=1)(table(5))


def test_listed_split():
    parts = {"train": ["c2", "c0"], "val": ["c1"]}
    split = ListedSplit(parts)(table(3))
    assert split.to_plain() == {**parts, "test": []}
    with pytest.raises(DataError, match="1 crystals of the split are not in the data: c2"):
        ListedSplit(parts)(table(2))


def test_unknown_and_double():
    with pytest.raises(DataError, match="unknown part 'tets' of the split; did you mean test"):
        ListedSplit({"train": ["a"], "tets": ["b"]})
    with pytest.raises(DataError, match="unknown part 'validation'"):
        split_of(train=["a"])["validation"]
    with pytest.raises(DataError, match="1 crystals are in two places of the split: a"):
        split_of(train=["a"], val=["a"])


def test_a_share_for_validation_where_the_data_have_none():
    parts = ["train"] * 10 + ["test"] * 2
    whole = table(12, parts)
    split = GivenSplit(val=0.2)(whole)
    assert split.sizes == {"train": 8, "val": 2, "test": 2}
    assert sorted([*split.rows("train"), *split.rows("val")]) == list(range(10))
    assert split.hash() == GivenSplit(val=0.2)(whole).hash() != GivenSplit(val=0.2, seed=1)(whole).hash()
    assert GivenSplit()(whole)["val"] == ()
    assert GivenSplit(val=0.2)(table(12, ["val", *parts[1:]]))["val"] == ("c0",)
    with pytest.raises(DataError, match=r"data\.split\.val=1"):
        GivenSplit(val=1)
