"""Invariants of clusters and the potential that is linear in them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre

from potnet.config import build
from potnet.crystals import Crystal, collate
from potnet.data import Featurizer
from potnet.forcefield import derivatives
from potnet.models import ClusterExpansion, PairSplines
from potnet.nn.clusters import INNER_WIDTH, ClusterBasis, half_sphere, levelled
from potnet.nn.repulsion import repulsion, screened_nuclei

FEATURES = Featurizer(cell="as_given", neighbors={"cutoff": 4.0}, device="cpu")


def surroundings(neighbours: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(neighbours, 3))
    vectors *= rng.uniform(1.5, 4.5, (neighbours, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return torch.from_numpy(vectors)


def invariants(basis: ClusterBasis, vectors: torch.Tensor, kind: torch.Tensor | None = None) -> torch.Tensor:
    zeros = torch.zeros(len(vectors), dtype=torch.int64)
    return basis(vectors, zeros, zeros if kind is None else kind, 1)[0]


@pytest.mark.parametrize("degree", [2, 5, 8, 11])
def test_the_quadrature_averages_even_polynomials(degree: int) -> None:
    points, weights = half_sphere(degree)
    for power in range(0, degree + 1, 2):
        found = (weights * (points @ torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)) ** power).sum()
        assert float(found) == pytest.approx(1 / (power + 1), rel=1e-12)


def test_pairs_of_densities_are_sums_over_angles() -> None:
    """rho_nl of two l, averaged: sum_jk R_n(r_j) R_m(r_k) P_l(u_j . u_k) / (2 l + 1)."""
    basis = ClusterBasis(5.0, (3, 8))
    vectors = surroundings(6)
    r = vectors.norm(dim=1)
    cosine = ((vectors / r[:, None]) @ (vectors / r[:, None]).T).clamp(-1, 1).numpy()
    radial = basis.radial(r).numpy()
    found = invariants(basis, vectors).numpy()
    np.testing.assert_allclose(found[:4], radial.sum(0)[:4])
    for value, (a, b) in zip(found[4:], basis.get_buffer("products_2").tolist(), strict=True):
        first, second = basis.densities[a], basis.densities[b]
        assert first.l == second.l
        angles = eval_legendre(first.l, cosine) / (2 * first.l + 1)
        expected = radial[:, first.n] @ angles @ radial[:, second.n]
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kinds", [1, 2])
def test_invariants_do_not_turn_and_know_no_order(kinds: int) -> None:
    basis = ClusterBasis(5.0, (6, 6, 6, 5), kinds)
    vectors, kind = surroundings(7), torch.arange(7) % kinds
    found = invariants(basis, vectors, kind)
    assert len(found) == len(basis) == len(basis.total)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    torch.testing.assert_close(invariants(basis, vectors @ turn, kind), found, rtol=1e-9, atol=1e-12)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(invariants(basis, vectors[order], kind[order]), found)
    # A mirror image has the same energy.
    torch.testing.assert_close(invariants(basis, -vectors, kind), found, rtol=1e-9, atol=1e-12)
    if kinds > 1:
        assert (invariants(basis, vectors, 1 - kind) - found).abs().max() > 1e-3


def test_products_of_v_densities_depend_on_v_neighbours_at_a_time() -> None:
    """By inclusion and exclusion, the part of v + 1 neighbours together is zero, that of v is not."""
    basis = ClusterBasis(5.0, (4, 4, 4, 4))
    vectors = surroundings(4)
    sizes = [len(basis.get_buffer(f"products_{v}")) for v in range(1, 5)]

    def together(chosen: list[int]) -> list[torch.Tensor]:
        total = torch.zeros(len(basis), dtype=torch.float64)
        for mask in range(2 ** len(chosen)):
            some = [row for bit, row in enumerate(chosen) if mask >> bit & 1]
            total += (-1) ** (len(chosen) - len(some)) * invariants(basis, vectors[some])
        return list(total.split(sizes))

    for neighbours in range(2, 5):
        parts = together(list(range(neighbours)))
        for v, part in enumerate(parts, 1):
            scale = invariants(basis, vectors).split(sizes)[v - 1].abs().max()
            assert (part.abs().max() > 1e-6 * scale) == (v >= neighbours), (v, neighbours)


@pytest.mark.parametrize("degrees", [(3,), (3, 4), (4, 4, 4), (4, 4, 4, 4), (4, 4, 4, 4, 3)])
def test_sums_of_all_invariants(degrees: tuple[int, ...]) -> None:
    basis = ClusterBasis(5.0, degrees, 2)
    vectors, kind = surroundings(5), torch.tensor([0, 1, 0, 1, 1])
    moments = torch.stack([basis.moments(vectors, kind)[:n].sum(0) for n in (3, 5)])
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(len(basis), generator=generator, dtype=torch.float64)
    expected = basis.invariants(moments) @ coefficients
    torch.testing.assert_close(basis.energies(moments, coefficients), expected)


def test_slopes_are_derivatives() -> None:
    basis = ClusterBasis(5.0, (5, 5, 5, 4), 2)
    vectors, kind = surroundings(5), torch.tensor([0, 1, 0, 1, 1])
    moments = basis.moments(vectors, kind).sum(0, keepdim=True)
    expected = torch.autograd.functional.jacobian(lambda m: basis.invariants(m)[0], moments)[:, 0]
    torch.testing.assert_close(basis.slopes(moments)[0], expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cutoff": 0.0}, "cutoff=0.0"),
        ({"cutoff": 5.0, "degrees": ()}, "give 1 to"),
        ({"cutoff": 5.0, "degrees": (4, -1)}, "none of them negative"),
        ({"cutoff": 5.0, "degrees": (90, 90), "largest": 40}, "give smaller degrees"),
    ],
)
def test_what_no_basis_can_be_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterBasis(**given)


def crystals(count: int) -> list[Crystal]:
    rng = np.random.default_rng(3)
    found = []
    for number in range(count):
        cell = 4.2 * (np.eye(3) + 0.05 * rng.normal(size=(3, 3)))
        fractional = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
        fractional = fractional + 0.03 * rng.normal(size=(4, 3))
        found.append(Crystal.from_fractional(cell, fractional, rng.permutation([14, 14, 8, 8]), str(number)))
    return found


SPHERES = {"one": {}, "two": {"more": [{"cutoff": 3.2, "degrees": (3, 3), "largest": 2}]}}


@pytest.fixture(scope="module", params=list(SPHERES))
def labelled(request):
    """Batches with the energies, forces and stress of a model of known coefficients."""
    truth = ClusterExpansion(4.0, (4, 3, 2), **SPHERES[request.param])
    truth.given = SPHERES[request.param]
    batches = [collate(FEATURES.featurize([crystal])).double() for crystal in crystals(22)]
    truth.prepare(batches)
    generator = torch.Generator().manual_seed(0)
    truth.coefficients = torch.randn(2, truth.invariants, generator=generator).double()
    truth.lone[8], truth.lone[14] = -1.5, 2.0
    labels = [derivatives(lambda b: truth(b)["energy"], batch) for batch in batches]
    return truth, batches, labels


def test_the_design_of_the_fit_is_that_of_the_energy(labelled) -> None:
    truth, batches, labels = labelled
    flat = truth.coefficients.flatten()
    for batch, label in zip(batches[:3], labels[:3], strict=True):
        found = truth.design(batch, frozenset({"energy", "forces", "stress"}))
        lone = truth.lone[batch.z].sum()
        torch.testing.assert_close(found["energy"] @ flat + lone, label["energy"])
        torch.testing.assert_close(found["forces"] @ flat, label["forces"])
        torch.testing.assert_close(found["stress"] @ flat, label["stress"])
    # Several crystals at once are those alone.
    together = truth.design(
        collate(FEATURES.featurize(crystals(3))).double(), frozenset({"energy", "forces", "stress"})
    )
    for kind, rows in together.items():
        alone = [truth.design(batch, frozenset({"energy", kind}))[kind] for batch in batches[:3]]
        torch.testing.assert_close(rows, torch.cat(alone))


@pytest.mark.parametrize("kinds", [{"energy", "forces", "stress"}, {"energy", "forces"}])
def test_the_fit_finds_what_the_labels_were_made_of(labelled, kinds: set[str]) -> None:
    truth, batches, labels = labelled
    # One stress is missing.
    labels = [{kind: label[kind].clone() for kind in kinds} for label in labels]
    if "stress" in kinds:
        labels[0]["stress"][:] = torch.nan
    fitted = ClusterExpansion(4.0, (4, 3, 2), **truth.given)
    fitted.fit_labels(batches[:20], labels[:20], dict.fromkeys(kinds, 1.0))
    for batch, label in zip(batches[20:], labels[20:], strict=True):
        found = derivatives(lambda b: fitted(b)["energy"], batch)
        for kind in kinds:
            torch.testing.assert_close(found[kind], label[kind], rtol=2e-4, atol=2e-4)
    # Loading makes room for what the fit found.
    loaded = ClusterExpansion(4.0, (4, 3, 2), **truth.given)
    loaded.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(loaded(batches[0])["energy"], fitted(batches[0])["energy"])
    # Checkpoints from before there was a repulsion have none.
    older = ClusterExpansion(4.0, (4, 3, 2), **truth.given)
    older.load_state_dict({k: v for k, v in fitted.state_dict().items() if k not in ("shortest", "unit")})
    torch.testing.assert_close(older(batches[0])["energy"], fitted(batches[0])["energy"])
    assert not older.shortest.any()


def test_a_second_fit_trusts_outliers_less(labelled) -> None:
    """A few forces are wrong by 5 eV/Å: least squares follow them, absolute errors hardly."""
    truth, batches, labels = labelled
    generator = torch.Generator().manual_seed(0)
    labels = [{"energy": one["energy"], "forces": one["forces"].clone()} for one in labels]
    for one in labels[:20:3]:
        one["forces"][0] += 5 * torch.randn(3, generator=generator, dtype=torch.float64)
    errors = []
    for robust in (False, True):
        fitted = ClusterExpansion(4.0, (4, 3, 2), **truth.given, robust=robust)
        fitted.fit_labels(batches[:20], labels[:20], {"energy": 1.0, "forces": 1.0})
        found = [
            derivatives(lambda b, m=fitted: m(b)["energy"], batch)["forces"] - label["forces"]
            for batch, label in zip(batches[20:], labels[20:], strict=True)
        ]
        errors.append(float(torch.cat(found).abs().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_weights_of_forces_keep_their_sum(labelled) -> None:
    truth, batches, labels = labelled
    generator = torch.Generator().manual_seed(0)
    given, errors = [], []
    for batch, label in zip(batches[:4], labels[:4], strict=True):
        error = torch.randn(len(batch.z), 3, generator=generator, dtype=torch.float64)
        given.append((batch, {"forces": label["forces"] + error}))
        errors.append(error.norm(dim=1))
    given[0][1]["forces"][0] = torch.nan
    weight, d = torch.cat(truth.trust(given)), torch.cat(errors)
    assert weight[0] == 0
    weight, d = weight[1:], d[1:]
    assert float((weight * d**2).sum()) == pytest.approx(float((d**2).sum()))
    ratio = weight * (d + 0.3 * d.mean())
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_atoms_nearer_than_any_in_the_data_repel_each_other(labelled) -> None:
    truth, batches, labels = labelled
    fitted = ClusterExpansion(4.0, (4, 3, 2), **truth.given)
    labels = [{"energy": label["energy"]} for label in labels]
    fitted.fit_labels(batches[:20], labels[:20], {"energy": 1.0}, unit=0.5)
    r = torch.cat([fitted.vectors(b).norm(dim=1) for b in batches[:20]])
    pairs = torch.cat([b.z[b.edge_index].sum(0) for b in batches[:20]])
    shortest = float(r[pairs == 28].min())
    assert float(fitted.shortest[14, 14]) == pytest.approx(shortest)
    assert float(fitted.shortest[14, 8]) == pytest.approx(float(r[pairs == 22].min()))
    # In the training crystals nothing is changed.
    for batch in batches[:20]:
        assert not fitted.repulsion(batch).any()

    def dimer(distance: float) -> tuple[float, float]:
        cell = 20.0 * np.eye(3)
        positions = np.array([[0.0, 0, 0], [0, 0, distance]])
        one = collate(FEATURES.featurize([Crystal(cell, positions, np.array([14, 14]), "Si2")])).double()
        return float(fitted(one)["energy"][0]), float(fitted.repulsion(one).sum())

    near = torch.tensor([(1 - INNER_WIDTH) * shortest, 0.5 * shortest]).double()
    nuclei = screened_nuclei(near, torch.tensor([14, 14]), torch.tensor([14, 14])) / 0.5
    energies, repulsions = zip(*(dimer(float(one)) for one in near), strict=True)
    # The rest of the energy levels off.
    assert repulsions == pytest.approx(nuclei.tolist())
    assert energies[0] - repulsions[0] == pytest.approx(energies[1] - repulsions[1])


def test_screened_nuclei_as_tabulated() -> None:
    """Two silicon atoms: the reduced potential of Ziegler, Biersack and Littmark, evaluated by numpy."""
    r = np.array([0.1, 0.5, 1.0, 2.0])
    a = 0.8854 * 0.529177 / (2 * 14**0.23)
    weights, decays = [0.1818, 0.5099, 0.2802, 0.02817], [3.2, 0.9423, 0.4028, 0.2016]
    phi = (np.array(weights) * np.exp(-np.outer(r / a, decays))).sum(1)
    found = screened_nuclei(torch.from_numpy(r), torch.tensor([14]), torch.tensor([14]))
    np.testing.assert_allclose(found, 14.399645 * 196 / r * phi, rtol=2e-3)


@pytest.mark.parametrize("what", ["levelled", "repulsion"])
def test_short_distances_are_smooth(what: str) -> None:
    """First and second differences have no jump where the functions change."""
    r = torch.linspace(0.5, 3.0, 25001, dtype=torch.float64)
    shortest = torch.full_like(r, 2.0)
    if what == "levelled":
        values = levelled(r, shortest)
        assert torch.equal(values[r >= 2.0], r[r >= 2.0])
        assert float(values[r < 1.39].max() - values.min()) == 0
        torch.testing.assert_close(levelled(r, torch.zeros_like(r)), r)
    else:
        z = torch.full((len(r),), 14)
        values = repulsion(r, z, z, shortest, INNER_WIDTH)
        assert not values[r >= 2.0].any()
        inner = r < 1.4
        torch.testing.assert_close(values[inner], screened_nuclei(r, z, z)[inner])
        values = values[r > 1.2]
    step = float(r[1] - r[0])
    second = values.diff().diff() / step**2
    assert float(second.diff().abs().max()) < 2e-3 * float(second.abs().max()) + 1e-4


def test_what_the_fit_did_not_see_is_refused(labelled) -> None:
    truth, batches, _ = labelled
    other = collate(FEATURES.featurize([Crystal(3.5 * np.eye(3), np.zeros((1, 3)), np.array([6]), "C")]))
    with pytest.raises(ValueError, match="no training crystal has C"):
        truth(other.double())
    with pytest.raises(ValueError, match="no training crystal has"):
        ClusterExpansion(4.0, (4,))(batches[0])


@pytest.mark.parametrize("kind", [ClusterExpansion, PairSplines])
def test_settings_that_cannot_be_are_refused(kind: type) -> None:
    for given, message in (
        ({"fold": True}, "fold=false"),
        ({"folds": 1}, "at least 2"),
        ({"smoothness": []}, "positive numbers"),
        ({"tolerances": {"energy": 1.0}}, "a positive number for energy, forces and stress"),
        ({"heads": {"k_vrh": {}}}, "one extensive energy"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(**given)


@pytest.mark.parametrize(
    "more", [{"cutoff": 4.5, "degrees": [3], "largest": 2}, {"cutoff": 3.5}, {"kutoff": 3.5, "degrees": [3]}]
)
def test_further_sets_that_cannot_be_are_refused(more: dict) -> None:
    with pytest.raises(ValueError, match=r"the edges, 4 Å \(features.neighbors.cutoff\)"):
        ClusterExpansion(4.0, (3,), more=[more])


def test_too_many_coefficients_are_refused(labelled) -> None:
    _, batches, labels = labelled
    with pytest.raises(ValueError, match="coefficients for 2 elements, more than"):
        ClusterExpansion(4.0, (12, 12, 10, 8)).fit_labels(batches, labels, {"energy": 1.0})


def test_built_from_its_config() -> None:
    from potnet.config import compose, plain

    config = compose("train", ["model=cluster_expansion", "features=radius_5", "target=energy_forces"])
    model = build(plain(config["model"]), "model", nested=False)
    assert isinstance(model, ClusterExpansion)
    assert model.cutoff == 5.0


def test_the_table_of_mlearn_is_mended(tmp_path: Path) -> None:
    """One stress repeated, one with yz and xz exchanged, one that is right, and one of lithium."""
    import gzip

    sheared = (4.0 * np.eye(3) + np.array([[0, 0, 0], [0, 0, 0.2], [0, 0, 0]])).tolist()
    common = {"set": "Si", "split": "train", "group": "Elastic", "z": [14], "frac": [[0, 0, 0]]}
    rows = [
        {"id": "a", "lattice": sheared, "stress": [0.1, 0.1, 0.1, 0.0, 0.05, 0.0], **common},
        {"id": "b", "lattice": sheared, "stress": [0.1, 0.1, 0.1, 0.06, 0.0, 0.0], **common},
        {"id": "c", "lattice": np.eye(3).tolist(), "stress": [0.1, 0.1, 0.1, 0.06, 0.0, 0.0], **common},
        {
            "id": "d",
            "lattice": np.eye(3).tolist(),
            "stress": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            **common,
            "set": "Li",
        },
    ]
    with gzip.open(tmp_path / "old.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    script = Path(__file__).parents[2] / "benchmarks" / "mend_mlearn.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "old.gz", tmp_path / "new.gz"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "left out: 1" in done.stdout
    with gzip.open(tmp_path / "new.gz", "rt") as file:
        found = [json.loads(line)["stress"] for line in file]
    lithium = [0.1, 0.2, 0.3, 0.5, 0.4, 0.6]
    assert found == [[0.1, 0.1, 0.1, 0.05, 0.0, 0.0], rows[1]["stress"], None, lithium]
