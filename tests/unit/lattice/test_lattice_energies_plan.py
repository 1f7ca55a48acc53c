"""Lists kept while atoms move little, the search for pairs, meshes and bounds."""

import numpy as np
import pytest
import torch
from energy_cases import POTENTIALS, crystals

from potnet.lattice import Coulomb, EnergySums, London, Pauli, lattice_energies, mesh, neighbours


def largest(difference):
    return float(difference.detach().abs().max())


def test_a_skin_changes_nothing_but_the_work():
    """A walk of atoms and cells: results of kept lists are those of new ones, pairs cross the cutoff."""
    cell, positions, batch, charges = crystals((5, 12, 1), 2, seed=1)
    potentials = [Coulomb(), Pauli(1.5)]
    sums = EnergySums(potentials, 1e-9, skin=0.4, eta=0.3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        positions = positions + 0.03 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        strain = 0.002 * torch.randn(3, 3, 3, generator=generator, dtype=torch.float64)
        cell = cell + cell @ strain
        kept = sums(cell, positions, batch, charges, forces=True, stress=True)
        anew = lattice_energies(
            cell, positions, batch, charges, potentials, 1e-9, forces=True, stress=True, eta=0.3
        )
        assert largest(kept.atom - anew.atom) < 1e-9
        assert largest(kept.forces - anew.forces) < 1e-9
        assert largest(kept.stress - anew.stress) < 1e-9
    assert sums.num_calls == 12
    assert 2 <= sums.num_plans <= 8


def test_a_list_is_made_anew_when_it_must_be():
    cell, positions, batch, charges = crystals((6,), 1)
    sums = EnergySums([Coulomb()], 1e-8, skin=0.5)
    for change, plans in (
        (lambda: (cell, positions, batch, charges), 1),
        (lambda: (cell, positions + 5.0, batch, charges), 2),  # the whole crystal moved: not looked into
        (lambda: (cell, positions + 5.0, batch, charges), 2),
        (lambda: (1.2 * cell, 1.2 * positions, batch, charges), 3),
        (lambda: (1.2 * cell, 1.2 * positions, batch, 3 * charges), 4),
        (lambda: (cell, positions[:4], batch[:4], charges[:4]), 5),
    ):
        got = sums(*change())
        assert sums.num_plans == plans
        assert largest(got.atom - lattice_energies(*change(), [Coulomb()], 1e-8).atom) < 1e-8


def test_energy_is_conserved_in_dynamics():
    """Velocity Verlet of a small salt with a repulsion: the drift is far below the exchange."""
    cell, positions, batch, _ = crystals((8,), 1, seed=3)
    charges = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)[:, None]
    columns = torch.cat([charges, torch.full_like(charges, 60.0)], 1)
    sums = EnergySums([Coulomb(), Pauli(2.5)], 1e-7, skin=0.4)
    velocity, step, energies = torch.zeros_like(positions), 0.003, []
    force = sums(cell, positions, batch, columns, forces=True).forces.sum(1)
    for _ in range(100):
        velocity = velocity + 0.5 * step * force
        positions = positions + step * velocity
        result = sums(cell, positions, batch, columns, forces=True)
        force = result.forces.sum(1)
        velocity = velocity + 0.5 * step * force
        energies.append((float(result.crystal.sum()), 0.5 * float(velocity.square().sum())))
    total = np.array(energies).sum(1)
    exchanged = np.ptp(np.array(energies)[:, 1])
    assert exchanged > 0.05
    assert np.ptp(total) < 2e-3 * exchanged
    assert sums.num_plans < 40


@pytest.mark.parametrize("cutoff", [0.5, 4.0, 11.0])
@pytest.mark.parametrize("search", ["compared", "binned"])
def test_pairs_are_those_of_vesin(cutoff, search, monkeypatch):
    import vesin

    if search == "binned":
        monkeypatch.setattr(neighbours, "_FEW_ATOMS", 0)
    monkeypatch.setattr(neighbours, "_PRODUCTS_AT_ONCE", 50_000)
    monkeypatch.setattr(neighbours, "_CANDIDATES_AT_ONCE", {"cpu": 500})
    cell, positions, batch, _ = crystals((1, 30, 4, 150))
    skewed = torch.tensor([[1.0, 0, 0], [2, 1, 0], [0, -1, 1]], dtype=torch.float64)
    cell[2] = skewed @ cell[2]
    fractional = (positions[:, None] @ torch.linalg.inv(cell)[batch])[:, 0]
    fractional = fractional - fractional.floor()
    pairs = neighbours.find_pairs(cell, fractional, batch, torch.full((4,), cutoff, dtype=torch.float64))
    wrapped = (fractional[:, None] @ cell[batch])[:, 0]
    distance = torch.stack(pairs.vectors(cell, wrapped)).norm(dim=0)
    for b in range(4):
        expected = vesin.NeighborList(cutoff=cutoff, full_list=False).compute(
            wrapped[batch == b].numpy(), cell[b].numpy(), True, "d"
        )[0]
        got = distance[batch[pairs.first] == b]
        assert len(got) == len(expected)
        assert np.abs(np.sort(got.numpy()) - np.sort(expected)).max(initial=0.0) < 1e-12
        assert bool((batch[pairs.second] == batch[pairs.first]).all())


@pytest.mark.parametrize("setting", ["autocast", "medium"])
def test_settings_of_precision_lose_no_pairs(setting):
    cell, positions, batch, _ = crystals((1, 30, 4, 60))
    fractional = (positions[:, None] @ torch.linalg.inv(cell)[batch])[:, 0]
    fractional = fractional - fractional.floor()
    given = cell, fractional, batch, torch.full((4,), 7.0, dtype=torch.float64)
    expected = neighbours.find_pairs(*given)
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium" if setting == "medium" else precision)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "autocast"):
            found = neighbours.find_pairs(*given)
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(found.first, expected.first)
    assert torch.equal(found.second, expected.second)
    assert torch.equal(found.image, expected.image)


@pytest.mark.parametrize("accuracy", [1e-3, 1e-5, 1e-7])
def test_meshes_are_as_accurate_as_estimated(accuracy):
    cell, positions, batch, charges = crystals((20, 60), 4, seed=5)
    potentials = POTENTIALS[:4]
    exact = lattice_energies(cell, positions, batch, charges, potentials, 1e-11, forces=True, stress=True)
    got = lattice_energies(
        cell, positions, batch, charges, potentials, accuracy, forces=True, stress=True, method="mesh"
    )
    volume = torch.linalg.det(cell).abs()[:, None, None, None]
    for b in range(2):
        mine = batch == b
        assert bool(((got.atom - exact.atom)[mine].abs().amax(0) <= got.bound.energy[b]).all())
        assert bool(((got.forces - exact.forces)[mine].abs().amax((0, 2)) <= got.bound.force[b]).all())
    assert bool((got.bound.force <= accuracy).all())
    assert largest((got.stress - exact.stress) * volume) < 60 * accuracy


def test_splines_reproduce_polynomials():
    place = torch.tensor([0.0, 0.3, 5.7, -2.2], dtype=torch.float64, requires_grad=True)
    first, weights, slope = mesh.splines(place)
    points = first[:, None] + torch.arange(mesh.ORDER)
    assert largest(weights.sum(-1) - 1) < 1e-14
    assert largest((weights * points).sum(-1) - place) < 1e-13  # odd moments: centred on the atom
    for j in range(mesh.ORDER):
        expected = torch.autograd.grad(weights[:, j].sum(), place, retain_graph=True)[0]
        assert largest(slope[:, j] - expected) < 1e-13


@pytest.mark.parametrize("accuracy", [1e-2, 1e-5, 1e-8])
def test_bounds_hold_for_energies_forces_and_stress(accuracy):
    """Also in the worst case: charges of one sign, all errors add up."""
    cell, positions, batch, charges = crystals((1, 3, 15, 40), len(POTENTIALS), seed=2)
    charges = charges.abs()
    exact = lattice_energies(cell, positions, batch, charges, POTENTIALS, 1e-11, forces=True, stress=True)
    got = lattice_energies(cell, positions, batch, charges, POTENTIALS, accuracy, forces=True, stress=True)
    volume = torch.linalg.det(cell).abs()[:, None, None, None]
    rounding = 1e-10
    for b in range(len(cell)):
        mine = batch == b
        energy = (got.atom - exact.atom)[mine].abs().amax(0)
        force = (got.forces - exact.forces)[mine].abs().amax((0, 2))
        virial = ((got.stress - exact.stress) * volume)[b].abs().amax((1, 2))
        assert bool((energy <= got.bound.energy[b] + rounding).all())
        assert bool((force <= got.bound.force[b] + rounding).all())
        assert bool((virial <= got.bound.virial[b] + rounding).all())


@pytest.mark.parametrize("accuracy", [1e-3, 1e-6])
def test_estimated_cutoffs_are_shorter_and_good_enough(accuracy):
    """Random crystals, and a perfect supercell, whose waves are all in phase."""
    salt = 2.8 * 2 * torch.tensor([[[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]], dtype=torch.float64)
    sites = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3) @ salt[0] / 2
    sites = torch.cat([sites, sites + 2.8])
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat_interleave(8)[:, None].repeat(1, 6)
    for inputs in (crystals((1, 2, 9, 30), 6, seed=4), (salt, sites, torch.zeros(16).long(), signs)):
        exact = lattice_energies(*inputs, POTENTIALS[:6], 1e-11, forces=True)
        got = lattice_energies(*inputs, POTENTIALS[:6], accuracy, forces=True, bound="estimate")
        assert largest(got.atom - exact.atom) < 0.5 * accuracy
        assert largest(got.forces - exact.forces) < 0.5 * accuracy
        kept, shorter = (
            EnergySums(POTENTIALS[:6], accuracy, bound=bound) for bound in ("rigorous", "estimate")
        )
        kept(*inputs), shorter(*inputs)
        assert bool((shorter.plan.real_cutoff < 0.95 * kept.plan.real_cutoff).all())


def test_no_table_of_pairs_of_atoms(monkeypatch):
    """The largest tensor of an energy grows like the atoms times their neighbours, not like their square."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.size = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage().nbytes() if tensor.device.type == "cpu" else 0
                    self.size = max(self.size, storage)
            return result

    sizes = []
    for n in (300, 2400):
        cell, positions, batch, charges = crystals((n,), 1)
        with torch.no_grad(), Largest() as seen:
            lattice_energies(cell, positions, batch, charges, [London()], 1e-3, forces=True)
        sizes.append(seen.size)
    assert sizes[1] < 12 * sizes[0]  # 64 times if it were a table
    assert sizes[1] < 2400**2
