"""Everything that needs a GPU, in one run of a few minutes.

    bash benchmarks/gpu.sh                       on a machine with a GPU: writes gpu.json
    bash benchmarks/gpu.sh --device cpu --quick  a trial without one

Every part writes what it measured at once, so a run that is cut off leaves what it has; a part that fails is
recorded with its error, and the others go on. Parts that have not begun when the time is up are skipped, and
the result says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _common import machine_info, median_time, print_table, synchronize
from training_step import random_crystals

POTENTIALS = ("Coulomb", "London", "Pauli")


@dataclass
class Setting:
    """How to measure.

    Attributes:
        device: "cuda" or "cpu".
        quick: Small sizes, for a trial.
        folder: Where results and runs go.
        deadline: time.monotonic() after which no further part begins.
    """

    device: str
    quick: bool
    folder: Path
    deadline: float

    @property
    def sync(self) -> Callable[[], None] | None:
        return synchronize(self.device)

    def size(self, full: int, trial: int) -> int:
        return trial if self.quick else full


def potentials() -> list[Any]:
    from potnet import lattice

    return [lattice.Coulomb(), lattice.London(), lattice.Pauli(3.0)]


def random_batch(count: int, atoms: int, device: str, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    """Cell (B, 3, 3), positions (N, 3) and batch (N,) of random crystals: 256 distinct ones, repeated."""
    crystals = random_crystals(min(count, 256), atoms)
    cell = torch.stack([torch.tensor(c.cell) for c in crystals]).to(device, dtype)
    positions = torch.stack([torch.tensor(c.positions) for c in crystals]).to(device, dtype)
    times = -(-count // len(crystals))
    cell = cell.repeat(times, 1, 1)[:count]
    positions = positions.repeat(times, 1, 1)[:count].flatten(0, 1)
    return cell, positions, torch.arange(count, device=device).repeat_interleave(atoms)


def ceilings(setting: Setting) -> list[dict[str, Any]]:
    """What the device does at best: a copy, and products of matrices."""
    size = setting.size(8192, 512)
    rows = []
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        a = torch.randn(size, size, device=setting.device).to(dtype)
        seconds = median_time(lambda a=a: a @ a, 5, 2, setting.sync).median
        name = str(dtype).removeprefix("torch.")
        rows.append({"what": f"product {name}", "TFLOP/s": 2e-12 * size**3 / seconds})
    source = torch.randn(setting.size(2**29, 2**22), device=setting.device)
    target = torch.empty_like(source)
    seconds = median_time(lambda: target.copy_(source), 5, 2, setting.sync).median
    rows.append({"what": "copy", "GB/s": 2 * 4e-9 * source.numel() / seconds})
    return rows


def sums(setting: Setting) -> list[dict[str, Any]]:
    """Three complete potentials of all pairs: crystals a second, and the error against the CPU."""
    from potnet.lattice import lattice_sums

    rows = []
    for atoms, count in ((10, 32768), (10, 4096), (40, 1024)):
        count = setting.size(count, 64)
        cell, positions, batch = random_batch(count, atoms, setting.device)
        for accuracy in (1e-8, 1e-4):

            def run(accuracy: float = accuracy, args: tuple = (cell, positions, batch)) -> Any:
                return lattice_sums(*args, potentials(), accuracy=accuracy)

            seconds = median_time(run, 3, 1, setting.sync).median
            first = lattice_sums(
                cell[:32].cpu(), positions[: 32 * atoms].cpu(), batch[: 32 * atoms].cpu(), potentials(),
                accuracy=1e-10,
            ).values  # fmt: skip
            error = (run().values[: len(first)].cpu().double() - first).abs().max()
            rows.append(
                {
                    "atoms": atoms, "crystals": count, "accuracy": accuracy, "s": seconds,
                    "crystals/s": count / seconds, "largest error": float(error),
                }
            )  # fmt: skip
    return rows


def kernel(setting: Setting) -> list[dict[str, Any]]:
    """Sums and derivatives on this device against those of the CPU: largest errors, and the bounds stated."""
    from potnet.lattice import lattice_sums_and_derivatives, triton_kernels
    from potnet.lattice.kernels import ExponentialKernel, PowerKernel

    inputs = random_batch(16, 10, setting.device)
    exact = lattice_sums_and_derivatives(*(x.cpu() for x in inputs), potentials(), 1e-11)
    kernels = [PowerKernel(0.5), PowerKernel(3.0), ExponentialKernel(3.0)]
    rows = []
    for accuracy in (1e-8, 1e-4):
        found = lattice_sums_and_derivatives(*inputs, potentials(), accuracy)
        row: dict[str, Any] = {
            "accuracy": accuracy,
            "by Triton": triton_kernels.applies(kernels, inputs[0].device),
            "bound": float(found.bound.max()),
            "derivative bound": float(found.derivative_bound.max()),
        }
        for name in ("values", "by_vector", "by_strain"):
            row[name] = float((getattr(found, name).cpu() - getattr(exact, name)).abs().max())
        rows.append(row)
    return rows


def energies(setting: Setting) -> list[dict[str, Any]]:
    """Energy, forces and stress of one vector of charges at 1e-6."""
    from potnet.lattice import Coulomb, lattice_energies

    rows = []
    for count, atoms in ((32, 10), (8, 64), (1, 200), (1, 2000), (1024, 16)):
        if setting.quick and count * atoms > 600:
            continue
        cell, positions, batch = random_batch(count, atoms, setting.device)
        charges = torch.randn(count, atoms, dtype=torch.float64, device=setting.device)
        charges = (charges - charges.mean(1, keepdim=True)).reshape(-1, 1)

        def run(args: tuple = (cell, positions, batch, charges)) -> Any:
            return lattice_energies(*args, [Coulomb()], accuracy=1e-6, forces=True, stress=True)

        seconds = median_time(run, 5, 2, setting.sync).median
        rows.append({"crystals": count, "atoms": atoms, "s": seconds, "crystals/s": count / seconds})
    return rows


def gradients(setting: Setting) -> list[dict[str, Any]]:
    """First and second derivatives of sums on this device against finite differences."""
    from potnet.lattice import lattice_sums

    cell, positions, batch = random_batch(2, 3, setting.device)
    rows = []
    for potential in potentials():

        def values(cell: Any, positions: Any, potential: Any = potential) -> Any:
            return lattice_sums(cell, positions, batch, [potential], accuracy=1e-12).values

        inputs = (cell.clone().requires_grad_(), positions.clone().requires_grad_())
        first = torch.autograd.gradcheck(values, inputs, atol=1e-6, rtol=1e-5, raise_exception=False)
        second = torch.autograd.gradgradcheck(values, inputs, atol=1e-5, rtol=1e-4, raise_exception=False)
        rows.append({"potential": type(potential).__name__, "gradcheck": first, "gradgradcheck": second})
    return rows


def featurizing(setting: Setting) -> list[dict[str, Any]]:
    """The embedded crystals from nothing to features, by stage."""
    from potnet.data import EmbeddedSource, Featurizer

    crystals = list(EmbeddedSource().load("raise").crystals)[: setting.size(4273, 100)]
    rows = []
    for accuracy in (1e-8, 1e-4):
        featurizer = Featurizer(
            neighbors={"cutoff": 4.0},
            potentials=[{"_target_": f"potnet.lattice.{name}"} for name in POTENTIALS],
            accuracy=accuracy,
            device=setting.device,
        )
        featurizer.featurize(crystals[:64])
        before = dict(featurizer.seconds)
        start = time.perf_counter()
        featurizer.featurize(crystals)
        total = time.perf_counter() - start
        stages = {name: seconds - before[name] for name, seconds in featurizer.seconds.items()}
        rows.append({"accuracy": accuracy, "crystals": len(crystals), **stages, "total": total})
    return rows


def script(setting: Setting, name: str, *arguments: str) -> list[dict[str, Any]]:
    """A benchmark script of this folder in a process of its own; its rows."""
    output = setting.folder / f"{name}.json"
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--device", setting.device]
    subprocess.run([*command, *arguments, "--json", str(output)], check=True, timeout=_left(setting))
    return json.loads(output.read_text())["rows"]


def training_step(setting: Setting) -> list[dict[str, Any]]:
    """Forward, backward and AdamW of the published network: float32, bfloat16, compiled."""
    trial = ["--crystals", "4", "--repeats", "1", "--model", "potnet", "--mode", "float32"]
    return script(
        setting, "training_step", *(trial if setting.quick else ["--model", "potnet", "--repeats", "5"])
    )


def loading(setting: Setting) -> list[dict[str, Any]]:
    """Batches out of the cache against training on them."""
    return script(setting, "loading", *(["--batches", "4"] if setting.quick else []))


def training(setting: Setting) -> list[dict[str, Any]]:
    """The whole training of the embedded set, `potnet train experiment=mp_bulk_modulus`."""
    rows = []
    for precision in ("32-true", "bf16-mixed"):
        folder = setting.folder / f"run_{precision}"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier measurement
        trial = ["data.limit=100", "trainer.max_epochs=1"] if setting.quick else []
        command = [
            sys.executable, "-m", "potnet.train", "experiment=mp_bulk_modulus", f"hydra.run.dir={folder}",
            f"trainer.accelerator={setting.device}", f"trainer.precision={precision}", *trial,
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, timeout=_left(setting), stdout=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            rows.append({"precision": precision, "stopped": f"the time was up after {error.timeout:.0f} s"})
            break
        metrics = json.loads((folder / "metrics.json").read_text())
        seconds, epochs = metrics["seconds"], metrics["epochs"]
        rows.append(
            {
                "precision": precision, "epochs": epochs, "featurize s": seconds["featurize"],
                "train s": seconds["train"], "s/epoch": seconds["train"] / epochs,
                "val MAE": metrics["val"]["k_vrh"]["mae"], "test MAE": metrics["test"]["k_vrh"]["mae"],
            }
        )  # fmt: skip
    return rows


def epoch(setting: Setting) -> list[dict[str, Any]]:
    """An epoch of 44 578 crystals, the size of JARVIS formation energies: embedded crystals, repeated."""
    from hydra.utils import instantiate
    from torch import nn

    from potnet.config import compose

    network = compose("train", ["experiment=mp_bulk_modulus"]).model
    data = _embedded(setting)
    dataset = data.dataset("train")
    count = setting.size(44578, 256)
    rows = []
    for batch_size in (64, 256, 512):
        batches = [
            dataset.batch([n % len(dataset) for n in range(start, start + batch_size)])
            for start in range(0, min(count, len(dataset)), batch_size)
        ]
        for precision in (None, torch.bfloat16):
            torch.manual_seed(0)
            model = instantiate(network).to(setting.device).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
            done = 0

            def step(
                batch: Any, model: Any = model, optimizer: Any = optimizer, dtype: Any = precision
            ) -> None:
                batch = batch.to(setting.device)
                with torch.autocast(setting.device, dtype, enabled=dtype is not None):
                    output = next(iter(model(batch).values()))
                loss = nn.functional.mse_loss(output.float(), torch.zeros_like(output, dtype=torch.float32))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

            for batch in batches[:3]:
                step(batch, model, optimizer, precision)
            (setting.sync or (lambda: None))()
            start = time.perf_counter()
            while done < min(count, 8192):
                for batch in batches:
                    step(batch, model, optimizer, precision)
                    done += batch.num_crystals
            (setting.sync or (lambda: None))()
            rate = done / (time.perf_counter() - start)
            name = "float32" if precision is None else "bfloat16"
            row = {"batch": batch_size, "precision": name, "crystals/s": rate, "s for 44 578": 44578 / rate}
            rows.append(row)
    return rows


def prediction(setting: Setting) -> list[dict[str, Any]]:
    """Crystals to values with the network that was just trained."""
    from potnet import load
    from potnet.data import EmbeddedSource

    crystals = list(EmbeddedSource().load("raise").crystals)[: setting.size(4273, 50)]
    model = load(setting.folder / "run_32-true", device=setting.device)
    model.predict(crystals[:20])
    start = time.perf_counter()
    model.predict(crystals)
    seconds = time.perf_counter() - start
    return [{"crystals": len(crystals), "s": seconds, "crystals/s": len(crystals) / seconds}]


def _embedded(setting: Setting) -> Any:
    """The embedded data, featurized."""
    from potnet.config import compose, plain
    from potnet.models import PotNet
    from potnet.training.setup import build_data

    limit = ["data.limit=300"] if setting.quick else []
    data = build_data(plain(compose("train", ["experiment=mp_bulk_modulus", *limit])), PotNet())
    data.prepare_data()
    data.setup()
    return data


def _left(setting: Setting) -> float:
    return max(10.0, setting.deadline - time.monotonic())


PARTS: dict[str, Callable[[Setting], list[dict[str, Any]]]] = {
    "ceilings": ceilings,
    "sums": sums,
    "kernel": kernel,
    "energies": energies,
    "gradients": gradients,
    "featurizing": featurizing,
    "epoch": epoch,
    "loading": loading,
    "training_step": training_step,
    "training": training,
    "prediction": prediction,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--seconds", type=float, default=450, help="no part begins after this")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--output", type=Path, default=Path("gpu_results"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU at hand: run with --device cpu --quick for a trial")
    options.output.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.seconds
    setting = Setting(options.device, options.quick, options.output.absolute(), deadline)
    os.environ.setdefault("POTNET_CACHE", str(setting.folder / "cache"))
    found: dict[str, Any] = {"machine": machine_info(options.device), "parts": {}}
    for name in options.only:
        print(f"\n{name}: {(PARTS[name].__doc__ or '').splitlines()[0]}", flush=True)
        start = time.monotonic()
        part: dict[str, Any] = {"skipped": "the time was up"}
        if start < deadline:
            try:
                part = {"rows": PARTS[name](setting)}
                print_table(part["rows"])
            except Exception as error:
                traceback.print_exc()
                part = {"failed": f"{type(error).__name__}: {error}"}
            part["seconds"] = round(time.monotonic() - start, 1)
        found["parts"][name] = part
        (setting.folder / "gpu.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
        with contextlib.suppress(Exception):
            torch.cuda.empty_cache()
    print(f"\nwritten: {setting.folder / 'gpu.json'}")
    if all("rows" not in part for part in found["parts"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
