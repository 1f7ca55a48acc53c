"""Speed of energies, forces and stress of one vector of charges, and torch-pme on the same crystals in the
same run.

    python benchmarks/lattice_energies.py --json benchmarks/results/lattice_energies_cpu.json

Random crystals at the density of real ones with charges ±1, Coulomb, one core. torch-pme sums one crystal at
a time; its energies are differentiated by autograd with respect to positions and a strain, its neighbours
come from vesin, as in its own examples. Its cutoff, smearing and resolution are searched for the cheapest
setting whose largest force error, against our sums at 1e-12, is at most `--error` (1e-6 by default). Ours run
twice: with accuracy=1e-6, which is a bound and errs far less, and with the loosest accuracy whose true error
is also at most 1e-6. Seconds are CPU time, medians of interleaved calls, neighbours included on both sides.
A second table has energies alone, and the step of a training: the gradient in the charges of a loss on
energies and forces, by second derivatives of both.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import machine_info, print_header, print_table, save_json
from lattice_sums import VOLUME_PER_ATOM, random_crystals, tensors
from torch import Tensor

from potnet.lattice import Coulomb, EnergySums, lattice_energies

# Crystals, atoms, and whether on a mesh.
SHAPES = (
    (32, 10, False),
    (8, 64, False),
    (1, 200, False),
    (1, 1600, True),
    (1, 2000, True),
    (1, 1600, False),
)


class Batch(NamedTuple):
    cell: Tensor
    positions: Tensor
    batch: Tensor
    charges: Tensor


class Setting(NamedTuple):
    """Parameters of torch-pme, Å."""

    cutoff: float
    smearing: float
    resolution: float  # wavelength of Ewald sums, spacing of a mesh
    nodes: int  # of the mesh, 0 for Ewald sums


def make(count: int, atoms: int) -> Batch:
    cell, positions, batch = tensors(random_crystals(count, atoms), "cpu")
    signs = 1.0 - 2.0 * (torch.arange(atoms) % 2)
    return Batch(cell, positions, batch, signs.double().repeat(count)[:, None])


def ours(data: Batch, accuracy: float, method: str, bound: str = "rigorous") -> tuple[Tensor, Tensor, Tensor]:
    """Energies (B,), forces (N, 3), stress (B, 3, 3)."""
    result = lattice_energies(
        *data, [Coulomb()], accuracy, forces=True, stress=True, method=method, bound=bound
    )
    return result.crystal[:, 0], result.forces[:, 0], result.stress[:, 0]


def our_step(data: Batch, accuracy: float, method: str, bound: str = "rigorous") -> None:
    """The gradient in the charges of a loss on energies and forces."""
    positions, charges = data.positions.clone().requires_grad_(), data.charges.clone().requires_grad_()
    moved = data._replace(positions=positions, charges=charges)
    energy = lattice_energies(*moved, [Coulomb()], accuracy, method=method, bound=bound).crystal[:, 0]
    (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
    (energy.square().mean() + gradient.square().mean()).backward()
    assert charges.grad is not None


def torchpme(
    data: Batch, setting: Setting, gradient: bool = True, step: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The same from torch-pme, crystal by crystal.

    Args:
        data: Crystals.
        setting: Of torch-pme.
        gradient: Whether forces and stress are computed, zero otherwise.
        step: Whether the charges get the gradient of a loss on energies and forces, as in `our_step`.
    """
    import torchpme
    import vesin

    potential = torchpme.CoulombPotential(smearing=setting.smearing)
    if setting.nodes:
        calculator = torchpme.PMECalculator(potential, setting.resolution, setting.nodes)
    else:
        calculator = torchpme.EwaldCalculator(potential, lr_wavelength=setting.resolution)
    calculator = calculator.to(torch.float64)
    neighbours = vesin.NeighborList(cutoff=setting.cutoff, full_list=False)
    energies, forces, stresses = [], [], []
    all_charges = data.charges.clone().requires_grad_(step)
    loss = torch.zeros((), dtype=torch.float64)
    for number, cell in enumerate(data.cell):
        mine = data.batch == number
        charges = all_charges[mine]
        positions = data.positions[mine].clone().requires_grad_()
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        first, second, shift = neighbours.compute(positions.detach().numpy(), cell.numpy(), True, "ijS")
        first, second = (torch.from_numpy(side.astype(np.int64)) for side in (first, second))
        strained = cell + cell @ strain
        moved = positions + positions @ strain
        vectors = moved[second] - moved[first] + torch.from_numpy(shift.astype(np.float64)) @ strained
        pairs = torch.stack([first, second], 1)
        each = calculator(charges, strained, moved, pairs, vectors.norm(dim=1))
        energy = (each * charges).sum()
        if step:
            (force,) = torch.autograd.grad(energy, positions, create_graph=True)
            loss = loss + energy.square() / len(data.cell) + force.square().sum() / data.positions.numel()
        if step or not gradient:
            energies.append(energy.detach())
            forces.append(torch.zeros_like(positions))
            stresses.append(torch.zeros_like(strain))
            continue
        force, virial = torch.autograd.grad(energy, (positions, strain))
        energies.append(energy.detach())
        forces.append(-force)
        stresses.append(0.5 * (virial + virial.T) / torch.linalg.det(cell).abs())
    if step:
        loss.backward()
    return torch.stack(energies), torch.cat(forces), torch.stack(stresses)


def seconds(functions: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median CPU seconds of each of several functions, called in turns."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(repeats + 1):
        for which, function in enumerate(functions):
            start = time.process_time()
            function()
            if number:
                times[which].append(time.process_time() - start)
    return [statistics.median(row) for row in times]


def tune(data: Batch, exact: Tensor, error: float, mesh: bool) -> Setting:
    """The cheapest setting of torch-pme whose force error is at most `error`."""
    best: tuple[float, Setting] | None = None
    longest = float(data.cell.norm(dim=-1).max())
    large = len(data.positions) > 1000
    cutoffs = (8.0, 10.0) if mesh else (12.0,) if large else np.arange(5.0, 13.1, 1.0)
    for cutoff in cutoffs:
        smearing = _smearing(error, cutoff)
        if mesh:  # powers of two: these spacings are all there are
            resolutions = [2 * longest / (2**k - 1) for k in range(4, 9)]
        else:
            resolutions = [2 * math.pi * smearing / k for k in np.arange(9.0, 14.1, 1.0 if large else 0.5)]
        for resolution in resolutions:
            setting = Setting(float(cutoff), smearing, 1.000001 * float(resolution), 7 if mesh else 0)
            if float((torchpme(data, setting)[1] - exact).abs().max()) <= error:
                cost = seconds([lambda setting=setting: torchpme(data, setting)], 2)[0]
                if best is None or cost < best[0]:
                    best = (cost, setting)
                break
    if best is None:
        raise SystemExit(f"no setting of torch-pme reaches {error}")
    return best[1]


def _smearing(error: float, cutoff: float) -> float:
    """The widest smearing whose real-space truncation is well below the error."""
    # The first neglected pairs pull with about erfc'(R): 2/(σ √2π) exp(-R²/2σ²) / R each, some at random.
    for exponent in np.arange(9.0, 24.0, 0.5):
        smearing = cutoff / math.sqrt(2 * exponent)
        shell = math.sqrt(4 * math.pi * cutoff * smearing**2 / VOLUME_PER_ATOM)
        if 2 / (smearing * math.sqrt(2 * math.pi)) * math.exp(-exponent) / cutoff * shell < 0.2 * error:
            break
    return float(smearing)


def loosest(data: Batch, exact: Tensor, error: float, method: str) -> tuple[float, float]:
    """The loosest accuracy of ours whose true error is at most `error`, and that error."""
    for exponent in np.arange(-3.0, -7.1, -0.5):
        accuracy = float(10**exponent)
        true = float((ours(data, accuracy, method, "estimate")[1] - exact).abs().max())
        if true <= error:
            return accuracy, true
    raise SystemExit(f"our sums do not reach {error}")


def other_calls(
    data: Batch, setting: Setting, loose: float, method: str, repeats: int
) -> dict[str, dict[str, float]]:
    """Energies alone, and the step of a training, ms; ours at 1e-6, and at the same true error."""
    pairs: dict[str, list[Callable[[], Any]]] = {
        "energies": [
            lambda: torchpme(data, setting, gradient=False),
            lambda: lattice_energies(*data, [Coulomb()], 1e-6, method=method),
            lambda: lattice_energies(*data, [Coulomb()], loose, method=method, bound="estimate"),
        ],
        "training step": [
            lambda: torchpme(data, setting, step=True),
            lambda: our_step(data, 1e-6, method),
            lambda: our_step(data, loose, method, "estimate"),
        ],
    }
    found = {}
    for name, functions in pairs.items():
        peer, strict, same = seconds(functions, repeats)
        found[name] = {
            "torch-pme, ms": 1e3 * peer,
            "ours at 1e-6, ms": 1e3 * strict,
            "torch-pme / ours at 1e-6": peer / strict,
            "torch-pme / ours, same true error": peer / same,
        }
    return found


def compare(count: int, atoms: int, mesh: bool, args: argparse.Namespace) -> dict[str, Any]:
    data = make(count, atoms)
    exact_energy, exact, exact_stress = ours(data, 1e-12 if atoms < 500 else 1e-10, "ewald")
    setting = tune(data, exact, args.error, mesh)
    method = "mesh" if mesh else "ewald"
    loose, loose_error = loosest(data, exact, args.error, method)
    again = EnergySums([Coulomb()], 1e-6, method=method)
    again(*data)
    functions: list[Callable[[], Any]] = [
        lambda: torchpme(data, setting),
        lambda: ours(data, 1e-6, method),
        lambda: ours(data, loose, method, "estimate"),
        lambda: again(*data, forces=True, stress=True),
    ]
    peer, strict, same, kept = seconds(functions, args.repeats if atoms < 500 else 3)
    peer_energy, peer_forces, peer_stress = torchpme(data, setting)
    assert float((peer_energy - exact_energy).abs().max()) < 1e3 * args.error * atoms
    assert float((peer_stress - exact_stress).abs().max()) < 1e3 * args.error
    return {
        "crystals x atoms": f"{count} x {atoms}",
        "sums": "mesh" if mesh else "Ewald",
        "torch-pme, ms": 1e3 * peer,
        "its error": float((peer_forces - exact).abs().max()),
        "ours at 1e-6, ms": 1e3 * strict,
        "error": float((ours(data, 1e-6, method)[1] - exact).abs().max()),
        "ours, same true error, ms": 1e3 * same,
        "error then": loose_error,
        "lists kept, ms": 1e3 * kept,
        "torch-pme / ours at 1e-6": peer / strict,
        "torch-pme / ours, same true error": peer / same,
        "others": other_calls(data, setting, loose, method, args.repeats if atoms < 500 else 3),
        "setting": f"cutoff {setting.cutoff:g}, smearing {setting.smearing:.3f}, {setting.resolution:.3f} Å",
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--error", type=float, default=1e-6, help="largest permitted force error, e²/Å²")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--largest", type=int, default=2000, help="leave out crystals with more atoms")
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # of the peer
    torch.set_num_threads(1)
    info = machine_info()
    print_header("Energies, forces and stress of charges ±1 (Coulomb), one core, float64", info)
    rows = []
    for count, atoms, mesh in SHAPES:
        if atoms > args.largest:
            continue
        rows.append(compare(count, atoms, mesh, args))
        print_table([without(rows[-1])])
        if args.json:  # row by row: the last ones take minutes
            save_json(args.json, info, rows)
    print()
    print_table([without(row) for row in rows])
    print()
    names = ("crystals x atoms", "sums")
    print_table(
        [
            {**{key: row[key] for key in names}, "call": call, **times}
            for row in rows
            for call, times in row["others"].items()
        ]
    )


def without(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "others"}


if __name__ == "__main__":
    main()
