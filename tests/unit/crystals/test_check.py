import logging

import numpy as np
import pytest

from potnet.crystals import Crystal, CrystalError
from potnet.crystals.elements import element_of_label, element_of_type, symbol
from potnet.crystals.reading.check import (
    checked,
    closest_pair,
    density,
    formula_mismatch,
    implausible,
    missing_hydrogen,
    parse_formula,
)
from potnet.crystals.reading.text import decode, number, uncertain_number


def cubic(edge, z=(11, 17), second=(0.5, 0.5, 0.5)):
    return Crystal.from_fractional(np.eye(3) * edge, [[0, 0, 0], second][: len(z)], z)


def test_density():
    # Rock salt: 2.16 g/cm³ at 5.64 Å.
    salt = Crystal.from_fractional(
        [[0, 2.82, 2.82], [2.82, 0, 2.82], [2.82, 2.82, 0]], [[0] * 3, [0.5] * 3], [11, 17]
    )
    assert density(salt) == pytest.approx(2.164, abs=2e-3)
    assert implausible(salt) == []


@pytest.mark.parametrize(
    ("crystal", "message"),
    [
        (cubic(0.564), "the density is 541 g/cm³, more than 30: are lengths in Å?"),
        (cubic(56.4), "the density is 0.000541 g/cm³, less than 0.01"),
        (cubic(5, second=(0.09, 0, 0)), r"sites 0 and 1 (Na-Cl), or their images, are 0.45 Å apart"),
        (cubic(5, second=(0, 0, 0.93)), r"0.35 Å apart"),
        (cubic(5, (1, 8), (0.07, 0, 0)), r"(H-O), or their images, are 0.35 Å apart"),
        (
            Crystal(np.diag([0.45, 9.0, 9.0]), [[0, 0, 0]], [26]),
            "sites 0 and 0 (Fe-Fe), or their images, are 0.45",
        ),
    ],
)
def test_what_is_implausible(crystal, message):
    assert message in implausible(crystal)[0]
    with pytest.raises(CrystalError, match=r"plausibility=warn reads it nevertheless"):
        checked(crystal, "refuse")


def test_warn_and_ignore(caplog):
    crystal = cubic(5, second=(0.09, 0, 0))
    with caplog.at_level(logging.WARNING):
        assert checked(crystal, "ignore") is crystal
        assert not caplog.records
        assert checked(crystal, "warn", source="a.vasp") is crystal
    assert "a.vasp: sites 0 and 1 (Na-Cl)" in caplog.text
    with pytest.raises(ValueError, match="give 'refuse', 'warn' or 'ignore'"):
        checked(crystal, "maybe")


def test_what_is_plausible():
    assert implausible(cubic(5, (1, 8), (0.09, 0, 0))) == []  # 0.45 Å, with hydrogen
    assert implausible(cubic(56.4), boxed=True) == []  # the vacuum was asked for
    assert implausible(cubic(2.9, (76, 76))) == []  # 26 g/cm³: osmium under pressure


def test_both_ways_to_the_closest_pair_agree():
    rng = np.random.default_rng(3)
    for _ in range(20):
        n = 60
        crystal = Crystal.from_fractional(
            np.diag([9, 8, 9.5]) + rng.normal(0, 0.5, (3, 3)), rng.random((n, 3)), [26] * n
        )
        double = Crystal(  # so many that a list of neighbours takes over
            crystal.cell * [[8], [1], [1]],
            np.concatenate([crystal.positions + i * crystal.cell[0] for i in range(8)]),
            np.tile(crystal.z, 8),
        )
        for cutoff in (0.3, 0.7):
            one, other = closest_pair(crystal, cutoff), closest_pair(double, cutoff)
            assert (one is None) == (other is None)
            assert one is None or one[2] == pytest.approx(other[2])


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("H2 Mg O2", {"H": 2, "Mg": 1, "O": 2}),
        ("D2 H2 O2", {"H": 4, "O": 2}),
        ("Ca0.5 Mg.5O3", {"Ca": 0.5, "Mg": 0.5, "O": 3}),
        ("NaCl", {"Na": 1, "Cl": 1}),
        ("Ca (C O3)", None),
        ("'unknown'", None),
        ("Xx2 O", None),
        ("C1.2.3", None),
        ("", None),
    ],
)
def test_formulas(text, amounts):
    assert parse_formula(text) == amounts


@pytest.mark.parametrize(
    ("z", "stated", "fits"),
    [
        ([55, 17], "Cs Cl", True),
        ([55, 17] * 3, "Cs4 Cl4", True),
        ([55, 17], "Cs Cl3", False),
        ([55, 17], "Cs Cl Br", False),
        ([55, 17, 35], "Cs Cl", False),
        ([12, 8, 8], "H2 Mg O2", True),
        ([12, 8, 8, 1], "H2 Mg O2", True),
        ([12, 8, 8, 1, 1, 1], "H2 Mg O2", False),
        ([12, 8, 1], "Mg O", False),
        ([1, 1], "H2", True),
        ([26] * 95 + [8] * 100, "Fe0.949 O1.0", True),
    ],
)
def test_formula_and_atoms(z, stated, fits):
    assert (formula_mismatch(np.array(z), parse_formula(stated)) is None) is fits


def test_hydrogen_may_be_missing():
    stated = parse_formula("H2 Mg O2")
    assert missing_hydrogen(np.array([12, 8, 8]), stated)
    assert not missing_hydrogen(np.array([12, 8, 8, 1, 1]), stated)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((text, "Fe") for text in ("Fe", "Fe3+", "Fe+3", "Fe2", "FE", "fe", "FE3+", "Fe0+")),
        *((text, "O") for text in ("O", "O2-", "O-2", "o", "O2-.")),
        ("Cval", "C"),
        ("Siva", "Si"),
        ("D", "H"),
        ("CO", "Co"),
        ("Co3+", "Co"),
        ("CO3+", "Co"),
        ("Nh", "Nh"),
        *((text, None) for text in ("NH4", "NH4+", "NH", "NO3", "NO3-", "PO4", "CO3", "CO32-", "CN", "CN-")),
        *(
            (text, None)
            for text in ("OH", "OH-", "H2O", "Wat", "T", "T1", "X", "M", "Q7", "Vac", "", "2", "nh4")
        ),
    ],
)
def test_types(text, name):
    z = element_of_type(text)
    assert (None if z is None else symbol(z)) == name


@pytest.mark.parametrize(
    ("text", "known", "name"),
    [
        ("Fe1", None, "Fe"),
        ("FE1", None, "Fe"),
        ("O1A", None, "O"),
        ("O1'", None, "O"),
        ("Na_2", None, "Na"),
        ("Fe3+", None, "Fe"),
        ("D1", None, "H"),
        ("T1", None, None),
        ("T1", {"Si", "O"}, None),
        ("NH4", None, None),
        ("Wat1", None, None),
        ("OW1", None, None),
        ("OW1", {"Si", "O", "H"}, "O"),
        ("CA1", None, "Ca"),
        ("CA1", {"C", "H", "O"}, "C"),
        ("CA1", {"C", "Ca", "O"}, None),
        ("HO1", {"H", "O"}, "H"),
        ("M1", {"Mg", "O"}, None),
        ("1Fe", None, None),
    ],
)
def test_labels(text, known, name):
    z = element_of_label(text, known)
    assert (None if z is None else symbol(z)) == name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5", 1.5),
        (" -.5e-3 ", -0.0005),
        ("5.", 5.0),
        ("+7", 7.0),
        ("1_5", None),
        ("0,5", None),
        ("١", None),
        ("１", None),
        ("0x10", None),
        ("", None),
        ("1 2", None),
        ("−1", None),
    ],
)
def test_numbers(text, value):
    assert number(text) == value
    assert uncertain_number(text) == value


def test_uncertain_numbers_and_infinite_ones():
    assert uncertain_number("1.234(5)") == 1.234
    assert uncertain_number("1(2)(3)") is None
    assert uncertain_number("inf") is None
    assert uncertain_number("1e400") is None
    assert number("-Infinity") == -np.inf
    assert np.isnan(number("NaN"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
def test_encodings(encoding):
    assert decode("Ström 1.5".encode(encoding)) == "Ström 1.5"


@pytest.mark.parametrize("value", [["1_5", "0", "0"], [True, False, False], ["4", "0", "0"]])
def test_text_and_truth_values_are_no_coordinates(value):
    with pytest.raises(CrystalError, match="plain"):
        Crystal(np.eye(3) * 4, [value], [11])
    with pytest.raises(CrystalError, match="plain"):
        Crystal.from_fractional(np.eye(3) * 4, [value], [11])
