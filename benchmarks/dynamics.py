"""Molecular dynamics with trained force fields: conservation of energy, and a solid, a liquid and a gas.

    python benchmarks/dynamics.py RUN [RUN ...] --data forces_mlearn.jsonl.gz --folder multirun/dynamics

RUN is the folder of a run or an exported checkpoint. Of one that knows one element of `forces_mlearn` the
element says everything else; of another, give `--structure FILE --melting K`. Four parts (`--parts`):

- nve: after 1 ps at 600 K, 10 ps with steps of 1 fs at constant energy. Slope of the total energy by least
  squares times the length of the run, and the change from its first to its last tenth, meV/atom.
- solid, at 300 K; liquid, melted for a quarter of the time at twice the melting temperature, then at 1.5
  times; gas, 27 atoms 12 Å from each other at twice the melting temperature. 20 ps each, Langevin, 2 fs.
  Stable is a run without an atom that leaves the others or comes closer to another than half of the
  distance in the solid, with a mean temperature within 10 % (gas: 30 %, as it has few atoms) of what was
  asked for, and of the solid without an atom farther from its site than 0.4 of that distance.

With `--data`, cell and number of atoms are those of the AIMD of the table, and radial distributions are
compared with those of its frames: the mean absolute difference of g(r) up to 6 Å, and half that of two halves
of the frames, which is what their number allows to see. The table does not name temperatures. Frames are
called solid at 300 K where the energy above that of the perfect crystal, 3/2 k T, says less than 450 K, and
liquid where it is above the largest gap of the energies: frames of more than one temperature.

Finished parts are kept in the folder, and skipped: the same command goes on where it was stopped.
`--scale 0.01` shortens all runs for a try.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import machine_info, print_header, print_table, save_json
from _mlearn import ELEMENTS, Configuration, aimd, elements_of, read_configurations
from ase import Atoms, units
from ase.build import bulk
from ase.io import read
from ase.neighborlist import neighbor_list

from potnet.forcefield import Calculator, ForceFieldError
from potnet.forcefield.dynamics import radial_distribution, relax, run_dynamics, thermalize

CUTOFF = 6.0
BINS = 120
GAP_BETWEEN = 12.0
"""Å, from atom to atom in the gas."""


class Case:
    """One force field and what it is tried on."""

    def __init__(self, run: str, options: argparse.Namespace) -> None:
        self.run, self.options = run, options
        self.calculator = Calculator(run, "cpu", dtype=options.dtype)
        self.frames: dict[str, list[Atoms]] = {}
        if options.structure:
            self.name, self.melting = Path(options.structure).stem, options.melting
            self.solid = read(options.structure)
        else:
            known = elements_of(run)
            if len(known) != 1 or known[0] not in ELEMENTS:
                raise SystemExit(f"{run} knows {', '.join(known)}: give --structure FILE --melting K")
            (self.name,) = known
            element = ELEMENTS[self.name]
            self.melting = element.melting
            self.solid = bulk(self.name, element.structure, a=element.a, cubic=True)
            times = 2 if element.structure == "diamond" else 3
            if options.data:
                every = read_configurations(options.data, self.name)
                frames = aimd(every)
                self.frames = by_phase(frames, every)
                self.solid.set_cell(frames[0].atoms.cell[:] / times, scale_atoms=True)
            else:
                self.solid.calc = self.calculator
                relax(self.solid, fmax=1e-3)
            self.solid = self.solid * (times, times, times)
        self.solid.calc = None
        self.nearest = float(neighbor_list("d", self.solid, CUTOFF).min())

    @property
    def folder(self) -> Path:
        return self.options.folder / f"{self.name}_{Path(self.run).stem}"

    def start(self, gas: bool = False) -> Atoms:
        atoms = self.solid.copy()
        if gas:
            atoms = Atoms([atoms.numbers[0]], cell=[GAP_BETWEEN] * 3, pbc=True) * (3, 3, 3)
            # Off the grid, on which forces vanish.
            atoms.rattle(1.0, seed=0)
        atoms.calc = (
            Calculator(self.run, "cpu", dtype=self.options.dtype, isolated="allow")
            if gas
            else self.calculator
        )
        return atoms

    def ps(self, time_: float) -> float:
        return time_ * self.options.scale


def by_phase(frames: list[Configuration], every: list[Configuration]) -> dict[str, list[Atoms]]:
    """Frames of the solid at 300 K and of the liquid."""
    energies = np.sort([one.energy for one in frames])
    gap = int(np.argmax(np.diff(energies)))
    boundary = (energies[gap] + energies[gap + 1]) / 2
    perfect = min(one.energy for one in every)
    kelvin = [(one.energy - perfect) / (1.5 * units.kB) for one in frames]
    return {
        "solid": [one.atoms for one, t in zip(frames, kelvin, strict=True) if t < 450],
        "liquid": [one.atoms for one in frames if one.energy > boundary],
    }


def nve(case: Case) -> dict[str, Any]:
    """Drift of the total energy."""
    atoms = case.start()
    # Half of the kinetic energy becomes potential energy.
    thermalize(atoms, 1200.0, seed=0)
    run_dynamics(atoms, case.ps(1.0), 600.0, "nvt", 1.0, friction=0.02)
    run = run_dynamics(atoms, case.ps(10.0), 600.0, "nve", 1.0)
    total = 1e3 * (run.potential + run.kinetic)
    tenth = max(1, len(total) // 10)
    return {
        "atoms": len(atoms),
        "asked": 600.0,
        "drift": run.drift,
        "change": float(total[-tenth:].mean() - total[:tenth].mean()),
        "fluctuation": float(total.std()),
        "temperature": float(run.temperature.mean()),
    }


def phase(case: Case, kind: str) -> dict[str, Any]:
    """A solid, a liquid or a gas at constant temperature."""
    asked = {"solid": 300.0, "liquid": 1.5 * case.melting, "gas": 2 * case.melting}[kind]
    atoms = case.start(gas=kind == "gas")
    sites = atoms.get_positions()
    duration, problem = case.ps(20.0), None
    settings: dict[str, Any] = {
        "ensemble": "nvt",
        "timestep": case.options.timestep,
        "friction": 0.01,
        "every": 10,
    }
    thermalize(atoms, asked, seed=0)
    if kind == "liquid":
        thermalize(atoms, 2 * case.melting, seed=0)
        run_dynamics(atoms, duration / 4, 2 * case.melting, **settings)
    run = run_dynamics(atoms, duration, asked, **settings, trajectory=case.folder / f"{kind}.traj")
    # What came before is the way to equilibrium.
    first = len(run.frames) // 4
    used = run.frames[first:]
    moved = used[-1].get_positions() - sites
    row: dict[str, Any] = {
        "atoms": len(atoms),
        "asked": asked,
        "temperature": float(run.temperature[first:].mean()),
        "closest": float(min(neighbor_list("d", one, CUTOFF).min(initial=CUTOFF) for one in used)),
        "moved": float(np.linalg.norm(moved - moved.mean(0), axis=1).max()),
    }
    if row["closest"] < 0.5 * case.nearest:
        problem = "atoms meet"
    elif abs(row["temperature"] / asked - 1) > (0.3 if kind == "gas" else 0.1):
        problem = "temperature"
    elif kind == "solid" and row["moved"] > 0.4 * case.nearest:
        problem = "an atom left its site"
    r, g = radial_distribution(used, CUTOFF, BINS)
    row |= {"r": r.tolist(), "g": g.tolist()}
    if known := case.frames.get(kind):
        _, data = radial_distribution(known, CUTOFF, BINS)
        halves = [radial_distribution(known[start::2], CUTOFF, BINS)[1] for start in (0, 1)]
        row |= {
            "g_aimd": data.tolist(),
            "frames_aimd": len(known),
            "difference": float(np.abs(g - data).mean()),
            "noise": float(np.abs(halves[0] - halves[1]).mean()) / 2,
        }
    return row | {"stable": problem is None, "problem": problem}


PARTS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "nve": nve,
    **{kind: lambda case, kind=kind: phase(case, kind) for kind in ("solid", "liquid", "gas")},
}


def draw(case: Case, rows: dict[str, dict[str, Any]]) -> None:
    """All radial distributions of a force field in one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for number, kind in enumerate(kind for kind in ("solid", "liquid", "gas") if "g" in rows.get(kind, {})):
        row = rows[kind]
        axes.plot(row["r"], row["g"], color=f"C{number}", label=f"{kind}, {row['asked']:.0f} K")
        if "g_aimd" in row:
            axes.plot(
                row["r"], row["g_aimd"], "--", color=f"C{number}", label=f"AIMD, {row['frames_aimd']} frames"
            )
    axes.set(xlabel="distance, Å", ylabel="g(r)", title=f"{case.name}, {Path(case.run).stem}", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(case.folder / "rdf.png", dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", type=Path, help="forces_mlearn.jsonl.gz")
    parser.add_argument("--folder", type=Path, default=Path("multirun/dynamics"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/dynamics_cpu.json"))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--structure", help="of the solid, about 64 atoms")
    parser.add_argument("--melting", type=float, help="K")
    parser.add_argument("--timestep", type=float, default=2.0, help="fs, of solid, liquid and gas")
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths of runs")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    if options.structure and not options.melting:
        parser.error("--structure needs --melting")
    torch.set_num_threads(1)
    info = machine_info()
    print_header("Molecular dynamics", info)
    every = []
    for run in options.runs:
        case = Case(run, options)
        case.folder.mkdir(parents=True, exist_ok=True)
        rows = {}
        settings = {"run": run, "scale": options.scale, "timestep": options.timestep, "dtype": options.dtype}
        for part in options.parts:
            file = case.folder / f"{part}.json"
            done = json.loads(file.read_text()) if file.is_file() else {}
            if done.get("settings") != settings:
                begun = time.perf_counter()
                try:
                    row = PARTS[part](case)
                except ForceFieldError as error:
                    row = {"stable": False, "problem": str(error).split(": ")[0]}
                    print(f"{case.name} {part}: {error}", flush=True)
                row |= {"settings": settings, "seconds": time.perf_counter() - begun}
                file.write_text(json.dumps(row))
                print(f"{case.name} {part}: {row['seconds']:.0f} s", flush=True)
            rows[part] = json.loads(file.read_text())
        draw(case, rows)
        every += [{"element": case.name, "part": part, **row} for part, row in rows.items()]
    shown = (
        "element",
        "part",
        "atoms",
        "drift",
        "change",
        "asked",
        "temperature",
        "stable",
        "problem",
        "closest",
        "difference",
        "noise",
        "seconds",
    )
    print_table([{key: row[key] for key in shown if key in row} for row in every])
    save_json(options.output, info, every)


if __name__ == "__main__":
    main()
