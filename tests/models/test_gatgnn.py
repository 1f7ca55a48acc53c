"""GATGNN: attention over neighbours and by composition, on cases worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from potnet.crystals import CrystalGraph, collate
from potnet.models import GATGNN
from potnet.models.baselines.gatgnn import AugmentedAttention, CompositionAttention, compositions
from potnet.nn import Classes, Edges


def batch_of_atoms(*crystals: list[int]):
    return collate(
        [
            CrystalGraph(str(i), torch.tensor(z), torch.zeros(len(z), 3), torch.eye(3))
            for i, z in enumerate(crystals)
        ]
    )


def test_number_of_parameters():
    """As in the released code, of which the forward pass never reads some.

    These are the layers of the composition after the sum, of the clusters, and a PReLU a layer.
    """
    unused = (103 * 64 + 64) + (131 * 3 + 3 + 64 * 64 + 64 + 64 + 1) + 3
    parameters = list(GATGNN().parameters())
    assert sum(p.numel() for p in parameters) == 134_154
    assert sum(p.numel() for p in parameters if not p.requires_grad) == unused


def test_compositions():
    found = compositions(batch_of_atoms([8, 26, 8, 26, 8], [1]))
    assert found.shape == (2, 103)
    assert found[0, [7, 25]].tolist() == pytest.approx([0.6, 0.4])
    assert found[1, 0] == 1
    assert found.sum(1).tolist() == pytest.approx([1, 1])


def test_composition_attention_by_hand():
    """One hidden unit that reads the first feature of the atom and the share of oxygen."""
    attention = CompositionAttention(2, 1)
    with torch.no_grad():
        attention.hidden.weight.zero_()
        attention.hidden.bias.fill_(0.25)
        attention.hidden.weight[0, 0] = 2.0
        attention.hidden.weight[0, 2 + 7] = -3.0
        attention.score.weight.fill_(1.5)
        attention.score.bias.fill_(9.0)  # the same for all atoms: nothing changes
    x = torch.tensor([[0.1, 5.0], [-0.4, 6.0], [0.7, 7.0], [0.2, 8.0]])
    shares = attention(x, batch_of_atoms([8, 8, 12], [26]))
    hidden = F.softplus(2.0 * x[:3, 0] - 3.0 * 2 / 3 + 0.25)
    torch.testing.assert_close(shares[:3, 0], (1.5 * hidden).softmax(0))
    assert shares[3, 0] == 1
    # In another crystal the same atoms count otherwise: softplus is not linear in the composition.
    elsewhere = attention(x, batch_of_atoms([12, 12, 12], [26]))
    assert not torch.allclose(shares[:3], elsewhere[:3], rtol=1e-2)


def test_augmented_attention_against_its_formula():
    """Written out edge by edge and head by head; the last atom has no neighbour."""
    torch.manual_seed(0)
    width, heads = 3, 2
    layer = AugmentedAttention(width, heads).double()
    torch.nn.init.normal_(layer.bias)
    x, u = torch.randn(4, width, dtype=torch.float64), torch.randn(2, width, dtype=torch.float64)
    target, source = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([1, 2, 2, 0, 2])
    row = torch.tensor([0, 1, 0, 0, 1])
    found = layer(x, Edges(u, target, source, row), Classes(None, torch.arange(5)))

    score, value = (
        torch.zeros(5, heads, dtype=torch.float64),
        torch.zeros(5, heads, width, dtype=torch.float64),
    )
    for edge in range(5):
        for head in range(heads):
            weight = layer.weight[head * width : (head + 1) * width]
            near = F.softplus(weight @ torch.cat([x[target[edge]], u[row[edge]]]))
            value[edge, head] = F.softplus(weight @ torch.cat([x[source[edge]], u[row[edge]]]))
            score[edge, head] = F.softplus(layer.attention[head] @ torch.cat([near, value[edge, head]]))
    score = F.softplus((score - score.mean(0)) / (score.var(0, correction=0) + 1e-5).sqrt())
    for atom in range(4):
        mine = (target == atom).nonzero()[:, 0]
        share = score[mine].softmax(0)
        expected = (share.unsqueeze(-1) * value[mine]).sum(0).mean(0) + layer.bias
        torch.testing.assert_close(found[atom], expected)
    torch.testing.assert_close(found[3], layer.bias)
