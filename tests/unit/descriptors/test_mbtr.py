"""MBTR: against dscribe as recorded, against sums written out, and the choice of cell."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potnet.config import compose, plain
from potnet.crystals import Crystal
from potnet.crystals.elements import MAX_Z
from potnet.data.features.featurizer import Featurizer
from potnet.descriptors import MBTR, Grid, term_of
from potnet.descriptors.mbtr import FIRST_FEATURE, edges_at_one_vertex, pair_number

RECORDED = np.load(Path(__file__).parents[2] / "fixtures" / "peers" / "mbtr.npz")
SETTINGS = json.loads(str(RECORDED["settings"]))
NAMES = sorted({key.partition("/")[0] for key in RECORDED.files if "/" in key})
GRIDS: dict[str, Any] = {
    "k1": {"min": 0, "max": 100, "n": 101, "sigma": 0.25},
    "k2": {"min": 0, "max": 1, "n": 41, "sigma": 0.05},
    "k3": {"min": -1, "max": 1, "n": 21, "sigma": 0.1},
}
WEIGHTS: dict[str, Any] = {"pair_weighting": {"scale": 0.9}, "triple_weighting": {"scale": 0.8}}
SMALL = MBTR(**GRIDS, **WEIGHTS)


def recorded(name: str) -> Crystal:
    cell, positions, z = (RECORDED[f"{name}/{key}"] for key in ("cell", "positions", "z"))
    return Crystal(cell, positions, z, name)


def dense(crystal: Crystal, mbtr: MBTR) -> dict[str, np.ndarray]:
    """(elements, ..., n) for each term, as recorded."""
    index, value = mbtr(crystal)
    found = dict(zip(index.tolist(), value.tolist(), strict=True))
    elements = np.unique(crystal.z).astype(np.int64)
    tables = {}
    for k in (1, 2, 3):
        n = getattr(mbtr, f"k{k}").n
        table = np.zeros((*(len(elements),) * k, n))
        for place in itertools.product(range(len(elements)), repeat=k):
            z = elements[list(place)]
            if k == 1:
                channel = z[0]
            elif k == 2:
                channel = pair_number(z[0], z[1])
            else:
                channel = pair_number(z[0], z[2]) * (MAX_Z + 1) + z[1]
            first = FIRST_FEATURE[k - 1] + int(channel) * n
            table[place] = [found.get(first + point, 0.0) for point in range(n)]
        tables[f"k{k}"] = table
    return tables


@pytest.mark.parametrize("name", NAMES)
def test_dscribe_gives_the_same_numbers(name: str) -> None:
    _, pair_scale, triple_scale = SETTINGS["scales"]
    threshold = SETTINGS["threshold"]
    mbtr = MBTR(
        **SETTINGS["terms"],
        pair_weighting={"scale": pair_scale, "threshold": threshold},
        triple_weighting={"scale": triple_scale, "threshold": threshold},
    )
    for term, table in dense(recorded(name), mbtr).items():
        wanted = RECORDED[f"{name}/{term}"]
        assert wanted.max() > 0
        # Gaussians end at five deviations here, and nowhere there.
        np.testing.assert_allclose(table, wanted, rtol=0, atol=2e-6 * wanted.max(), err_msg=term)


def test_the_sums_written_out() -> None:
    """Simple cubic: 6 neighbours at a, 12 at a √2; angles between the six are 90° (12) and 180° (3)."""
    a, scale = 3.0, 1.0
    mbtr = MBTR(
        k1={"min": 1, "max": 100, "n": 100, "sigma": 0.01},
        k2={"min": 0.1, "max": 0.5, "n": 401, "sigma": 1e-4},
        k3={"min": -1.5, "max": 1.5, "n": 301, "sigma": 1e-3},
        pair_weighting={"scale": scale, "threshold": math.exp(-1.5 * a * scale)},
        triple_weighting={"scale": scale, "threshold": math.exp(-4.1 * a * scale)},
    )
    tables = dense(Crystal(a * np.eye(3), np.zeros((1, 3)), np.array([29]), "Cu"), mbtr)
    step = {"k1": 1.0, "k2": 0.001, "k3": 0.01}
    sums = {term: table.squeeze() * step[term] for term, table in tables.items()}
    assert np.flatnonzero(sums["k1"]).tolist() == [28]
    assert sums["k1"][28] == pytest.approx(1.0, rel=1e-6)
    near, next_near = (
        sums["k2"][np.abs(np.linspace(0.1, 0.5, 401) - 1 / r) < 0.0015].sum() for r in (a, a * math.sqrt(2))
    )
    assert near == pytest.approx(3 * math.exp(-a), rel=1e-5)
    assert next_near == pytest.approx(6 * math.exp(-a * math.sqrt(2)), rel=1e-5)
    # Triangles of perimeter below 4.1 a have sides 1, 1, √2 or 1, 1, 2.
    straight = sums["k3"][np.abs(np.linspace(-1.5, 1.5, 301) + 1) < 0.015].sum()
    assert straight == pytest.approx(3 * math.exp(-4 * a), rel=1e-4)
    right = sums["k3"][np.abs(np.linspace(-1.5, 1.5, 301)) < 0.015].sum()
    assert right == pytest.approx(12 * math.exp(-(2 + math.sqrt(2)) * a), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_it_depends_on_the_crystal_alone(name: str) -> None:
    crystal = recorded(name)
    index, value = SMALL(crystal)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    order = np.random.default_rng(2).permutation(len(crystal.z))
    matrix = np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 2]])  # a skewed cell of twice the size
    twice = np.concatenate([crystal.positions, crystal.positions + crystal.cell[2]])
    for other in (
        Crystal(crystal.cell @ rotation, (crystal.positions + 0.7) @ rotation, crystal.z, "turned"),
        Crystal(crystal.cell, crystal.positions[order], crystal.z[order], "permuted"),
        Crystal(matrix @ crystal.cell, twice, np.tile(crystal.z, 2), "twice"),
    ):
        numbers, values = SMALL(other)
        both, places = np.unique(np.concatenate([index, numbers]), return_inverse=True)
        difference = np.bincount(places, np.concatenate([value, -values]), len(both))
        np.testing.assert_allclose(difference, 0, atol=1e-5 * value.max(), err_msg=other.id)


def test_features_are_sparse_sorted_and_numbered_by_term() -> None:
    crystal = recorded("quartz")
    index, value = SMALL(crystal)
    assert value.dtype == np.float32
    assert (np.diff(index) > 0).all()
    assert (value > 0).all()
    assert index.max() < 2**31
    assert term_of(index).tolist() == sorted(term_of(index))
    assert set(term_of(index)) == {0, 1, 2}
    alone = MBTR(None, GRIDS["k2"], None, **WEIGHTS)
    assert (alone(crystal)[0] == index[term_of(index) == 1]).all()


def test_an_isolated_atom_has_its_element_alone() -> None:
    index, _ = SMALL(Crystal(30.0 * np.eye(3), np.zeros((1, 3)), np.array([18]), "Ar"))
    assert set(term_of(index)) == {0}


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_every_pair_of_edges_of_a_vertex_once(block: int) -> None:
    vertex = np.array([0, 0, 0, 1, 3, 3, 3, 3, 4])
    pairs = [
        (later, earlier)
        for part in edges_at_one_vertex(vertex, block)
        for later, earlier in zip(*part, strict=True)
    ]
    wanted = [(e, f) for e in range(9) for f in range(e) if vertex[e] == vertex[f]]
    assert sorted(pairs) == sorted(wanted)


def test_numbers_of_pairs() -> None:
    numbers = [int(pair_number(np.array(a), np.array(b))) for b in range(9) for a in range(b + 1)]
    assert numbers == list(range(45))
    assert pair_number(np.array(7), np.array(2)) == pair_number(np.array(2), np.array(7))


def test_gaussians_on_a_grid_keep_their_sum_and_their_place() -> None:
    grid = Grid(0.0, 10.0, 101, 0.3)
    found = grid.histogram(np.array([3.0, 5.05, 5.05]), np.array([1.0, 2.0, 1.0]), np.array([0, 1, 0]), 2)
    assert (found * grid.step).sum(1) == pytest.approx([2.0, 2.0], rel=1e-5)
    x = np.linspace(0, 10, 101)
    density = np.exp(-0.5 * ((x - 5.05) / 0.3) ** 2) / (0.3 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(found[1], 2 * density, atol=0.02)
    assert found[1].argmax() in (50, 51)
    half = grid.histogram(np.array([0.0]), np.array([1.0]), np.array([0]), 1)
    assert half.sum() * grid.step == pytest.approx(0.5, abs=0.1)  # the rest lies outside


def test_settings_make_the_same_descriptor_again() -> None:
    features = plain(compose("train", ["model=mbtr_krr"]).features)
    featurizer = Featurizer(**features, device="cpu").restricted({"descriptors"})
    settings = json.loads(json.dumps(featurizer.settings()))
    assert settings["potentials"] is None
    again = Featurizer.from_settings(settings, device="cpu")
    assert again.settings() == settings
    crystal = recorded("one atom")
    (first,), (second,) = featurizer.featurize([crystal]), again.featurize([crystal])
    assert (first.descriptor_index == second.descriptor_index).all()
    assert (first.descriptor_value == second.descriptor_value).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k1": None, "k2": None, "k3": None}, "no term is left"),
        ({"k2": {**GRIDS["k2"], "n": 1}}, "k2: n=1"),
        ({"k2": {**GRIDS["k2"], "max": 0}}, "k2: min=0"),
        ({"k2": {**GRIDS["k2"], "sigma": 0}}, "k2: sigma=0"),
        ({"k2": {**GRIDS["k2"], "sigmas": 1}}, "k2: .*sigmas"),
        ({"k3": {**GRIDS["k3"], "n": 10**6}}, "points or fewer"),
        ({"k3": 7}, "k3=7: give min, max, n, sigma"),
        ({"pair_weighting": {"scale": 0}}, "pair_weighting: scale=0"),
        ({"triple_weighting": {"scale": 1, "threshold": 1}}, "triple_weighting: threshold=1"),
        ({"pair_weighting": None}, "pair_weighting=None: give scale, threshold"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MBTR(**{**GRIDS, **WEIGHTS, **changes})
