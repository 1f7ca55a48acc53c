"""Angular moments against Legendre polynomials, and what they tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre

from potnet.crystals import Crystal, collate, edge_vectors
from potnet.data import Featurizer
from potnet.models import PotNet
from potnet.nn.angular import AngularMoments, PowerSpectrum, harmonics
from potnet.nn.elements import element_weights


def directions(count: int, seed: int) -> torch.Tensor:
    vectors = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3)))
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 6])
def test_products_of_harmonics_are_legendre_polynomials(degree):
    u, v = directions(20, 0), directions(20, 1)
    product = (harmonics(u, 6)[degree] * harmonics(v, 6)[degree]).sum(1)
    expected = eval_legendre(degree, (u * v).sum(1).numpy())
    np.testing.assert_allclose(product.numpy(), expected, atol=1e-12)


def test_one_layer_sees_the_angles_of_a_tetrahedron_and_a_square():
    """Both have four neighbours at one distance whose directions add up to zero."""
    tetrahedron = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double() / 3**0.5
    square = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]).double()
    torch.manual_seed(0)
    layer = AngularMoments(8, 4, 4).double()
    edges = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]])
    given = torch.ones(5, 8).double(), edges, torch.ones(4, 4).double()
    assert (layer(*given, tetrahedron) - layer(*given, square))[0].abs().max() > 1e-4
    turn = torch.linalg.qr(torch.randn(3, 3).double())[0]
    torch.testing.assert_close(layer(*given, tetrahedron @ turn), layer(*given, tetrahedron))


TETRAHEDRON = 2.0 / 3**0.5 * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
SQUARE = 2.0 * np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])


def batch_of(positions: np.ndarray, z: list[int], side: float = 40.0, cutoff: float = 4.0):
    crystal = Crystal(np.eye(3) * side, positions, z, "cluster")
    featurizer = Featurizer(cell="as_given", neighbors={"cutoff": cutoff}, device="cpu")
    return collate(featurizer.featurize([crystal]))


def test_power_spectrum_is_a_sum_over_pairs_of_neighbours():
    """By the addition theorem sum_m Y_lm(u) Y_lm(v) = P_l(u . v): without harmonics."""
    rng = np.random.default_rng(0)
    batch = batch_of(rng.uniform(0, 4.2, (6, 3)), [11, 17, 26, 8, 1, 55], side=4.5)
    spectrum = PowerSpectrum(cutoff=4.0, radial=3, degree=3)
    found = spectrum(batch)
    vectors, (source, target) = edge_vectors(batch).numpy(), batch.edge_index.numpy()
    length = np.linalg.norm(vectors, axis=1)
    d = length / 4.0
    envelope = np.where(d < 1, 1 - 10 * d**3 + 15 * d**4 - 6 * d**5, 0)
    centers = np.linspace(1.5, 3.7, 3)
    basis = np.exp(-0.5 * ((length[:, None] - centers) / 1.1) ** 2) * envelope[:, None]
    weights = element_weights().numpy()[batch.z.numpy()[source]]
    densities = (basis[:, :, None] * weights[:, None]).reshape(len(length), 9)
    unit = vectors / length[:, None]
    for atom in range(6):
        near = target == atom
        cosine = (unit[near] @ unit[near].T).clip(-1, 1)
        products = [densities[near].T @ eval_legendre(n, cosine) @ densities[near] for n in range(4)]
        expected = np.concatenate([product[np.triu_indices(9)] for product in products])
        np.testing.assert_allclose(
            found[atom].numpy(), np.arcsinh(4 * expected), atol=1e-5
        )  # centers are float32
    assert found.shape == (6, spectrum.features)


def test_power_spectrum_tells_a_tetrahedron_from_a_square_and_no_more():
    spectrum, z = PowerSpectrum(), [14, 8, 8, 8, 8]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    tetrahedron, turned, square = (
        spectrum(batch_of(positions + 20, z))[0] for positions in (TETRAHEDRON, TETRAHEDRON @ turn, SQUARE)
    )
    torch.testing.assert_close(turned, tetrahedron)
    assert (square - tetrahedron).abs().max() > 0.1


def test_atoms_that_differ_by_angles_alone_are_not_folded():
    """All edges have one length: only the power spectrum tells the two centers apart."""
    batch = batch_of(np.concatenate([TETRAHEDRON + 8, SQUARE + 28]), [14, 8, 8, 8, 8] * 2, cutoff=2.5)
    torch.manual_seed(0)
    folded = PotNet(pairs="none", angular=4).double()
    whole = PotNet(pairs="none", angular=4, fold=False).double()
    whole.load_state_dict(folded.state_dict())
    torch.testing.assert_close(folded(batch.double())["value"], whole(batch.double())["value"])
    atoms = folded.embed(batch.double()).atoms
    assert (atoms[0] - atoms[5]).abs().max() > 1e-3


@pytest.mark.parametrize("wrong", [{"cutoff": 1.0}, {"radial": 1}, {"degree": -1}])
def test_a_power_spectrum_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="a power spectrum needs"):
        PowerSpectrum(**wrong)


def test_elements_beyond_the_table_are_refused():
    batch = batch_of(TETRAHEDRON, [103, 8, 8, 8, 8])
    with pytest.raises(ValueError, match=r"no features for Lr \(Z = 103\) in cluster"):
        PowerSpectrum()(batch)
