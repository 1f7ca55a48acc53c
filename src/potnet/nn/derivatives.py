"""Forces and stress: derivatives of an energy in positions and strain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch
from potnet.lattice.real import VOIGT


def derivatives(
    energy_of: Callable[[CrystalBatch], Tensor],
    batch: CrystalBatch,
    forces: bool = True,
    stress: bool = True,
    create_graph: bool = False,
) -> dict[str, Tensor]:
    """Energies with forces and stress.

    With a symmetric strain e applied to positions and cell, x' = x (1 + e) and L' = L (1 + e),

        F = -dE/dx,    stress = (1 / V) dE/de at e = 0.

    Args:
        energy_of: (B,) energies, eV, differentiable in `batch.positions` and `batch.cell`.
        batch: B crystals of N atoms.
        forces: Whether forces are asked for.
        stress: Whether stress is asked for.
        create_graph: Whether the results are differentiated again, as in training.

    Returns:
        `energy` (B,), `forces` (N, 3) eV/Å, `stress` (B, 6) eV/Å³, Voigt order xx yy zz yz xz xy, positive
        under tension, as ASE has it.
    """
    with torch.enable_grad():
        positions = batch.positions.detach().requires_grad_(forces)
        cell, strain = batch.cell, None
        moved = positions
        if stress:
            strain = torch.zeros_like(batch.cell).requires_grad_()
            deformation = torch.eye(3, dtype=cell.dtype, device=cell.device) + (strain + strain.mT) / 2
            moved = torch.einsum("ni,nij->nj", positions, deformation.index_select(0, batch.batch))
            cell = cell @ deformation
        energy = energy_of(replace(batch, positions=moved, cell=cell))
        asked = [tensor for tensor in (positions if forces else None, strain) if tensor is not None]
        found: list[Tensor | None] = []
        if asked and energy.requires_grad:
            found = list(
                torch.autograd.grad(energy.sum(), asked, create_graph=create_graph, allow_unused=True)
            )
        gradients = [
            torch.zeros_like(at) if gradient is None else gradient
            for at, gradient in zip(asked, found or [None] * len(asked), strict=True)
        ]
    result = {"energy": energy if create_graph else energy.detach()}
    if forces:
        result["forces"] = -gradients[0]
    if stress:
        volume = torch.linalg.det(batch.cell).abs()
        tensor = gradients[-1] / volume[:, None, None]
        result["stress"] = torch.stack([tensor[:, i, j] for i, j in VOIGT], 1)
    return result
