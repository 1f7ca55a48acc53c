"""CGCNN against the package cgcnn2, as recorded, and against torch-geometric's convolution."""

from __future__ import annotations

from pathlib import Path

import torch
from batch_examples import batch_with_vectors
from test_battery import ALL, MODELS, batch_of
from torch_geometric.nn import CGConv

from potnet.crystals import CrystalBatch
from potnet.models import CGCNN
from potnet.models.baselines.cgcnn import CrystalGraphConvolution
from potnet.nn import Classes, Edges

RECORDED = torch.load(Path(__file__).parents[1] / "fixtures" / "peers" / "cgcnn.pt", weights_only=True)


class GivenFeatures(torch.nn.Module):
    """The recorded features of atoms are random zeros and ones, not those of any element."""

    def forward(self, batch: CrystalBatch) -> torch.Tensor:
        return RECORDED["features"]


def recorded_model() -> CGCNN:
    """With the weights of cgcnn2 (benchmarks/peers/record_cgcnn.py)."""
    weights = {}
    for name, value in RECORDED["state_dict"].items():
        for theirs, ours in (
            ("conv_to_fc", "heads.value.hidden.0"),
            ("fcs.0", "heads.value.hidden.1"),
            ("fc_out", "heads.value.output"),
            ("embedding", "atom_embedding"),
            ("convs", "convolutions"),
            ("fc_full", "gate_and_core"),
            ("bn1", "edge_norm"),
            ("bn2", "atom_norm"),
        ):
            name = name.replace(theirs, ours)
        weights[name] = value
    model = CGCNN(width=12, layers=2, hidden=16, hidden_layers=2)
    model.load_state_dict(weights)
    model.elements = GivenFeatures()  # type: ignore[assignment]
    return model


def recorded_batch() -> CrystalBatch:
    num_atoms, neighbor = RECORDED["num_atoms"], RECORDED["neighbor"]
    vector = torch.zeros(neighbor.numel(), 3)
    vector[:, 0] = RECORDED["distance"].flatten()
    target = torch.arange(len(neighbor)).repeat_interleave(neighbor.shape[1])
    return batch_with_vectors(
        vector,
        ids=[str(i) for i in range(len(num_atoms))],
        # As each has features of its own, an element of its own.
        z=torch.arange(1, len(neighbor) + 1),
        batch=torch.arange(len(num_atoms)).repeat_interleave(num_atoms),
        num_atoms=num_atoms,
        edge_index=torch.stack([neighbor.flatten(), target]),
    )


def test_the_same_weights_give_the_numbers_of_cgcnn2() -> None:
    batch = recorded_batch()
    torch.testing.assert_close(recorded_model().eval()(batch)["value"], RECORDED["output"])
    model = recorded_model().train()
    output = model(batch)["value"]
    torch.testing.assert_close(output, RECORDED["train_output"], rtol=1e-4, atol=1e-5)
    output.square().mean().backward()
    norms = sorted(p.grad.norm().item() for p in model.parameters() if p.grad is not None)
    expected = sorted(RECORDED["grad_norms"].values())
    torch.testing.assert_close(torch.tensor(norms), torch.tensor(expected), rtol=1e-3, atol=1e-6)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_number_of_parameters() -> None:
    """Embedding, three convolutions with two batch norms each, two layers; as cgcnn2."""
    convolution = (2 * 64 + 41) * 128 + 128 + 2 * 128 + 2 * 64
    assert parameters(CGCNN()) == (92 * 64 + 64) + 3 * convolution + (64 * 128 + 128) + (128 + 1) == 80_833
    assert RECORDED["parameters"] == 80_833


def test_twelve_neighbours_and_whole_shells() -> None:
    batch = batch_of(MODELS["cgcnn"](), ALL)
    assert batch.edge_index is not None
    neighbours = torch.bincount(batch.edge_index[1], minlength=len(batch.z))
    # NaCl: 6 + 12, as the 12th is of the second shell; copper: 12; the atom of the last crystal has none.
    assert neighbours[:2].tolist() == [18, 18]
    assert neighbours[-2:].tolist() == [12, 0]


class WithoutNorm(torch.nn.Module):
    def forward(self, x: torch.Tensor, row: torch.Tensor | None) -> torch.Tensor:
        return x


def test_the_convolution_is_that_of_torch_geometric() -> None:
    """CGConv has neither the batch norm on edges nor the softplus around the sum: without them they agree."""
    torch.manual_seed(0)
    ours, theirs = CrystalGraphConvolution(6, 4).double(), CGConv(6, 4, batch_norm=True).double()
    ours.edge_norm = WithoutNorm()  # type: ignore[assignment]
    with torch.no_grad():
        ours.gate_and_core.weight.copy_(torch.cat([theirs.lin_f.weight, theirs.lin_s.weight]))
        ours.gate_and_core.bias.copy_(torch.cat([theirs.lin_f.bias, theirs.lin_s.bias]))
    x, features = torch.randn(5, 6).double(), torch.randn(11, 4).double()
    source, target = torch.randint(5, (2, 11))
    single = [Classes(None, torch.arange(size)) for size in (5, 11)]
    result = ours(x, Edges(features, target, source, None), *single)
    expected = theirs(x, torch.stack([source, target]), features)
    torch.testing.assert_close(result, torch.nn.functional.softplus(expected))
