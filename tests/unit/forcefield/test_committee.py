"""Ranking by a committee whose members are known curves."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from test_calculator import lennard_jones, networks, predictor

from potnet.forcefield import Calculator, ForceFieldError
from potnet.forcefield.committee import judge, ranked, spread_limit


@pytest.fixture(scope="module")
def committee():
    return Calculator([predictor(lennard_jones(depth)) for depth in (0.38, 0.4, 0.42)], "cpu", "float64")


def structures():
    found = [
        (name, bulk("Cu", name, a=a, cubic=True)) for name, a in (("fcc", 3.5), ("bcc", 2.8), ("sc", 2.4))
    ]
    shaken = bulk("Cu", cubic=True, a=3.5)
    shaken.rattle(0.2, seed=0)
    return [*found, ("shaken", shaken)]


def test_energies_above_the_lowest_and_their_spread(committee):
    found = {one.id: one for one in judge(committee, structures())}
    energies = {}
    for name, atoms in structures():
        alone = []
        for member in committee.members:
            atoms.calc = Calculator(member.predictor, "cpu", "float64")
            alone.append(atoms.get_potential_energy() / len(atoms))
        energies[name] = np.array(alone)
    lowest = min(energies, key=lambda name: energies[name].mean())
    for name, one in found.items():
        above = energies[name] - energies[lowest]
        assert one.formula == "Cu"
        assert one.energy == pytest.approx(energies[name].mean(), abs=1e-6)
        assert one.energy_spread == pytest.approx(energies[name].std(), abs=1e-6)
        assert one.above == pytest.approx(above.mean(), abs=1e-6)
        assert one.above_spread == pytest.approx(above.std(), abs=1e-6)
        assert not one.extrapolates
    # Curves are multiples of each other, so members dispute what is far from rest.
    by_spread = ranked(list(found.values()))
    assert by_spread[0].id == "shaken"
    assert by_spread[-1].forces_spread == pytest.approx(0, abs=1e-5)
    assert [one.above for one in ranked(by_spread, "energy")] == sorted(one.above for one in by_spread)


def test_a_limit_flags_what_is_disputed(committee):
    shaken = structures()[-1][1]
    known = judge(committee, structures()[:3])
    limit = spread_limit(known, 1.0)
    assert limit == max(one.forces_spread for one in known)
    flagged = [one.id for one in judge(committee, structures(), limit + 1e-9) if one.extrapolates]
    assert flagged == ["shaken"]
    members = [member.predictor for member in committee.members]
    shaken.calc = Calculator(members, "cpu", "float64", spread_limit=limit + 1e-9)
    shaken.get_forces()
    spread = shaken.calc.results["forces_spread"]
    np.testing.assert_array_equal(shaken.calc.results["extrapolates"], spread > limit + 1e-9)
    assert shaken.calc.results["extrapolates"].any()


def test_what_makes_no_committee_is_refused(committee):
    alone = Calculator(predictor(networks()), "cpu")
    with pytest.raises(ForceFieldError, match="two networks or more"):
        judge(alone, structures())
    with pytest.raises(ForceFieldError, match=r"spread_limit=0\.1 with 1 networks"):
        Calculator(predictor(networks()), "cpu", spread_limit=0.1)
    with pytest.raises(ForceFieldError, match="by='size'"):
        ranked([], "size")
    with pytest.raises(ForceFieldError, match="iron: no training crystal has Fe"):
        judge(committee, [("iron", bulk("Fe"))])
    with pytest.raises(ForceFieldError, match="no structure to take the limit from"):
        spread_limit([])
