"""A force field from labels to its use: splines fitted to a known potential, relaxed, moved and strained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import read, write

from potnet.cli import main
from potnet.forcefield import Calculator

POTENTIAL = {"sigma": 2.3, "epsilon": 0.4, "rc": 5.0, "smooth": True}


def copper(count: int) -> list[dict]:
    """Labelled configurations of fcc copper atoms that attract each other as Lennard and Jones say."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        atoms = bulk("Cu", cubic=True, a=rng.uniform(3.5, 4.0))
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.1 * rng.normal(size=(4, 3))
        atoms.calc = LennardJones(**POTENTIAL)
        rows.append(
            {
                "id": f"cu-{number}",
                "lattice": atoms.cell[:].tolist(),
                "z": atoms.numbers.tolist(),
                "frac": atoms.get_scaled_positions().tolist(),
                "energy": atoms.get_potential_energy() - 3.0 * len(atoms),
                "forces": atoms.get_forces().tolist(),
                "stress": atoms.get_stress().tolist(),
            }
        )
    return rows


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import potnet

    folder = tmp_path_factory.mktemp("copper")
    path = folder / "copper.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in copper(60)))
    run = potnet.train(
        "data=table", f"data.source.path={path}", "split=shuffled", "target=energy_forces_stress",
        "model=pair_splines", "model.knots=40", "features=radius_5", "features.cell=as_given",
        f"data.cache_dir={folder / 'cache'}", folder=folder / "run",
    )  # fmt: skip
    return run.folder


def test_splines_find_the_potential_they_were_fitted_to(fitted: Path) -> None:
    metrics = json.loads((fitted / "metrics.json").read_text())["test"]
    assert metrics["forces"]["unit"] == "meV/Å"
    # Forces of some eV/Å.
    assert metrics["forces"]["mae"] < 20
    assert metrics["forces"]["r2"] > 0.999
    assert metrics["energy"]["mae"] < 5
    assert metrics["stress"]["mae"] < 0.2
    assert (fitted / "pair_potentials.png").stat().st_size > 5000
    header, *tried = (fitted / "cross_validation.csv").read_text().splitlines()
    assert header == "smoothness,held_out_loss"
    assert len(tried) > 1
    atoms = bulk("Cu", cubic=True, a=3.7)
    atoms.positions[0] += 0.1
    atoms.calc = LennardJones(**POTENTIAL)
    expected = atoms.get_forces()
    atoms.calc = Calculator(fitted)
    np.testing.assert_allclose(atoms.get_forces(), expected, atol=0.05)


def test_kernel_ridge_learns_the_same_potential(tmp_path: Path) -> None:
    import potnet

    path = tmp_path / "copper.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in copper(40)))
    run = potnet.train(
        "data=table", f"data.source.path={path}", "split=shuffled", "target=energy_forces_stress",
        "model=mbtr_forces", "model.pair_points=12", "model.triple_points=2", "model.angle_points=4",
        "model.representatives=50", "features=radius_5", "features.cell=as_given",
        f"data.cache_dir={tmp_path / 'cache'}", folder=tmp_path / "run",
    )  # fmt: skip
    metrics = json.loads((run.folder / "metrics.json").read_text())["test"]
    assert metrics["forces"]["r2"] > 0.99
    assert metrics["energy"]["r2"] > 0.97
    atoms = bulk("Cu", cubic=True, a=3.7)
    atoms.positions[0] += 0.1
    atoms.calc = LennardJones(**POTENTIAL)
    expected = atoms.get_forces()
    atoms.calc = Calculator(run.folder)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(atoms.get_forces(), expected, atol=0.3)


def test_commands_relax_move_and_strain(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Cu", cubic=True, a=3.5)
    atoms.rattle(0.05, seed=1)
    write("POSCAR.vasp", atoms)
    assert main(["relax", "POSCAR.vasp", f"checkpoint={fitted}", "device=cpu"]) == 0
    assert "volume" in capsys.readouterr().out
    relaxed = read("relaxed.extxyz")
    assert np.abs(relaxed.get_forces()).max() < 0.01
    assert np.abs(relaxed.get_stress()).max() < 1e-3
    write("relaxed.vasp", relaxed)
    assert main(["elastic", "relaxed.vasp", f"checkpoint={fitted}", "device=cpu"]) == 0
    header, row = (line.split(",") for line in Path("elastic.csv").read_text().splitlines())
    constants = dict(zip(header, row, strict=True))
    # Central forces: Cauchy's relation.
    assert float(constants["c12"]) == pytest.approx(float(constants["c44"]), rel=0.05)
    assert float(constants["bulk_hill"]) > 10
    words = [f"checkpoint=[{fitted},{fitted}]", "limit=0.1", "by=energy", "device=cpu"]
    assert main(["rank", "relaxed.vasp", "POSCAR.vasp", *words]) == 0
    assert "POSCAR.vasp: Cu" in capsys.readouterr().out
    assert Path("ranking.csv").read_text().splitlines()[1].startswith("relaxed.vasp,Cu,")
    pytest.importorskip("phonopy")
    assert main(["phonons", "relaxed.vasp", f"checkpoint={fitted}", "repeat=[2,2,2]", "device=cpu"]) == 0
    said = capsys.readouterr().out
    assert "1 atoms in the primitive cell, supercell 2x2x2" in said
    assert "imaginary" not in said
    assert (Path("phonons") / "bands.png").stat().st_size > 5000
    words = [f"checkpoint=[{fitted},{fitted}]", "time=0.02", "temperature=100", "every=2", "device=cpu"]
    assert main(["md", "relaxed.vasp", *words]) == 0
    assert "drift of the total energy" in capsys.readouterr().out
    assert {file.name for file in Path("md").iterdir()} == {
        "md.traj", "md.csv", "energy.png", "rdf.csv", "rdf.png"
    }  # fmt: skip
    with pytest.raises(SystemExit):
        main(["md", "nowhere.vasp", f"checkpoint={fitted}"])
    assert "inputs=nowhere.vasp: no such file" in capsys.readouterr().err


def test_elements_that_were_not_fitted_are_named(fitted: Path) -> None:
    atoms = bulk("Ni", cubic=True)
    atoms.calc = Calculator(fitted, unknown_elements="allow")
    with pytest.raises(ValueError, match="there is no curve for Ni-Ni"):
        atoms.get_potential_energy()


BAD: dict[str, tuple[Callable[[dict], None], str]] = {
    "forces of another number of atoms": (
        lambda row: row.update(forces=row["forces"][:-1]),
        "forces is a label of atoms, so it needs one row for each of the 4 atoms",
    ),
    "forces with two components": (
        lambda row: row.update(forces=[force[:2] for force in row["forces"]]),
        r"forces have the shape \(4, 2\)",
    ),
    "stress with three components": (
        lambda row: row.update(stress=row["stress"][:3]),
        r"stress has the shape \(3,\)",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_labels_of_the_wrong_shape_are_refused(what: str, tmp_path: Path) -> None:
    import potnet

    change, message = BAD[what]
    rows = copper(8)
    change(rows[5])
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=message) as error:
        potnet.train(
            "data=table", f"data.source.path={path}", "split=shuffled", "target=energy_forces_stress",
            "model=pair_splines", "features=radius_5", "features.cell=as_given",
            f"data.cache_dir={tmp_path / 'cache'}", folder=tmp_path / "run",
        )  # fmt: skip
    assert "cu-5" in str(error.value) or "line 6" in str(error.value)


def test_stress_in_another_unit_is_refused(tmp_path: Path) -> None:
    import potnet

    path = tmp_path / "kbar.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in copper(8)))
    with pytest.raises(
        ValueError, match=r"stress is given in kbar, but as a derivative of energy it has to be in"
    ):
        potnet.train(
            "data=table", f"data.source.path={path}", "+data.source.units.stress=kbar", "split=shuffled",
            "target=energy_forces_stress", "model=pair_splines", "features=radius_5",
            "features.cell=as_given", f"data.cache_dir={tmp_path / 'cache'}", folder=tmp_path / "run",
        )  # fmt: skip
