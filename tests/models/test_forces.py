"""Forces and stress of smooth networks against finite differences of their energy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_energy import ToyEnergy

from potnet.crystals import Crystal, CrystalBatch, collate
from potnet.data import Featurizer
from potnet.forcefield import derivatives
from potnet.models import SchNet
from potnet.models.network import Network

CUTOFF = 4.0
FEATURES = Featurizer(cell="as_given", neighbors={"cutoff": CUTOFF}, device="cpu")
ENERGY = {"energy": {"extensive": True}}


def disordered(seed: int, n: int) -> Crystal:
    rng = np.random.default_rng(seed)
    cell = np.diag([4.5, 5.0, 5.5]) + 0.3 * rng.normal(size=(3, 3))
    while True:
        try:
            crystal = Crystal.from_fractional(
                cell, rng.uniform(-1, 2, (n, 3)), rng.choice([6, 8, 14], n), f"{n}"
            )
        except ValueError:
            continue
        if FEATURES.featurize([crystal]):
            return crystal


CRYSTALS = [disordered(1, 4), disordered(2, 1), disordered(3, 3)]


def networks() -> dict[str, Network]:
    torch.manual_seed(0)
    schnet = SchNet(width=8, layers=2, cutoff=CUTOFF, bins=8, reduce="sum", heads=ENERGY, fold=False)
    return {"toy": ToyEnergy(cutoff=CUTOFF).double(), "schnet": schnet.double()}


def batch_of(crystals: list[Crystal]) -> CrystalBatch:
    return collate(FEATURES.featurize(crystals)).double()


@pytest.mark.parametrize("name", ["toy", "schnet"])
def test_forces_and_stress_against_differences(name):
    """Differences of crystals featurized anew, whose neighbour lists may change."""
    model = networks()[name]
    assert model.smooth
    found = derivatives(lambda batch: model(batch)["energy"], batch_of(CRYSTALS))
    assert found["forces"].shape == (8, 3)
    assert found["stress"].shape == (3, 6)

    def energies(crystals: list[Crystal]) -> torch.Tensor:
        with torch.no_grad():
            return model(batch_of(crystals))["energy"]

    torch.testing.assert_close(found["energy"], energies(CRYSTALS))
    h, first = 1e-5, 0
    for crystal in CRYSTALS:
        for atom in (0, len(crystal) - 1):
            for axis in range(3):
                step = np.zeros((len(crystal), 3))
                step[atom, axis] = h
                ahead, behind = energies(
                    [replace(crystal, positions=crystal.positions + s) for s in (step, -step)]
                )
                expected = -(ahead - behind) / (2 * h)
                torch.testing.assert_close(
                    found["forces"][first + atom, axis], expected, rtol=1e-5, atol=1e-7
                )
        first += len(crystal)
    for number, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strained = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * h / 2
            strain[j, i] += sign * h / 2
            strain += np.eye(3)
            strained.append(
                [replace(c, cell=c.cell @ strain, positions=c.positions @ strain) for c in CRYSTALS]
            )
        ahead, behind = (energies(crystals) for crystals in strained)
        volume = torch.tensor([crystal.volume for crystal in CRYSTALS])
        torch.testing.assert_close(
            found["stress"][:, number], (ahead - behind) / (2 * h * volume), rtol=1e-5, atol=1e-8
        )


def test_forces_add_up_to_zero_and_turn_with_the_crystal():
    model = networks()["toy"]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = [replace(c, cell=c.cell @ rotation, positions=c.positions @ rotation + 0.7) for c in CRYSTALS]
    straight, other = (
        derivatives(lambda batch: model(batch)["energy"], batch_of(crystals))
        for crystals in (CRYSTALS, turned)
    )
    assert straight["forces"].abs().max() > 0.01
    totals = torch.zeros(3, 3, dtype=torch.float64).index_add_(
        0, batch_of(CRYSTALS).batch, straight["forces"]
    )
    assert totals.abs().max() < 1e-12
    torch.testing.assert_close(other["forces"], straight["forces"] @ torch.tensor(rotation))
    torch.testing.assert_close(other["energy"], straight["energy"])


def test_the_energy_has_no_jump_where_a_neighbour_leaves():
    model = networks()["toy"]
    lengths = [CUTOFF + step for step in (-1e-3, 1e-3)]
    crystals = [Crystal(np.diag([20.0, 20, 20]), [[0, 0, 0], [r, 0, 0]], [6, 8], f"{r}") for r in lengths]
    batch = batch_of(crystals)
    assert batch.num_edges.tolist() == [2, 0]
    found = derivatives(lambda moved: model(moved)["energy"], batch)
    torch.testing.assert_close(found["energy"][0], found["energy"][1], rtol=0, atol=1e-9)
    assert found["forces"].abs().max() < 1e-5


def test_training_on_forces_reaches_the_weights():
    model = networks()["toy"]
    batch = batch_of(CRYSTALS)
    found = derivatives(lambda moved: model(moved)["energy"], batch, create_graph=True)
    parameters = list(model.parameters())
    loss = found["forces"].square().mean() + found["stress"].square().mean()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    # Of all parameters only the last bias moves the energy alone.
    silent = [name for (name, _), g in zip(model.named_parameters(), gradients, strict=True) if g is None]
    assert silent == ["heads.energy.output.bias"]
    # Against differences in one weight.
    weight, h = model.filter.weight, 1e-6

    def loss_at(step: float) -> torch.Tensor:
        with torch.no_grad():
            weight[0, 0] += step
        moved = derivatives(lambda b: model(b)["energy"], batch)
        with torch.no_grad():
            weight[0, 0] -= step
        return moved["forces"].square().mean() + moved["stress"].square().mean()

    expected = (loss_at(h) - loss_at(-h)) / (2 * h)
    position = [name for name, _ in model.named_parameters()].index("filter.weight")
    torch.testing.assert_close(gradients[position][0, 0], expected, rtol=1e-5, atol=1e-9)
