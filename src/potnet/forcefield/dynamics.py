"""Molecular dynamics and relaxations, thin over ASE: what a force field is used for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from potnet.forcefield.errors import ForceFieldError

if TYPE_CHECKING:
    from ase import Atoms

FS_PER_PS = 1000.0


class Dynamics(NamedTuple):
    """What a run recorded, n samples of N atoms.

    Attributes:
        time: (n,) ps.
        potential, kinetic: (n,) eV an atom.
        temperature: (n,) K.
        frames: n structures with their velocities.
    """

    time: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    temperature: np.ndarray
    frames: list[Atoms]

    @property
    def drift(self) -> float:
        """meV an atom: slope of the total energy times the length of the run, by least squares."""
        if len(self.time) < 3:
            return float("nan")
        slope = np.polyfit(self.time, self.potential + self.kinetic, 1)[0]
        return 1e3 * float(slope) * float(self.time[-1] - self.time[0])


def relax(
    atoms: Atoms, fmax: float = 0.01, steps: int = 500, cell: bool = True, logfile: str | None = None
) -> Atoms:
    """Relax atoms, and the cell with them, by BFGS.

    Args:
        atoms: With a calculator; it is changed.
        fmax: eV/Å, largest force (of the cell filter's forces, too) to end at.
        steps: Most of them.
        cell: Whether the cell relaxes.
        logfile: Where ASE reports the steps; "-" is stdout.

    Returns:
        The same atoms.

    Raises:
        ForceFieldError: It has not converged, or the force field refused a structure on the way.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    if not fmax > 0 or steps < 1:
        raise ForceFieldError(f"fmax={fmax}, steps={steps}: give positive numbers")
    moving: Any = FrechetCellFilter(atoms) if cell else atoms
    optimizer = BFGS(moving, logfile=logfile)
    try:
        converged = optimizer.run(fmax=fmax, steps=steps)
    except ForceFieldError as error:
        raise ForceFieldError(f"in step {optimizer.nsteps} of the relaxation: {error}") from error
    if not converged:
        largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        raise ForceFieldError(
            f"the relaxation has not converged in {steps} steps (largest force {largest:.3g} eV/Å, "
            f"fmax={fmax:g}): allow more steps, or begin nearer to the minimum"
        )
    return atoms


def thermalize(atoms: Atoms, temperature: float, seed: int = 0) -> None:
    """Give atoms momenta of the Maxwell-Boltzmann distribution, with the total momentum removed.

    Args:
        atoms: They are changed.
        temperature: K.
        seed: Of the random numbers.
    """
    from ase import units

    width = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    momenta = width * np.random.default_rng(seed).normal(size=(len(atoms), 3))
    atoms.set_momenta(momenta - atoms.get_masses()[:, None] * momenta.sum(0) / atoms.get_masses().sum())


def run_dynamics(
    atoms: Atoms,
    time: float,
    temperature: float = 300.0,
    ensemble: Literal["nve", "nvt"] = "nve",
    timestep: float = 1.0,
    friction: float = 0.01,
    every: int = 10,
    seed: int = 0,
    trajectory: Path | None = None,
) -> Dynamics:
    """Molecular dynamics: velocity Verlet, or Langevin's for a given temperature.

    Args:
        atoms: With a calculator; atoms without momenta get those of the temperature.
        time: ps.
        temperature: K, of the start and of the thermostat.
        ensemble: "nve" or "nvt" (Langevin).
        timestep: fs.
        friction: 1/fs, of Langevin dynamics.
        every: Steps between samples.
        seed: Of the momenta and of Langevin's random forces.
        trajectory: ASE trajectory to write the samples to.

    Raises:
        ForceFieldError: A setting that makes no sense; a structure on the way that the force field refuses:
            the time of it is named.
    """
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.verlet import VelocityVerlet

    for name, value in (("time", time), ("timestep", timestep), ("every", every)):
        if not value > 0:
            raise ForceFieldError(f"{name}={value}: give a positive number")
    if ensemble not in ("nve", "nvt") or temperature < 0:
        raise ForceFieldError(
            f"ensemble={ensemble!r}, temperature={temperature}: give 'nve' or 'nvt', and 0 K or more"
        )
    if not atoms.get_momenta().any():
        thermalize(atoms, temperature, seed)
    dynamics: Any
    if ensemble == "nve":
        dynamics = VelocityVerlet(atoms, timestep * units.fs)
    else:
        dynamics = Langevin(
            atoms, timestep * units.fs, temperature_K=temperature, friction=friction / units.fs,
            rng=np.random.default_rng(seed), fixcm=False,
        )  # fmt: skip
    writer = None
    if trajectory is not None:
        from ase.io.trajectory import Trajectory

        writer = Trajectory(str(trajectory), "w", atoms)
        dynamics.attach(writer.write, interval=every)
    rows: list[tuple[float, float, float, float]] = []
    frames: list[Atoms] = []

    def sample() -> None:
        rows.append(
            (
                dynamics.nsteps * timestep / FS_PER_PS,
                atoms.get_potential_energy() / len(atoms),
                atoms.get_kinetic_energy() / len(atoms),
                atoms.get_temperature(),
            )
        )
        frames.append(atoms.copy())

    dynamics.attach(sample, interval=every)
    try:
        dynamics.run(max(1, round(time * FS_PER_PS / timestep)))
    except ForceFieldError as error:
        raise ForceFieldError(f"at {dynamics.nsteps * timestep / FS_PER_PS:.4g} ps: {error}") from error
    finally:
        if writer is not None:
            writer.close()
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Dynamics._make([*columns, frames])


def radial_distribution(
    frames: list[Atoms], cutoff: float = 6.0, bins: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (bins,) Å and g(r): density of neighbours over that of the crystal, all elements together.

    Args:
        frames: Of a run, in any cell; images beyond the cell are counted.
        cutoff: Å.
        bins: Of equal width.
    """
    from ase.neighborlist import neighbor_list

    edges = np.linspace(0, cutoff, bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    found = np.zeros(bins)
    for atoms in frames:
        counts, _ = np.histogram(neighbor_list("d", atoms, cutoff), edges)
        found += counts / (len(atoms) * shells * len(atoms) / atoms.get_volume())
    return (edges[1:] + edges[:-1]) / 2, found / max(len(frames), 1)
