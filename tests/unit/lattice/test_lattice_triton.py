"""The Triton kernel, interpreted on a CPU, against the torch operations that it stands for."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from lattice_cases import named_cases, tensors
from potnet import lattice
from potnet.lattice import lattice_sums, lattice_sums_and_derivatives, plan, triton_kernels

potentials = [lattice.Coulomb(), lattice.London(), lattice.Pauli(3.0, convention="published")]
potentials += [lattice.InversePower(2.5), lattice.Pauli(0.7)]
inputs = tensors([named_cases()[i] for i in (1, 2, 12)])  # one of them is padded
picked = lattice_sums_and_derivatives(*inputs, potentials, 1e-9)
plan.STYLES["cpu"] = plan.STYLES["cuda"]
calls = []
real_terms = triton_kernels.real_terms

def counted(*args, **kwargs):
    found = real_terms(*args, **kwargs)
    calls.append(found is not None)
    return found

triton_kernels.real_terms = counted
fused = lattice_sums_and_derivatives(*inputs, potentials, 1e-9)
values = lattice_sums(*inputs, potentials, 1e-9).values
assert calls and all(calls), calls
for name in ("values", "by_vector", "by_strain", "bound"):
    one, other = getattr(picked, name), getattr(fused, name)
    assert torch.allclose(one, other, rtol=1e-11, atol=1e-11), (name, (one - other).abs().max())
assert torch.allclose(values, fused.values, rtol=1e-12, atol=1e-12)
working = triton_kernels._sum_images
launches = []
class Counted:
    def __getitem__(self, grid):
        def run(*args, **kwargs):
            launches.append((grid[1], kwargs["SINGLE"]))
            return working[grid](*args, **kwargs)
        return run
triton_kernels._sum_images = Counted()
rough = lattice_sums_and_derivatives(*inputs, potentials[:2], 1e-4)
triton_kernels._sum_images = working
assert (2, True) in launches and len(launches) <= 6, launches  # one for both potentials of a block
crystal = inputs[2][rough.pair_index[0]]
exact = lattice_sums_and_derivatives(*inputs, potentials[:2], 1e-11)
assert ((rough.values - exact.values).abs() <= rough.bound[crystal]).all()
for i, name in enumerate(("by_vector", "by_strain")):
    error = (getattr(rough, name) - getattr(exact, name)).abs().amax(-1)
    assert (error <= rough.derivative_bound[crystal, :, i]).all(), name
number = len(calls)
lattice_sums(*inputs, [lattice.ScreenedCoulomb()])  # the kernel does not know it: torch does
assert len(calls) == number
def broken(*args, **kwargs):
    raise RuntimeError("no compiler")
class Broken:
    def __getitem__(self, grid):
        return broken
triton_kernels._sum_images = Broken()
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    again = lattice_sums(*inputs, potentials, 1e-9).values
assert any("the Triton kernel does not run here" in str(w.message) for w in caught)
assert torch.allclose(again, values, rtol=1e-11, atol=1e-11)
alone = lattice_sums(*inputs, potentials[:1], 1e-9).values  # by torch, too
class Wrong:  # compiles, and gives something else
    def __getitem__(self, grid):
        def run(*args, **kwargs):
            working[grid](*args, **kwargs)
            args[8].mul_(1 + 1e-9)
        return run
triton_kernels._failed = False
triton_kernels._verified.cache_clear()
triton_kernels._sum_images = Wrong()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    again = lattice_sums(*inputs, potentials[:1], 1e-9).values
assert any("the Triton kernel is wrong here" in str(w.message) for w in caught)
assert torch.allclose(again, alone, rtol=1e-12, atol=1e-12)
print("done")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: it comes with torch for CUDA, `pip install triton` is enough here",
)
def test_against_torch_operations():
    reference = str(Path(__file__).parents[2] / "reference")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, reference],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
