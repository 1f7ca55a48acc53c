"""Bad input: an error that names the crystal and the sites, never a wrong number or an abort."""

import math

import numpy as np
import pytest
import torch
from lattice_cases import named_cases, tensors

from potnet import lattice
from potnet.lattice import (
    Coulomb,
    InversePower,
    LatticeError,
    London,
    Pauli,
    lattice_energies,
    lattice_sums,
    lattice_sums_and_derivatives,
)

POTENTIAL = [Coulomb(), London(), Pauli()]


def good():
    """Three crystals; the second, number 1, is the one that tests spoil: its sites are 8..9 of all."""
    cases = named_cases()
    return tensors([cases[0], cases[1], cases[3]])


@pytest.mark.parametrize("separation", [0.0, 1e-12, 0.001, 0.0099])
def test_overlapping_atoms(separation):
    cell, positions, batch = good()
    positions[9] = positions[8] + torch.tensor([separation, 0, 0], dtype=torch.float64)
    with pytest.raises(
        LatticeError, match=r"crystal 1: sites 0 and 1 are .* apart, closer than 0.01 Å"
    ) as error:
        lattice_sums(cell, positions, batch, POTENTIAL)
    assert error.value.crystal == 1


@pytest.mark.parametrize("images", [(1, 0, 0), (0, -2, 5), (100, -100, 30)])
def test_overlap_across_the_boundary(images):
    cell, positions, batch = good()
    shift = torch.tensor(images, dtype=torch.float64) @ cell[1] + 0.004
    positions[9] = positions[8] + shift
    with pytest.raises(LatticeError, match=r"crystal 1: sites 0 and 1 .*0\.0069 Å apart"):
        lattice_sums(cell, positions, batch, POTENTIAL)


def test_atoms_a_little_farther_apart_are_summed():
    cell, positions, batch = good()
    positions[9] = positions[8] + torch.tensor([0.0, 0.0101, 0], dtype=torch.float64)
    sums = lattice_sums(cell, positions, batch, POTENTIAL)
    assert bool(sums.values.isfinite().all())
    assert abs(float(sums.values[65, 1]) * 0.0101**6 - 1) < 1e-9


@pytest.mark.parametrize("eta", [1e-3, 1.0, 50.0])
def test_overlap_is_seen_at_any_eta(eta):
    cell, positions, batch = good()
    positions[9] = positions[8] + 0.003
    with pytest.raises(LatticeError, match="crystal 1: sites 0 and 1"):
        lattice_sums(cell, positions, batch, POTENTIAL, 1e-4, eta=eta)


def test_overlap_in_a_large_crystal_names_the_sites():
    positions = 4.0 * torch.tensor(list(np.ndindex(4, 4, 4)), dtype=torch.float64)
    positions[37] = positions[5] + torch.tensor([16.0, -16.0, 0.002], dtype=torch.float64)
    batch = torch.zeros(64, dtype=torch.int64)
    for memory_mib in (None, 0.05):
        with pytest.raises(LatticeError, match=r"crystal 0: sites 5 and 37 are 0\.002 Å apart"):
            lattice_sums(16 * torch.eye(3)[None], positions, batch, POTENTIAL, memory_mib=memory_mib)


def test_an_atom_on_its_own_image():
    cell, positions, batch = good()
    cell[1] = torch.diag(torch.tensor([0.005, 4.0, 4.0]))
    with pytest.raises(LatticeError, match=r"crystal 1: every site is 0\.005 Å from its own image") as error:
        lattice_sums(cell, positions, batch, POTENTIAL)
    assert error.value.crystal == 1


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2, 3], [2, 4, 6], [0, 0, 1]],
        [[0, 0, 0], [0, 4, 0], [0, 0, 4]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[3, 1, 0], [1, 3, 0], [4, 4, 1e-12]],
    ],
)
def test_singular_cells(rows):
    cell, positions, batch = good()
    cell[1] = torch.tensor(rows, dtype=torch.float64)
    with pytest.raises(LatticeError, match="crystal 1: the cell is singular") as error:
        lattice_sums(cell, positions, batch, POTENTIAL)
    assert error.value.crystal == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite(value):
    cell, positions, batch = good()
    spoilt = cell.clone()
    spoilt[1, 2, 0] = value
    with pytest.raises(LatticeError, match="crystal 1: the cell is not finite"):
        lattice_sums(spoilt, positions, batch, POTENTIAL)
    positions[9, 1] = value
    with pytest.raises(LatticeError, match="crystal 1: site 1 has coordinates that are not finite") as error:
        lattice_sums(cell, positions, batch, POTENTIAL)
    assert error.value.crystal == 1


def test_errors_can_be_caught_as_value_errors():
    assert issubclass(LatticeError, ValueError)


@pytest.mark.parametrize("batch", [[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 2], [-1, 0, 0, 1]])
def test_batch_must_be_sorted_and_in_range(batch):
    cell = 4 * torch.eye(3).repeat(2, 1, 1)
    positions = torch.arange(12.0).view(4, 3) * 0.3
    with pytest.raises(ValueError, match=r"batch must be sorted and lie in 0\.\.1"):
        lattice_sums(cell, positions, torch.tensor(batch), POTENTIAL)


def test_every_crystal_has_atoms():
    cell = 4 * torch.eye(3).repeat(3, 1, 1)
    with pytest.raises(ValueError, match="at least one atom"):
        lattice_sums(cell, torch.zeros(2, 3), torch.tensor([0, 2]), POTENTIAL)


def test_nothing_at_all():
    empty = torch.zeros(0, dtype=torch.int64)
    sums = lattice_sums(torch.zeros(0, 3, 3), torch.zeros(0, 3), empty, POTENTIAL)
    shapes = [tuple(x.shape) for x in sums]
    assert shapes == [(2, 0), (0, len(POTENTIAL)), (0, len(POTENTIAL))]
    with pytest.raises(ValueError, match="1 atoms but no crystal"):
        lattice_sums(torch.zeros(0, 3, 3), torch.zeros(1, 3), torch.tensor([0]), POTENTIAL)
    with pytest.raises(
        LatticeError, match="crystal 1 has no atoms: every crystal needs at least one"
    ) as error:
        lattice_sums(torch.eye(3).repeat(3, 1, 1), torch.rand(2, 3), torch.tensor([0, 2]), POTENTIAL)
    assert error.value.crystal == 1
    with pytest.raises(ValueError, match="at least one potential"):
        lattice_sums(torch.eye(3)[None], torch.zeros(1, 3), torch.tensor([0]), [])


@pytest.mark.parametrize(
    ("cell", "positions", "batch", "message"),
    [
        ((3, 3), (2, 3), (2,), r"cell must be \(B, 3, 3\), got \(3, 3\)"),
        ((1, 3, 2), (2, 3), (2,), r"cell must be \(B, 3, 3\)"),
        ((1, 3, 3), (2, 2), (2,), r"positions must be \(N, 3\) and batch \(N,\), got \(2, 2\)"),
        ((1, 3, 3), (2, 3), (3,), r"positions must be \(N, 3\)"),
        ((1, 3, 3), (6,), (2,), r"positions must be \(N, 3\)"),
        ((1, 3, 3), (2, 3), (2, 1), r"positions must be \(N, 3\)"),
    ],
)
def test_shapes(cell, positions, batch, message):
    with pytest.raises(ValueError, match=message):
        lattice_sums(
            torch.zeros(cell), torch.zeros(positions), torch.zeros(batch, dtype=torch.int64), POTENTIAL
        )


@pytest.mark.parametrize("accuracy", [0.0, -1e-8, math.nan, math.inf, [1e-8, 1e-8, 0.0]])
def test_accuracy_must_be_positive(accuracy):
    with pytest.raises(ValueError, match="accuracy must be positive"):
        lattice_sums(*good(), POTENTIAL, accuracy)


@pytest.mark.parametrize("accuracy", [[1e-8], [1e-8] * 4, []])
def test_one_accuracy_for_each_potential(accuracy):
    with pytest.raises(ValueError, match="one for each of 3 potentials"):
        lattice_sums(*good(), POTENTIAL, accuracy)


@pytest.mark.parametrize("eta", [0.0, -1.0, math.nan, math.inf, torch.tensor([0.1, -0.1, 0.1])])
def test_eta_must_be_positive(eta):
    with pytest.raises(ValueError, match="eta must be positive"):
        lattice_sums(*good(), POTENTIAL, eta=eta)


@pytest.mark.parametrize("p", [0.0, 1.5, -1.0, math.nan, math.inf])
def test_powers(p):
    with pytest.raises(ValueError, match="p must be positive and other than 3/2"):
        InversePower(p)


@pytest.mark.parametrize("potentials", [Coulomb(), [Coulomb(), "london"], [Pauli]])
def test_potentials_are_a_list_of_potentials(potentials):
    with pytest.raises(TypeError, match="potentials must be a list of potentials"):
        lattice_sums(*good(), potentials)


@pytest.mark.parametrize("periodic", ["TTF", True, (True, True), (True, False, False), ("T", "T", "F"), 3.0])
def test_periodic_is_three_flags(periodic):
    with pytest.raises(ValueError, match="periodic must be three flags"):
        lattice_sums(*good(), POTENTIAL, periodic=periodic)


def test_arrays_are_no_tensors():
    cell, positions, batch = good()
    with pytest.raises(TypeError, match="cell must be a tensor, got a ndarray"):
        lattice_sums(cell.numpy(), positions, batch, POTENTIAL)
    with pytest.raises(TypeError, match="batch must be a tensor, got a list"):
        lattice_sums_and_derivatives(cell, positions, batch.tolist(), POTENTIAL)
    with pytest.raises(TypeError, match="charges must be a tensor, got a list"):
        lattice_energies(cell, positions, batch, [1.0], POTENTIAL)


@pytest.mark.parametrize("accuracy", ["1e-8", None])
def test_accuracy_is_a_number(accuracy):
    with pytest.raises(TypeError, match="accuracy must be a number"):
        lattice_sums(*good(), POTENTIAL, accuracy)


def test_complex_inputs():
    cell, positions, batch = good()
    with pytest.raises(ValueError, match=r"cell must be real, got torch\.complex128"):
        lattice_sums(cell.to(torch.complex128), positions, batch, POTENTIAL)
    with pytest.raises(ValueError, match="positions must be real"):
        lattice_sums(cell, positions.to(torch.complex64), batch, POTENTIAL)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_batch_of_any_integers(dtype):
    cell, positions, batch = good()
    sums = lattice_sums(cell, positions, batch.to(dtype), POTENTIAL)
    assert torch.equal(sums.values, lattice_sums(cell, positions, batch, POTENTIAL).values)
    assert sums.pair_index.dtype == torch.int64


@pytest.mark.parametrize(
    "accuracy",
    [np.float32(1e-6), np.array(1e-6), torch.tensor(1e-6), np.full(3, 1e-6), torch.full((3,), 1e-6)],
)
def test_accuracy_from_arrays(accuracy):
    potentials = [Coulomb(), London(), Pauli()]
    sums = lattice_sums(*good(), potentials, accuracy)
    assert torch.allclose(sums.values, lattice_sums(*good(), potentials, 1e-6).values, rtol=0, atol=1e-12)


def test_kind_of_bound():
    with pytest.raises(ValueError, match="bound must be 'rigorous' or 'estimate', got 'loose'"):
        lattice_sums(*good(), POTENTIAL, bound="loose")


def test_autocast_changes_nothing():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = lattice_sums(*good(), [Coulomb(), London(), Pauli()], 1e-4)
    plain = lattice_sums(*good(), [Coulomb(), London(), Pauli()], 1e-4)
    assert torch.equal(sums.values, plain.values)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_parameters_of_potentials(value):
    for build in (Pauli, lattice.ScreenedCoulomb, lattice.Morse, lattice.LennardJones):
        with pytest.raises(ValueError, match="must be a positive number"):
            build(value)
    with pytest.raises(ValueError, match="r_e must be a positive number"):
        lattice.Morse(1.0, value)
    with pytest.raises(ValueError, match="convention"):
        Pauli(3.0, convention="physicle")
