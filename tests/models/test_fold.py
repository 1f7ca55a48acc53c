"""Equal atoms, edges and angles computed once: the same network, on less."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from test_battery import ALL, CRYSTALS, MODELS, batch_of, value
from torch.autograd import forward_ad

from potnet.crystals import Crystal, collate, edge_vectors
from potnet.data import Featurizer
from potnet.nn import Classes, bond_cosines, fold, nearly_equal, pair_potentials
from potnet.nn.symmetry import TOLERANCE

NETWORKS = sorted(set(MODELS) - {"mbtr_krr", "leignn", "potnet_ff"})  # which compute nothing once


def irregular() -> Crystal:
    rng = np.random.default_rng(5)
    return Crystal(np.eye(3) * 6 + rng.normal(size=(3, 3)), rng.uniform(0, 6, (5, 3)), [6, 6, 8, 8, 1], "no")


def chain(positions: list[float], length: float, z: int) -> Crystal:
    """Atoms on a line, far from all images but those along it."""
    return Crystal(
        np.diag([length, 15.0, 15.0]), [[x, 0, 0] for x in positions], [z] * len(positions), f"{z}"
    )


LESS_USUAL = [
    irregular(),
    # Without edges, atoms differ by their potentials alone, and so do pairs.
    chain([0, 9, 19, 30], 39.0, 18),
    # What ends the line is felt inside after several rounds.
    chain([3.0 * i for i in range(9)], 40.0, 26),
    # The same atom in another cell.
    chain([0], 16.0, 18),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_network_is_the_network(name):
    """Outputs, gradients and running statistics; crystals with much symmetry and with none."""
    torch.manual_seed(0)
    model = MODELS[name]().double().train()
    batch = batch_of(model, [*ALL, *LESS_USUAL]).double()
    state = {key: value.clone() for key, value in model.state_dict().items()}

    def results(fold):
        model.fold = fold
        model.load_state_dict(state)
        model.zero_grad()
        output = value(model.train(), batch)
        (output * torch.linspace(-1, 2, len(output))).sum().backward()
        gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        after = {key: value.clone() for key, value in model.state_dict().items()}
        with torch.no_grad():
            return output.detach(), gradients, after, value(model.eval(), batch)

    found, expected = results(fold=True), results(fold=False)
    # What is left are pair sums in float32, of which equal ones differ in the last digits.
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_in_the_geometry(name):
    """Against differences, in a direction without symmetry."""
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    model.fold = False
    batch = batch_of(model, ALL[:3]).double()
    for key in ("positions", "cell", *(["pair_sums"] if "pairs" in model.needs else [])):
        given = getattr(batch, key)
        # Potentials span decades, and the smallest matter.
        direction = torch.randn_like(given) * (given if key == "pair_sums" else 0.1)
        with torch.no_grad():
            ahead, behind = (
                value(model, replace(batch, **{key: given + h * direction})) for h in (1e-4, -1e-4)
            )
        leaf = given.clone().requires_grad_()
        output = value(model, replace(batch, **{key: leaf}))
        (gradient,) = torch.autograd.grad(output.sum(), leaf)
        expected = (ahead - behind).sum() / 2e-4
        torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_refused_where_equal_atoms_share_one(name):
    """Forward as well as backward, in all that a network reads; weights still have theirs."""
    model = MODELS[name]()
    batch = batch_of(model, [CRYSTALS["NaCl"]])
    for key in ("positions", "cell", *(["pair_sums"] if "pairs" in model.needs else [])):
        given = getattr(batch, key)
        message = rf"a gradient in {key} is asked for, but .* has fold=true: .*\(model\.fold=false\)"
        with pytest.raises(ValueError, match=message):
            model(replace(batch, **{key: given.clone().requires_grad_()}))
        with forward_ad.dual_level(), pytest.raises(ValueError, match=message):
            model(replace(batch, **{key: forward_ad.make_dual(given, torch.ones_like(given))}))


def test_compilation_is_refused_where_sizes_depend_on_the_data():
    model = MODELS["branched-local"]()
    batch = batch_of(model, ALL)
    refused = pytest.raises(ValueError, match=r"torch\.compile cannot trace: build it with fold=false")
    with mock.patch("torch.compiler.is_compiling", return_value=True), refused:
        model(batch)


def test_second_derivatives():
    """Through the norm, folded and not: products of the Hessian in the parameters with a vector."""
    torch.manual_seed(0)
    model = MODELS["cgcnn"]().double().train()
    batch = batch_of(model, ALL).double()
    parameters = [p for p in model.parameters() if p.requires_grad]
    vectors = [torch.randn_like(p) for p in parameters]

    def product(fold):
        model.fold = fold
        first = torch.autograd.grad(value(model, batch).square().sum(), parameters, create_graph=True)
        along = sum((g * v).sum() for g, v in zip(first, vectors, strict=True))
        return torch.autograd.grad(along, parameters)

    torch.testing.assert_close(product(fold=True), product(fold=False), rtol=1e-4, atol=1e-5)


def classes(crystals: list[Crystal], angles: bool = True) -> tuple[int, int, int]:
    features = Featurizer(neighbors={"k": 12, "symmetric": True}, device="cpu")
    batch = collate(features.restricted({"edges", "angles"}).featurize(crystals))
    of_edge = batch.batch[batch.edge_index[1]]
    vectors = edge_vectors(batch)
    distance = nearly_equal(vectors.norm(dim=-1), of_edge)
    cosine = nearly_equal(bond_cosines(batch, vectors), of_edge[batch.angle_index[0]]) if angles else None
    found = fold(batch, distance, cosine)[:3]
    rows = (batch.z, batch.edge_index[0], batch.angle_index[0])
    for part, row in zip(found[: 2 + angles], rows, strict=False):
        assert part.sizes().sum() == len(row)
        assert part.label(part.first).tolist() == list(range(len(part.first)))
    return tuple(len(part.first) for part in found)


def test_classes_of_symmetric_crystals():
    # Diamond: 4, then 12 neighbours. Angles in degrees: of near bonds 0 and 109.5; of a near and a far one,
    # either first, 35.3, 90 and 144.7; of far bonds 0, 60, 90, 120 and 180.
    assert classes([CRYSTALS["diamond"]]) == (1, 2, 13)
    # Rock salt: 6 of the other kind, then 12 of the same, around either ion.
    assert classes([CRYSTALS["NaCl"]], angles=False) == (2, 4, 0)
    # Classes do not span crystals.
    assert classes([CRYSTALS["diamond"]] * 3) == (3, 6, 39)


def test_without_symmetry_nothing_is_equal():
    features = Featurizer(neighbors={"k": 12, "symmetric": True}, device="cpu")
    source, target = collate(features.featurize([irregular()])).edge_index
    assert classes([irregular()])[:2] == (5, len(source))
    # Without angles, an edge to an atom's own image is like its reverse.
    own = int((source == target).sum())
    assert own
    assert classes([irregular()], angles=False)[:2] == (5, len(source) - own // 2)


def test_equal_up_to_rounding():
    close = torch.tensor([3.0, 1.0, 1.0 + TOLERANCE / 4, 2.0, 1.0, 3.0], dtype=torch.float64)
    found = nearly_equal(close, torch.tensor([0, 0, 0, 0, 1, 1]))
    assert found.row.tolist() == [2, 0, 0, 1, 3, 4]
    expected = torch.tensor([1.0 + TOLERANCE / 8, 2.0, 3.0, 1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected)


def test_equal_potentials_are_equal_in_all_channels():
    one = [1.0, 1e-6, -3e-9]
    sums = torch.tensor([one, [1.0, 2e-6, -3e-9], one, [1.0, 1e-6, 3e-9]], dtype=torch.float64)
    batch = replace(
        collate(Featurizer(device="cpu").featurize([CRYSTALS["NaCl"]])),
        pair_index=torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]]),
        pair_sums=sums,
        dtype=torch.float64,
    )
    values, row = pair_potentials(batch, "")
    assert len(values) == 3
    torch.testing.assert_close(values[row], sums, rtol=1e-12, atol=0)


def test_the_mean_of_many_equal_numbers_is_that_number():
    number = torch.tensor(2.0).sqrt()
    found = nearly_equal(number.expand(20_000).clone(), torch.zeros(20_000, dtype=torch.long))
    assert torch.equal(found.values, number[None])


def test_the_number_of_values_does_not_depend_on_the_batch():
    """Noise of float64 in a batch of many crystals."""
    torch.manual_seed(0)
    values = torch.arange(1.0, 31.0).double().repeat(512) * (1 + 1e-15 * torch.randn(512 * 30).double())
    crystal = torch.arange(512).repeat_interleave(30)
    assert len(nearly_equal(values, crystal).values) == 512 * 30


def test_lengths_that_differ_stay_apart():
    values = torch.tensor([2.0, 2.0001], dtype=torch.float64)
    assert len(nearly_equal(values, torch.zeros(2, dtype=torch.long)).values) == 2


def test_joined_classes():
    found = Classes(torch.tensor([0, 0, 1]), torch.tensor([0, 2])).joined(
        Classes(torch.tensor([0, 1, 1]), torch.tensor([0, 1]))
    )
    assert found.of.tolist() == [0, 0, 1, 2, 3, 3]
    assert found.first.tolist() == [0, 2, 3, 4]


def test_many_small_gaps_do_not_add_up():
    chain = torch.arange(100, dtype=torch.float64) * TOLERANCE / 2.5
    found = nearly_equal(chain, torch.zeros(100, dtype=torch.long))
    assert (found.values[found.row] - chain).abs().max() <= TOLERANCE
    assert len(found.values) < 50


def test_values_do_not_depend_on_the_batch():
    crystal = torch.tensor([0, 0, 0, 1, 1, 1])
    values = torch.tensor([1.0, 1.0 + 0.9 * TOLERANCE, 2.0, 1.0 - 0.9 * TOLERANCE, 1.0, 2.0])
    both = nearly_equal(values, crystal)
    alone = [nearly_equal(values[crystal == c], crystal[crystal == c]) for c in (0, 1)]
    expected = torch.cat([part.values[part.row] for part in alone])
    assert both.values[both.row].tolist() == expected.tolist()
