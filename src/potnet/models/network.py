"""`Network`: what all networks of this package have in common."""

from __future__ import annotations

from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.nn.heads import Embedding, Heads


class Network(nn.Module):
    """A backbone, which gives features of atoms and crystals, and a head for each target.

    A subclass makes its layers and `heads`, and defines `embed`.

    Args:
        fold: Whether atoms, edges and pairs that symmetry makes equal are computed once
            (`potnet.nn.symmetry`): the same outputs in less time. Gradients in positions, cell or pair sums,
            and `torch.compile`, need `fold=False`; with True they are refused.

    Attributes:
        needs: Features that it reads, any of "edges", "pairs", "angles" and "descriptors".
        smooth: Whether its output is a continuous function of the positions, so that forces can be derived
            from it. "k nearest neighbours", or a cutoff without an envelope, is not.
        fold: See above; may be changed.
        heads: One for each target.
    """

    needs: frozenset[str]
    smooth: bool = False
    heads: Heads

    def __init__(self, fold: bool = True) -> None:
        super().__init__()
        self.fold = fold

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of the atoms and crystals of a batch.

        Raises:
            ValueError: The batch lacks a feature that the network needs, has an unknown element, or asks for
                gradients in the geometry while `fold` is on.
        """
        raise NotImplementedError

    def atom_parts(self, batch: CrystalBatch, key: str) -> dict[str, Tensor]:
        """What the atoms contribute to an extensive output.

        Args:
            batch: B crystals of N atoms.
            key: Of the head.

        Returns:
            `atoms` (N,), whose sum over the atoms of a crystal is its output; a network may add others.

        Raises:
            ValueError: As for `embed`.
        """
        head = self.heads[key]
        return {"atoms": head.layers(self.embed(batch).atoms).squeeze(-1)}  # type: ignore[operator]

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """The output of each head, by key: (B, outputs) or (N, outputs), (B,) or (N,) if there is one output.

        Raises:
            ValueError: As for `embed`.
        """
        return self.heads(self.embed(batch), batch)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes of a network that are not positive.

    Raises:
        ValueError: Names the first.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: give at least 1")
