"""How much memory a crystal takes, and how much there is: one crystal too large must not end a prediction.

A network's working memory grows with the ordered pairs of atoms and with the local edges of a batch. What
one of them takes depends on the network, so it is measured, once, on a crystal without symmetry.
"""  # fmt: skip

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from potnet.crystals import Crystal

GIB = 2**30

SAFETY = 1.3
"""What a larger crystal may take above the measured share, for padding and fragmentation."""

SHARE = 0.8
"""Part of the available memory that is used unless a limit is given."""

FEATURE_BYTES = 120
"""Bytes a pair of atoms takes while it is featurized: float64 sums of three potentials, copies, indices."""


def available_bytes(device: torch.device) -> int:
    """Memory that is still free for this process on a device: the least that any limit leaves.

    On a CPU: what the system can give without swapping, the limit of the control group (containers, SLURM),
    and that of the address space (ulimit -v). 8 GiB where none of these is known.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = []
    with suppress(OSError, IndexError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    for most, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max" is no limit
            free.append(int(Path(most).read_text()) - int(Path(used).read_text()))
    with suppress(ImportError, OSError, IndexError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            free.append(limit - pages * resource.getpagesize())
    return max(min(free, default=8 * GIB), 0)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that PyTorch makes inside, on any device.

        with PeakMemory() as memory:
            model(batch)
        memory.peak

    Attributes:
        peak: Most bytes that were held at one time.
    """  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(place)
        self._held += size
        self.peak = max(self.peak, self._held)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self._held -= size


def peak_bytes(function: Callable[[], Any]) -> int:
    """Most bytes of tensors that a function holds at one time, besides those that were there before."""
    with PeakMemory() as memory:
        function()
    return memory.peak


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory: Python's, PyTorch's on a GPU, or its CPU allocator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("allocate memory" in text or "bad_alloc" in text)


def disordered_crystal(elements: Sequence[int]) -> Crystal:
    """96 atoms without symmetry, at a usual density."""
    import numpy as np

    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(range(4), range(4), range(6), indexing="ij"), -1).reshape(-1, 3)
    positions = 2.6 * (grid + 0.25 * random.random((96, 3)))
    kinds = list(elements)[:8] or [8, 13, 14, 22, 26, 29]
    return Crystal(np.diag([10.4, 10.4, 15.6]), positions, random.choice(kinds, 96), id="disordered")
