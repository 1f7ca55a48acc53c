"""Features of chemical elements: the table of CGCNN and the ten groups."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.crystals.elements import symbol

ATOM_FEATURES = 92
MAX_Z = 100

# Atomic numbers of the ten groups, every element up to Z = 118 in exactly one of them.
ELEMENT_GROUPS: dict[str, tuple[int, ...]] = {
    "nonmetal": (1, 6, 7, 8, 15, 16, 34),
    "noble gas": (2, 10, 18, 36, 54, 86, 118),
    "alkali metal": (3, 11, 19, 37, 55, 87),
    "alkaline earth metal": (4, 12, 20, 38, 56, 88),
    "metalloid": (5, 14, 32, 33, 51, 52),
    "halogen": (9, 17, 35, 53, 85, 117),
    "post-transition metal": (13, 31, 49, 50, 81, 82, 83, 84, 113, 114, 115, 116),
    "transition metal": (*range(21, 31), *range(39, 49), *range(72, 81), *range(104, 113)),
    "lanthanide": tuple(range(57, 72)),
    "actinide": tuple(range(89, 104)),
}


@cache
def atom_table() -> Tensor:
    """The 92 zeros and ones of CGCNN for the elements up to Z = 100 (Xie and Grossman 2018).

    They encode group, period, electronegativity, covalent radius, valence electrons, ionisation
    energy, electron affinity, block and volume. Read from the file that jarvis-tools ships, found
    without importing jarvis.

    Returns:
        (101, 92) float32, row z is the element of atomic number z, row 0 is zero. Don't write to it.

    Raises:
        FileNotFoundError: If jarvis-tools is not installed or has no such file.
    """
    spec = importlib.util.find_spec("jarvis")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    paths = [path for folder in folders if (path := folder / "core" / "atom_init.json").is_file()]
    if not paths:
        where = f"in {folders[0]}" if folders else "because jarvis-tools is not installed"
        raise FileNotFoundError(
            f"element features: no core/atom_init.json {where}; run `pip install jarvis-tools`"
        )
    rows = json.loads(paths[0].read_text())
    table = torch.zeros(MAX_Z + 1, ATOM_FEATURES)
    for z in range(1, MAX_Z + 1):
        table[z] = torch.tensor(rows[str(z)], dtype=torch.float32)
    return table


def group_table() -> Tensor:
    """One-hot membership in the ten `ELEMENT_GROUPS`: (101, 10) float32, row z, row 0 is zero."""
    table = torch.zeros(MAX_Z + 1, len(ELEMENT_GROUPS))
    for column, members in enumerate(ELEMENT_GROUPS.values()):
        table[[z for z in members if z <= MAX_Z], column] = 1.0
    return table


def element_weights() -> Tensor:
    """One half, electronegativity less 2, covalent radius (Å) less 1.4: (101, 3) float32, row 0 is zero.

    The last two are the middles of the bins of `atom_table`, which are 0.35 and 0.225 Å wide; zero for an
    element that has none there, such as the noble gases.
    """
    table = atom_table()
    negativity, radius = table[:, 26:36], table[:, 36:46]
    steps = torch.arange(10) + 0.5
    weights = torch.stack(
        [
            torch.full((len(table),), 0.5),
            negativity @ (0.5 + 0.35 * steps - 2.0),
            radius @ (0.25 + 0.225 * steps - 1.4),
        ],
        1,
    )
    weights[0] = 0.0
    return weights


class ElementFeatures(nn.Module):
    """Features of each atom's element, looked up by atomic number.

    Args:
        group_features: Whether to append the ten one-hot features of the element's group.
    """

    table: Tensor

    def __init__(self, group_features: bool = False) -> None:
        super().__init__()
        table = torch.cat([atom_table(), group_table()], 1) if group_features else atom_table().clone()
        # The same for every model, so not part of a checkpoint.
        self.register_buffer("table", table, persistent=False)

    @property
    def features(self) -> int:
        """Number of features, 92 or 102."""
        return self.table.shape[1]

    def forward(self, batch: CrystalBatch) -> Tensor:
        """Features of the N atoms, (N, features).

        Raises:
            ValueError: If an element is beyond the table, naming elements and crystals.
        """
        # The check reads the device; a compiled graph must not.
        if not torch.compiler.is_compiling():
            check_elements(batch)
        return self.table[batch.z]


class ElementEmbedding(nn.Module):
    """A learned vector for each element up to Z = 100, in place of given features.

    Args:
        width: Features of an atom.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(MAX_Z + 1, width))

    def forward(self, batch: CrystalBatch) -> Tensor:
        """Features of the N atoms, (N, width).

        Raises:
            ValueError: If an element is beyond the table, naming elements and crystals.
        """
        if not torch.compiler.is_compiling():
            check_elements(batch)
        return self.weight[batch.z]

    def extra_repr(self) -> str:
        return f"{MAX_Z}, {self.weight.shape[1]}"


def check_elements(batch: CrystalBatch) -> None:
    """Refuse elements beyond the tables of this file.

    Raises:
        ValueError: Naming elements and crystals.
    """
    unknown = (batch.z < 1) | (batch.z > MAX_Z)
    if not unknown.any():
        return
    found = ", ".join(f"{symbol(z)} (Z = {z})" for z in sorted(set(batch.z[unknown].tolist())))
    crystals = [batch.ids[i] for i in sorted(set(batch.batch[unknown].tolist()))]
    shown = ", ".join(crystals[:5]) + (f" and {len(crystals) - 5} more" if len(crystals) > 5 else "")
    raise ValueError(
        f"no features for {found} in {shown}: the table ends at {symbol(MAX_Z)} (Z = {MAX_Z}); "
        "leave these crystals out"
    )
