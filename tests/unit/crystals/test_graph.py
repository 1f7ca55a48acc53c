from dataclasses import replace

import pytest
import torch

from potnet.crystals import CrystalGraph, collate, complete_pairs, edge_vectors


def graph(name: str, n: int, edges: int = 0, channels: int = 2, **change: object) -> CrystalGraph:
    generator = torch.Generator().manual_seed(n)
    fields = {
        "id": name,
        "z": torch.arange(1, n + 1),
        "positions": torch.randn(n, 3, generator=generator, dtype=torch.float64),
        "cell": torch.eye(3, dtype=torch.float64) * n,
        "edge_index": torch.randint(n, (2, edges), generator=generator),
        "edge_shift": torch.randint(-3, 4, (edges, 3), generator=generator),
        "pair_sums": torch.randn(n * n, channels, generator=generator),
        "targets": {"k_vrh": float(n)},
    }
    return CrystalGraph(**{**fields, **change})  # type: ignore[arg-type]


def test_complete_pairs_are_all_ordered_pairs_crystal_by_crystal():
    expected = [(0, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3)]
    assert complete_pairs(torch.tensor([1, 2, 1])).T.tolist() == [list(pair) for pair in expected]
    assert complete_pairs(torch.tensor([3, 2])).shape == (2, 13)


def test_collate_shifts_indices_and_keeps_order():
    graphs = [graph("a", 3, edges=5), graph("b", 1, edges=0), graph("c", 2, edges=4)]
    batch = collate(graphs)
    assert batch.num_crystals == 3
    assert batch.ids == ["a", "b", "c"]
    assert batch.batch.tolist() == [0, 0, 0, 1, 2, 2]
    assert batch.num_atoms.tolist() == [3, 1, 2]
    assert batch.z.tolist() == [1, 2, 3, 1, 1, 2]
    assert batch.cell.shape == (3, 3, 3)
    assert batch.edge_index.shape == (2, 9)
    assert torch.equal(batch.edge_index[:, 5:], graphs[2].edge_index + 4)
    assert torch.equal(batch.edge_shift[5:], graphs[2].edge_shift)
    assert torch.equal(batch.positions, torch.cat([graph.positions for graph in graphs]))
    assert batch.positions.dtype == batch.cell.dtype == torch.float64
    assert torch.equal(batch.pair_index, complete_pairs(batch.num_atoms))
    assert torch.equal(batch.pair_sums[9:10], graphs[1].pair_sums)
    assert batch.targets["k_vrh"].tolist() == [3.0, 1.0, 2.0]


def test_angles_are_shifted_by_edges_and_descriptors_are_not():
    first = graph("a", 2, edges=3, angle_index=torch.tensor([[0, 2], [1, 0]]))
    none = graph("b", 1, edges=0, angle_index=torch.empty(2, 0, dtype=torch.long))
    last = graph("c", 2, edges=2, angle_index=torch.tensor([[1], [0]]))
    batch = collate([first, none, last])
    assert batch.num_edges.tolist() == [3, 0, 2]
    assert batch.angle_index.tolist() == [[0, 2, 4], [1, 0, 3]]
    sparse = [
        graph("a", 1, descriptor_index=torch.tensor([3, 7]), descriptor_value=torch.tensor([0.5, 1.5])),
        graph("b", 1, descriptor_index=torch.tensor([3]), descriptor_value=torch.tensor([2.5])),
    ]
    batch = collate(sparse)
    assert batch.num_descriptors.tolist() == [2, 1]
    assert batch.descriptor_index.tolist() == [3, 7, 3]
    assert batch.descriptor_value.tolist() == [0.5, 1.5, 2.5]


def test_isolated_atoms_alone_make_a_batch():
    batch = collate([graph("a", 1), graph("b", 1)])
    assert batch.edge_index.shape == (2, 0)
    assert batch.edge_index.dtype == torch.int64
    assert batch.edge_shift.shape == edge_vectors(batch).shape == (0, 3)


def test_fields_that_nobody_asked_for_stay_none():
    batch = collate([graph("a", 2, edge_index=None, edge_shift=None, pair_sums=None)])
    assert batch.edge_index is batch.edge_shift is batch.pair_index is batch.pair_sums is None
    assert batch.angle_index is batch.descriptor_index is batch.descriptor_value is None
    assert batch.num_edges is batch.num_descriptors is None


def test_a_target_that_some_lack_is_nan():
    batch = collate([graph("a", 2), graph("b", 1, targets={"gap": 0.5})])
    assert batch.targets["k_vrh"][0] == 2
    assert batch.targets["k_vrh"][1].isnan()
    assert batch.targets["gap"].dtype == torch.float64


def test_edge_vectors_against_a_loop():
    graphs = [graph("a", 3, edges=5), graph("b", 1, edges=0), graph("c", 2, edges=4)]
    batch = collate(graphs)
    expected = torch.stack(
        [
            g.positions[j] + shift.double() @ g.cell - g.positions[i]
            for g in graphs
            for (j, i), shift in zip(g.edge_index.T.tolist(), g.edge_shift, strict=True)
        ]
    )
    assert edge_vectors(batch).dtype == torch.float32
    torch.testing.assert_close(edge_vectors(batch), expected.float())
    torch.testing.assert_close(edge_vectors(batch.double()), expected, rtol=1e-14, atol=1e-14)
    with pytest.raises(ValueError, match="mine needs local edges, but the batch has none"):
        edge_vectors(collate([graph("a", 2, edge_index=None, edge_shift=None)]), "mine")


def test_edge_vectors_are_exact_far_from_the_origin():
    """Float32 positions would leave 1e-3 Å here."""
    far = graph(
        "a",
        2,
        positions=torch.tensor([[1e4, 0, 0], [1e4 + 1.23456789, 0, 0]], dtype=torch.float64),
        edge_index=torch.tensor([[1], [0]]),
        edge_shift=torch.zeros(1, 3, dtype=torch.int8),
    )
    assert edge_vectors(collate([far]))[0, 0].item() == pytest.approx(1.23456789, abs=1e-7)


def test_gradients_reach_positions_and_cell():
    batch = collate([graph("a", 3, edges=5), graph("c", 2, edges=4)]).double()

    def vectors(positions, cell):
        return edge_vectors(replace(batch, positions=positions, cell=cell))

    leaves = batch.positions.clone().requires_grad_(), batch.cell.clone().requires_grad_()
    assert torch.autograd.gradcheck(vectors, leaves)


def test_double_widens_and_says_so():
    batch = collate([graph("a", 2, edges=3)])
    assert batch.dtype == torch.float32
    wide = batch.double()
    assert wide.dtype == wide.pair_sums.dtype == torch.float64
    assert wide.edge_shift.dtype == torch.int32
    assert wide.to("cpu").dtype == torch.float64


def test_labels_of_atoms_and_tensors():
    """Forces are joined atom by atom, stress is stacked; NaN where one is missing."""
    forces, stress = torch.randn(2, 3).double(), torch.arange(6.0).double()
    graphs = [
        graph("a", 2, targets={"forces": forces, "stress": stress, "gap": 1.0}),
        graph("b", 3, targets={"gap": 2.0}),
        # As many rows as a crystal of six atoms has: the name decides.
        graph("c", 6, targets={"stress": stress + 1, "atom_charge": torch.ones(6)}),
    ]
    batch = collate(graphs)
    found = {key: tuple(value.shape) for key, value in batch.targets.items()}
    assert found == {"forces": (11, 3), "stress": (3, 6), "gap": (3,), "atom_charge": (11,)}
    assert all(value.dtype == torch.float64 for value in batch.targets.values())
    assert torch.equal(batch.targets["forces"][:2], forces)
    assert batch.targets["forces"][2:].isnan().all()
    assert torch.equal(batch.targets["stress"][[0, 2]], torch.stack([stress, stress + 1]))
    assert batch.targets["stress"][1].isnan().all()
    assert batch.targets["atom_charge"].isnan().tolist() == [True] * 5 + [False] * 6


def test_a_number_is_a_label_of_the_crystal_whatever_its_name():
    batch = collate(
        [graph("a", 2, targets={"atom_count": 2.0}), graph("b", 1, targets={"forces": float("nan")})]
    )
    assert batch.targets["atom_count"][0] == 2
    assert batch.targets["forces"].shape == (2,)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("forces", (3, 3), "forces is a label of atoms, so it needs one row for each of the 2 atoms"),
        ("stress", (3, 3), "stress has a different shape in different crystals"),
    ],
)
def test_labels_of_another_shape_are_refused(key, shape, message):
    good = torch.zeros(1, 3) if key == "forces" else torch.zeros(6)
    with pytest.raises(ValueError, match=message):
        collate([graph("a", 1, targets={key: good}), graph("b", 2, targets={key: torch.zeros(shape)})])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("field", ["edge_index", "pair_sums"])
def test_crystals_of_different_settings_do_not_mix(order, field):
    graphs = [graph("whole", 2), graph("lacking", 2, **{field: None})][::order]
    with pytest.raises(ValueError, match=f"{field} is missing for some crystals of a batch: lacking"):
        collate(graphs)


def test_nothing_is_no_batch():
    with pytest.raises(ValueError, match="at least one crystal"):
        collate([])


def test_to_moves_every_tensor():
    batch = collate([graph("a", 2, edges=3)]).to("meta")
    assert {
        t.device.type
        for t in (batch.z, batch.positions, batch.edge_shift, batch.pair_index, batch.targets["k_vrh"])
    } == {"meta"}
    assert batch.ids == ["a"]
