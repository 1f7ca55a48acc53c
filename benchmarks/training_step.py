"""Time of one training step: forward, backward and AdamW on one batch, width 256, float32.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --device cuda --json benchmarks/results/training_step_gpu.json

The batch is 64 random crystals of 10 atoms, 16 local edges an atom and all pairs with three potentials.
Every row is measured in a process of its own, so that memory is that of the row alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from _common import (
    gemm_rate,
    machine_info,
    median_time,
    peak_memory,
    print_header,
    print_table,
    save_json,
    synchronize,
)
from torch import Tensor, nn

from potnet.crystals import Crystal, CrystalBatch, collate
from potnet.data.features.featurizer import Featurizer
from potnet.models import PublishedPotNet
from potnet.nn import EdgeLinear, Edges


class ConcatenatingLinear(EdgeLinear):
    """What `EdgeLinear` avoids: the concatenation of every edge, and one large product."""

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        z = torch.cat([x[edges.target], x[edges.source], edges.per_edge(edges.features)], 1)
        return nn.functional.linear(z, self.weight, self.bias)


def concatenating(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, EdgeLinear):
            module.__class__ = ConcatenatingLinear
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "potnet": PublishedPotNet,
    "potnet-distances": lambda: PublishedPotNet(local="distance", pairs="none"),
    "potnet-attention": lambda: PublishedPotNet(pairs="attention"),
    "potnet-concatenating": lambda: concatenating(PublishedPotNet()),
}


MODES = ["float32", "bfloat16", "compile"]


def random_crystals(count: int, atoms: int, seed: int = 0) -> list[Crystal]:
    """Cubic cells of 15 Å³ an atom, no two atoms closer than 1.5 Å."""
    rng = np.random.default_rng(seed)
    edge = (15.0 * atoms) ** (1 / 3)
    crystals = []
    while len(crystals) < count:
        positions = np.empty((0, 3))
        while len(positions) < atoms:
            candidate = rng.uniform(0, edge, 3)
            difference = (positions - candidate + edge / 2) % edge - edge / 2
            if not len(positions) or np.linalg.norm(difference, axis=1).min() > 1.5:
                positions = np.vstack([positions, candidate])
        crystals.append(Crystal(edge * np.eye(3), positions, rng.integers(1, 90, atoms), str(len(crystals))))
    return crystals


def make_batch(needs: frozenset[str], count: int, atoms: int, neighbors: int) -> CrystalBatch:
    features = Featurizer(
        cell="as_given",
        neighbors={"k": neighbors},
        potentials=[{"_target_": f"potnet.lattice.{name}"} for name in ("Coulomb", "London", "Pauli")],
        accuracy=1e-4,
        device="cpu",
    )
    return collate(features.restricted(needs).featurize(random_crystals(count, atoms)))


def measure(name: str, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table. `mode` is float32, bfloat16 (autocast) or compile."""
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = MODELS[name]().to(device).train()
    batch = make_batch(model.needs, options.crystals, options.atoms, options.neighbors).to(device)
    target = torch.randn(batch.num_crystals, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.fold = mode != "compile"  # whose sizes must not depend on the data
    network = torch.compile(model) if mode == "compile" else model

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=mode == "bfloat16"):
            return network(batch)["value"]

    def step() -> None:
        loss = nn.functional.mse_loss(forward().float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def inference() -> Tensor:
        return forward()

    sync = synchronize(device)
    rate = gemm_rate(device=device)
    with peak_memory(device) as memory:
        timing = median_time(step, options.repeats, 3, sync)
    rate = max(rate, gemm_rate(device=device))
    model.eval()
    inferred = median_time(inference, options.repeats, 2, sync)
    return {
        "model": name,
        "mode": mode,
        "parameters": sum(p.numel() for p in model.parameters()),
        "step s": timing.median,
        "min s": timing.min,
        "max s": timing.max,
        "forward s": inferred.median,
        "peak MiB": memory["mib"],
        "crystals/s": options.crystals / timing.median,
        "GEMM GFLOP/s": rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--mode", nargs="+", choices=MODES, help="default: all on a GPU, float32 on a CPU")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--crystals", type=int, default=64)
    parser.add_argument("--atoms", type=int, default=10, help="atoms of a crystal")
    parser.add_argument("--neighbors", type=int, default=16, help="local edges of an atom")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU at hand: run with --device cpu")

    if options.device == "cpu":
        torch.set_num_threads(options.threads)
    info = machine_info(options.device)
    print_header(
        f"Training step: {options.crystals} crystals of {options.atoms} atoms, "
        f"{options.neighbors} local edges an atom, all pairs",
        info,
    )
    modes = options.mode or (MODES if options.device == "cuda" else ["float32"])
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in options.model:
        for mode in modes:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                rows.append(pool.submit(measure, name, mode, options).result())
    print_table(rows)
    if options.json:
        save_json(options.json, info, rows)


if __name__ == "__main__":
    main()
