"""Energies of charges against Madelung constants, pair sums and independent codes."""

import math

import numpy as np
import pytest
import torch
from energy_cases import POTENTIALS, crystals, from_pairs
from test_lattice_madelung import MADELUNG, structure

from potnet.lattice import (
    COULOMB_EV_ANGSTROM,
    Coulomb,
    London,
    Pauli,
    ScreenedCoulomb,
    lattice_energies,
    lattice_sums,
)


def largest(difference):
    return float(difference.detach().abs().max())


@pytest.mark.parametrize("method", ["ewald", "mesh"])
@pytest.mark.parametrize("name", ["NaCl", "CsCl", "zinc blende", "fluorite", "wurtzite"])
def test_madelung(name, method):
    case, charges, distance = structure(name)
    energies = lattice_energies(
        torch.from_numpy(case.cell)[None],
        torch.from_numpy(case.positions),
        torch.zeros(len(charges), dtype=torch.int64),
        torch.tensor(charges, dtype=torch.float64)[:, None],
        [Coulomb()],
        accuracy=1e-12 if method == "ewald" else 1e-7,
        method=method,
    )
    units = sum(1 for charge in charges if charge > 0)
    constant = -float(energies.crystal) * distance / units
    assert abs(constant - MADELUNG[name]) < (2e-12 if method == "ewald" else 1e-6)


def test_all_kernels_in_a_mixed_batch_agree_with_pair_sums():
    sizes = (1, 7, 2, 30, 1, 12, 7)
    cell, positions, batch, charges = crystals(sizes, len(POTENTIALS))
    skewed = torch.tensor([[0.0, 1, 0], [1, 3, 0], [2, -1, 1]], dtype=torch.float64)  # and left-handed
    cell[3] = skewed @ cell[3]
    steps = torch.randint(-5, 6, (len(batch), 1, 3)).double()  # atoms anywhere
    positions = positions + (steps @ cell[batch])[:, 0]
    exact = lattice_sums(cell, positions, batch, POTENTIALS, 1e-11)
    crystal, atom = from_pairs(exact, charges, batch, len(sizes))
    for accuracy in (1e-3, 1e-6, 1e-10):
        ours = lattice_energies(cell, positions, batch, charges, POTENTIALS, accuracy)
        assert largest(ours.atom - atom) < accuracy
        assert bool((ours.bound.energy <= accuracy).all())
        assert bool((ours.bound.force <= accuracy).all())
        assert largest(ours.crystal - crystal) < accuracy * max(sizes)
        summed = torch.zeros_like(ours.crystal).index_add(0, batch, ours.atom)
        assert largest(summed - ours.crystal) < 1e-11


def test_accuracy_of_its_own_for_each_potential():
    cell, positions, batch, charges = crystals((6, 20), 2)
    got = lattice_energies(cell, positions, batch, charges, [Coulomb(), London()], [1e-3, 1e-9])
    assert bool((got.bound.force <= torch.tensor([1e-3, 1e-9])).all())


@pytest.mark.parametrize("eta", [0.08, 0.3, 1.1])
def test_independent_of_the_splitting(eta):
    cell, positions, batch, charges = crystals((5, 24), 4)
    potentials = [Coulomb(), London(), Pauli(2.0), ScreenedCoulomb(0.5)]
    one = lattice_energies(cell, positions, batch, charges, potentials, 1e-10, forces=True, stress=True)
    other = lattice_energies(
        cell, positions, batch, charges, potentials, 1e-10, forces=True, stress=True, eta=eta
    )
    assert largest(one.atom - other.atom) < 2e-10
    assert largest(one.forces - other.forces) < 2e-10
    assert largest(one.stress - other.stress) < 2e-10


def test_charged_cells_have_a_uniform_background():
    """Wigner crystals: Coldwell-Horsfall and Maradudin (1960), J. Math. Phys. 1, 395, energies e²/2r_s."""
    fcc = 0.5 * (1 - torch.eye(3, dtype=torch.float64))
    cell = torch.stack([torch.eye(3, dtype=torch.float64), 0.5 - torch.eye(3, dtype=torch.float64), fcc])
    zero, ones = torch.zeros(3, 3), torch.ones(3, 1)
    energies = lattice_energies(3.0 * cell, zero, torch.arange(3), ones, [Coulomb()], 1e-9)
    radius = (3 * torch.linalg.det(3.0 * cell).abs() / (4 * math.pi)) ** (1 / 3)
    expected = torch.tensor([1.760119, 1.791859, 1.791747], dtype=torch.float64)
    assert largest(-2 * energies.crystal[:, 0] * radius - expected) < 1e-6


@pytest.mark.parametrize("neutral", [True, False])
def test_pymatgen(neutral):
    """Energies and forces of an independent code; it has no background, which is added here."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.core.ewald import EwaldSummation

    cell, positions, batch, charges = crystals((12,), seed=3, neutral=neutral)
    lattice = Structure(Lattice(cell[0].numpy()), ["H"] * 12, positions.numpy(), coords_are_cartesian=True)
    lattice.add_oxidation_state_by_site(charges[:, 0].tolist())
    ewald = EwaldSummation(lattice, acc_factor=12.0, compute_forces=True)
    ours = lattice_energies(cell, positions, batch, charges, [Coulomb()], 1e-9, forces=True)
    volume = float(torch.linalg.det(cell[0]).abs())
    background = -math.pi * float(charges.sum()) ** 2 / (2 * volume * ewald.eta)
    scale = ewald.CONV_FACT  # pymatgen's own e² / (4 π eps0)
    expected = ewald.real_space_energy + ewald.reciprocal_space_energy + ewald.point_energy
    assert abs(expected / scale + background - float(ours.crystal)) < 1e-8
    assert np.abs(ewald.forces / scale - ours.forces[:, 0].numpy()).max() < 1e-7
    assert abs(scale - COULOMB_EV_ANGSTROM) < 1e-5


@pytest.mark.parametrize("potential", ["coulomb", "london"])
@pytest.mark.filterwarnings("ignore")
def test_torchpme(potential):
    """torch-pme's Ewald sums, energies of atoms and forces of charged cells."""
    torchpme = pytest.importorskip("torchpme")
    import vesin

    cell, positions, batch, charges = crystals((9,), seed=5)
    positions.requires_grad_()
    peer = torchpme.CoulombPotential if potential == "coulomb" else torchpme.InversePowerLawPotential
    arguments = {} if potential == "coulomb" else {"exponent": 6}
    calculator = torchpme.EwaldCalculator(peer(smearing=1.0, **arguments), lr_wavelength=0.4)
    calculator = calculator.to(torch.float64)
    first, second, shift = vesin.NeighborList(cutoff=9.0, full_list=False).compute(
        positions.detach().numpy(), cell[0].numpy(), True, "ijS"
    )
    first, second = (torch.from_numpy(side.astype(np.int64)) for side in (first, second))
    shift = torch.from_numpy(shift.astype(np.float64)) @ cell[0]
    distances = (positions[second] - positions[first] + shift).norm(dim=1)
    atom = charges * calculator(charges, cell[0], positions, torch.stack([first, second], 1), distances)
    forces = -torch.autograd.grad(atom.sum(), positions)[0]
    kinds = {"coulomb": Coulomb(), "london": London()}
    ours = lattice_energies(cell, positions.detach(), batch, charges, [kinds[potential]], 1e-10, forces=True)
    assert largest(ours.atom - atom) < 1e-8
    assert largest(ours.forces[:, 0] - forces) < 1e-8


@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_a_supercell_has_more_of_the_same(method):
    cell, positions, batch, charges = crystals((6,), 3, seed=7, neutral=True)
    potentials = [Coulomb(), London(), Pauli(1.5)]
    accuracy = 1e-9 if method == "ewald" else 1e-6
    options = {"accuracy": accuracy, "forces": True, "stress": True, "method": method}
    one = lattice_energies(cell, positions, batch, charges, potentials, **options)
    many = torch.cat([positions + i * cell[0, 0] + j * cell[0, 2] for i in range(2) for j in range(3)])
    large = cell * torch.tensor([2.0, 1.0, 3.0])[:, None]
    more = lattice_energies(large, many, batch.repeat(6), charges.repeat(6, 1), potentials, **options)
    assert largest(more.crystal - 6 * one.crystal) < 36 * accuracy
    assert largest(more.forces - one.forces.repeat(6, 1, 1)) < 2 * accuracy
    assert largest(more.stress - one.stress) < 2 * accuracy


def test_translation_rotation_and_choice_of_cell():
    cell, positions, batch, charges = crystals((8, 3), 2, seed=9)
    potentials = [Coulomb(), ScreenedCoulomb(1.0)]
    options = {"accuracy": 1e-10, "forces": True, "stress": True}
    one = lattice_energies(cell, positions, batch, charges, potentials, **options)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    other = torch.tensor([[1.0, 2, 0], [0, 1, 0], [3, 0, 1]], dtype=torch.float64)
    moved = lattice_energies(
        other @ cell @ turn, (positions + torch.tensor([3.1, -40.0, 0.2])) @ turn, batch, charges, potentials,
        **options,
    )  # fmt: skip
    assert largest(one.atom - moved.atom) < 1e-9
    assert largest(one.forces @ turn - moved.forces) < 1e-9
    assert largest(turn.T @ one.stress @ turn - moved.stress) < 1e-9
    assert largest(one.stress - one.stress.transpose(-1, -2)) < 1e-12
    total = torch.zeros(2, 2, 3, dtype=torch.float64).index_add(0, batch, one.forces)
    assert largest(total) < 1e-9


def test_a_batch_is_its_crystals():
    cell, positions, batch, charges = crystals((3, 40, 1, 3, 11), 2, seed=2)
    potentials = [Coulomb(), London()]
    together = lattice_energies(cell, positions, batch, charges, potentials, 1e-9, forces=True, stress=True)
    for b in range(len(cell)):
        mine = batch == b
        alone = lattice_energies(
            cell[b : b + 1], positions[mine], batch[mine] - b, charges[mine], potentials, 1e-9,
            forces=True, stress=True,
        )  # fmt: skip
        assert largest(together.atom[mine] - alone.atom) < 1e-9
        assert largest(together.forces[mine] - alone.forces) < 1e-9
        assert largest(together.stress[b] - alone.stress[0]) < 1e-9


def test_float32_and_autocast():
    cell, positions, batch, charges = crystals((5, 6), 1)
    single = [t.float() for t in (cell, positions, charges)]
    exact = lattice_energies(single[0].double(), single[1].double(), batch, single[2].double(), [Coulomb()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = lattice_energies(single[0], single[1], batch.to(torch.uint8), single[2], [Coulomb()])
    assert got.crystal.dtype == torch.float64
    assert torch.equal(got.crystal, exact.crystal)
