"""MEGNet against the package matgl, as recorded, and Set2Set against torch-geometric's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from batch_examples import batch_with_vectors
from torch import Tensor
from torch_geometric.nn.aggr import Set2Set as Peer

from potnet.crystals import CrystalBatch
from potnet.models import MEGNet
from potnet.nn import Set2Set

RECORDED = torch.load(Path(__file__).parents[1] / "fixtures" / "peers" / "megnet.pt", weights_only=True)


def folded_lstm(weights: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, Tensor]:
    """One matrix and one bias: that LSTM sees its last output twice, as its state and in its input."""
    recurrent, matrix = weights[prefix + "weight_hh_l0"], weights[prefix + "weight_ih_l0"].clone()
    matrix[:, : recurrent.shape[1]] += recurrent
    return matrix, weights[prefix + "bias_ih_l0"] + weights[prefix + "bias_hh_l0"]


def own_weights(theirs: Mapping[str, Tensor], model: MEGNet) -> dict[str, Tensor]:
    """The recorded weights by our names."""
    embedding = model.embedding.weight.detach().clone()
    embedding[1:10] = theirs["embedding.layer_node_embedding.weight"]
    ours = {"embedding.weight": embedding}

    def take(own: str, other: str, layers: Mapping[int, int]) -> None:
        for their_layer, our_layer in layers.items():
            for kind in ("weight", "bias"):
                ours[f"{own}.{our_layer}.{kind}"] = theirs[f"{other}.layers.{their_layer}.{kind}"]

    for own, other in (("of_atoms", "node"), ("of_edges", "edge"), ("of_states", "state")):
        take(f"{own}.0", f"{other}_encoder", {0: 0, 2: 2})
    for i in range(len(model.blocks)):
        for k, other in enumerate(("node", "edge", "state")):
            if i > 0:
                take(f"blocks.{i}.dense.{k}.0", f"blocks.{i}.{other}_func", {0: 0, 2: 2})
        take(f"blocks.{i}.atom_update", f"blocks.{i}.conv.node_func", {0: 0, 2: 2, 4: 4})
        take(f"blocks.{i}.state_update", f"blocks.{i}.conv.state_func", {0: 0, 2: 2, 4: 4})
        take(f"blocks.{i}.edge_update.1", f"blocks.{i}.conv.edge_func", {2: 0, 4: 2})
        first = theirs[f"blocks.{i}.conv.edge_func.layers.0.weight"]
        width = first.shape[1] // 4
        ours[f"blocks.{i}.edge_input.weight"] = first[:, : 3 * width]
        ours[f"blocks.{i}.edge_state.weight"] = first[:, 3 * width :]
        ours[f"blocks.{i}.edge_input.bias"] = theirs[f"blocks.{i}.conv.edge_func.layers.0.bias"]
    for own, other in (("atoms", "node"), ("edges", "edge")):
        matrix, bias = folded_lstm(theirs, f"{other}_s2s.lstm.")
        ours |= {f"pool_{own}.lstm.weight": matrix, f"pool_{own}.lstm.bias": bias}
    for their_layer, our_layer in {0: "hidden.0", 2: "hidden.1", 4: "output"}.items():
        for kind in ("weight", "bias"):
            ours[f"heads.value.{our_layer}.{kind}"] = theirs[f"output_proj.layers.{their_layer}.{kind}"]
    return ours


def recorded_batch() -> CrystalBatch:
    num_atoms = RECORDED["num_atoms"]
    return batch_with_vectors(
        RECORDED["edge_vector"],
        ids=[str(i) for i in range(len(num_atoms))],
        z=RECORDED["species"] + 1,
        batch=torch.arange(len(num_atoms)).repeat_interleave(num_atoms),
        num_atoms=num_atoms,
        edge_index=RECORDED["edge_index"],
    )


def test_the_same_weights_give_the_numbers_of_matgl() -> None:
    """With matgl's Set2Set and Gaussians, and without the activation that it alone has after an update."""
    model = MEGNet(
        width=8, hidden=12, layers=2, atom_features=5, memory=None, steps=3, bins=20, basis_width=math.sqrt(2)
    )
    model.load_state_dict(own_weights(RECORDED["state_dict"], model))
    output = model(recorded_batch())["value"]
    torch.testing.assert_close(output, RECORDED["output"])
    output.square().mean().backward()
    norms = RECORDED["grad_norms"]
    for ours, theirs in {
        "heads.value.hidden.0.weight": "output_proj.layers.0.weight",
        "blocks.1.edge_update.1.0.weight": "blocks.1.conv.edge_func.layers.2.weight",
        "blocks.0.atom_update.0.weight": "blocks.0.conv.node_func.layers.0.weight",
        "of_states.0.2.weight": "state_encoder.layers.2.weight",
        "embedding.weight": "embedding.layer_node_embedding.weight",
    }.items():
        gradient = model.get_parameter(ours).grad
        assert gradient is not None
        torch.testing.assert_close(gradient.norm(), torch.tensor(norms[theirs]), rtol=1e-3, atol=1e-7)


def test_set2set_is_that_of_torch_geometric() -> None:
    torch.manual_seed(0)
    theirs, ours = Peer(5, processing_steps=4), Set2Set(5, steps=4)
    matrix, bias = folded_lstm(dict(theirs.state_dict()), "lstm.")
    ours.load_state_dict({"lstm.weight": matrix, "lstm.bias": bias})
    rows, index = torch.randn(9, 5), torch.tensor([0, 0, 0, 2, 2, 3, 3, 3, 3])  # the second set is empty
    torch.testing.assert_close(ours(rows, index, 4), theirs(rows, index, dim_size=4))


def test_number_of_parameters() -> None:
    """167 761 in the released code (its layers' sizes summed), and six elements more in the embedding."""
    dense = 64 * 32 + 32
    embedding = 95 * 16 + sum(inputs * 64 + 64 + dense for inputs in (16, 100, 2))
    update = sum(inputs * 32 * 64 + 64 + 64 * 64 + 64 + dense for inputs in (4, 3, 3))
    between = 3 * (32 * 64 + 64 + dense)
    set2set = (32 * 16 + 16) + (32 * 64 + 64)
    readout = (96 * 32 + 32) + (32 * 16 + 16) + (16 + 1)
    released = embedding + 3 * update + 2 * between + 2 * set2set + readout
    assert released == 167_761
    assert sum(p.numel() for p in MEGNet().parameters()) == released + 6 * 16
    # matgl's Set2Set is wider, and it embeds 89 elements.
    assert RECORDED["parameters"] == 189_521
