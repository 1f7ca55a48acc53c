"""Speed of force fields in atoms x steps per second, on the same crystals and core.

    python benchmarks/force_speed.py --atoms 64 216 --output benchmarks/results/force_speed_cpu.json

Energy, forces and stress of shaken silicon through each one's calculator for ASE, as molecular dynamics asks
for them: neighbours are found anew in every step. Our networks have random weights, which cost as much as
trained ones, or `--checkpoint`. Peers are timed where they are installed: CHGNet as it ships, and MACE of the
size of "small" (128 scalars, two layers, degree 3, order 3, 6 Å) with random weights. Seconds are of the
processor, one thread; the shortest of the repeats counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import machine_info, save_json

CUTOFF = 5.0


def ours(model: torch.nn.Module) -> Any:
    from potnet.data import Featurizer
    from potnet.data.targets import Targets
    from potnet.forcefield import Calculator
    from potnet.inference.predictor import Predictor
    from potnet.training.scaling import scalers_of

    targets = Targets.from_config({"energy": {"unit": "eV", "extensive": True}})
    features = Featurizer(cell="as_given", neighbors={"cutoff": CUTOFF}, device="cpu")
    known = {"training": {"elements": {14: 1}}}
    return Calculator(Predictor(model.eval(), scalers_of(targets), targets, features, known, "cpu"), "cpu")


def potnet_ff(**settings: Any) -> Any:
    from potnet.models import PotNetFF

    settings = {"angular": 16, **settings}
    return ours(PotNetFF(64, 2, CUTOFF, 16, heads={"energy": {"extensive": True}}, **settings))


def leignn() -> Any:
    from potnet.models import LEIGNN

    return ours(LEIGNN(64, 2, CUTOFF, 24, heads={"energy": {"extensive": True}}))


def chgnet() -> Any:
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device="cpu")


def mace() -> Any:
    import numpy as np
    from e3nn import o3
    from mace.calculators import MACECalculator
    from mace.modules import ScaleShiftMACE, gate_dict, interaction_classes

    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = ScaleShiftMACE(
        r_max=6.0, num_bessel=10, num_polynomial_cutoff=5, max_ell=3, interaction_cls=block,
        interaction_cls_first=block, num_interactions=2, num_elements=1,
        hidden_irreps=o3.Irreps("128x0e"), MLP_irreps=o3.Irreps("16x0e"), gate=gate_dict["silu"],
        atomic_energies=np.zeros(1), avg_num_neighbors=40.0, atomic_numbers=[14], correlation=3,
        radial_type="bessel", atomic_inter_scale=1.0, atomic_inter_shift=0.0,
    )  # fmt: skip
    return MACECalculator(models=[model.float()], device="cpu", default_dtype="float32")


def from_checkpoint(path: str) -> Any:
    from potnet.forcefield import Calculator

    return Calculator(path, "cpu")


def seconds_of(calculator: Any, atoms: Any, repeats: int) -> float:
    """Processor seconds of one step, the shortest."""
    found = []
    for seed in range(repeats + 1):
        moved = atoms.copy()
        moved.rattle(0.05, seed=seed)
        moved.calc = calculator
        start = time.process_time()
        moved.get_potential_energy()
        moved.get_forces()
        moved.get_stress()
        found.append(time.process_time() - start)
    return min(found[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atoms", type=int, nargs="+", default=[64, 216], help="8 n³")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--checkpoint", nargs="+", default=[], help="trained force fields, timed too")
    parser.add_argument("--output", help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from ase.build import bulk

    fields: dict[str, Callable[[], Any]] = {
        "PotNet-FF, local": lambda: potnet_ff(long_range=[]),
        "PotNet-FF, local, no angles": lambda: potnet_ff(long_range=[], angular=0),
        "PotNet-FF, charges": lambda: potnet_ff(long_range=["coulomb"]),
        "LEIGNN 64 x 2": leignn,
        "CHGNet": chgnet,
        "MACE, size of small": mace,
    }
    for path in options.checkpoint:
        fields[Path(path).name] = lambda path=path: from_checkpoint(path)
    rows = []
    print(f"{'force field':30} {'atoms':>6} {'ms a step':>10} {'atoms x steps / s':>18}")
    for name, make in fields.items():
        try:
            calculator = make()
        except ImportError as error:
            print(f"{name:30} not installed ({error.name or error})", flush=True)
            continue
        for count in options.atoms:
            times = round((count / 8) ** (1 / 3))
            atoms = bulk("Si", cubic=True) * (times, times, times)
            seconds = seconds_of(calculator, atoms, options.repeats)
            rows.append({"name": name, "atoms": len(atoms), "seconds": seconds, "rate": len(atoms) / seconds})
            print(f"{name:30} {len(atoms):6} {1e3 * seconds:10.1f} {len(atoms) / seconds:18.0f}", flush=True)
    if options.output:
        save_json(options.output, machine_info(), rows)


if __name__ == "__main__":
    main()
