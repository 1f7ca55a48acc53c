"""Repulsion of two atoms that come nearer than the data tell."""

from __future__ import annotations

import torch
from torch import Tensor

from potnet.lattice import COULOMB_EV_ANGSTROM

WEIGHTS = (0.18175, 0.50986, 0.28022, 0.02817)
DECAYS = (3.19980, 0.94229, 0.40290, 0.20162)


def screened_nuclei(r: Tensor, z: Tensor, other: Tensor) -> Tensor:
    """Universal repulsion of two nuclei within their electrons, eV.

    E = Z Z' e² / (4 pi eps0 r) sum_i w_i exp(-d_i r / a), a = 0.4685 Å / (Z^0.23 + Z'^0.23): Ziegler,
    Biersack and Littmark, The Stopping and Range of Ions in Matter (1985).

    Args:
        r: (E,) Å, positive.
        z, other: (E,) atomic numbers.
    """
    z, other = z.to(r.dtype), other.to(r.dtype)
    x = r * (z**0.23 + other**0.23) / 0.4685
    screening = sum(weight * torch.exp(-decay * x) for weight, decay in zip(WEIGHTS, DECAYS, strict=True))
    return COULOMB_EV_ANGSTROM * z * other / r * screening


def repulsion(r: Tensor, z: Tensor, other: Tensor, shortest: Tensor, width: float) -> Tensor:
    """`screened_nuclei` below (1 - width) `shortest`, nothing from `shortest` on, smooth in between; eV.

    Two derivatives are continuous.

    Args:
        r, z, other: As there.
        shortest: (E,) Å, the shortest distance that the data have; 0 where there is none.
        width: In units of `shortest`.
    """
    x = ((1 - r / shortest) / width).clamp(0, 1)
    switch = x**3 * (10 - 15 * x + 6 * x**2)
    return torch.where(r < shortest, switch * screened_nuclei(r, z, other), torch.zeros_like(r))
