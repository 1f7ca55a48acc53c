"""What sums are computed of: checks of cells, positions and settings, and the list of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

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
    if batch.is_floating_point() or batch.dtype == torch.bool:
        raise ValueError(f"batch must hold integers, got {batch.dtype}")
    cell, positions = cell.to(torch.float64), positions.to(torch.float64)
    if len(batch) and (
        int(batch.amin()) < 0 or int(batch.amax()) >= len(cell) or bool((batch.diff() < 0).any())
    ):
        raise ValueError(f"batch must be sorted and lie in 0..{len(cell) - 1}")
    num_atoms = torch.bincount(batch, minlength=len(cell))
    if not bool((num_atoms > 0).all()) or len(cell) == 0:
        raise ValueError(
            "every crystal needs at least one atom" if len(cell) else "give at least one crystal"
        )
    with torch.no_grad():
        finite = cell.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            number = int((~finite).nonzero()[0])
            raise LatticeError(f"crystal {number}: the cell is not finite: {cell[number].tolist()}", number)
        finite = positions.isfinite().all(1)
        if not bool(finite.all()):
            site = int((~finite).nonzero()[0])
            number = int(batch[site])
            site -= int(num_atoms[:number].sum())
            raise LatticeError(f"crystal {number}: site {site} has coordinates that are not finite", number)
        singular = torch.linalg.det(cell).abs() <= 1e-9 * cell.norm(dim=-1).prod(-1)
        if bool(singular.any()):
            number = int(singular.nonzero()[0])
            raise LatticeError(
                f"crystal {number}: the cell is singular (zero volume): {cell[number].tolist()}", number
            )
    return cell, positions, num_atoms


def tolerances(accuracy: float | Sequence[float], count: int, like: Tensor) -> Tensor:
    """One accuracy for each of `count` potentials, (count,), in the dtype and on the device of `like`."""
    if count == 0:
        raise ValueError("give at least one potential")
    values = [float(accuracy)] * count if isinstance(accuracy, int | float) else [float(a) for a in accuracy]
    if len(values) != count:
        raise ValueError(f"give one accuracy or one for each of {count} potentials, got {len(values)}")
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"accuracy must be positive, got {accuracy}")
    return like.new_tensor(values)


def complete_pairs(num_atoms: Tensor) -> Tensor:
    """Every ordered pair of atoms of one crystal, row-major, (2, M), from the numbers of atoms (B,)."""
    squared = num_atoms * num_atoms
    n = num_atoms.repeat_interleave(squared)
    within = torch.arange(len(n), device=n.device) - (squared.cumsum(0) - squared).repeat_interleave(squared)
    start = (num_atoms.cumsum(0) - num_atoms).repeat_interleave(squared)
    return torch.stack([start + within // n, start + within % n])
