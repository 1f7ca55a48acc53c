"""What all benchmarks share: timing, the header that names the machine, tables and JSON."""

from __future__ import annotations

import contextlib
import gc
import gzip
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

PACKAGES = (
    "torch",
    "torch-geometric",
    "torch-scatter",
    "torch-pme",
    "pymatgen-core",
    "numpy",
    "moyopy",
    "vesin",
    "pyarrow",
    "ray",
)


class Timing(NamedTuple):
    """Seconds of one call over the repeats."""

    median: float
    min: float
    max: float


def synchronize(device: str | torch.device) -> Callable[[], None] | None:
    """What to call before reading the clock, so that queued GPU work is counted. None on a CPU."""
    return torch.cuda.synchronize if torch.device(device).type == "cuda" else None


def median_time(
    fn: Callable[[], Any],
    repeats: int = 7,
    warmup: int = 2,
    sync: Callable[[], None] | None = None,
) -> Timing:
    """Time `fn()`, each call on its own.

    Args:
        fn: What to time.
        repeats: Timed calls.
        warmup: Calls before them that are not timed.
        sync: Called before each reading of the clock, see `synchronize`.

    Raises:
        ValueError: If there is nothing to time.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    wait = sync or (lambda: None)
    for _ in range(warmup):
        fn()
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        fn()
        wait()
        seconds.append(time.perf_counter() - start)
    return Timing(statistics.median(seconds), min(seconds), max(seconds))


def gemm_rate(size: int = 1024, repeats: int = 5, device: str | torch.device = "cpu") -> float:
    """GFLOP/s of float32 matrix products now, best of `repeats`: tells a busy machine from a slow program."""
    a, b = torch.rand(size, size, device=device), torch.rand(size, size, device=device)
    best = median_time(lambda: a @ b, repeats, warmup=2, sync=synchronize(device)).min
    return 2e-9 * size**3 / best


@contextlib.contextmanager
def peak_memory(device: str | torch.device) -> Iterator[dict[str, float]]:
    """Peak memory of a block, MiB, under the key `"mib"` when the block has ended.

    On a GPU this is what torch allocated. On a CPU it is the growth of the resident set over its
    value at entry, sampled by the kernel's own high-water mark where it can be reset (Linux), else NaN.
    """
    result = {"mib": float("nan")}
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield result
        result["mib"] = torch.cuda.max_memory_allocated() / 2**20
        return
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present size
        before = _status_mib("VmRSS")
    except OSError:
        yield result
        return
    yield result
    result["mib"] = _status_mib("VmHWM") - before


def _status_mib(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}")


def machine_info(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Date, machine and versions: the head of every table and JSON file."""
    info: dict[str, Any] = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "device": str(device),
        "python": platform.python_version(),
        "versions": {},
    }
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            info["versions"][package] = importlib.metadata.version(package)
    return info


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def print_header(title: str, info: dict[str, Any]) -> None:
    """Title, then the machine in three lines."""
    print(title)
    busy = f"{info['cores']} cores, {info['threads']} threads, load {info['load']}"
    print(f"{info['date']}  {info['cpu']}, {busy}")
    print(f"device {info['device']}" + (f", GPU {info['gpu']}" if info["gpu"] else ", no GPU at hand"))
    print(", ".join([f"Python {info['python']}", *(f"{k} {v}" for k, v in info["versions"].items())]))
    print()


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a Markdown table with aligned columns; columns in the order of first appearance."""
    if not rows:
        print("(no rows)")
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *[[_text(row.get(column)) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [all(isinstance(row.get(c), int | float | None) for row in rows) for c in columns]
    for number, line in enumerate(cells):
        padded = (t.rjust(w) if n else t.ljust(w) for t, w, n in zip(line, widths, numeric, strict=True))
        print("| " + " | ".join(padded) + " |")
        if number == 0:
            rule = ("-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numeric, strict=True))
            print("| " + " | ".join(rule) + " |")


def _text(value: Any) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def save_json(path: str | Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], **extra: Any) -> None:
    """Write `{"machine": ..., "rows": [...]}` and whatever else is given; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"machine": info, **extra, "rows": list(rows)}, indent=1, ensure_ascii=False) + "\n"
    )
    print(f"\nwritten: {path}")


def save_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, gzip; whole or not at all. Without a time in its header: equal content is an equal file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for row in rows:
            file.write((json.dumps(row, separators=(",", ":")) + "\n").encode())
    part.replace(path)


def embedded_rows() -> list[dict[str, Any]]:
    """The embedded moduli (GPa) with their split, as rows for `save_rows`."""
    from potnet.data import EmbeddedSource

    dataset = EmbeddedSource().load()
    parts = dataset.split or {}
    return [
        {
            "id": crystal.id,
            "lattice": crystal.cell.tolist(),
            "z": crystal.z.tolist(),
            "frac": crystal.fractional.tolist(),
            "g_vrh": crystal.properties["g_vrh"],
            "k_vrh": crystal.properties["k_vrh"],
            "split": parts[crystal.id],
        }
        for crystal in dataset.crystals
    ]
