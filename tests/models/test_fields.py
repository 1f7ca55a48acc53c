"""Fields of learned charges: linear in the sums, so they hold for any cell, and give Coulomb energies."""

from __future__ import annotations

import pytest
import torch

from potnet.models import PotNet
from potnet.models.potnet import FieldBranch
from potnet.nn import Edges

A = 5.64  # Å, rock salt
MADELUNG = 1.747564594633
"""Of rock salt, with the nearest distance as the unit of length."""


def edges_of(n: int) -> Edges:
    target, source = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    return Edges(torch.zeros(n * n, 0), target, source, None)


@pytest.mark.parametrize("repeat", [1, 2])
def test_the_field_of_ions_is_that_of_madelung_in_any_cell(repeat: int) -> None:
    from potnet.lattice import Coulomb, lattice_sums

    primitive = A / 2 * torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    shift = [k * primitive[2] for k in range(repeat)]
    cell = primitive * torch.tensor([1, 1, repeat]).unsqueeze(1)
    sodium, chlorine = torch.zeros(3, dtype=torch.float64), torch.tensor([A / 2, 0, 0], dtype=torch.float64)
    positions = torch.stack([ion + step for step in shift for ion in (sodium, chlorine)])
    n = len(positions)
    sums = lattice_sums(cell[None], positions, torch.zeros(n, dtype=torch.long), [Coulomb()], accuracy=1e-10)
    branch = FieldBranch(1, 1, 1).double()
    with torch.no_grad():
        branch.charge.weight.fill_(1.0)
        branch.update.weight.copy_(torch.tensor([[0.0, 1.0]]))  # q V
        branch.update.bias.zero_()
    # Charges 5 and 3 are 1 and -1 about their mean.
    x = torch.tensor([[5.0], [3.0]], dtype=torch.float64).repeat(repeat, 1)
    share = torch.full((n, 1), 1 / n, dtype=torch.float64)
    energy = branch(x, edges_of(n), sums.values, torch.zeros(n, dtype=torch.long), share, 1)
    expected = torch.full_like(energy, -MADELUNG / (A / 2))
    torch.testing.assert_close(energy, expected, rtol=1e-8, atol=0)


def test_fields_need_pairs() -> None:
    assert not PotNet(pairs="none", charges=8).field_layers
    with pytest.raises(ValueError, match="charges=-1: give 0 or the number of charges of an atom"):
        PotNet(charges=-1)
