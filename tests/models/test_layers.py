"""Layers that models share."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from potnet.crystals import CrystalGraph, collate
from potnet.models import PublishedPotNet
from potnet.nn import (
    BatchNorm,
    BesselBasis,
    EdgeLinear,
    Edges,
    ElementFeatures,
    Embedding,
    Envelope,
    GaussianBasis,
    Head,
    Heads,
    HeadSpec,
    MultiquadricBasis,
    ShiftedSoftplus,
    SmoothBasis,
    aggregate,
    softmax,
)
from potnet.nn.elements import ELEMENT_GROUPS, atom_table, group_table


def batch_of_atoms(*crystals: list[int]):
    return collate(
        [
            CrystalGraph(f"c{i}", torch.tensor(z), torch.zeros(len(z), 3), 5.0 * torch.eye(3))
            for i, z in enumerate(crystals)
        ]
    )


def test_edge_linear_is_linear_on_the_concatenation():
    torch.manual_seed(0)
    split, plain = EdgeLinear(5, 3, 7).double(), nn.Linear(13, 7).double()
    plain.load_state_dict(split.state_dict())
    x, e = torch.randn(4, 5, dtype=torch.float64), torch.randn(11, 3, dtype=torch.float64)
    target, source = torch.randint(4, (2, 11))
    expected = plain(torch.cat([x[target], x[source], e], 1))
    torch.testing.assert_close(split(x, Edges(e, target, source, None)), expected)

    def apply(x, e):
        return split(x, Edges(e, target, source, None))

    assert torch.autograd.gradcheck(apply, (x.requires_grad_(), e.requires_grad_()))
    assert torch.autograd.gradgradcheck(apply, (x, e))


def test_edges_share_features():
    torch.manual_seed(0)
    split, x = EdgeLinear(5, 3, 7), torch.randn(4, 5)
    features, row = torch.randn(3, 3), torch.tensor([0, 1, 1, 0, 2])
    target, source = torch.randint(4, (2, 5))
    shared, plain = Edges(features, target, source, row), Edges(features[row], target, source, None)
    torch.testing.assert_close(split(x, shared), split(x, plain))
    torch.testing.assert_close(split(x, shared.joined(shared)), split(x, plain.joined(plain)))
    torch.testing.assert_close(split(x, shared.joined(plain)), split(x, plain.joined(shared)))


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("sum", [4.0, 0.0, 2.0]),
        ("mean", [2.0, 0.0, 2.0]),
        ("max", [5.0, 0.0, 2.0]),
        ("min", [-1.0, 0.0, 2.0]),
    ],
)
def test_aggregate(reduce, expected):
    values, index = torch.tensor([[5.0], [2.0], [-1.0]]), torch.tensor([0, 2, 0])
    assert aggregate(values, index, 3, reduce).flatten().tolist() == expected


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_rows_that_stand_for_several(reduce):
    values, index = torch.tensor([[5.0, 1.0], [2.0, 0.5], [-1.0, 3.0]]), torch.tensor([0, 2, 0])
    times = torch.tensor([[3.0], [2.0], [1.0]])
    each = times[:, 0].long()
    values_of_all, index_of_all = values.repeat_interleave(each, 0), index.repeat_interleave(each)
    found = aggregate(values, index, 3, reduce, times)
    torch.testing.assert_close(found, aggregate(values_of_all, index_of_all, 3, reduce))
    shares = softmax(values_of_all, index_of_all, 3)
    rows = torch.arange(3).repeat_interleave(each)
    torch.testing.assert_close(softmax(values, index, 3, times), aggregate(shares, rows, 3))


def test_aggregate_refuses_unknown_reductions():
    with pytest.raises(ValueError, match="got 'median'"):
        aggregate(torch.ones(1, 1), torch.zeros(1, dtype=torch.long), 1, "median")


def test_bases():
    s, centers = torch.tensor([-5.0, 0.3]), torch.linspace(-4, 4, 9)
    u = s[:, None] - centers
    torch.testing.assert_close(GaussianBasis(-4, 4, 9)(s), torch.exp(-(u**2)))
    torch.testing.assert_close(MultiquadricBasis(-4, 4, 9)(s), torch.sqrt(1 + u**2))
    u2 = (s[:, None] - torch.linspace(0, 6, 13)) / 0.5
    torch.testing.assert_close(GaussianBasis(0, 6, 13)(s), torch.exp(-(u2**2)))
    assert not GaussianBasis(0, 6, 13).state_dict()
    with pytest.raises(ValueError, match="start < stop"):
        GaussianBasis(4, -4, 9)
    with pytest.raises(ValueError, match="at least 2 bins"):
        GaussianBasis(-4, 4, 1)


@pytest.mark.parametrize("p", [2, 5, 6])
def test_the_envelope_and_two_derivatives_vanish_at_the_cutoff(p):
    envelope = Envelope(4.0, p)

    def with_derivatives(r):
        r = torch.tensor(r, dtype=torch.float64, requires_grad=True)
        value = envelope(r)
        (first,) = torch.autograd.grad(value, r, create_graph=True)
        (second,) = torch.autograd.grad(first, r)
        return [value.item(), first.item(), second.item()]

    assert with_derivatives(4.0 - 1e-7) == pytest.approx([0, 0, 0], abs=1e-5)
    assert with_derivatives(4.0) == with_derivatives(4.5) == [0, 0, 0]
    assert with_derivatives(1e-9)[0] == 1
    d = 0.7
    a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    expected = 1 - a * d**p + b * d ** (p + 1) - c * d ** (p + 2)
    assert with_derivatives(4 * d)[0] == pytest.approx(expected, rel=1e-12)
    r = torch.tensor([0.5, 2.0, 3.9, 4.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(envelope, r)


def test_bessel_functions_are_orthonormal_in_the_sphere():
    r = torch.linspace(0, 3, 20_001, dtype=torch.float64)[1:]
    f = BesselBasis(3.0, 5).double()(r)
    products = torch.einsum("ra,rb,r->ab", f, f, r**2) * (r[1] - r[0])
    torch.testing.assert_close(products, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-5)


def test_a_smooth_basis_is_basis_times_envelope():
    basis, envelope = GaussianBasis(0, 4, 9), Envelope(4.0, 5)
    r = torch.tensor([[1.0], [3.9], [4.1]])
    smooth = SmoothBasis(basis, envelope)
    torch.testing.assert_close(smooth(r), basis(r) * envelope(r)[..., None])
    assert not smooth(r)[2].any()
    r = r.double().requires_grad_()
    assert torch.autograd.gradgradcheck(smooth.double(), r)


def test_radial_functions_that_cannot_be():
    with pytest.raises(ValueError, match="positive cutoff and p of at least 2, got"):
        Envelope(4.0, 1)
    with pytest.raises(ValueError, match="positive cutoff and at least 1 bin"):
        BesselBasis(0.0, 3)


def test_shifted_softplus():
    x = torch.tensor([0.0, 1.0, 100.0])
    expected = torch.tensor([0.0, 0.620115, 100 - 0.693147])
    torch.testing.assert_close(ShiftedSoftplus()(x), expected)


def test_batch_norm_of_few_rows():
    torch.manual_seed(0)
    norm, plain = BatchNorm(3), nn.BatchNorm1d(3)
    rows = torch.randn(8, 3)
    torch.testing.assert_close(norm(rows), plain(rows))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    torch.testing.assert_close(norm(rows[:1]), plain.eval()(rows[:1]))
    assert norm(rows[:0]).shape == (0, 3)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


def test_batch_norm_of_rows_that_stand_for_several():
    torch.manual_seed(0)
    norm, plain = BatchNorm(3).double(), nn.BatchNorm1d(3).double()
    x, row = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 0, 2, 1, 3, 3, 3])
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    result, expected = norm(a, row)[row], plain(b[row])
    torch.testing.assert_close(result, expected)
    result.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[key], value)
    torch.testing.assert_close(norm.eval()(x, row), plain.eval()(x))


def test_element_table_is_that_of_cgcnn():
    table = atom_table()
    assert table.shape == (101, 92)
    assert set(table.unique().tolist()) == {0.0, 1.0}
    assert table[1:].any(1).all()
    # Published example: silicon is group 14, period 3, block p.
    assert table[14, 14] == 1
    assert table[14, :18].sum() == 1
    assert not table[0].any()


def test_every_element_is_in_one_group():
    members = sorted(z for group in ELEMENT_GROUPS.values() for z in group)
    assert members == list(range(1, 119))
    assert (group_table()[1:].sum(1) == 1).all()


def test_element_features():
    batch = batch_of_atoms([1, 100], [8])
    assert torch.equal(ElementFeatures()(batch), atom_table()[[1, 100, 8]])
    grouped = ElementFeatures(group_features=True)
    assert grouped.features == 102
    assert grouped(batch).shape == (3, 102)


def test_elements_beyond_the_table_are_refused():
    elements = ElementFeatures()
    with pytest.raises(ValueError, match=r"Md \(Z = 101\), Og \(Z = 118\) in c1, c2: the table ends at Fm"):
        elements(batch_of_atoms([1], [101, 8], [118]))
    with pytest.raises(ValueError, match=r"and 3 more"):
        elements(batch_of_atoms(*[[103]] * 8))


def head(spec, **options):
    return Head(spec, 4, 3, [5], nn.SiLU, **options)


def test_heads_of_crystals_and_of_atoms():
    torch.manual_seed(0)
    batch = batch_of_atoms([1, 1], [8])
    embedding = Embedding(torch.randn(3, 4), torch.randn(2, 3))
    intensive, by_atom = head(HeadSpec()), head(HeadSpec(per="atom"))
    assert intensive(embedding, batch).shape == (2,)
    hidden = nn.functional.silu(intensive.hidden[0](embedding.crystals))
    torch.testing.assert_close(intensive(embedding, batch), intensive.output(hidden)[:, 0])
    of_atoms = by_atom(embedding, batch)
    assert of_atoms.shape == (3,)
    total, mean = head(HeadSpec(extensive=True)), head(HeadSpec(), pool="outputs")
    for other in (total, mean):
        other.load_state_dict(by_atom.state_dict())
    expected = torch.stack([of_atoms[:2].sum(), of_atoms[2]])
    torch.testing.assert_close(total(embedding, batch), expected)
    torch.testing.assert_close(mean(embedding, batch), expected / torch.tensor([2, 1]))
    assert head(HeadSpec(outputs=6))(embedding, batch).shape == (2, 6)
    assert head(HeadSpec(outputs=3, per="atom"))(embedding, batch).shape == (3, 3)


def test_heads_by_plain_arguments():
    heads = Heads({"gap": {}, "stress": {"outputs": 6}, "forces": HeadSpec(3, "atom")}, head)
    assert heads.specs == {"gap": HeadSpec(), "stress": HeadSpec(6), "forces": HeadSpec(3, "atom")}
    assert [HeadSpec.of(spec.to_plain()) for spec in heads.specs.values()] == list(heads.specs.values())
    assert {name.split(".")[0] for name in heads.state_dict()} == {"gap", "stress", "forces"}
    output = heads(Embedding(torch.randn(3, 4), torch.randn(2, 3)), batch_of_atoms([1, 1], [8]))
    assert {key: tuple(value.shape) for key, value in output.items()} == {
        "gap": (2,),
        "stress": (2, 6),
        "forces": (3, 3),
    }
    assert list(Heads(None, head).specs) == ["value"]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({}, "at least one head"),
        ({"a.b": {}}, "'a.b' cannot name a head"),
        ({"values": {}}, "'values' cannot name a head"),
        ({"gap": {"outputs": 0}}, "at least 1 output"),
        ({"gap": {"per": "atoms"}}, "per must be 'crystal' or 'atom'"),
        ({"gap": {"per": "atom", "extensive": True}}, "extensive=true is for heads of crystals"),
        ({"gap": {"width": 3}}, "a head takes outputs, per, extensive; got width"),
    ],
)
def test_heads_that_cannot_be(specs, message):
    with pytest.raises(ValueError, match=message):
        Heads(specs, head)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local": "euclidean"}, "local must be one of potential, distance, got 'euclidean'"),
        ({"pairs": "all"}, "pairs must be one of none, concatenated, attention, got 'all'"),
        ({"pair_channels": 2}, "2 potentials a pair but 3 coefficients"),
    ],
)
def test_wrong_options_of_potnet(options, message):
    with pytest.raises(ValueError, match=message):
        PublishedPotNet(**options)


def test_potnet_refuses_a_wrong_number_of_potentials():
    graph = CrystalGraph(
        "c",
        torch.tensor([11]),
        torch.zeros(1, 3),
        torch.eye(3),
        edge_index=torch.zeros(2, 1, dtype=torch.long),
        edge_shift=torch.ones(1, 3, dtype=torch.int32),
        pair_sums=torch.ones(1, 2),
    )
    batch = collate([graph])
    with pytest.raises(ValueError, match="2 potentials a pair, the model was built for 3"):
        PublishedPotNet(width=8)(batch)
    PublishedPotNet(width=8, pair_channels=2, coefficients=None)(batch)
    with pytest.raises(ValueError, match="needs pair sums"):
        PublishedPotNet(width=8)(replace(batch, pair_sums=None, pair_index=None))
