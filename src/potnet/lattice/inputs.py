"""What sums are computed of: checks of cells, positions and settings, and the list of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.potentials import Potential

#: Atoms, or an atom and its own image, closer than this are an error, Å.
CLOSEST = 0.01


class LatticeError(ValueError):
    """A crystal that cannot be summed. `crystal` is its index in the batch, if one is to blame."""

    def __init__(self, message: str, crystal: int | None = None) -> None:
        super().__init__(message)
        self.crystal = crystal


def checked(cell: Tensor, positions: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Refuse what cannot be summed; return float64 cells and positions, and the numbers of atoms (B,)."""
    if cell.ndim != 3 or cell.shape[1:] != (3, 3):
        raise ValueError(f"cell must be (B, 3, 3), got {tuple(cell.shape)}")
    if positions.ndim != 2 or positions.shape[1] != 3 or batch.shape != positions.shape[:1]:
        raise ValueError(
            f"positions must be (N, 3) and batch (N,), got {tuple(positions.shape)} and {tuple(batch.shape)}"
        )
    for name, tensor in (("cell", cell), ("positions", positions), ("batch", batch)):
        if tensor.is_complex():
            raise ValueError(f"{name} must be real, got {tensor.dtype}: give its real part")
    if batch.is_floating_point() or batch.dtype == torch.bool:
        raise ValueError(f"batch must hold integers, got {batch.dtype}")
    cell, positions, batch = cell.to(torch.float64), positions.to(torch.float64), batch.to(torch.int64)
    if len(cell) == 0:
        if len(batch):
            raise ValueError(f"{len(batch)} atoms but no crystal: cell has shape (0, 3, 3)")
        return cell, positions, batch.new_zeros(0)
    with torch.no_grad():
        inside = (batch >= 0) & (batch < len(cell))
        ordered = inside.all() & (batch.diff() >= 0).all()
        num_atoms = torch.zeros(len(cell), dtype=torch.int64, device=batch.device)
        num_atoms.scatter_add_(0, batch.clamp(0, len(cell) - 1), torch.ones_like(batch))
        finite_cell = cell.isfinite().flatten(1).all(1)
        finite_site = positions.isfinite().all(1)
        singular = cells.volume(cell) <= 1e-9 * cell.norm(dim=-1).prod(-1)
        wrong = torch.stack(
            [~ordered, (num_atoms == 0).any(), ~finite_cell.all(), ~finite_site.all(), singular.any()]
        )
    # One transfer from a GPU for all checks; what is wrong is looked for only where something is.
    if any(flags := wrong.tolist()):
        _explain(flags, cell, batch, num_atoms, finite_cell, finite_site, singular)
    return cell, positions, num_atoms


def _explain(
    flags: list[bool],
    cell: Tensor,
    batch: Tensor,
    num_atoms: Tensor,
    finite_cell: Tensor,
    finite_site: Tensor,
    singular: Tensor,
) -> None:
    """Raise the error for the first flag that is set."""
    disordered, empty, infinite_cell, infinite_site, _ = flags
    if disordered:
        raise ValueError(f"batch must be sorted and lie in 0..{len(cell) - 1}")
    if empty:
        number = int((num_atoms == 0).nonzero()[0])
        raise LatticeError(f"crystal {number} has no atoms: every crystal needs at least one atom", number)
    if infinite_cell:
        number = int((~finite_cell).nonzero()[0])
        raise LatticeError(f"crystal {number}: the cell is not finite: {cell[number].tolist()}", number)
    if infinite_site:
        site = int((~finite_site).nonzero()[0])
        number = int(batch[site])
        site -= int(num_atoms[:number].sum())
        raise LatticeError(f"crystal {number}: site {site} has coordinates that are not finite", number)
    number = int(singular.nonzero()[0])
    raise LatticeError(
        f"crystal {number}: the cell is singular (zero volume): {cell[number].tolist()}", number
    )


def checked_potentials(potentials: Sequence[Potential]) -> list[Potential]:
    """The potentials as a list.

    Raises:
        TypeError: If anything else than a list of potentials is given.
        ValueError: If there is none.
    """
    if isinstance(potentials, Potential):
        raise TypeError(f"potentials must be a list of potentials: give [{potentials}]")
    potentials = list(potentials)
    for potential in potentials:
        if not isinstance(potential, Potential):
            raise TypeError(f"potentials must be a list of potentials, got {potential!r} in it")
    if not potentials:
        raise ValueError("give at least one potential")
    return potentials


def check_tensors(**arguments: Any) -> None:
    """Refuse what is no tensor.

    Raises:
        TypeError: Names the first.
    """
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got a {type(value).__name__}: torch.as_tensor({name})")


def accuracies(accuracy: Any, count: int) -> list[float]:
    """One accuracy for each of `count` potentials, from a number, a sequence, an array or a tensor."""
    listed = accuracy.tolist() if hasattr(accuracy, "tolist") else accuracy
    if listed is None or isinstance(listed, str):
        raise TypeError(f"accuracy must be a number, or one for each potential, got {accuracy!r}")
    values = [float(listed)] * count if isinstance(listed, int | float) else [float(a) for a in listed]
    if len(values) != count:
        raise ValueError(f"give one accuracy or one for each of {count} potentials, got {len(values)}")
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"accuracy must be positive, got {accuracy}")
    return values


def tolerances(accuracy: Any, count: int, like: Tensor) -> Tensor:
    """The same as a tensor (count,), in the dtype and on the device of `like`."""
    if count == 0:
        raise ValueError("give at least one potential")
    return like.new_tensor(accuracies(accuracy, count))


def complete_pairs(num_atoms: Tensor) -> Tensor:
    """Every ordered pair of atoms of one crystal, row-major, (2, M), from the numbers of atoms (B,)."""
    batch = torch.arange(len(num_atoms), device=num_atoms.device).repeat_interleave(num_atoms)
    return torch.stack(ordered_pairs(num_atoms, batch, int((num_atoms * num_atoms).sum())))


def ordered_pairs(num_atoms: Tensor, batch: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """The same as two columns.

    Args:
        num_atoms: (B,) int64.
        batch: (N,) int64, crystal of each atom.
        total: M, the sum of squared numbers of atoms.
    """
    # A row for each first atom; the second atom counts on from the first one of the crystal.
    start = num_atoms.cumsum(0) - num_atoms
    size = num_atoms.index_select(0, batch)
    ahead = size.cumsum(0) - size - start.index_select(0, batch)
    first = torch.arange(len(batch), device=batch.device).repeat_interleave(size, output_size=total)
    return first, torch.arange(total, device=batch.device).sub_(ahead.index_select(0, first))
