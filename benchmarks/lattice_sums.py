"""Speed of the lattice sums, and of two peers on the same crystals in the same run.

    python benchmarks/lattice_sums.py
    python benchmarks/lattice_sums.py --only engine     # minutes: gradients, mixed batches, estimated cutoffs
    python benchmarks/lattice_sums.py --device cuda --json benchmarks/results/lattice_sums_gpu.json

Ours are Coulomb, London and Pauli of all pairs at 1e-8. The peers give the Coulomb sums alone, one crystal at
a time, which is how they work: torch-pme with charges = identity (about 1e-6) and pymatgen's EwaldSummation
(accuracy factor 12). Everything runs on one core unless a GPU is asked for, and seconds are those of the CPU.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import machine_info, median_time, peak_memory, print_header, print_table, save_json, synchronize
from torch import Tensor

from potnet.crystals import Crystal
from potnet.data import EmbeddedSource
from potnet.lattice import Coulomb, London, Pauli, lattice_sums, lattice_sums_and_derivatives

POTENTIALS = (Coulomb(), London(), Pauli(alpha=3.0))
VOLUME_PER_ATOM = 18.5  # Å³, the mean of the embedded set


def random_crystals(count: int, atoms: int, seed: int = 0) -> list[Crystal]:
    """Jittered grids of atoms in slightly sheared boxes, at the density of real crystals."""
    generator = np.random.default_rng(seed)
    side = math.ceil(atoms ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3) / side
    edge = (atoms * VOLUME_PER_ATOM) ** (1 / 3)
    crystals = []
    for _ in range(count):
        cell = edge * (np.eye(3) + 0.15 * generator.uniform(-1, 1, (3, 3)))
        chosen = grid[generator.permutation(len(grid))[:atoms]]
        sites = chosen + generator.uniform(-0.2, 0.2, (atoms, 3)) / side
        crystals.append(Crystal.from_fractional(cell, sites, np.full(atoms, 14)))
    return crystals


def tensors(crystals: list[Crystal], device: str) -> tuple[Tensor, Tensor, Tensor]:
    cell = torch.tensor(np.stack([c.cell for c in crystals]), device=device)
    positions = torch.tensor(np.concatenate([c.positions for c in crystals]), device=device)
    sizes = torch.tensor([len(c) for c in crystals], device=device)
    return cell, positions, torch.arange(len(crystals), device=device).repeat_interleave(sizes)


def ours(crystals: list[Crystal], device: str, repeats: int) -> float:
    """Median seconds of one call for all crystals together: of a CPU its time, of a GPU that of the clock."""
    inputs = tensors(crystals, device)
    call = functools.partial(lattice_sums, *inputs, POTENTIALS, accuracy=1e-8)
    if device == "cpu":
        return cpu_seconds(call, repeats)
    return median_time(call, repeats, warmup=1, sync=synchronize(device)).median


def torchpme_pairs(crystal: Crystal) -> Tensor:
    """Coulomb sums (n, n) from torch-pme: charges = identity, twice its output, about 1e-6."""
    import torchpme
    import vesin

    cell, positions = torch.tensor(crystal.cell), torch.tensor(crystal.positions)
    smearing, cutoff, wavelength = _tuned(crystal)
    first, second, distance = vesin.NeighborList(cutoff=cutoff, full_list=False).compute(
        crystal.positions, crystal.cell, True, "ijd"
    )
    potential = torchpme.CoulombPotential(smearing=smearing)
    calculator = torchpme.EwaldCalculator(potential, lr_wavelength=wavelength).to(torch.float64)
    neighbors = torch.tensor(np.stack([first, second], 1).astype(np.int64))
    charges = torch.eye(len(crystal), dtype=torch.float64)
    return 2 * calculator(charges, cell, positions, neighbors, torch.tensor(distance))


def _tuned(crystal: Crystal) -> tuple[float, float, float]:
    """Smearing, cutoff and wavelength for about 1e-6 that balance the two sums, Å."""
    # Real tail exp(-15); torch-pme's box of wave vectors needs more in reciprocal space to get to 1e-6.
    cutoff = min(12.0, max(5.0, 1.35 * crystal.volume ** (1 / 3)))
    smearing = cutoff / math.sqrt(2 * 15)
    return smearing, cutoff, 2 * math.pi * smearing / math.sqrt(2 * 40)


def pymatgen_pairs(crystal: Crystal) -> np.ndarray:
    """Coulomb sums (n, n) from pymatgen: unit charges, twice the energy matrix, less the background."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.core.ewald import EwaldSummation

    structure = Structure(Lattice(crystal.cell), ["H"] * len(crystal), crystal.fractional)
    structure.add_oxidation_state_by_site([1.0] * len(crystal))
    ewald = EwaldSummation(structure, acc_factor=12.0)
    return 2 * ewald.total_energy_matrix / ewald.CONV_FACT - math.pi / (crystal.volume * ewald.eta)


PEERS: dict[str, Callable[[Crystal], Any]] = {"torch-pme": torchpme_pairs, "pymatgen": pymatgen_pairs}


def peer_seconds(pairs: Callable[[Crystal], Any], crystals: list[Crystal], repeats: int) -> float:
    """Median over repeats of the mean CPU seconds a crystal."""

    def call() -> None:
        for crystal in crystals:
            pairs(crystal)

    return cpu_seconds(call, repeats) / len(crystals)


def error(pairs: Callable[[Crystal], Any], crystal: Crystal) -> float:
    """Largest difference of a peer's Coulomb sums from ours at 1e-12."""
    exact = lattice_sums(*tensors([crystal], "cpu"), [Coulomb()], accuracy=1e-12).values[:, 0]
    return float((torch.as_tensor(np.array(pairs(crystal))).flatten() - exact).abs().max())


def against_peers(embedded: list[Crystal], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds a crystal beside the peers: a sample of the embedded set, then single large crystals."""
    sample = embedded[:: max(1, len(embedded) // args.sample)]
    sizes = ((40, 16), (100, 8), (200, 4))
    sets = [("embedded sample", sample)]
    sets += [(f"{n} atoms, {count} crystals", random_crystals(count, n)) for n, count in sizes]
    rows = []
    for name, crystals in sets:
        alone = statistics.median([ours([c], "cpu", 1) for c in crystals for _ in range(args.repeats)])
        row: dict[str, Any] = {
            "crystals": name,
            "ours, batched, ms": 1e3 * ours(crystals, "cpu", args.repeats) / len(crystals),
            "ours, one at a time, ms": 1e3 * alone,
        }
        for peer, pairs in PEERS.items():
            row[f"{peer}, ms"] = 1e3 * peer_seconds(pairs, crystals, args.repeats)
            row[f"{peer} / ours"] = row[f"{peer}, ms"] / row["ours, batched, ms"]
            row[f"{peer} error"] = error(pairs, crystals[0])
        rows.append(row)
    return rows


def by_size(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Cost as a function of atoms and batch size."""
    rows = []
    for atoms in (1, 2, 5, 10, 20, 40, 100, 200, 400):
        row: dict[str, Any] = {"atoms": atoms}
        for batch in (1, 8, 64, 512):
            if atoms * atoms * batch <= args.largest:
                crystals = random_crystals(batch, atoms)
                row[f"batch {batch}, ms a crystal"] = 1e3 * ours(crystals, args.device, args.repeats) / batch
        rows.append(row)
    return rows


def cpu_seconds(fn: Callable[[], Any], repeats: int) -> float:
    """Median CPU seconds of a call: what else runs on the machine counts less than in seconds of a clock."""
    fn()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        fn()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def with_gradient(crystals: list[Crystal], accuracy: float) -> Callable[[], Any]:
    """A call for all pairs of all crystals, and its backward pass to positions and cells."""
    cell, positions, batch = tensors(crystals, "cpu")

    def call() -> None:
        inputs = cell.clone().requires_grad_(), positions.clone().requires_grad_()
        lattice_sums(*inputs, batch, POTENTIALS, accuracy).values.sum().backward()

    return call


def torchpme_with_gradient(crystals: list[Crystal]) -> Callable[[], Any]:
    """The same of Coulomb alone, crystal by crystal, about 1e-6; neighbour lists are made beforehand."""
    import torchpme
    import vesin

    prepared = []
    for crystal in crystals:
        smearing, cutoff, wavelength = _tuned(crystal)
        found = vesin.NeighborList(cutoff=cutoff, full_list=False)
        first, second, shifts = found.compute(crystal.positions, crystal.cell, True, "ijS")
        calculator = torchpme.EwaldCalculator(
            torchpme.CoulombPotential(smearing=smearing), lr_wavelength=wavelength
        ).to(torch.float64)
        pairs = torch.tensor(np.stack([first, second], 1).astype(np.int64))
        prepared.append((crystal, calculator, pairs, torch.tensor(shifts.astype(np.float64))))

    def call() -> None:
        for crystal, calculator, pairs, shifts in prepared:
            cell = torch.tensor(crystal.cell, requires_grad=True)
            positions = torch.tensor(crystal.positions, requires_grad=True)
            vectors = positions[pairs[:, 1]] - positions[pairs[:, 0]] + shifts @ cell
            charges = torch.eye(len(crystal), dtype=torch.float64)
            calculator(charges, cell, positions, pairs, vectors.norm(dim=-1)).sum().backward()

    return call


def engine(embedded: list[Crystal], args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """CPU milliseconds of one core: mixed batches, gradients, derivatives in one pass, estimated cutoffs."""
    repeats = args.repeats
    everything = tensors(embedded, "cpu")
    whole = []
    for bound in ("rigorous", "estimate"):
        for accuracy in (1e-4, 1e-8):
            call = functools.partial(lattice_sums, *everything, POTENTIALS, accuracy, bound=bound)
            exact = lattice_sums(*everything, POTENTIALS, 1e-12).values
            error = (call().values - exact).abs()
            whole.append(
                {
                    "bound": bound,
                    "accuracy": accuracy,
                    "CPU s": cpu_seconds(call, repeats),
                    "within accuracy, %": 100 * float((error <= accuracy).double().mean()),
                    "largest error": float(error.max()),
                }
            )
    generator = np.random.default_rng(0)
    mixed = [embedded[i] for i in generator.permutation(len(embedded))[:64]]
    size = round(math.sqrt(statistics.mean(len(c) ** 2 for c in mixed)))  # as many pairs in equal crystals
    batches = []
    for accuracy in (1e-4, 1e-8):
        row: dict[str, Any] = {"accuracy": accuracy, "atoms of equal crystals": size}
        for name, crystals in (("mixed", mixed), ("equal", random_crystals(64, size))):
            inputs = tensors(crystals, "cpu")
            call = functools.partial(lattice_sums, *inputs, POTENTIALS, accuracy)
            row[f"{name}, ms"] = 1e3 * cpu_seconds(call, 3 * repeats)
        row["mixed / equal"] = row["mixed, ms"] / row["equal, ms"]
        batches.append(row)
    gradients = []
    for count, atoms in ((32, 10), (8, 64), (1, 200)):
        crystals = random_crystals(count, atoms)
        inputs = tensors(crystals, "cpu")
        forward = functools.partial(lattice_sums, *inputs, POTENTIALS, 1e-6)
        one_pass = functools.partial(lattice_sums_and_derivatives, *inputs, POTENTIALS, 1e-6)
        row = {
            "crystals": f"{count} x {atoms}",
            "forward, ms": 1e3 * cpu_seconds(forward, repeats),
            "forward + backward, ms": 1e3 * cpu_seconds(with_gradient(crystals, 1e-6), repeats),
            "with derivatives, ms": 1e3 * cpu_seconds(one_pass, repeats),
        }
        if not args.no_peers:
            row["torch-pme (Coulomb), ms"] = 1e3 * cpu_seconds(torchpme_with_gradient(crystals), repeats)
            row["torch-pme / ours"] = row["torch-pme (Coulomb), ms"] / row["forward + backward, ms"]
        gradients.append(row)
    return {
        "embedded set, CPU time": whole,
        "64 crystals in one call, CPU time": batches,
        "forward and backward at 1e-6, CPU time": gradients,
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--device", default="cpu", help="cpu (one core) or cuda")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--sample", type=int, default=1000, help="embedded crystals that the peers compute too"
    )
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", choices=["engine"], help="some tables alone")
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # of the peers
    torch.set_num_threads(1)
    if args.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("no GPU at hand: run without --device cuda")
    args.largest = 6_000_000 if args.device == "cpu" else 60_000_000

    info = machine_info(args.device)
    print_header("Lattice sums: Coulomb, London and Pauli of all pairs, accuracy 1e-8, float64", info)
    embedded = EmbeddedSource().load().crystals
    results: dict[str, list[dict[str, Any]]] = {}

    if args.device == "cpu":
        results.update(engine(embedded, args))
    if args.only is None:
        results.update(everything_else(embedded, args))
    for title, rows in results.items():
        print(f"\n{title}")
        print_table(rows)
    if args.device == "cpu" and not torch.cuda.is_available():
        print("\nNo GPU was at hand: the GPU figures are not measured (--device cuda measures them).")
    if args.json:
        flat = [{"table": title, **row} for title, rows in results.items() for row in rows]
        save_json(args.json, info, flat)


def everything_else(embedded: list[Crystal], args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The whole set, the peers, and cost by atoms and batch."""
    results: dict[str, list[dict[str, Any]]] = {}
    with peak_memory(args.device) as memory:
        seconds = ours(embedded, args.device, args.repeats)
    results["embedded set"] = [
        {
            "crystals": len(embedded),
            "seconds": seconds,
            "ms a crystal": 1e3 * seconds / len(embedded),
            "crystals/s": len(embedded) / seconds,
            "peak memory, MiB": memory["mib"],
        }
    ]
    if args.device == "cpu":
        if not args.no_peers:
            results["against peers (Coulomb alone), one core"] = against_peers(embedded, args)
    else:
        crystals = random_crystals(1000, 10) * 100
        seconds = ours(crystals, args.device, args.repeats)
        rate = len(crystals) / seconds
        results["throughput"] = [{"crystals": len(crystals), "atoms": 10, "crystals/s": rate}]
    results["by atoms and batch"] = by_size(args)
    return results


if __name__ == "__main__":
    main()
