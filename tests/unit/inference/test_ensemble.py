"""Ensembles, several models in one table, and the registry that names them."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from small_models import GAP, K, checkpoint, registry

import potnet
from potnet.config import ConfigError
from potnet.inference.ensemble import Calibration, Ensemble
from potnet.inference.flags import Surroundings
from potnet.inference.intervals import Intervals
from potnet.inference.local_errors import LocalErrors
from potnet.inference.predictor import Predictor
from potnet.pretrained.registry import Registry, RegistryError
from potnet.runs.errors import CheckpointError

CRYSTALS = [bulk("Cu"), bulk("Si"), bulk("Al")]


def test_mean_spread_and_interval_by_hand(tmp_path: Path) -> None:
    files = [checkpoint(tmp_path / f"{seed}.ckpt", seed) for seed in range(3)]
    ensemble = Ensemble.from_files(files, device="cpu")
    ensemble.calibration.intervals["k_vrh"] = Intervals(np.arange(1.0, 10.0), 0.01)
    found = ensemble.predict(CRYSTALS, level=0.5)
    members = np.log10([potnet.load(file, device="cpu").predict(CRYSTALS)["k_vrh"] for file in files])
    assert found.header == ("id", "k_vrh", "std", "lower", "upper", "flags")
    np.testing.assert_allclose(np.log10(found["k_vrh"]), members.mean(0), atol=1e-9)
    np.testing.assert_allclose(found["std"], (10**members).std(0, ddof=1), rtol=1e-9)
    half = 5 * np.sqrt(members.std(0, ddof=1) ** 2 + 0.01**2)
    np.testing.assert_allclose(np.log10(found["upper"]), members.mean(0) + half, atol=1e-9)
    np.testing.assert_allclose(np.log10(found["lower"]), members.mean(0) - half, atol=1e-9)
    wide = ensemble.predict(CRYSTALS, level=0.95)  # more than nine scores can promise
    assert all(wide["upper"] == math.inf)
    assert all(wide["lower"] == 0)
    with pytest.raises(ConfigError, match="level=90"):
        ensemble.predict(CRYSTALS, level=90)
    assert list(ensemble.predict([]).columns) == ["k_vrh", "std", "lower", "upper"]
    assert "3 members" in repr(ensemble)
    again = pickle.loads(pickle.dumps(ensemble)).predict(CRYSTALS)
    np.testing.assert_array_equal(again["std"], found["std"])


def test_members_must_have_learned_the_same(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.ckpt", 0)
    for other in (
        checkpoint(tmp_path / "b.ckpt", 0, GAP),
        checkpoint(tmp_path / "c.ckpt", 0, features={"neighbors": {"cutoff": 3.0}}),
    ):
        with pytest.raises(CheckpointError, match="members 0 and 1 have other"):
            Ensemble.from_files([one, other], device="cpu")


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    far = Surroundings.fit(torch.randn(40, 8), torch.randn(9, 8))
    before = Calibration(
        {"k_vrh": Intervals(np.array([2.0, 1.0]), 0.5)}, far, {"max_atoms": 3}, {"part": "test"}
    )
    before.save(tmp_path / "c.safetensors")
    after = Calibration.load(tmp_path / "c.safetensors")
    assert list(after.intervals["k_vrh"].scores) == [1.0, 2.0]
    assert (after.domain, after.facts) == (before.domain, before.facts)
    assert after.surroundings is not None
    x = torch.randn(5, 8)
    torch.testing.assert_close(after.surroundings.distances(x), far.distances(x), rtol=1e-3, atol=1e-3)
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no calibration"):
        Calibration.load(tmp_path / "c.safetensors")


def test_errors_around_a_crystal_widen_its_interval(tmp_path: Path) -> None:
    """By the mean error of its 20 nearest validation crystals, as a file gives them back."""
    random = np.random.default_rng(0)
    places = torch.from_numpy(random.standard_normal((60, 3))).half().float()
    errors = np.abs(random.standard_normal(60))
    errors[7] = np.nan  # a crystal without a label
    local = LocalErrors.fit(places, errors)
    point = torch.tensor([[0.3, -0.2, 0.1]])
    order = np.argsort(np.linalg.norm((places - point).numpy(), axis=1))
    nearest = [n for n in order if n != 7][:20]
    np.testing.assert_allclose(local.at(point), errors[nearest].mean(), rtol=1e-6)
    with pytest.raises(ValueError, match="one error a crystal"):
        LocalErrors(places, torch.zeros(3))

    files = [checkpoint(tmp_path / f"{seed}.ckpt", seed) for seed in range(2)]
    plain = Ensemble.from_files(files, device="cpu")
    vectors = torch.from_numpy(plain.embed(CRYSTALS).crystals)
    around = Surroundings.fit(vectors.repeat(3, 1) + 0.1 * torch.randn(9, vectors.shape[1]), vectors)
    held = around.places(vectors).repeat_interleave(20, 0)
    hard = LocalErrors.fit(held, np.repeat([0.1, 0.2, 0.4], 20))
    given = Calibration(
        {"k_vrh": Intervals(np.arange(1.0, 10.0), 1e-3)}, around, local_errors={"k_vrh": hard}
    )
    given.save(tmp_path / "c.safetensors")
    found = Ensemble.from_files(files, tmp_path / "c.safetensors", "cpu").predict(CRYSTALS, level=0.5)
    members = np.log10([potnet.load(file, device="cpu").predict(CRYSTALS)["k_vrh"] for file in files])
    half = 5 * np.sqrt(members.std(0, ddof=1) ** 2 + np.square([0.1, 0.2, 0.4]) + 1e-6)
    np.testing.assert_allclose(np.log10(found["upper"]), members.mean(0) + half, rtol=1e-4)


def test_what_is_far_from_the_training_crystals_is_flagged() -> None:
    random = torch.Generator().manual_seed(0)
    near = [torch.randn(500, 30, generator=random) for _ in range(3)]
    found = Surroundings.fit(near[0], near[1])
    share = sum(map(bool, found.flags(near[2]))) / 500
    assert share < 0.04
    assert all(found.flags(near[2] + 20))
    assert "times that of 99 %" in found.flags(near[2] + 20)[0]
    with pytest.raises(ValueError, match="at least 5"):
        Surroundings.fit(near[0][:3], near[1])


def test_models_by_name_in_one_table(tmp_path: Path) -> None:
    file = registry(tmp_path, k_vrh=K, gap=GAP)
    both = potnet.load(["k_vrh", "gap"], device="cpu", registry=file)
    found = both.predict(CRYSTALS)
    assert found.header == (
        "id", "k_vrh", "k_vrh_std", "k_vrh_lower", "k_vrh_upper",
        "band_gap", "band_gap_std", "band_gap_lower", "band_gap_upper", "flags",
    )  # fmt: skip
    for name, key in (("k_vrh", "k_vrh"), ("gap_too", "band_gap")):
        alone = potnet.load(name, device="cpu", registry=file).predict(CRYSTALS)
        np.testing.assert_array_equal(alone[key], found[key])
        np.testing.assert_array_equal(alone["upper"], found[f"{key}_upper"])
    assert all("unlike the training crystals" in flag for flag in found.flags)
    with pytest.raises(ConfigError, match="several of these models predict k_vrh"):
        potnet.load(["k_vrh", "k_vrh_too"], device="cpu", registry=file)
    skipped = both.predict([*CRYSTALS, bulk("Pu", "fcc", a=4.6)], on_error="skip")
    assert len(skipped) == 4  # the table knows Pu; flags say that training did not
    assert "no training crystal has Pu" in skipped.flags[3]


def test_crystals_are_featurized_once_for_models_with_equal_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = potnet.load(["k_vrh", "gap"], device="cpu", registry=registry(tmp_path, k_vrh=K, gap=GAP))
    calls = []
    featurize = potnet.inference.predictor.Featurizer.featurize
    monkeypatch.setattr(
        potnet.inference.predictor.Featurizer,
        "featurize",
        lambda self, crystals, **kwargs: calls.append(len(crystals)) or featurize(self, crystals, **kwargs),
    )
    both.predict(CRYSTALS, on_error="skip")
    assert calls == [3]


def test_names_and_files_of_a_registry(tmp_path: Path) -> None:
    file = registry(tmp_path, k_vrh=K)
    with pytest.raises(RegistryError, match=r"k_vhr: there is no model of this name; did you mean k_vrh"):
        potnet.load("k_vhr", registry=file)
    assert "k_vrh_too" in Registry(file)
    member = tmp_path / "k_vrh0.safetensors"
    content = bytearray(member.read_bytes())
    content[-1] ^= 1
    member.write_bytes(content)
    with pytest.raises(RegistryError, match=r"not the file that its registry means.*not loaded"):
        potnet.load("k_vrh", registry=file)
    member.unlink()
    with pytest.raises(RegistryError, match="cannot be read"):
        potnet.load("k_vrh", registry=file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not YAML"),
        ("[1]", "not a registry"),
        ("a: 1", "not a registry"),
        ("a: {}", "lists no members"),
        ("a: {members: [x.ckpt]}", "needs `file` and `sha256`"),
        ("a: {members: [{file: x.ckpt, sha256: 1}]}", "must be .safetensors"),
    ],
)
def test_registries_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(RegistryError, match=message):
        potnet.load("a", registry=tmp_path / "r.yaml")
    with pytest.raises(RegistryError, match="cannot be read"):
        Registry(tmp_path / "missing.yaml")


def test_a_path_is_still_a_path(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "best.ckpt", 0)
    assert isinstance(potnet.load(file, device="cpu"), Predictor)
