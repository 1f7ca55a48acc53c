"""Angular moments against Legendre polynomials, and what they tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre

from potnet.nn.angular import AngularMoments, harmonics


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
