"""Working memory stays within the setting: the peak of a fresh process, beside what the result needs."""

import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import resource, sys
import torch
from potnet.lattice import Coulomb, London, Pauli, lattice_sums

torch.set_num_threads(1)
potentials = [Coulomb(), London(), Pauli()]
kind, memory_mib = sys.argv[1], float(sys.argv[2])
generator = torch.Generator().manual_seed(0)

def crystals(count, side):
    # Atoms near a simple cubic grid, 2.6 Å apart, in cells of `side` grid points a side.
    n = side[0] * side[1] * side[2]
    grid = torch.cartesian_prod(*[torch.arange(float(s), dtype=torch.float64) for s in side]).view(-1, 3)
    shift = 0.3 * torch.rand(count, n, 3, dtype=torch.float64, generator=generator)
    cell = 2.6 * torch.diag(torch.tensor(side, dtype=torch.float64)).expand(count, 3, 3).clone()
    cell += 0.2 * torch.rand(count, 3, 3, dtype=torch.float64, generator=generator)
    return cell, (2.6 * grid + shift).flatten(0, 1), torch.arange(count).repeat_interleave(n)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

lattice_sums(*crystals(2, (1, 1, 2)), potentials)  # what torch itself needs once
many = kind == "many"
cell, positions, batch = crystals(10_000, (1, 2, 2)) if many else crystals(1, (5, 10, int(kind) // 50))
before = peak()
sums = lattice_sums(cell, positions, batch, potentials, 1e-8, memory_mib=memory_mib)
result = sum(x.numel() * x.element_size() for x in sums) / 2**20
print(len(sums.pair_index[0]), result, peak() - before)
"""


def measure(kind: str, memory_mib: float) -> tuple[int, float, float]:
    """Number of pairs, size of the result and growth of the peak of a process, both in MiB."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), kind, str(memory_mib)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    pairs, result, growth = done.stdout.split()
    return int(pairs), float(result), float(growth)


# The result is held once in pieces and once in order, and the triangle of pairs is spread over the square.
RESULT_COPIES = 5


@pytest.mark.parametrize(("kind", "pairs"), [("many", 160_000), ("500", 250_000)])
def test_large_batches_and_crystals(kind, pairs):
    check(kind, pairs, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pairs"), [("many", 160_000), ("500", 250_000)])
@pytest.mark.parametrize("memory_mib", [4, 16, 256])
def test_other_settings(kind, pairs, memory_mib):
    check(kind, pairs, memory_mib)


def check(kind, pairs, memory_mib):
    found, result, growth = measure(kind, memory_mib)
    assert found == pairs
    assert growth <= memory_mib + RESULT_COPIES * result + 16
