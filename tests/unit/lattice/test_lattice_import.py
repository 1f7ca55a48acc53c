"""`potnet.lattice` is usable alone: it needs torch and nothing else."""

import subprocess
import sys

# Everything that is not torch, potnet.lattice or the standard library is refused, with what torch itself
# imports already there.
SCRIPT = """
import sys
import torch

allowed = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names) | {"potnet"}
allowed -= {"numpy"} if BLOCK_NUMPY else set()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
if BLOCK_NUMPY:
    sys.modules["numpy"] = None
before = set(sys.modules)
from potnet.lattice import Coulomb, London, Pauli, lattice_energies, lattice_sums

new = {name for name in set(sys.modules) - before if not name.startswith(("potnet", "torch", "ctypes"))}
ours = {name for name in sys.modules if name.startswith("potnet")}
assert all(name == "potnet" or name.startswith("potnet.lattice") for name in ours), ours
assert "torch._dynamo" not in sys.modules
positions = torch.tensor([[0.0, 0.0, 0.0], [1.3, 1.2, 1.1]], dtype=torch.float64, requires_grad=True)
batch = torch.zeros(2, dtype=torch.int64)
sums = lattice_sums(3.0 * torch.eye(3)[None], positions, batch, [Coulomb(), London()])
sums.values.sum().backward()
charges = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
sites = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
for method in ("ewald", "mesh"):
    inputs = torch.eye(3)[None], sites, batch, charges
    energies = lattice_energies(*inputs, [Coulomb()], forces=True, method=method)
    assert abs(float(energies.crystal) * 3**0.5 / 2 + 1.762674773) < 1e-5
print(float(sums.values[0, 0]))
"""


def run(block_numpy):
    script = SCRIPT.replace("BLOCK_NUMPY", str(block_numpy))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_needs_torch_only():
    # Wigner's constant of a simple cubic lattice with a neutralising background.
    assert abs(run(False) * 3.0 + 2.837297479480620) < 1e-7


def test_runs_without_numpy():
    assert abs(run(True) * 3.0 + 2.837297479480620) < 1e-7
