"""ALIGNN against the package alignn, as recorded: graph, line graph, network and gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_battery import ALL, MODELS, batch_of

from potnet.crystals import Crystal, CrystalBatch, CrystalGraph, collate, edge_vectors, line_graph
from potnet.data import Featurizer
from potnet.models import ALIGNN
from potnet.nn import bond_cosines

RECORDED = torch.load(Path(__file__).parents[1] / "fixtures" / "peers" / "alignn.pt", weights_only=True)

#: Beginnings and parts of names in the package, and ours.
NAMES = (
    ("atom_embedding.layer.0", "atom_embedding.linear"),
    ("atom_embedding.layer.1", "atom_embedding.norm"),
    ("edge_embedding.", "bond_embedding."),
    ("embedding.1.layer.0", "embedding.first.linear"),
    ("embedding.1.layer.1", "embedding.first.norm"),
    ("embedding.2.layer.0", "embedding.second.linear"),
    ("embedding.2.layer.1", "embedding.second.norm"),
    ("src_gate", "source"),
    ("dst_gate", "target"),
    ("edge_gate", "edge"),
    ("src_update", "own"),
    ("dst_update", "message"),
    ("bn_nodes", "node_norm"),
    ("bn_edges", "edge_norm"),
    ("fc.", "heads.value.output."),
)


def own_name(name: str) -> str:
    kind, _, rest = name.partition(".")
    if kind == "alignn_layers":
        number, part, rest = rest.split(".", 2)
        name = f"{'bond' if part == 'node_update' else 'angle'}_layers.{number}.{rest}"
    for theirs, ours in NAMES:
        name = name.replace(theirs, ours)
    return name


def recorded_model() -> ALIGNN:
    """With the weights of the package (benchmarks/peers/record_alignn.py)."""
    weights = {own_name(name): value for name, value in RECORDED["state_dict"].items()}
    model = ALIGNN(width=12, embedding=8, alignn_layers=2, gcn_layers=2)
    absent = {name for name in weights if name not in model.state_dict()}
    # Centers of Gaussians follow from the arguments; of these two norms nothing reads the result.
    assert {name.rpartition(".")[0] for name in absent} == {
        "bond_embedding.0",
        "angle_embedding.0",
        "angle_layers.1.edge_norm",
        "gcn_layers.1.edge_norm",
    }
    model.load_state_dict({name: value for name, value in weights.items() if name not in absent})
    return model


def recorded_batch() -> CrystalBatch:
    """The edges of the package in our order, with our line graph less what the package's lacks."""
    graphs = []
    for crystal in RECORDED["crystals"]:
        order = crystal["target"].argsort(stable=True)
        edges = torch.stack([crystal["source"], crystal["target"]])[:, order]
        angles = torch.from_numpy(line_graph(edges.numpy(), len(crystal["z"])))
        # Ours point from target to source.
        vector, (source, target) = -crystal["vector"][order].double(), edges
        cell, positions = crystal["cell"].double(), crystal["positions"].double()
        shift = (vector - positions[source] + positions[target]) @ torch.linalg.inv(cell)
        torch.testing.assert_close(shift, shift.round(), rtol=0, atol=1e-4)
        graphs.append(
            CrystalGraph(
                crystal["id"],
                crystal["z"],
                positions,
                cell,
                edge_index=edges,
                edge_shift=shift.round().int(),
                # The line graph of DGL has no pair of an edge with itself. Where an edge leads to its own
                # atom's image, that is the straight angle between the images at both sides.
                angle_index=angles[:, angles[0] != angles[1]],
            )
        )
    return collate(graphs)


def cosines(batch: CrystalBatch) -> torch.Tensor:
    return bond_cosines(batch, edge_vectors(batch))


@pytest.mark.parametrize("number", range(3))
def test_line_graph_and_angles_are_those_of_the_package(number):
    crystal = RECORDED["crystals"][number]
    batch = recorded_batch()
    mine = batch.batch[batch.edge_index[1]][batch.angle_index[0]] == number
    assert mine.sum() == crystal["angles"]
    torch.testing.assert_close(cosines(batch)[mine].sort().values, crystal["cosines"])


@pytest.mark.parametrize("number", range(3))
def test_neighbours_are_those_of_the_package(number):
    recorded = RECORDED["crystals"][number]
    crystal = Crystal(
        recorded["cell"].numpy(), recorded["positions"].numpy(), recorded["z"].numpy(), recorded["id"]
    )
    neighbors = {"k": 12, "symmetric": True}
    (graph,) = Featurizer(cell="as_given", neighbors=neighbors, device="cpu").featurize([crystal])
    ours = described(*graph.edge_index, -edge_vectors(collate([graph])))
    theirs = described(recorded["source"], recorded["target"], recorded["vector"])
    assert len(ours) == len(set(ours))
    # The package has every bond between an atom and its own image twice.
    own = [edge for edge in ours if edge[0] == edge[1]]
    assert own
    assert sorted(theirs) == sorted(ours + own)


def described(source, target, vector):
    rounded = (vector.double().numpy().round(3) + 0.0).tolist()
    return [(s, t, *v) for s, t, v in zip(source.tolist(), target.tolist(), rounded, strict=True)]


def test_same_weights_same_numbers():
    model, batch = recorded_model(), recorded_batch()
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(batch)["value"], RECORDED["output"])
    output = model.train()(batch)["value"]
    torch.testing.assert_close(output.detach(), RECORDED["train_output"])
    output.square().mean().backward()
    found = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    # The gradient of a bias in front of a norm is zero but for rounding.
    rounding = 1e-6 * max(RECORDED["grad_norms"].values())
    for name, norm in RECORDED["grad_norms"].items():
        assert found.get(own_name(name), 0.0) == pytest.approx(norm, rel=1e-3, abs=rounding), name


def test_parameters_count_as_published():
    parameters = sum(p.numel() for p in ALIGNN().parameters())
    assert parameters == 4_025_729
    assert RECORDED["parameters"] == 4_026_753
    assert parameters == RECORDED["parameters"] - 2 * 2 * 256


def test_without_any_edge():
    """Twelve neighbours are always found, so the battery has no atom without: a radius leaves one."""
    features = Featurizer(neighbors={"cutoff": 4.0}, device="cpu").restricted(ALIGNN.needs)
    model = MODELS["alignn"]().train()
    lonely = collate(features.featurize(ALL[-1:]))
    assert lonely.edge_index.shape == lonely.angle_index.shape == (2, 0)
    for batch in (lonely, collate(features.featurize(ALL))):
        model.zero_grad()
        model(batch)["value"].sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        assert model.eval()(lonely)["value"].isfinite().all()


def test_angle_of_hand_made_bonds():
    """Bonds u -> v and v -> w at right angles in v, and each with its own reverse at angle zero."""
    positions = torch.tensor([[2.0, 0, 0], [0, 0, 0], [0, 3.0, 0]], dtype=torch.float64)
    # Targets v, u, v, w: u lies at +x of v, w at +y.
    edges = torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2]])
    edges = edges[:, edges[1].argsort(stable=True)]
    index = torch.from_numpy(line_graph(edges.numpy(), 3))
    shift = torch.zeros(4, 3, dtype=torch.int32)
    graph = CrystalGraph(
        "c",
        torch.ones(3, dtype=torch.long),
        positions,
        10 * torch.eye(3, dtype=torch.float64),
        edges,
        shift,
        index,
    )
    found = {
        (edges[:, a].tolist()[0], *edges[:, b].tolist()): round(value, 6)
        for (a, b), value in zip(index.T.tolist(), cosines(collate([graph])).tolist(), strict=True)
    }
    across = {(0, 1, 2): 0.0, (2, 1, 0): 0.0}
    back = {(0, 1, 0): 1.0, (2, 1, 2): 1.0, (1, 0, 1): 1.0, (1, 2, 1): 1.0}
    assert found == across | back


def test_refuses_a_batch_without_angles():
    model = MODELS["alignn"]()
    features = model.battery_features.restricted({"edges"})
    with pytest.raises(ValueError, match="ALIGNN needs angles, but the batch has none: featurize with"):
        model(collate(features.featurize(ALL[:1])))
    assert np.all(batch_of(model, ALL[:1]).num_edges.numpy() > 0)
