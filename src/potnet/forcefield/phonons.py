"""Harmonic phonons of a force field: bands, density of states and heat capacity, by phonopy (an extra)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from potnet.files import csv_text, write_whole
from potnet.forcefield.errors import ForceFieldError

if TYPE_CHECKING:
    from ase import Atoms

    from potnet.progress import Progress

IMAGINARY = -0.05
"""THz. Acoustic modes at Γ are zero within less than this; below it a mode has no restoring force."""


class Bands(NamedTuple):
    """Frequencies along a path through the Brillouin zone.

    Attributes:
        distance: (n,) 1/Å, along the path.
        points: (n, 3) wave vectors, in reciprocal vectors of the primitive cell.
        frequency: (n, 3 m) THz, for m atoms of the primitive cell; imaginary ones are negative.
        ticks, labels: Where the special points are, and their names.
    """

    distance: np.ndarray
    points: np.ndarray
    frequency: np.ndarray
    ticks: np.ndarray
    labels: list[str]


class Phonons(NamedTuple):
    """Harmonic phonons of a crystal with m atoms in its primitive cell.

    Attributes:
        atoms: m.
        bands: Along the path of the lattice.
        dos_frequency: (k,) THz.
        dos: (k,) states per THz and atom: 3 in all.
        temperature: (t,) K.
        heat_capacity: (t,) C_V, J/(K mol) of atoms: 3 R = 24.94 at high temperature.
        entropy: (t,) J/(K mol) of atoms.
        free_energy: (t,) kJ/mol of atoms, with the zero-point energy.
        lowest: THz, the lowest frequency on mesh and path; negative if imaginary.
        phonopy: The object of phonopy, for everything else.
    """

    atoms: int
    bands: Bands
    dos_frequency: np.ndarray
    dos: np.ndarray
    temperature: np.ndarray
    heat_capacity: np.ndarray
    entropy: np.ndarray
    free_energy: np.ndarray
    lowest: float
    phonopy: Any

    @property
    def stable(self) -> bool:
        """Whether no mode is imaginary."""
        return self.lowest > IMAGINARY


def phonons(
    atoms: Atoms,
    repeat: Sequence[int] | None = None,
    length: float = 10.0,
    displacement: float = 0.01,
    mesh: float = 60.0,
    points: int = 200,
    temperatures: Sequence[float] = tuple(range(0, 1001, 10)),
    symprec: float = 1e-3,
    report: Progress | None = None,
) -> Phonons:
    """Harmonic phonons from finite displacements in a supercell.

    The non-analytic term at Γ of ionic crystals (splitting of longitudinal and transverse optical modes) is
    not added: force constants are those of the periodic supercell.

    Args:
        atoms: Relaxed, with a calculator; it is not changed.
        repeat: Of the cell along each vector; None takes as many as `length` needs.
        length: Å, least distance of opposite faces of the supercell. Twice the cutoff of the force field is
            safe.
        displacement: Å.
        mesh: Å; the mesh of wave vectors for the density of states is about this length times each
            reciprocal vector (without 2 pi).
        points: About as many on the path.
        temperatures: K, ascending.
        symprec: Å, of the symmetry search; relaxed atoms are not exact.
        report: Called with 1 after each displaced structure.

    Raises:
        ForceFieldError: phonopy is not installed, a setting makes no sense, the crystal is not periodic, or
            the force field refuses a displaced structure.
    """
    phonopy = _phonopy()
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise ForceFieldError(
            f"{atoms.get_chemical_formula()}: periodic in {int(atoms.pbc.sum())} directions; phonons are of "
            "crystals that are periodic in three"
        )
    if not (displacement > 0 and length > 0 and mesh > 0) or points < 2:
        raise ForceFieldError(
            f"displacement={displacement}, length={length}, mesh={mesh}, points={points}: give positive "
            "numbers"
        )
    if repeat is None:
        heights = atoms.get_volume() / np.linalg.norm(
            np.cross(atoms.cell[[1, 2, 0]], atoms.cell[[2, 0, 1]]), axis=1
        )
        repeat = [math.ceil(length / height - 1e-6) for height in heights]
    if len(repeat) != 3 or min(repeat) < 1:
        raise ForceFieldError(f"repeat={list(repeat)}: give three numbers, 1 or more")
    cell = phonopy.structure.atoms.PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    with warnings.catch_warnings():
        # That the primitive cell is found by itself, as asked.
        warnings.simplefilter("ignore")
        found = phonopy.Phonopy(cell, np.diag(repeat), primitive_matrix="auto", symprec=symprec)
    found.generate_displacements(distance=displacement)
    forces = []
    for displaced in found.supercells_with_displacements:
        forces.append(_forces(displaced, atoms))
        if report is not None:
            report(1)
    found.forces = np.array(forces)
    found.produce_force_constants(show_drift=False)
    found.symmetrize_force_constants(show_drift=False)
    bands = _bands(found, points)
    m = len(found.primitive)
    modes = found.run_mesh(mesh)
    dos = found.run_total_dos()
    thermal = found.run_thermal_properties(
        temperatures=np.asarray(temperatures, dtype=float), exclude_gamma_acoustic=True
    )
    lowest = min(float(modes.frequencies.min()), float(bands.frequency.min()))
    return Phonons(
        m,
        bands,
        np.asarray(dos.frequency_points),
        np.asarray(dos.dos) / m,
        np.asarray(thermal.temperatures),
        np.asarray(thermal.heat_capacity) / m,
        np.asarray(thermal.entropy) / m,
        np.asarray(thermal.free_energy) / m,
        lowest,
        found,
    )


def write_phonons(found: Phonons, folder: Path) -> None:
    """Tables, pictures, and phonopy's own file.

    Args:
        found: To write.
        folder: Gets bands.csv, dos.csv, thermal.csv, bands.png, heat_capacity.png and phonopy_params.yaml.
    """
    folder.mkdir(parents=True, exist_ok=True)
    branches = [f"branch_{i + 1}_thz" for i in range(found.bands.frequency.shape[1])]
    tables = {
        "bands.csv": (
            ("distance_per_angstrom", "q_1", "q_2", "q_3", *branches),
            np.column_stack([found.bands.distance, found.bands.points, found.bands.frequency]),
        ),
        "dos.csv": (
            ("frequency_thz", "states_per_thz_per_atom"),
            np.column_stack([found.dos_frequency, found.dos]),
        ),
        "thermal.csv": (
            ("temperature_k", "heat_capacity_j_per_k_mol", "entropy_j_per_k_mol", "free_energy_kj_per_mol"),
            np.column_stack([found.temperature, found.heat_capacity, found.entropy, found.free_energy]),
        ),
    }
    for name, (header, rows) in tables.items():
        write_whole(folder / name, csv_text(header, [[f"{x:.7g}" for x in row] for row in rows]))
    _draw_bands(found, folder / "bands.png")
    _draw_heat_capacity(found, folder / "heat_capacity.png")
    found.phonopy.save(folder / "phonopy_params.yaml", settings={"force_constants": True})


def _phonopy() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import phonopy
            import phonopy.structure.atoms
    except ImportError as error:
        raise ForceFieldError(
            'phonons need phonopy, which is not installed: pip install "potnet[phonons]"'
        ) from error
    return phonopy


def _forces(cell: Any, like: Atoms) -> np.ndarray:
    """(n, 3) forces of a supercell of phonopy's, eV/Å."""
    from ase import Atoms

    atoms = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
    atoms.calc = like.calc
    forces = atoms.get_forces()
    return np.asarray(forces - forces.mean(0))


def _bands(found: Any, points: int) -> Bands:
    """Along the path of the Bravais lattice, as ASE has it."""
    from ase.cell import Cell

    path = Cell(found.primitive.cell).bandpath(npoints=points)
    distance, ticks, labels = path.get_linear_kpoint_axis()
    frequency = found.run_qpoints(path.kpts).frequencies
    return Bands(distance, path.kpts, np.asarray(frequency), ticks, labels)


def _figure(width: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_bands(found: Phonons, path: Path) -> None:
    figure = _figure(8)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    bands = found.bands
    # Where the path jumps, two special points share a place.
    breaks = np.nonzero(np.diff(bands.distance) == 0)[0] + 1
    for part in np.split(np.arange(len(bands.distance)), breaks):
        left.plot(bands.distance[part], bands.frequency[part], color="C0", linewidth=1)
    left.set_xticks(bands.ticks, [label.replace("G", "Γ") for label in bands.labels])
    left.set(ylabel="frequency, THz", xlim=(bands.distance[0], bands.distance[-1]))
    for tick in bands.ticks:
        left.axvline(tick, color="0.8", linewidth=0.8, zorder=0)
    right.plot(found.dos, found.dos_frequency, color="C0", linewidth=1)
    right.set(xlabel="states per THz and atom", xlim=(0, None))
    for axes in (left, right):
        axes.axhline(0, color="0.5", linewidth=0.8, zorder=0)
    figure.savefig(path, dpi=150)


def _draw_heat_capacity(found: Phonons, path: Path) -> None:
    figure = _figure(6)
    axes = figure.subplots()
    axes.plot(found.temperature, found.heat_capacity)
    axes.axhline(24.943, color="0.5", linewidth=0.8, linestyle="--", label="3 R")
    axes.set(xlabel="temperature, K", ylabel="C_V, J/(K mol of atoms)", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
