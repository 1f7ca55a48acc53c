"""Kernel ridge regression on energies and forces: its descriptor, its fit, and what it refuses.

Forces and stress against differences are in test_forces.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_forces import CRYSTALS, batch_of, disordered

from potnet.crystals import Crystal
from potnet.forcefield import derivatives
from potnet.models import MBTRForces
from potnet.models.mbtr_forces import farthest
from potnet.nn.local_mbtr import LocalMBTR, spacing

CUTOFF = 4.0
SMALL = {"cutoff": CUTOFF, "pair_points": 5, "triple_points": 2, "angle_points": 3, "representatives": 20}


def labels_of(batch, seed=0):
    """Labels without meaning."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "energy": random(batch.num_crystals) * batch.num_atoms,
        "forces": random(len(batch.z), 3),
        "stress": 0.1 * random(batch.num_crystals, 6),
    }


WEIGHTS = {"energy": 1.0, "forces": 1.0, "stress": 1.0}


def fitted(**settings) -> MBTRForces:
    model = MBTRForces(**{**SMALL, "smoothness": [1e-6, 1e-3], "folds": 2, **settings})
    batches = [batch_of([crystal]) for crystal in [*CRYSTALS, disordered(4, 3), disordered(5, 4)]]
    model.fit_labels(batches, [labels_of(batch, n) for n, batch in enumerate(batches)], WEIGHTS)
    return model


@pytest.mark.parametrize("elements", [1, 2])
def test_derivatives_of_the_descriptor(elements):
    torch.manual_seed(0)
    descriptor = LocalMBTR(CUTOFF, 5, 3, 4, elements=elements)
    vectors = 2 * torch.randn(3, 5, 3, dtype=torch.float64)
    vectors[1, 3:] = torch.tensor([2 * CUTOFF, 0, 0])  # fewer neighbours
    element = torch.randint(elements, (3, 5))
    d, moved = descriptor.derivative(vectors, element)
    torch.testing.assert_close(d, descriptor(vectors, element))
    assert d.shape == (3, sum(descriptor.sizes))
    jacobian = torch.autograd.functional.jacobian(lambda v: descriptor(v, element).sum(0), vectors)
    torch.testing.assert_close(moved, jacobian.permute(1, 2, 3, 0), rtol=1e-10, atol=1e-12)


def test_descriptor_against_its_formula():
    """Loops over neighbours, one feature at a time."""
    torch.manual_seed(1)
    descriptor = LocalMBTR(CUTOFF, 3, 2, 3, elements=2)
    vectors, element = 1.3 * torch.randn(1, 4, 3, dtype=torch.float64), torch.tensor([[0, 1, 1, 0]])
    found = descriptor(vectors, element)[0]
    v, kinds = vectors[0].numpy(), element[0].tolist()
    r = np.linalg.norm(v, axis=1)
    u = [float(descriptor.envelope(torch.tensor(x))) for x in r]

    def bump(t, grid):
        return math.exp(-0.5 * (float(t) / spacing(grid)) ** 2)

    pairs, lengths, cosines = descriptor.pairs, descriptor.lengths, descriptor.cosines
    expected = [
        sum(u[j] * bump(r[j] - x, pairs) for j in range(4) if kinds[j] == a) for a in (0, 1) for x in pairs
    ]
    channels = [(a, x) for a in (0, 1) for x in lengths]
    for first in range(len(channels)):
        for second in range(first, len(channels)):
            (a, x), (b, y) = channels[first], channels[second]
            for c in cosines:
                # Ordered pairs, halved: of equal channels each pair of neighbours counts once.
                expected.append(
                    sum(
                        u[j] * u[k] * bump(r[j] - x, lengths) * bump(r[k] - y, lengths)
                        * bump(v[j] @ v[k] / r[j] / r[k] - c, cosines) / 2
                        for j in range(4) for k in range(4)
                        if j != k and kinds[j] == a and kinds[k] == b
                    )
                )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_the_fit_is_the_least_squares_of_what_the_model_predicts():
    """The coefficients make the gradient of loss and penalty vanish, both computed by the model itself."""
    noise = 1e-3
    model = fitted(lengths=[3.0], smoothness=[noise])
    assert len(model.representative) == 15  # every atom
    crystals = [*CRYSTALS, disordered(4, 3), disordered(5, 4)]
    parts = [batch_of([crystal]) for crystal in crystals]
    labels = [labels_of(part, n) for n, part in enumerate(parts)]
    coefficients = [model.coefficients, model.linear, model.lone]
    for one in coefficients:
        one.requires_grad_()
    counts = {kind: sum(one[kind].numel() for one in labels) for kind in WEIGHTS}
    loss = torch.zeros((), dtype=torch.float64)
    for part, label in zip(parts, labels, strict=True):
        found = derivatives(lambda b: model(b)["energy"], part, create_graph=True)
        for kind in WEIGHTS:
            per = part.num_atoms if kind == "energy" else 1
            loss = loss + ((found[kind] - label[kind]) / per).square().sum() / counts[kind]
    # Of the quadratic loss: its diagonal, by which the noise is scaled.
    gradients = torch.autograd.grad(loss, coefficients, create_graph=True)
    curvature = []
    for one, gradient in zip(coefficients[:2], gradients, strict=False):
        for i in range(one.numel()):
            (second,) = torch.autograd.grad(gradient.flatten()[i], one, retain_graph=True)
            curvature.append(float(second.flatten()[i]) / 2)
    scale = sum(curvature) / len(curvature)
    kernel = model._kernel(model.representative, model.representative_z).detach()
    expected = [
        -2 * noise * scale * kernel @ model.coefficients.detach(),
        -2 * noise * scale * model.linear.detach(),
    ]
    for gradient, wanted in zip(gradients, expected, strict=False):
        torch.testing.assert_close(gradient.detach(), wanted, rtol=1e-5, atol=1e-9)
    assert gradients[2][model.elements].abs().max() < 1e-9


def test_it_learns_what_it_can_represent():
    """Labels of one fitted model teach another, on crystals that it has not seen."""
    teacher = fitted(lengths=[3.0], smoothness=[1e-2])
    # Atoms come nearer in these crystals than in those of the fits, but the labels know no nuclei.
    teacher.shortest.zero_()
    crystals = [disordered(seed, 3) for seed in range(10, 50)]
    parts = [batch_of([crystal]) for crystal in crystals]
    labels = [derivatives(lambda b: teacher(b)["energy"], part) for part in parts]
    model = MBTRForces(**{**SMALL, "representatives": 100}, lengths=[1.5, 3.0], folds=3)
    model.fit_labels(parts[:30], labels[:30], WEIGHTS)
    model.shortest.zero_()
    error, size = 0.0, 0.0
    for part, label in zip(parts[30:], labels[30:], strict=True):
        found = derivatives(lambda b: model(b)["energy"], part)
        error += float((found["forces"] - label["forces"]).square().sum())
        size += float(label["forces"].square().sum())
    assert error < 0.05 * size


def test_missing_labels_do_not_count():
    model, other = MBTRForces(**SMALL, folds=2), MBTRForces(**SMALL, folds=2)
    parts = [batch_of([crystal]) for crystal in CRYSTALS]
    labels = [labels_of(part, n) for n, part in enumerate(parts)]
    other.fit_labels(parts, [{k: v for k, v in one.items() if k != "stress"} for one in labels],
                     {"energy": 1.0, "forces": 1.0})  # fmt: skip
    labels = [{**one, "stress": torch.full_like(one["stress"], math.nan)} for one in labels]
    model.fit_labels(parts, labels, WEIGHTS)
    torch.testing.assert_close(model.coefficients, other.coefficients)


def test_save_and_reload(tmp_path):
    model = fitted()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = MBTRForces(**SMALL)
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    batch = batch_of(CRYSTALS)
    assert torch.equal(other(batch)["energy"], model(batch)["energy"])
    assert model(batch)["energy"].std() > 0.01


def test_farthest_points():
    points = torch.tensor([[0.0], [1.0], [1.1], [5.0], [5.0]])
    assert farthest(points, 3).tolist() == [3, 0, 2]
    # Equal points add nothing.
    assert len(farthest(points, 5)) == 4


def test_what_it_refuses():
    with pytest.raises(ValueError, match="fold=false"):
        MBTRForces(fold=True)
    with pytest.raises(ValueError, match="one extensive energy"):
        MBTRForces(heads={"gap": {}})
    for wrong in ({"lengths": []}, {"smoothness": [0.0]}, {"term_weights": [1.0]}, {"folds": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MBTRForces(**wrong)
    with pytest.raises(ValueError, match="nearest=6"):
        MBTRForces(nearest=6.0)
    batch = batch_of(CRYSTALS)
    with pytest.raises(ValueError, match="fit it first"):
        MBTRForces(**SMALL)(batch)
    nothing = {"energy": torch.full((3,), math.nan, dtype=torch.float64)}
    with pytest.raises(ValueError, match="no labels"):
        MBTRForces(**SMALL).fit_labels([batch], [nothing], {"energy": 1.0})
    with pytest.raises(ValueError, match="use fewer elements"):
        MBTRForces(CUTOFF, triple_points=40).fit_labels([batch], [labels_of(batch)], WEIGHTS)
    copper = Crystal(2.0 * np.eye(3), np.zeros((1, 3)), np.array([29]), "Cu")
    with pytest.raises(ValueError, match="no training crystal has Cu"):
        fitted()(batch_of([copper]))
