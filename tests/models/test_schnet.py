"""SchNet against torch-geometric's, with the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_battery import ALL, MODELS, batch_of, settings
from torch_geometric.nn.aggr import MeanAggregation
from torch_geometric.nn.models import SchNet as Peer

from potnet.config import build
from potnet.crystals import CrystalBatch, edge_vectors
from potnet.models import SchNet


def peer_of(model: SchNet, batch: CrystalBatch, width: int, layers: int) -> Peer:
    """torch-geometric's SchNet with our weights, given our periodic edges."""
    assert batch.edge_index is not None
    edges = batch.edge_index, edge_vectors(batch).norm(dim=-1)
    peer = Peer(width, width, layers, 25, 5.0, interaction_graph=lambda *_: edges, readout="mean")
    weights = {"embedding.weight": model.embedding.weight[:100]}
    for name, value in model.state_dict().items():
        for ours, theirs in (
            ("filter", "mlp"), ("of_source", "conv.lin1"), ("update.0", "conv.lin2"), ("update.2", "lin"),
            ("heads.value.hidden.0", "lin1"), ("heads.value.output", "lin2"),
        ):  # fmt: skip
            if f"{ours}." in name:
                weights[name.replace(ours, theirs)] = value
                if ours == "filter":  # named twice, as the convolution holds it as well
                    weights[name.replace(ours, "conv.nn")] = value
    weights |= {"distance_expansion.offset": peer.distance_expansion.offset}
    peer.load_state_dict(weights)
    return peer


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_the_same_weights_give_the_same_numbers(reduce: str) -> None:
    torch.manual_seed(0)
    model = build(settings("schnet")["model"] | {"reduce": reduce, "width": 16, "layers": 2})
    # Neighbours at the cutoff, which are kept a little beyond it, have a weight of zero either way.
    batch = batch_of(MODELS["schnet"](), ALL)
    peer = peer_of(model, batch, 16, 2)
    if reduce == "mean":  # which torch-geometric's doesn't offer
        for interaction in peer.interactions:
            interaction.conv.aggr_module = MeanAggregation()
    expected = peer(batch.z, torch.zeros(len(batch.z), 3), batch.batch).squeeze(-1)
    torch.testing.assert_close(model(batch)["value"], expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(out.square().sum(), net.parameters())[-1] for out, net in
                 ((model(batch)["value"], model), (expected, peer))]  # fmt: skip
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_number_of_parameters() -> None:
    """As torch-geometric's at the same sizes, and one element more."""
    peer = Peer(64, 64, 6, 25, 5.0)
    expected = sum(p.numel() for p in peer.parameters())
    assert sum(p.numel() for p in SchNet().parameters()) == expected + 64 == 118_017


def test_beyond_the_cutoff_nothing_counts() -> None:
    """The filter vanishes at the cutoff, so neighbours may come and go there."""
    model = SchNet(width=8, layers=2, cutoff=2.8)
    near = batch_of(MODELS["schnet"](), ALL[:1])  # NaCl, neighbours at 2.82 Å and further
    assert near.edge_index is not None
    assert near.edge_shift is not None
    none = replace(near, edge_index=near.edge_index[:, :0], edge_shift=near.edge_shift[:0])
    torch.testing.assert_close(model(near), model(none))
