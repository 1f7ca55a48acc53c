"""CGCNN against torch-geometric's convolution, and its number of parameters."""

from __future__ import annotations

import torch
from test_battery import ALL, MODELS, batch_of
from torch_geometric.nn import CGConv

from potnet.models import CGCNN
from potnet.models.cgcnn import CrystalGraphConvolution
from potnet.nn import Edges


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_number_of_parameters() -> None:
    """Embedding, three convolutions with two batch norms each, two layers: the sizes of the released code."""
    convolution = (2 * 64 + 41) * 128 + 128 + 2 * 128 + 2 * 64
    assert parameters(CGCNN()) == (92 * 64 + 64) + 3 * convolution + (64 * 128 + 128) + (128 + 1) == 80_833


def test_twelve_neighbours_and_whole_shells() -> None:
    batch = batch_of(MODELS["cgcnn"](), ALL)
    assert batch.edge_index is not None
    neighbours = torch.bincount(batch.edge_index[1], minlength=len(batch.z))
    # NaCl: 6 + 12, as the 12th is of the second shell; copper: 12; the atom of the last crystal has none.
    assert neighbours[:2].tolist() == [18, 18]
    assert neighbours[-2:].tolist() == [12, 0]


def test_the_convolution_is_that_of_torch_geometric() -> None:
    """CGConv has neither the batch norm on edges nor the softplus around the sum: without them they agree."""
    torch.manual_seed(0)
    ours, theirs = CrystalGraphConvolution(6, 4).double(), CGConv(6, 4, batch_norm=True).double()
    ours.edge_norm = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        ours.gate_and_core.weight.copy_(torch.cat([theirs.lin_f.weight, theirs.lin_s.weight]))
        ours.gate_and_core.bias.copy_(torch.cat([theirs.lin_f.bias, theirs.lin_s.bias]))
    x, features = torch.randn(5, 6).double(), torch.randn(11, 4).double()
    source, target = torch.randint(5, (2, 11))
    result = ours(x, Edges(features, target, source, None))
    expected = theirs(x, torch.stack([source, target]), features)
    torch.testing.assert_close(result, torch.nn.functional.softplus(expected))
