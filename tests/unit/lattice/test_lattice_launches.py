"""What a call costs beside arithmetic: operators started, waits for a device, graph breaks. No times."""

import collections

import numpy as np
import pytest
import torch
from lattice_cases import Case, rotation, scattered, tensors
from torch.utils._python_dispatch import TorchDispatchMode

from potnet.lattice import (
    Coulomb,
    EnergySums,
    London,
    Pauli,
    lattice_energies,
    lattice_sums,
    lattice_sums_and_derivatives,
    plan,
    truncated_sums,
)

POTENTIALS = [Coulomb(), London(), Pauli()]
# Operators whose result has a size or a value that the host has to know: on a GPU each waits for it.
WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "masked_select",
    "bincount",
    "equal",
    "is_nonzero",
)


VIEWS = (
    *("view", "select", "slice", "unsqueeze", "squeeze", "expand", "transpose", "t", "permute", "alias"),
    *("detach", "unbind", "split", "_unsafe_view", "as_strided", "split_with_sizes", "lift_fresh"),
)


class Counter(TorchDispatchMode):
    """Counts operators other than views, and those that make the host wait."""

    def __init__(self):
        super().__init__()
        self.operators = collections.Counter()

    def __enter__(self):
        self.tolist, torch.Tensor.tolist = torch.Tensor.tolist, self.counted_tolist()
        return super().__enter__()

    def __exit__(self, *args):
        torch.Tensor.tolist = self.tolist
        return super().__exit__(*args)

    def counted_tolist(self):
        original, counter = torch.Tensor.tolist, self

        def tolist(tensor):
            counter.operators["_local_scalar_dense"] += 1
            return original(tensor)

        return tolist

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1]):
            name = "nonzero"
        if name == "repeat_interleave" and (kwargs or {}).get("output_size") is None:
            name = "nonzero"
        if name not in VIEWS:
            self.operators[name] += 1
        return func(*args, **(kwargs or {}))

    def waits(self):
        return sum(count for name, count in self.operators.items() if name in WAITS)


@pytest.fixture
def like_a_gpu(monkeypatch):
    """The plan and the terms as on a GPU; the numbers are computed here."""
    monkeypatch.setitem(plan.STYLES, "cpu", plan.STYLES["cuda"])


def crystals(count):
    """Crystals of 1 to 12 atoms, the same distribution for every count."""
    rng = np.random.default_rng(0)
    cases = []
    for number in range(32):
        n = 1 + number % 12
        cell = (15 * n) ** (1 / 3) * (np.eye(3) + 0.1 * rng.uniform(-1, 1, (3, 3)))
        cases.append(Case("", cell, scattered(cell, n, rng, 1.3)))
    cell, positions, batch = tensors(cases)
    # Copies in other directions: other numbers, the same sizes.
    copies = count // len(cases)
    turns = torch.from_numpy(np.stack([rotation(rng) for _ in range(copies)]))
    offset = len(cell) * torch.arange(copies).repeat_interleave(len(batch))
    return (
        (cell[None] @ turns[:, None]).flatten(0, 1),
        (positions[None] @ turns).flatten(0, 1),
        batch.repeat(copies) + offset,
    )


def counted(function, *inputs, **settings):
    function(*inputs, **settings)  # boxes of lattice points are made once
    with Counter() as counter:
        function(*inputs, **settings)
    return counter


@pytest.mark.parametrize("function", [lattice_sums, lattice_sums_and_derivatives])
@pytest.mark.parametrize("accuracy", [1e-4, 1e-8])
def test_constant_in_the_number_of_crystals(like_a_gpu, function, accuracy):
    few = counted(function, *crystals(64), POTENTIALS, accuracy)
    many = counted(function, *crystals(512), POTENTIALS, accuracy)
    assert many.waits() == few.waits() <= 8
    assert sum(many.operators.values()) == sum(few.operators.values())


def test_constant_with_a_backward_pass(like_a_gpu):
    counts = []
    for number in (64, 512):
        cell, positions, batch = crystals(number)
        inputs = cell.requires_grad_(), positions.requires_grad_()
        lattice_sums(*inputs, batch, POTENTIALS, 1e-4)
        with Counter() as counter:
            lattice_sums(*inputs, batch, POTENTIALS, 1e-4).values.sum().backward()
        counts.append((counter.waits(), sum(counter.operators.values())))
    assert counts[0] == counts[1]
    assert counts[0][0] <= 8


def test_on_a_cpu_blocks_are_bounded_by_the_number_of_sizes():
    """Blocks are merged where padding costs less than a block: few crystals make fewer blocks."""
    operators = [
        sum(counted(lattice_sums, *crystals(n), POTENTIALS, memory_mib=4096).operators.values())
        for n in (64, 512, 2048)
    ]
    assert operators[0] < operators[2] < 12 * 450 + 1500


def test_both_styles_agree(monkeypatch):
    inputs = crystals(64)
    ours = lattice_sums(*inputs, POTENTIALS, 1e-8)
    monkeypatch.setitem(plan.STYLES, "cpu", plan.STYLES["cuda"])
    other = lattice_sums(*inputs, POTENTIALS, 1e-8)
    assert torch.allclose(ours.values, other.values, rtol=1e-11, atol=1e-11)
    assert torch.allclose(ours.bound, other.bound, rtol=1e-5)
    assert torch.equal(ours.pair_index, other.pair_index)


SLABS = {"periodic": (True, True, False)}
FUNCTIONS = {
    "sums": lambda *x: lattice_sums(*x[:3], POTENTIALS, 1e-6).values,
    "derivatives": lambda *x: lattice_sums_and_derivatives(*x[:3], POTENTIALS, 1e-6).by_vector,
    "truncated": lambda *x: truncated_sums(*x[:3], POTENTIALS, 4.0).values,
    "energies": lambda *x: lattice_energies(*x, POTENTIALS, forces=True).forces,
    "dynamics": lambda *x: DYNAMICS(*x).crystal,
    "slab sums": lambda *x: lattice_sums(*x[:3], POTENTIALS, 1e-6, **SLABS).values,
    "slab energies": lambda *x: lattice_energies(*x, POTENTIALS, **SLABS).crystal,
}
DYNAMICS = EnergySums(POTENTIALS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_graph_break_in_a_compiled_model(name):
    cell, positions, batch = crystals(32)
    charges = torch.arange(len(batch), dtype=torch.float64)[:, None].sin()
    mean = (
        torch.zeros(32, 1, dtype=torch.float64).index_add(0, batch, charges) / torch.bincount(batch)[:, None]
    )
    inputs = cell, positions, batch, (charges - mean[batch]).repeat(1, len(POTENTIALS))

    def model(cell, positions, *others):
        return 2 * FUNCTIONS[name](cell, 1.5 * positions, *others)

    torch._dynamo.reset()
    assert torch._dynamo.explain(model)(*inputs).graph_break_count == 1
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(compiled(*inputs), model(*inputs))
