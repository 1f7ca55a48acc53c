"""Forces and stress of every network that says it is smooth: what each must pass.

Networks of `test_battery.MODELS` that are smooth are here by themselves; `EXTRA` has further options of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_battery import MODELS, repeated, settings
from toy_energy import ToyEnergy

from potnet.config import build
from potnet.crystals import Crystal, CrystalBatch, collate
from potnet.data import Featurizer
from potnet.forcefield import derivatives
from potnet.models import LEIGNN, ClusterExpansion, MBTRForces, PairSplines, PotNetFF, SchNet
from potnet.models.network import Network
from potnet.training.closed_form import is_closed_form

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


def fitted(model: Network) -> Network:
    """A model in closed form with coefficients of labels without meaning."""
    batches = [batch_of([crystal]) for crystal in [*CRYSTALS, disordered(4, 4)]]
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = [{"energy": random(1), "forces": random(len(b.z), 3), "stress": random(1, 6)} for b in batches]
    model.fit_labels(batches, labels, {"energy": 1.0, "forces": 1.0, "stress": 1.0})  # type: ignore[operator]
    return model


EXTRA: dict[str, Callable[[], Network]] = {
    "toy": lambda: ToyEnergy(cutoff=CUTOFF),
    "schnet_sum": lambda: SchNet(
        width=8, layers=2, cutoff=CUTOFF, bins=8, reduce="sum", heads=ENERGY, fold=False
    ),
    "leignn_alone": lambda: LEIGNN(8, 2, CUTOFF, 8, virtual_node=False, heads=ENERGY),
    "potnet_ff_local": lambda: PotNetFF(8, 2, CUTOFF, 8, angular=0, long_range=[], heads=ENERGY),
    "potnet_ff_angular": lambda: PotNetFF(8, 2, CUTOFF, 8, angular=4, long_range=[], heads=ENERGY),
    "potnet_ff_pairs": lambda: PotNetFF(
        8, 1, CUTOFF, 8, "complete", long_range=["coulomb", "london", "pauli"], accuracy=1e-9, heads=ENERGY
    ),
    "cluster_expansion": lambda: fitted(ClusterExpansion(CUTOFF, (4, 4, 4, 3), smoothness=[1e-2], folds=2)),
    "pair_splines": lambda: fitted(PairSplines(CUTOFF, 12, folds=2)),
    "mbtr_forces": lambda: fitted(MBTRForces(CUTOFF, 6, 2, 4, smoothness=[1e-3], folds=2)),
}


def smooth_models() -> list[str]:
    """Those of the battery that say so."""
    return [name for name in MODELS if getattr(MODELS[name](), "smooth", False)] + list(EXTRA)


def network(name: str) -> Network:
    torch.manual_seed(0)
    if name in EXTRA:
        return EXTRA[name]().double()
    model = build(
        {**settings(name)["model"], "heads": ENERGY, "fold": False, "cutoff": CUTOFF}, "model", nested=False
    )
    if hasattr(model, "accuracy"):
        model.accuracy = 1e-9
    return model.double()


@pytest.fixture(params=smooth_models())
def name(request) -> str:
    return request.param


def batch_of(crystals: list[Crystal]) -> CrystalBatch:
    return collate(FEATURES.featurize(crystals)).double()


def test_forces_and_stress_against_differences(name):
    """Differences of crystals featurized anew, whose neighbour lists may change."""
    model = network(name)
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


def test_forces_add_up_to_zero_and_turn_with_the_crystal(name):
    model = network(name)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = [replace(c, cell=c.cell @ rotation, positions=c.positions @ rotation + 0.7) for c in CRYSTALS]
    straight, other = (
        derivatives(lambda batch: model(batch)["energy"], batch_of(crystals))
        for crystals in (CRYSTALS, turned)
    )
    assert straight["forces"].abs().max() > 1e-4
    totals = torch.zeros(3, 3, dtype=torch.float64).index_add_(
        0, batch_of(CRYSTALS).batch, straight["forces"]
    )
    # Lattice sums are rounded at their accuracy.
    assert totals.abs().max() < 1e-8
    close = {"rtol": 1e-6, "atol": 1e-7}
    turn = torch.tensor(rotation)
    torch.testing.assert_close(other["forces"], straight["forces"] @ turn, **close)
    torch.testing.assert_close(tensors(other["stress"]), turn.T @ tensors(straight["stress"]) @ turn, **close)
    torch.testing.assert_close(other["energy"], straight["energy"], **close)


def tensors(stress: torch.Tensor) -> torch.Tensor:
    """(B, 6) to (B, 3, 3)."""
    return stress[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3)


def test_a_doubled_cell_has_twice_the_energy_and_the_same_forces(name):
    if name == "potnet_ff_pairs":
        pytest.skip("a larger cell splits a pair of the sums into several")
    model = network(name)
    crystal = CRYSTALS[0]
    one, two = (
        derivatives(lambda batch: model(batch)["energy"], batch_of([c]))
        for c in (crystal, repeated(crystal, np.diag([2, 1, 1])))
    )
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(two["energy"], 2 * one["energy"], **close)
    torch.testing.assert_close(two["stress"], one["stress"], **close)
    # Whatever the order of the atoms.
    torch.testing.assert_close(
        two["forces"].sort(0).values, one["forces"].repeat(2, 1).sort(0).values, **close
    )


def test_an_isolated_atom_feels_nothing(name):
    model = network(name)
    if getattr(model, "pairs", "none") == "complete" or getattr(model, "long_range", ()):
        pytest.skip("complete potentials reach the images of an atom")
    found = derivatives(
        lambda batch: model(batch)["energy"],
        batch_of([Crystal(12.0 * np.eye(3), np.zeros((1, 3)), np.array([8]), "O")]),
    )
    assert found["energy"].isfinite().all()
    assert found["forces"].abs().max() < 1e-12
    assert found["stress"].abs().max() < 1e-12


def test_energy_and_forces_have_no_jump_where_a_neighbour_leaves(name):
    """Across the cutoff the change is that of any two steps of this size, though an edge goes."""
    model = network(name)
    radii = CUTOFF + 1e-3 * np.array([-3, -1, 1, 3])
    crystals = [Crystal(np.diag([20.0, 20, 20]), [[0, 0, 0], [r, 0, 0]], [6, 8], f"{r}") for r in radii]
    batch = batch_of(crystals)
    assert batch.num_edges.tolist() == [2, 2, 0, 0]
    found = derivatives(lambda moved: model(moved)["energy"], batch)
    energy, force = found["energy"], found["forces"].view(4, 2, 3)[:, 1, 0]
    # The force itself changes little, and the slope of the energy is between the forces of both ends.
    slope, change = -(energy[1:] - energy[:-1]) / 2e-3, (force[1:] - force[:-1]).abs()
    assert change.max() < 1e-3
    assert ((slope - (force[1:] + force[:-1]) / 2).abs() <= change / 2 + 1e-6).all()


def test_training_on_forces_reaches_the_weights(name):
    model = network(name)
    if is_closed_form(model):
        pytest.skip(
            "fitted, not trained: test_clusters.py and test_mbtr_forces.py have the equations of the fit"
        )
    batch = batch_of(CRYSTALS)
    found = derivatives(lambda moved: model(moved)["energy"], batch, create_graph=True)
    named = [(key, p) for key, p in model.named_parameters() if p.requires_grad]
    parameters = [p for _, p in named]
    loss = found["forces"].square().mean() + found["stress"].square().mean()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    silent = [name for (name, _), g in zip(named, gradients, strict=True) if g is None]
    # What only shifts the energy, such as the last bias.
    assert all("bias" in key for key in silent), silent
    # Against differences in one weight, that which matters most.
    position = max(
        range(len(parameters)), key=lambda i: -1 if gradients[i] is None else gradients[i].abs().max()
    )
    gradient, weight, h = gradients[position], parameters[position].data.view(-1), 1e-6
    entry = int(gradient.abs().argmax())

    def loss_at(step: float) -> torch.Tensor:
        weight[entry] += step
        moved = derivatives(lambda b: model(b)["energy"], batch)
        weight[entry] -= step
        return moved["forces"].square().mean() + moved["stress"].square().mean()

    expected = (loss_at(h) - loss_at(-h)) / (2 * h)
    torch.testing.assert_close(gradient.view(-1)[entry], expected, rtol=1e-4, atol=1e-9)
