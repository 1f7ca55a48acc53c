"""Matformer: each of its mechanisms on cases worked out by hand, and the count of its parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_battery import CRYSTALS, MODELS, batch_of, moved, repeated

from potnet.crystals import CrystalGraph, collate, edge_vectors, standardize
from potnet.models import Matformer
from potnet.models.baselines.matformer import MatformerConvolution, lattice_lengths
from potnet.nn import Classes, Edges, FoldedBatch


def test_parameters_count_as_published():
    model = Matformer()
    assert sum(p.numel() for p in model.parameters()) == 2_880_641  # 2.9 M
    assert sum(p.numel() for p in model.unused.parameters()) == 97_792


def test_lengths_of_a_right_angled_cell():
    found = lattice_lengths(torch.diag(torch.tensor([3.0, 4.0, 12.0])).unsqueeze(0))
    assert found.tolist() == [pytest.approx([3, 4, 12, 5, math.sqrt(153), math.sqrt(160)])]


@pytest.mark.parametrize(
    ("angle", "diagonal"), [(60.0, math.sqrt(3)), (100.0, math.sqrt(2 - 2 * 0.17364818))]
)
def test_lengths_of_acute_and_obtuse_cells(angle, diagonal):
    """Rhombohedral: long diagonals if all angles are acute, short ones if all are obtuse, in any signs."""
    c = math.cos(math.radians(angle))
    metric = torch.full((3, 3), c, dtype=torch.float64).fill_diagonal_(1.0)
    cell = torch.linalg.cholesky(metric)
    for signs in ([1, 1, 1], [1, -1, 1], [-1, -1, 1]):
        flipped = torch.tensor(signs).unsqueeze(1) * cell
        assert lattice_lengths(flipped.unsqueeze(0))[0].tolist() == pytest.approx([1.0] * 3 + [diagonal] * 3)


@pytest.mark.parametrize("tilt", [-1e-6, 0.0, 1e-6])
def test_a_right_angle_may_tilt_either_way(tilt):
    """Hexagonal: with all angles acute within rounding, diagonals would jump from a to sqrt(3) a."""
    cell = torch.tensor([[1.0, 0, 0], [0.5, math.sqrt(0.75), 0], [tilt, tilt, 1.5]])
    found = lattice_lengths(cell.unsqueeze(0))[0].tolist()
    diagonal = math.sqrt(3.25)
    assert found == pytest.approx([1, 1, 1.5, 1, diagonal, diagonal], abs=1e-5)


@pytest.mark.parametrize("name", sorted(CRYSTALS))
def test_lengths_do_not_depend_on_the_cell(name):
    rng = np.random.default_rng(4)

    def lengths(crystal):
        cell = torch.tensor(standardize(crystal).cell)
        return lattice_lengths(cell.unsqueeze(0))[0].sort().values

    expected = lengths(CRYSTALS[name])
    for matrix in (
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [2, 1, 0], [-1, 1, 1]],
        [[0, 1, 0], [0, 0, 1], [2, 0, 0]],
    ):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        other = moved(repeated(CRYSTALS[name], np.array(matrix)), rotation=rotation)
        torch.testing.assert_close(lengths(other), expected, rtol=0, atol=1e-6)


def test_self_connecting_edges_are_twelve_of_every_atom():
    cells = [torch.diag(torch.tensor([3.0, 4.0, 12.0])).double(), 5.0 * torch.eye(3, dtype=torch.float64)]
    graphs = [
        CrystalGraph(
            str(n),
            torch.full((n,), 6),
            torch.zeros(n, 3, dtype=torch.float64),
            cell,
            edge_index=torch.empty(2, 0, dtype=torch.long),
            edge_shift=torch.empty(0, 3, dtype=torch.int32),
        )
        for n, cell in zip((2, 1), cells, strict=True)
    ]
    batch, model = collate(graphs), Matformer(width=8, layers=1, attention_heads=2)
    folded = FoldedBatch(batch, "", fold=True)
    # Both atoms of the first crystal are alike, but here each counts.
    folded.atoms = Classes(None, torch.arange(3))
    edges = model._self_edges(batch, folded)
    # Two atoms in a cell of six lengths, and one in a cube, with three equal edges and three equal diagonals.
    assert edges.target.tolist() == edges.source.tolist() == [0] * 6 + [1] * 6 + [2] * 2
    assert edges.times.flatten().tolist() == [2.0] * 12 + [6.0] * 2
    lengths = torch.cat(
        [
            lattice_lengths(batch.cell)[[0, 0]].sort().values.flatten(),
            torch.tensor([5, 50**0.5], dtype=torch.float64),
        ]
    ).float()
    torch.testing.assert_close(edges.per_edge(edges.features), model.edge_embedding(lengths))
    # The atoms of the first crystal have no bonds, and still know the shape of its cell.
    other = collate([replace(graphs[0], cell=1.1 * cells[0])])
    with torch.no_grad():
        assert not torch.isclose(model.eval()(batch)["value"][0], model(other)["value"][0], rtol=1e-4)


def test_convolution_against_its_formula():
    """Written out edge by edge and head by head, with an edge that stands for two."""
    torch.manual_seed(0)
    width, heads = 4, 3
    layer = MatformerConvolution(width, heads).double()
    x, e = torch.randn(3, width, dtype=torch.float64), torch.randn(3, width, dtype=torch.float64)
    target, source = torch.tensor([0, 0, 2, 1]), torch.tensor([1, 2, 0, 1])
    row, times = torch.tensor([0, 1, 1, 2]), [1, 1, 1, 2]
    edges = Edges(e, target, source, row, torch.tensor(times).unsqueeze(1))
    found = layer(x, edges, Classes(None, torch.arange(3)))

    def linear(module, value):
        return value @ module.weight.T + (0 if module.bias is None else module.bias)

    def part(module, value, head):
        return linear(module, value)[head * width : (head + 1) * width]

    total = torch.zeros(3, heads * width, dtype=torch.float64)
    for edge, count in enumerate(times):
        i, j, u = target[edge], source[edge], e[row[edge]]
        for head in range(heads):
            q, k_i = part(layer.query, x[i], head), part(layer.key, x[i], head)
            k_j, v_i = part(layer.key, x[j], head), part(layer.value, x[i], head)
            v_j, u_h = part(layer.value, x[j], head), part(layer.edge, u, head)
            alpha = torch.cat([q, q, q]) * torch.cat([k_i, k_j, u_h]) / math.sqrt(3 * width)
            gate = layer.attention_norm(alpha).sigmoid()
            update = layer.update.weight @ torch.cat([v_i, v_j, u_h]) + layer.update.bias
            message = layer.message_norm(linear(layer.message, gate * update))
            total[i, head * width : (head + 1) * width] += count * message
    merged = linear(layer.merge, total)
    normed = (merged - merged.mean(0)) / (merged.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(found, linear(layer.skip, x) + torch.nn.functional.silu(normed))


def test_cells_shape_the_prediction():
    """Two lattices with the same bonds: only the self-connecting edges differ."""
    model = MODELS["matformer"]().eval()
    batch = batch_of(model, [CRYSTALS["NaCl"]])
    stretched = replace(batch, cell=1.3 * batch.cell, edge_shift=batch.edge_shift / 1.3)
    torch.testing.assert_close(edge_vectors(stretched), edge_vectors(batch))
    with torch.no_grad():
        assert not torch.isclose(model(batch)["value"], model(stretched)["value"], rtol=1e-4)
