import pytest
import torch

from potnet.crystals import CrystalGraph, collate, complete_pairs


def graph(name: str, n: int, edges: int = 0, channels: int = 2, **change: object) -> CrystalGraph:
    generator = torch.Generator().manual_seed(n)
    fields = {
        "id": name,
        "z": torch.arange(1, n + 1),
        "cell": torch.eye(3) * n,
        "edge_index": torch.randint(n, (2, edges), generator=generator),
        "edge_vector": torch.randn(edges, 3, generator=generator),
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
    assert torch.equal(batch.edge_vector[5:], graphs[2].edge_vector)
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
    assert batch.edge_vector.shape == (0, 3)


def test_fields_that_nobody_asked_for_stay_none():
    batch = collate([graph("a", 2, edge_index=None, edge_vector=None, pair_sums=None)])
    assert batch.edge_index is batch.edge_vector is batch.pair_index is batch.pair_sums is None
    assert batch.angle_index is batch.descriptor_index is batch.descriptor_value is None
    assert batch.num_edges is batch.num_descriptors is None


def test_a_target_that_some_lack_is_nan():
    batch = collate([graph("a", 2), graph("b", 1, targets={"gap": 0.5})])
    assert batch.targets["k_vrh"][0] == 2
    assert batch.targets["k_vrh"][1].isnan()
    assert batch.targets["gap"].dtype == torch.float64


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
        t.device.type for t in (batch.z, batch.edge_vector, batch.pair_index, batch.targets["k_vrh"])
    } == {"meta"}
    assert batch.ids == ["a"]
