"""What `potnet relax`, `md`, `elastic`, `phonons` and `rank` do with their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from potnet.config import ConfigError, check_arguments
from potnet.files import check_writable, csv_text, write_whole

if TYPE_CHECKING:
    from ase import Atoms

    from potnet.forcefield.calculator import Calculator
    from potnet.forcefield.committee import Judged


def relax_files(
    checkpoint: str | Sequence[str],
    inputs: str | Sequence[str],
    output: str = "relaxed.extxyz",
    fmax: float = 0.01,
    steps: int = 500,
    cell: bool = True,
    device: str = "auto",
    dtype: str = "float64",
) -> list[Atoms]:
    """Relax structures one by one and write them with energies, forces and stress as extended XYZ.

    Args:
        checkpoint: A force field, or several for a committee.
        inputs: Files that ASE reads.
        output: Extended XYZ file.
        fmax: eV/Å.
        steps: Most of a relaxation.
        cell: Whether the cell relaxes, too.
        device, dtype: See `Calculator`.

    Raises:
        ForceFieldError: A structure that cannot be relaxed; those before it are written.
    """
    from ase.io import write

    from potnet.forcefield.dynamics import relax

    calculator = _calculator(checkpoint, device, dtype)
    check_writable(Path(output))
    done: list[Atoms] = []
    try:
        for name, atoms in _structures(inputs):
            atoms.calc = calculator
            before, volume = atoms.get_potential_energy() / len(atoms), _volume(atoms)
            relax(atoms, fmax, steps, cell)
            after = atoms.get_potential_energy() / len(atoms)
            changed = f", volume {volume:.3f} to {_volume(atoms):.3f} Å³/atom" if cell and volume else ""
            print(
                f"{name}: energy {before:.4f} to {after:.4f} eV/atom{changed}{_spread(calculator)}",
                flush=True,
            )
            done.append(_with_results(atoms))
    finally:
        if done:
            write(output, done, format="extxyz")
            print(f"{len(done)} structures: {output}")
    return done


def run_md(
    checkpoint: str | Sequence[str],
    inputs: str | Sequence[str],
    output: str = "md",
    time: float = 1.0,
    temperature: float = 300.0,
    ensemble: Literal["nve", "nvt"] = "nve",
    timestep: float = 1.0,
    friction: float = 0.01,
    every: int = 10,
    repeat: Sequence[int] = (1, 1, 1),
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
) -> Path:
    """Molecular dynamics of one structure: trajectory, table, and pictures of the energy and of g(r).

    Args:
        checkpoint: A force field, or several for a committee.
        inputs: One file that ASE reads.
        output: Folder: md.traj, md.csv, energy.png, rdf.csv, rdf.png.
        time: ps.
        temperature, ensemble, timestep, friction, every, seed: See `run_dynamics`.
        repeat: Of the cell along each vector.
        device, dtype: See `Calculator`.

    Returns:
        The folder.

    Raises:
        ForceFieldError: See `run_dynamics`.
        ConfigError: More than one structure.
    """
    from potnet.forcefield.dynamics import radial_distribution, run_dynamics

    atoms = _one_structure(inputs, "molecular dynamics")[1] * tuple(repeat)
    atoms.calc = _calculator(checkpoint, device, dtype)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    run = run_dynamics(
        atoms,
        time,
        temperature,
        ensemble,
        timestep,
        friction,
        every,
        seed,
        folder / "md.traj",
    )
    rows = zip(run.time, run.potential, run.kinetic, run.temperature, strict=True)
    columns = ("time_ps", "potential_ev_per_atom", "kinetic_ev_per_atom", "temperature_k")
    write_whole(folder / "md.csv", csv_text(columns, [[f"{x:.8g}" for x in row] for row in rows]))
    total = 1e3 * (run.potential + run.kinetic)
    _picture(folder / "energy.png", run.time, total - total[0], "time, ps", "total energy - start, meV/atom")
    lines = [f"{len(atoms)} atoms, {time:g} ps: mean temperature {run.temperature.mean():.1f} K"]
    if ensemble == "nve":
        lines.append(f"drift of the total energy {run.drift:.4f} meV/atom, range {np.ptp(total):.4f}")
    r, g = radial_distribution(run.frames[len(run.frames) // 2 :])
    write_whole(
        folder / "rdf.csv",
        csv_text(("distance", "g"), [[f"{x:.5g}" for x in row] for row in zip(r, g, strict=True)]),
    )
    _picture(folder / "rdf.png", r, g, "distance, Å", "g(r), second half of the run")
    print("\n".join([*lines, f"written: {folder}"]))
    return folder


def elastic_files(
    checkpoint: str | Sequence[str],
    inputs: str | Sequence[str],
    output: str = "elastic.csv",
    fmax: float = 0.001,
    steps: int = 500,
    strain: float = 0.005,
    device: str = "auto",
    dtype: str = "float64",
) -> list[np.ndarray]:
    """Relax structures and compute their elastic constants and moduli; a CSV with a row for each.

    Args:
        checkpoint: A force field, or several for a committee.
        inputs: Files that ASE reads.
        output: CSV file.
        fmax, steps: Of the relaxations.
        strain: See `elastic_constants`.
        device, dtype: See `Calculator`.

    Returns:
        (6, 6) GPa of each structure.

    Raises:
        ForceFieldError: See `relax`, `elastic_constants` and `moduli`.
    """
    from potnet.forcefield.dynamics import relax
    from potnet.forcefield.elastic import Moduli, elastic_constants, moduli

    calculator = _calculator(checkpoint, device, dtype)
    check_writable(Path(output))
    tensors, rows = [], []
    places = [(i, j) for i in range(6) for j in range(i, 6)]
    for name, atoms in _structures(inputs):
        atoms.calc = calculator
        relax(atoms, fmax, steps)
        constants = elastic_constants(atoms, strain, fmax=fmax)
        found = moduli(constants)
        tensors.append(constants)
        rows.append([name, *(f"{constants[place]:.4f}" for place in places), *(f"{x:.4f}" for x in found)])
        print(f"{name}: elastic constants, GPa (xx yy zz yz xz xy)")
        print("\n".join("  " + " ".join(f"{x:9.2f}" for x in row) for row in constants))
        print(
            f"  bulk modulus {found.bulk_hill:.2f}, shear modulus {found.shear_hill:.2f} (Hill)", flush=True
        )
    header = ["id", *(f"c{i + 1}{j + 1}" for i, j in places), *Moduli._fields]
    write_whole(Path(output), csv_text(header, rows))
    print(f"{len(rows)} structures: {output}")
    return tensors


def phonon_files(
    checkpoint: str | Sequence[str],
    inputs: str | Sequence[str],
    output: str = "phonons",
    cell: bool = True,
    fmax: float = 0.001,
    steps: int = 500,
    repeat: Sequence[int] | None = None,
    length: float = 10.0,
    displacement: float = 0.01,
    mesh: float = 60.0,
    symprec: float = 1e-3,
    device: str = "auto",
    dtype: str = "float64",
) -> Path:
    """Relax one structure and compute its harmonic phonons: tables and pictures of bands, states and C_V.

    Args:
        checkpoint: A force field, or several for a committee.
        inputs: One file that ASE reads.
        output: Folder, see `write_phonons`.
        cell: Whether the cell is relaxed, too.
        fmax, steps: Of the relaxation.
        repeat, length, displacement, mesh, symprec: See `phonons`.
        device, dtype: See `Calculator`.

    Returns:
        The folder.

    Raises:
        ForceFieldError: See `relax` and `phonons`.
        ConfigError: More than one structure.
    """
    from potnet.forcefield.dynamics import relax
    from potnet.forcefield.phonons import phonons, write_phonons
    from potnet.progress import progress_bar

    name, atoms = _one_structure(inputs, "phonons")
    atoms.calc = _calculator(checkpoint, device, dtype)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    relax(atoms, fmax, steps, cell)
    with progress_bar(None, "Forces", "displaced structures") as report:
        found = phonons(atoms, repeat, length, displacement, mesh, symprec=symprec, report=report)
    write_phonons(found, folder)
    supercell = "x".join(str(int(n)) for n in np.diag(found.phonopy.supercell_matrix))
    heat = float(np.interp(300.0, found.temperature, found.heat_capacity))
    print(f"{name}: {found.atoms} atoms in the primitive cell, supercell {supercell}")
    print(
        f"  highest frequency {found.bands.frequency.max():.3f} THz, C_V(300 K) {heat:.3f} J/(K mol of atoms)"
    )
    if not found.stable:
        print(
            f"  imaginary modes, to {found.lowest:.3f} THz: this structure is no minimum of the force field; "
            "thermal properties leave them out"
        )
    print(f"written: {folder}")
    return folder


def rank_files(
    checkpoint: str | Sequence[str],
    inputs: str | Sequence[str],
    output: str = "ranking.csv",
    by: Literal["spread", "energy"] = "spread",
    reference: str | Sequence[str] | None = None,
    limit: float | None = None,
    device: str = "auto",
    dtype: str = "float64",
) -> list[Judged]:
    """Rank structures by what a committee says of them, and write a CSV.

    Args:
        checkpoint: Several force fields.
        inputs: Files that ASE reads.
        output: CSV file.
        by: See `ranked`.
        reference: Files of structures like those of the training: what is more disputed than 99 % of them is
            flagged.
        limit: eV/Å, in place of a reference.
        device, dtype: See `Calculator`.

    Raises:
        ForceFieldError: One force field alone, or a structure that it refuses.
        ConfigError: A limit and a reference.
    """
    from potnet.forcefield.committee import judge, ranked, spread_limit

    if limit is not None and reference is not None:
        raise ConfigError(f"limit={limit} and reference={reference}: give one of them")
    calculator = _calculator(checkpoint, device, dtype)
    check_writable(Path(output))
    if reference is not None:
        limit = spread_limit(judge(calculator, _structures(reference)))
        print(f"limit of the spread of forces, from {reference}: {limit:.4f} eV/Å")
    found = ranked(judge(calculator, _structures(inputs), limit), by)
    rows = [[f"{x:.6f}" if isinstance(x, float) else str(x) for x in one] for one in found]
    header = (
        "id", "formula", "energy_ev_per_atom", "energy_spread_ev_per_atom", "above_lowest_ev_per_atom",
        "above_lowest_spread_ev_per_atom", "forces_spread_ev_per_angstrom", "extrapolates",
    )  # fmt: skip
    write_whole(Path(output), csv_text(header, rows))
    for one in found[:10]:
        print(
            f"{one.id}: {one.formula}, {one.energy:.4f} eV/atom, {1e3 * one.above:.1f} ± "
            f"{1e3 * one.above_spread:.1f} meV/atom above the lowest, spread of forces "
            f"{one.forces_spread:.3f} eV/Å{', extrapolates' if one.extrapolates else ''}"
        )
    print(f"{len(found)} structures: {output}")
    return found


def checked(function: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a command line as the arguments of a function; paths become text.

    Raises:
        ConfigError: A setting that does not exist or cannot be used.
    """
    from potnet.predict import path_setting

    found = dict(settings)
    for name in ("checkpoint", "inputs", "output", "reference"):
        value = found.get(name)
        if value is None:
            continue
        found[name] = (
            [path_setting(name, one) for one in value]
            if isinstance(value, list)
            else path_setting(name, value)
        )
    check_arguments(function, found)
    return found


def _calculator(checkpoint: str | Sequence[str], device: str, dtype: Any) -> Calculator:
    from potnet.forcefield.calculator import Calculator

    return Calculator(checkpoint, device, dtype)


def _structures(inputs: str | Sequence[str]) -> list[tuple[str, Atoms]]:
    """Name and structure of every frame of some files."""
    from ase.io import read

    found: list[tuple[str, Atoms]] = []
    for file in [inputs] if isinstance(inputs, str) else inputs:
        if not Path(file).is_file():
            raise ConfigError(f"inputs={file}: no such file")
        try:
            frames = read(file, ":")
        except Exception as error:  # whatever ASE's readers raise
            raise ConfigError(
                f"inputs={file}: ASE cannot read it ({type(error).__name__}: {error})"
            ) from error
        for number, atoms in enumerate(frames):
            found.append((Path(file).name if len(frames) == 1 else f"{Path(file).name}:{number}", atoms))
    return found


def _one_structure(inputs: str | Sequence[str], what: str) -> tuple[str, Atoms]:
    found = _structures(inputs)
    if len(found) != 1:
        raise ConfigError(f"inputs: {len(found)} structures; {what} takes one at a time")
    return found[0]


def _volume(atoms: Atoms) -> float:
    return float(atoms.get_volume() / len(atoms)) if atoms.cell.rank == 3 else 0.0


def _spread(calculator: Calculator) -> str:
    spread = calculator.results.get("forces_spread")
    return "" if spread is None else f", largest spread of the forces {spread.max():.3f} eV/Å"


def _with_results(atoms: Atoms) -> Atoms:
    """A copy that keeps energy, forces and stress when it is written."""
    from ase.calculators.singlepoint import SinglePointCalculator

    kept = atoms.copy()
    results = {
        key: atoms.calc.results[key] for key in ("energy", "forces", "stress") if key in atoms.calc.results
    }
    kept.calc = SinglePointCalculator(kept, **results)
    return kept


def _picture(path: Path, x: np.ndarray, y: np.ndarray, xlabel: str, ylabel: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(x, y)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    figure.savefig(path, dpi=150)
