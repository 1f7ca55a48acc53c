"""Bad input of energies: refused with the number of the crystal, what was wrong and what to do."""

import math
import re

import pytest
import torch
from energy_cases import crystals

from potnet.lattice import Coulomb, EnergySums, LatticeError, London, lattice_energies


def call(change=None, **options):
    cell, positions, batch, charges = crystals((3, 2, 4), 1)
    inputs = {"cell": cell, "positions": positions, "batch": batch, "charges": charges}
    if change is not None:
        change(inputs)
    return lattice_energies(**inputs, potentials=options.pop("potentials", [Coulomb()]), **options)


def put(name, index, value):
    def change(inputs):
        inputs[name][index] = value

    return change


def replace(name, function):
    def change(inputs):
        inputs[name] = function(inputs[name])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("cell", (1, 0), math.nan), "crystal 1: the cell is not finite"),
        (put("cell", (2, 1), 0.0), "crystal 2: the cell is singular"),
        (put("positions", 4, math.inf), "crystal 1: site 1 has coordinates that are not finite"),
        (put("charges", 6, math.nan), "crystal 2: site 1 has a charge that is not finite"),
        (replace("batch", lambda b: 2 * (b > 0).long()), "crystal 1 has no atoms"),
    ],
)
def test_bad_crystals(change, message):
    with pytest.raises(LatticeError, match=message) as error:
        call(change)
    assert error.value.crystal == int(re.search("crystal ([0-9])", message)[1])


def test_coincident_atoms():
    def change(inputs):  # the same site in another cell
        inputs["positions"][8] = inputs["positions"][6] + inputs["cell"][2, 0]

    with pytest.raises(LatticeError, match=r"crystal 2: sites 1 and 3 are .* apart"):
        call(change)


def test_short_lattice_vectors():
    with pytest.raises(LatticeError, match=r"every site is 0.005 Å from its own image"):
        call(replace("cell", lambda c: c * (0.005 / c.norm(dim=-1).amin())))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (replace("charges", lambda q: q[:, 0]), {}, r"charges must be \(N, P\)"),
        (None, {"potentials": [Coulomb(), London()]}, r"charges must be \(N, P\)"),
        (None, {"potentials": Coulomb()}, "must be a list of potentials"),
        (None, {"potentials": []}, "at least one potential"),
        (None, {"method": "pme"}, "method must be"),
        (None, {"accuracy": 0.0}, "accuracy must be positive"),
        (None, {"eta": -1.0}, "eta must be positive"),
        (None, {"eta": 1e-6}, "leave it out"),
        (None, {"eta": 1e6}, "leave it out"),
        (None, {"bound": "none"}, "bound must be"),
        (None, {"eta": torch.ones(2)}, "one eta or one for each of 3"),
        (replace("batch", lambda b: b.double()), {}, "batch must hold integers"),
        (replace("batch", lambda b: b.flip(0)), {}, "batch must be sorted"),
        (replace("positions", lambda x: x[:-1]), {}, "charges must be"),
        (replace("positions", lambda x: x.to(torch.complex128)), {}, "positions must be real"),
    ],
)
def test_bad_arguments(change, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(change, **options)


def test_no_crystal_at_all():
    none = torch.zeros(0, 3)
    got = lattice_energies(
        torch.zeros(0, 3, 3), none, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2),
        [Coulomb(), London()], forces=True, stress=True,
    )  # fmt: skip
    assert [tuple(t.shape) for t in got[:4]] == [(0, 2), (0, 2), (0, 2, 3), (0, 2, 3, 3)]


def test_no_charge_at_all():
    got = call(replace("charges", torch.zeros_like), forces=True, stress=True)
    assert float(got.atom.abs().max()) == float(got.forces.abs().max()) == float(got.stress.abs().max()) == 0


def test_a_skin_must_be_positive():
    with pytest.raises(ValueError, match="skin must be positive"):
        EnergySums([Coulomb()], skin=0.0)
