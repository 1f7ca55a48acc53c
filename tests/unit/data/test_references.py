"""Energies from several sources on one scale."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from potnet.data import DataError, Target
from potnet.data.references import aligned


def case(seed: int = 0, n: int = 300):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (n, 4)).astype(float)
    counts[:, 0] += 1
    common, rest = np.array([-3.0, -5.0, 1.0, -7.0]), 0.02 * rng.normal(size=n)
    sources = rng.choice(["a", "b"], n)
    shift = np.array([0.0, 2.0, -1.0, 0.5])
    physics = counts @ common + counts.sum(1) * rest
    energies = physics + np.where(sources == "b", counts @ shift, 0.0)
    return counts, sources, physics, energies


def test_what_tells_sources_apart_is_taken_off():
    counts, sources, physics, energies = case()
    energies[3] = np.nan
    found = aligned(energies, csr_array(counts), sources, np.arange(200))
    # Reference energies are anybody's choice; what is left of them is not.
    known = ~np.isnan(energies)
    part, atoms = counts / counts.sum(1)[:, None], counts.sum(1)

    def left(values):
        plane = np.linalg.lstsq(part[known], (values / atoms)[known], rcond=None)[0]
        return (values / atoms)[known] - part[known] @ plane

    assert np.std(left(energies)) > 0.1
    np.testing.assert_allclose(left(found), left(physics), atol=5e-3)
    assert np.isnan(found[3])


def test_sources_that_are_missing_are_refused():
    counts, sources, _, energies = case()
    with pytest.raises(DataError, match="no training crystal is from b"):
        aligned(energies, csr_array(counts), sources, np.flatnonzero(sources == "a"))
    names = sources.astype(object)
    names[:2] = None
    with pytest.raises(DataError, match="2 crystals with energy have no source"):
        aligned(energies, csr_array(counts), names, np.arange(200))


def test_units_of_errors_and_sources_belong_to_their_targets():
    target = Target("energy", "eV", extensive=True, errors_in="meV")
    assert (target.metric_unit, target.metric_factor) == ("meV/atom", 1e3)
    assert Target("stress", "eV/Å³", shape=(6,), errors_in="GPa").metric_factor == pytest.approx(160.21766)
    with pytest.raises(DataError, match="errors_in=GPa is not known for values in kbar"):
        Target("stress", "kbar", shape=(6,), errors_in="GPa")
    with pytest.raises(DataError, match="reference_by=set is for extensive energies"):
        Target("k_vrh", "GPa", reference_by="set")
