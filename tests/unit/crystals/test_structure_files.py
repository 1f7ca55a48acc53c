"""Files that were once read wrong, or refused though valid: see expected.csv beside them."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
from structure_references import by_gemmi, formula, shortest_distance, space_group

from potnet.crystals import Crystal, CrystalError, iterate_crystals, read_crystals

FOLDER = Path(__file__).parents[2] / "fixtures" / "structures"
with (FOLDER / "expected.csv").open(encoding="utf-8", newline="") as lines:
    EXPECTED = {row["file"]: row for row in csv.DictReader(lines)}
READ = [name for name, row in EXPECTED.items() if not row["refused"]]
REFUSED = [name for name, row in EXPECTED.items() if row["refused"]]

# gemmi alone takes type `?` for no element, ignores magCIF, full symbols and operations it cannot read, keeps
# dummy atoms, and stops at a byte order mark or at what is not ASCII.
NOT_BY_GEMMI = {
    "typ_question.cif",
    "mcif.cif",
    "fm3m_full.cif",
    "op_coef2.cif",
    "op_ortho_hex.cif",
    "pm3m_old.cif",
    "dummy_flag_element.cif",
    "bom.cif",
    "unicode_minus.cif",
}


@pytest.mark.parametrize("name", READ)
def test_read_right(name):
    (crystal,) = read_crystals(FOLDER / name)
    row = EXPECTED[name]
    assert (formula(crystal), len(crystal)) == (row["formula"], int(row["atoms"]))
    distance = shortest_distance(crystal.cell, crystal.fractional)
    # Only big_hex_2dig.cif was rounded so much that its special position is another.
    assert distance == pytest.approx(float(row["shortest"]), abs=6e-4)
    assert space_group(crystal) == int(row["space_group"])


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name):
    (outcome,) = iterate_crystals(FOLDER / name)
    assert isinstance(outcome, CrystalError)
    assert str(outcome).startswith(str(FOLDER / name))
    assert EXPECTED[name]["refused"] in outcome.reason


@pytest.mark.parametrize(
    "name", [name for name in READ if name.endswith(".cif") and name not in NOT_BY_GEMMI]
)
def test_as_gemmi_reads_it(name):
    (crystal,) = read_crystals(FOLDER / name)
    other = by_gemmi((FOLDER / name).read_text(encoding="utf-8"))
    assert formula(crystal) == formula(other)
    assert crystal.volume == pytest.approx(other.volume)
    if name != "big_hex_2dig.cif":  # whose boron we put onto the axis that it was rounded off
        assert shortest_distance(crystal.cell, crystal.fractional) == pytest.approx(
            shortest_distance(other.cell, other.fractional), abs=1e-3
        )
    assert space_group(crystal) == space_group(other, 0.01 if name != "big_hex_2dig.cif" else 0.3)


def test_ids_stay_as_they_are_written():
    assert [crystal.id for crystal in read_crystals(FOLDER / "ids.xyz")] == ["007", "7"]


def test_a_dummy_atom_is_left_out_with_a_line(caplog):
    with caplog.at_level(logging.WARNING):
        (crystal,) = read_crystals(FOLDER / "dummy_flag_element.cif")
    assert len(crystal) == 8
    assert "site Mg9 is left out: a dummy atom" in caplog.text


@pytest.mark.parametrize("name", ["brucite_split.cif", "formula_mismatch.cif", "tiny3.xyz"])
def test_implausible_structures_are_read_on_demand(name, caplog):
    with caplog.at_level(logging.WARNING):
        (warned,) = read_crystals(FOLDER / name, plausibility="warn")
    assert EXPECTED[name]["refused"] in caplog.text
    caplog.clear()
    (ignored,) = read_crystals(FOLDER / name, plausibility="ignore")
    assert not caplog.records
    np.testing.assert_array_equal(warned.positions, ignored.positions)
    with pytest.raises(ValueError, match="plausibility='perhaps'"):
        read_crystals(FOLDER / name, plausibility="perhaps")


def test_every_file_has_an_answer():
    tables = {"expected.csv", "ids.xyz", "jarvis_repr.csv", "jsonl_cart_str.jsonl", "underscore.csv"}
    files = {file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*") if file.is_file()}
    assert files == set(EXPECTED) | tables
    for name in READ:
        assert all(isinstance(outcome, Crystal) for outcome in iterate_crystals(FOLDER / name))
