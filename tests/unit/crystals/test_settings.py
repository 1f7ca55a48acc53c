"""Random structures in every setting of gemmi's tables, written as CIF in several ways and read back."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest
from structure_references import by_gemmi, formula, shortest_distance, space_group

from potnet.crystals import Crystal
from potnet.crystals.reading.cif import crystals_from_cif

SETTINGS = list(gemmi.spacegroup_table())
SPECIAL = [0.0, 0.25, 0.5, 0.75, 1 / 3, 2 / 3, 1 / 6, 5 / 6, 0.125]


def random_cell(group: gemmi.SpaceGroup, rng: np.random.Generator) -> list[float]:
    """Lengths and angles that have the symmetry of a group: a metric averaged over it."""
    rotations = np.array([op.rot for op in group.operations()]) / gemmi.Op.DEN
    size = max(1.0, len(rotations) / 12) ** (1 / 3)
    while True:
        rows = size * (np.diag(rng.uniform(7.0, 12.0, 3)) + rng.uniform(-2.5, 2.5, (3, 3)))
        metric = np.einsum("mji,jk,mkl->il", rotations, rows @ rows.T, rotations) / len(rotations)
        lengths = np.sqrt(np.diag(metric))
        cosines = metric / np.outer(lengths, lengths)
        angles = np.degrees(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]]))
        if angles.min() > 40 and angles.max() < 140:
            # Not by chance the cell of a higher symmetry: a rhombohedral cell of 60 degrees is cubic.
            return [*lengths.tolist(), *angles.tolist()]


def random_sites(rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """Two general positions and, often, a special one."""
    sites = [("La", rng.uniform(0, 1, 3)), ("O", rng.uniform(0, 1, 3))]
    if rng.random() < 0.6:
        sites.append(("Ti", rng.choice(SPECIAL, 3)))
    return sites


def written(
    group: gemmi.SpaceGroup, parameters: list[float], sites: list[tuple[str, np.ndarray]], how: str
) -> str:
    names = ["length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"]
    lines = ["data_random", *(f"_cell_{n} {p:.6f}" for n, p in zip(names, parameters, strict=True))]
    if how == "operations":
        lines += ["loop_", "_space_group_symop_operation_xyz"]
        lines += [f"'{op.triplet()}'" for op in group.operations()]
    elif how == "name":
        lines += [f"_space_group_name_H-M_alt '{group.xhm()}'", f"_space_group_IT_number {group.number}"]
    elif how == "short name":
        lines.append(f"_symmetry_space_group_name_H-M '{group.xhm().replace(' ', '')}'")
    elif how == "Hall":
        hall = group.hall.replace("'", '"') if '"' not in group.hall else group.hall
        quote = "'" if '"' in hall else '"'
        lines.append(f"_space_group_name_Hall {quote}{group.hall}{quote}")
    else:
        lines.append(f"_symmetry_Int_Tables_number {group.number}")
    lines += ["loop_", "_atom_site_label", "_atom_site_type_symbol"]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"]
    for i, (name, place) in enumerate(sites):
        lines.append(f"{name}{i} {name} " + " ".join(f"{value:.8f}" for value in place))
    return "\n".join(lines) + "\n"


def ways(group: gemmi.SpaceGroup) -> list[str]:
    """How a setting may be written: its number alone only if it is the standard one, without a choice."""
    found = ["operations", "name", "short name", "Hall"]
    if group.is_reference_setting() and group.ext == "\0":
        found.append("number")
    return found


def random_structure(
    group: gemmi.SpaceGroup, rng: np.random.Generator
) -> tuple[list[float], list[tuple[str, np.ndarray]], Crystal]:
    """A cell, sites, and what they are by gemmi: no atoms too close, or nearly on a special position."""
    order = len(group.operations())
    while True:
        parameters, sites = random_cell(group, rng), random_sites(rng)
        reference = by_gemmi(written(group, parameters, sites, "operations"))
        if (reference.z == 57).sum() == order == (reference.z == 8).sum() and (
            shortest_distance(reference.cell, reference.fractional) > 0.6
        ):
            return parameters, sites, reference


def check(group: gemmi.SpaceGroup, seed: int) -> None:
    parameters, sites, reference = random_structure(group, np.random.default_rng(seed))
    distance = shortest_distance(reference.cell, reference.fractional)
    for how in ways(group):
        (crystal,) = crystals_from_cif(written(group, parameters, sites, how))
        assert isinstance(crystal, Crystal), (group.xhm(), how, str(crystal))
        assert formula(crystal) == formula(reference), (group.xhm(), how)
        found = shortest_distance(crystal.cell, crystal.fractional)
        assert found == pytest.approx(distance, abs=1e-5), (group.xhm(), how)
        # Its atoms are those of gemmi, one by one.
        difference = crystal.fractional[:, None] - reference.fractional[None]
        difference -= np.rint(difference)
        near = np.linalg.norm(difference @ crystal.cell, axis=-1) < 1e-4
        np.testing.assert_array_equal(near.sum(1), 1)
        np.testing.assert_array_equal(crystal.z, reference.z[near.argmax(1)])
        assert space_group(crystal, 1e-3) == group.number, (group.xhm(), how)


@pytest.mark.parametrize("place", range(0, len(SETTINGS), 29))
def test_a_sample_of_the_settings(place):
    check(SETTINGS[place], place)


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(SETTINGS)))
def test_every_setting(place):
    for seed in range(4):
        check(SETTINGS[place], 1000 * place + seed)


@pytest.mark.parametrize("number", [48, 70, 85, 141, 146, 148, 166, 203, 227])
def test_a_number_or_a_name_without_its_origin_is_right_or_refused(number):
    """Where there are two origins, distances, formula and Z decide, or nobody can."""
    rng = np.random.default_rng(number)
    outcomes = []
    for group in (each for each in SETTINGS if each.number == number and each.ext in "12HR" and each.ext):
        if group.hm != gemmi.get_spacegroup_reference_setting(number).hm:
            continue
        parameters, sites, reference = random_structure(group, rng)
        for line in (f"_space_group_IT_number {number}", f"_space_group_name_H-M_alt '{group.hm}'"):
            text = written(group, parameters, sites, "number").replace(
                f"_symmetry_Int_Tables_number {number}", line
            )
            (outcome,) = crystals_from_cif(text)
            if isinstance(outcome, Crystal):
                assert formula(outcome) == formula(reference)
                assert shortest_distance(outcome.cell, outcome.fractional) == pytest.approx(
                    shortest_distance(reference.cell, reference.fractional), abs=1e-5
                )
            else:
                assert "the setting is not stated: it may be" in str(outcome)
                assert group.ext in "12"
            outcomes.append(outcome)
    assert outcomes
