"""The splits of the papers: sizes and checksums of their lists of rows."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from crystal_tables import table_of

from potnet.config import build, compose, config_dir, plain
from potnet.data import CrystalTable, DataError, GivenSplit, PublishedSplit, Split
from potnet.data.splits.published import matbench_test_rows

# sha256 over the rows of training, validation and test, made with random.seed(123); random.shuffle.
SHUFFLED = {
    ("jarvis_dft_3d", 55_723): ("3a122da5732d4325", "1def79a4dc184902", "c8bce6ce903a3b95"),
    ("jarvis_dft_3d", 55_371): ("9340b9b4237a8111", "862a2f0db34b081f", "3d5912de2aaa978c"),
    ("jarvis_dft_3d", 18_172): ("ec8499590741179f", "2ed28932013691bd", "e9bc10ba4a8cf573"),
    ("mp_megnet", 69_239): ("42f0810e3776fb6c", "242fcda4e37568b3", "03bdaf50e9bd1f0d"),
}
PUBLISHED = [
    ("jarvis_dft_3d", "formation_energy_per_atom", 55_723, (44_578, 5_572, 5_572)),
    ("jarvis_dft_3d", "total_energy_per_atom", 55_723, (44_578, 5_572, 5_572)),
    ("jarvis_dft_3d", "band_gap_opt", 55_723, (44_578, 5_572, 5_572)),
    ("jarvis_dft_3d", "energy_above_hull", 55_371, (44_296, 5_537, 5_537)),
    ("jarvis_dft_3d", "band_gap_mbj", 18_172, (14_537, 1_817, 1_817)),
    ("mp_megnet", "formation_energy_per_atom", 69_239, (60_000, 5_000, 4_239)),
    ("mp_megnet", "band_gap", 69_239, (60_000, 5_000, 4_239)),
]
# sha256 over the rows of the test of each fold, made with KFold of scikit-learn.
FOLDS = {
    "refractive_index": (
        4_764,
        "0649a2bfec5c4d87 ba8c3daea173d5ee be6238113269ced9 29769b4ed9020908 a67579c1163740b0",
    ),
    "exfoliation_energy": (
        636,
        "8ab26f122d2e23e6 081c88efb4a374be bf1fd7e1070cf604 4c00fc533189ca02 bd6241abf8dae933",
    ),
    "g_vrh": (10_987, "2b4076ece9e46548 5f2e4f7af21d1b51 5d9b2f8f2b02b8e0 e46c3a8127a15640 167ace640cfd0a95"),
    "k_vrh": (10_987, "2b4076ece9e46548 5f2e4f7af21d1b51 5d9b2f8f2b02b8e0 e46c3a8127a15640 167ace640cfd0a95"),
    "formation_energy_per_atom": (
        132_752,
        "26cf5181c70c4029 b3d63de762e5330a 61c78311db7a5d3b c6ffc6a110b55d3d 126e0061c4378f4b",
    ),
    "band_gap": (
        106_113,
        "b0fabd1b5913cc47 2bae5b1f67e87ce1 c206cbbb6bf03f99 886d6f36f8debbd4 d7898cc60789456f",
    ),
    "perovskite_formation_energy": (
        18_928,
        "bff03ab3da53481b f954d8c71fe16453 3366b14ec9335d6a 363495d7e7ea722a 230889d2a7eb009c",
    ),
    "phonon_peak": (
        1_265,
        "0491f6bdef1670e6 e329ceb78c9aab80 bbd9d0956d13e967 83d38f2f502c569c 436150fe1cb0d71e",
    ),
}


def table(total: int, split: list[str | None] | None = None) -> CrystalTable:
    return table_of([str(row) for row in range(total)], **({"part": split} if split else {}))


def published(data: str, target: str, *overrides: str) -> PublishedSplit:
    config = plain(compose("train", [f"data={data}", f"target={target}", *overrides]).data.split)
    recipe: PublishedSplit = build(config, "data.split")
    return recipe


def digest(rows: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(rows).encode()).hexdigest()[:16]


def parts(split: Split) -> tuple[tuple[str, ...], ...]:
    return split["train"], split["val"], split["test"]


@pytest.mark.parametrize(("data", "target", "total", "sizes"), PUBLISHED)
def test_shuffled_splits(
    data: str, target: str, total: int, sizes: tuple[int, int, int], caplog: pytest.LogCaptureFixture
) -> None:
    found = parts(published(data, target)(table(total)))
    assert tuple(map(len, found)) == sizes
    assert tuple(map(digest, found)) == SHUFFLED[data, total]
    assert not caplog.records


@pytest.mark.parametrize("target", FOLDS)
def test_folds_of_matbench(target: str) -> None:
    total, checksums = FOLDS[target]
    assert " ".join(digest([str(row) for row in matbench_test_rows(total, fold)]) for fold in range(5)) == (
        checksums
    )


@pytest.mark.parametrize("total", [5, 32, 636, 1_265])
def test_folds_are_those_of_scikit_learn(total: int) -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    folds = selection.KFold(5, shuffle=True, random_state=18012019).split(np.arange(total))
    for fold, (_, test) in enumerate(folds):
        np.testing.assert_array_equal(matbench_test_rows(total, fold), test)


def test_a_fold_by_its_config() -> None:
    tests = []
    for fold in range(5):
        split = published("matbench", "phonon_peak", f"data.fold={fold}")(table(1_265))
        assert split.sizes == {"train": 911, "val": 101, "test": 253}
        tests.append(digest(split["test"]))
        assert sorted(int(id) for found in parts(split) for id in found) == list(range(1_265))
    assert " ".join(tests) == FOLDS["phonon_peak"][1]


def test_the_elastic_split_is_that_of_the_files() -> None:
    split = published("mp_elastic", "g_vrh")(table(5_449, ["train"] * 4_664 + ["val"] * 392 + ["test"] * 393))
    assert split.sizes == {"train": 4_664, "val": 392, "test": 393}


def test_every_data_set_that_downloads_has_its_published_split_by_default() -> None:
    for file in (config_dir() / "data").glob("[!_]*.yaml"):
        text = file.read_text()
        description = yaml.safe_load(text)
        if "published_split" in description:
            assert {"override /split@_global_.split": "published"} in description["defaults"], file


@pytest.mark.parametrize("option", ["given", "shuffled", "ratio", "published"])
def test_another_split_can_be_chosen(option: str) -> None:
    by_option = compose("train", [f"split={option}"]).data.split._target_
    assert compose("train", ["data=jarvis_dft_3d", f"split={option}"]).data.split._target_ == by_option


def test_fewer_crystals_are_divided_alike_and_this_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        split = published("mp_megnet", "band_gap")(table(100))
    assert split.sizes == {"train": 86, "val": 7, "test": 6}
    assert "this is not the published split, which has 69239 crystals with band_gap: here are 100" in (
        caplog.text
    )


def test_no_published_split() -> None:
    with pytest.raises(DataError, match="has no published split: choose another, such as split=given"):
        published("embedded", "k_vrh", "split=published")


def test_a_target_without_a_known_total(caplog: pytest.LogCaptureFixture) -> None:
    assert PublishedSplit(GivenSplit(), {"a": 3}, "b")(table(2, ["train", "val"]))["train"] == ("0",)
    assert published("jarvis_dft_3d", "k_voigt")(table(10)).sizes == {"train": 8, "val": 1, "test": 1}
    assert not caplog.records


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.fold=5", "data.fold=5: Matbench has the folds 0 to 4"),
        ("+data.published_split.recipe.val=1", "give a fraction"),
    ],
)
def test_folds_that_are_not(override: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        published("matbench", "phonon_peak", override)


def test_too_few_for_folds() -> None:
    with pytest.raises(DataError, match="4 crystals cannot be divided into 5 folds"):
        published("matbench", "phonon_peak")(table(4))


def test_fixtures_are_small() -> None:
    folder = Path(__file__).parents[2] / "fixtures" / "published"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 100_000
