"""What a prediction is asked of: every crystal with an id of its own, whatever it is given as."""

from pathlib import Path

import numpy as np
import pytest

from potnet.crystals import Crystal, CrystalError
from potnet.inference.inputs import crystals_of, expand

FIXTURES = Path(__file__).parents[2] / "fixtures" / "structures"
PYMATGEN = {
    "lattice": {"matrix": (np.eye(3) * 4).tolist()},
    "sites": [
        {"species": [{"element": "Cs", "occu": 1}], "abc": [0, 0, 0]},
        {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]},
    ],
}


def test_files_of_one_folder_have_different_ids():
    files = [*expand(FIXTURES / "dup_ids"), FIXTURES / "upper.vasp", FIXTURES / "upper.vasp"]
    ids = [outcome.id for _, outcome in crystals_of(files, None, "refuse") if isinstance(outcome, Crystal)]
    assert ids[:4] == ["dup_ids/POSCAR.1", "dup_ids/POSCAR.2", "dup_ids/POSCAR.3", "upper"]
    assert len(set(ids)) == 5


def test_dictionaries_of_other_programs():
    (_, crystal), (_, wrong) = crystals_of(expand([PYMATGEN, {"a": 1}]), None, "refuse")
    assert isinstance(crystal, Crystal)
    assert (crystal.id, crystal.formula) == ("0", "ClCs")
    assert isinstance(wrong, CrystalError)


def test_a_structure_of_pymatgen_is_one_crystal_and_not_a_list_of_sites():
    pymatgen = pytest.importorskip("pymatgen.core")
    structure = pymatgen.Structure(4 * np.eye(3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    for inputs, count in ((structure, 1), ([structure, [structure, structure.as_dict()]], 3)):
        found = [outcome for _, outcome in crystals_of(expand(inputs), None, "refuse")]
        assert [crystal.formula for crystal in found] == ["ClCs"] * count


def test_implausible_inputs_are_refused_or_taken_as_asked():
    close = {**PYMATGEN, "sites": [PYMATGEN["sites"][0], {**PYMATGEN["sites"][1], "abc": [0.1, 0, 0]}]}
    for item in (close, FIXTURES / "formula_mismatch.cif"):
        ((_, refused),) = crystals_of([item], None, "refuse")
        assert isinstance(refused, CrystalError)
        ((_, taken),) = crystals_of([item], None, "ignore")
        assert isinstance(taken, Crystal)
