"""PotNet-FF: a force field with complete potentials as edges and as energies.

A local part on scalars and vectors; beside it, complete sums of all pairs as edges of a gated branch (as in
`PotNet`, but computed from the positions in the forward pass, with gradients); and complete *energies* of
charges, dispersion coefficients and repulsions that the network gives each atom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potnet.crystals.batch import CrystalBatch, edge_vectors
from potnet.lattice import COULOMB_EV_ANGSTROM, Coulomb, London, Pauli, lattice_energies, lattice_sums
from potnet.lattice.direct import truncated_sums
from potnet.models.network import Network
from potnet.models.potnet import GatedBranch, PairChannels
from potnet.nn import (
    BesselBasis,
    Edges,
    ElementEmbedding,
    Embedding,
    Envelope,
    Head,
    Heads,
    HeadSpecs,
    SmoothBasis,
    aggregate,
)
from potnet.nn.angular import AngularMoments
from potnet.nn.equivariant import VectorMessage, VectorUpdate, mlp, vector_norm

LONG_RANGE = ("coulomb", "london", "pauli")


class PotNetFF(Network):
    """Energy of a crystal, E = sum_i e_i(local) + long-range energies of what the network gives each atom:

    k/2 sum_ab q_a q_b S_coulomb(a, b) - 1/2 sum_ab c_a c_b S_london(a, b) + 1/2 sum_ab b_a b_b S_pauli(a, b)

    with charges q that sum to zero in every crystal, c and b not negative, k = 14.4 eV Å, and S summed over
    all periodic images. Heads of extensive targets get these energies; forces and stress follow by
    differentiation.

    Args:
        width: h of the local part, an even number.
        layers: Of message passing.
        cutoff: Å, of the local edges: the cutoff of the features.
        bins: Bessel functions of a distance.
        pairs: What the pair branch sees: "complete" sums, sums cut at `pair_cutoff`, or "none" for no branch.
        pair_cutoff: Å, for `pairs="radius"`; the sums end there with a jump, so only for an ablation.
        long_range: Which complete energies: any of "coulomb", "london", "pauli".
        alpha: 1/Å, of the repulsion exp(-alpha r).
        accuracy: Of sums and energies.
        angular: Radial functions of the angular moments (`potnet.nn.angular`) that each layer begins with; 0
            leaves them out.
        heads: What it gives, by key; one extensive scalar named "energy" by default.
        fold: Not possible: atoms that symmetry makes equal have different forces.

    Raises:
        ValueError: An unknown option, a size that is not positive, an odd width, or `fold=True`.
    """

    needs = frozenset({"edges"})

    def __init__(
        self,
        width: int = 64,
        layers: int = 2,
        cutoff: float = 5.0,
        bins: int = 16,
        pairs: Literal["complete", "radius", "none"] = "none",
        pair_cutoff: float = 6.0,
        long_range: Sequence[str] = ("coulomb", "london"),
        alpha: float = 3.0,
        accuracy: float = 1e-4,
        angular: int = 0,
        heads: HeadSpecs | None = None,
        fold: bool = False,
    ) -> None:
        super().__init__(fold)
        if fold:
            raise ValueError("PotNetFF has vectors, which equal atoms do not share: set fold=false")
        if pairs not in ("complete", "radius", "none"):
            raise ValueError(f"pairs must be 'complete', 'radius' or 'none', got {pairs!r}")
        unknown = set(long_range) - set(LONG_RANGE)
        if unknown:
            raise ValueError(f"long_range may hold {', '.join(LONG_RANGE)}; got {', '.join(sorted(unknown))}")
        if layers < 1 or width < 2 or width % 2:
            raise ValueError(f"width must be even and layers positive, got {width} and {layers}")
        if angular < 0:
            raise ValueError(f"angular={angular}: give a number of radial functions, or 0")
        self.smooth = pairs != "radius"
        self.width, self.pairs, self.pair_cutoff = width, pairs, pair_cutoff
        self.long_range, self.alpha, self.accuracy = tuple(long_range), alpha, accuracy
        # Of the crystals of a batch, for complete energies; two of three for slabs.
        self.periodic: tuple[bool, bool, bool] = (True, True, True)
        self.elements = ElementEmbedding(width)
        self.basis = SmoothBasis(BesselBasis(cutoff, bins), Envelope(cutoff))
        self.angular = nn.ModuleList(
            AngularMoments(width, bins, angular) for _ in range(layers if angular else 0)
        )
        self.messages = nn.ModuleList(VectorMessage(width, bins) for _ in range(layers))
        self.updates = nn.ModuleList(VectorUpdate(width) for _ in range(layers))
        self.pair_embedding: PairChannels | None = None
        self.pair_layers = nn.ModuleList()
        if pairs != "none":
            self.pair_embedding = PairChannels(3, 48, width // 2)
            self.pair_layers.extend(GatedBranch(width, width // 2) for _ in range(layers))
        self.charges = mlp(width, width // 2, len(self.long_range)) if self.long_range else None
        self.heads = Heads(
            {"energy": {"extensive": True}} if heads is None else heads,
            lambda spec: Head(spec, width, width, [width], nn.SiLU),
        )

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Scalars of atoms (N, h), and their mean over each crystal.

        Raises:
            ValueError: The batch has no local edges, or an element is unknown.
        """
        vectors = edge_vectors(batch, "PotNetFF")
        assert batch.edge_index is not None
        length = vector_norm(vectors)
        basis, unit = self.basis(length), vectors / length.unsqueeze(1)
        s = self.elements(batch)
        v = s.new_zeros(len(s), 3, self.width)
        edges = self._pair_edges(batch)
        scale = batch.num_atoms.to(s.dtype).rsqrt().index_select(0, batch.batch).unsqueeze(1)
        for i, (message, update) in enumerate(zip(self.messages, self.updates, strict=True)):
            if self.angular:
                s = self.angular[i](s, batch.edge_index, basis, unit)
            s, v = message(s, v, batch.edge_index, basis, unit, first=i == 0)
            if edges is not None:
                s = s + self.pair_layers[i](s, edges, scale)
            s, v = update(s, v)
        return Embedding(s, aggregate(s, batch.batch, batch.num_crystals, "mean"))

    def _pair_edges(self, batch: CrystalBatch) -> Edges | None:
        """All ordered pairs, with features of their sums."""
        if self.pair_embedding is None:
            return None
        potentials = [Coulomb(), London(), Pauli(self.alpha)]
        given = batch.cell, batch.positions, batch.batch, potentials
        sums = (
            truncated_sums(*given, self.pair_cutoff)
            if self.pairs == "radius"
            else lattice_sums(*given, accuracy=self.accuracy)
        )
        target, source = sums.pair_index
        return Edges(self.pair_embedding(sums.values.to(batch.dtype)), target, source, None)

    def sources(self, s: Tensor, batch: CrystalBatch) -> Tensor:
        """(N, L) charges (neutral in every crystal), square roots of dispersion coefficients, and repulsions.

        They are on the scale of the network's output: times the square root of the target's scale they are
        physical, charges in e.

        Args:
            s: (N, h), scalars of atoms.
            batch: Of these atoms.
        """
        assert self.charges is not None
        given = self.charges(s)
        columns = []
        for name, column in zip(self.long_range, given.unbind(-1), strict=True):
            if name == "coulomb":
                mean = aggregate(column, batch.batch, batch.num_crystals, "mean")
                columns.append(column - mean.index_select(0, batch.batch))
            else:
                columns.append(F.softplus(column))
        return torch.stack(columns, -1)

    def long_range_parts(self, sources: Tensor, batch: CrystalBatch) -> Tensor:
        """(N,) parts of the complete energies that belong to each atom, on the scale of the network's output.

        Args:
            sources: (N, L), from `sources`.
            batch: Of these atoms.
        """
        potentials = {"coulomb": Coulomb(), "london": London(), "pauli": Pauli(self.alpha)}
        factors = {"coulomb": COULOMB_EV_ANGSTROM, "london": -1.0, "pauli": 1.0}
        found = lattice_energies(
            batch.cell,
            batch.positions,
            batch.batch,
            sources.double(),
            [potentials[name] for name in self.long_range],
            accuracy=self.accuracy,
            periodic=self.periodic,
        ).atom
        return (found * found.new_tensor([factors[name] for name in self.long_range])).sum(-1)

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """The output of each head; those of extensive targets with the long-range energies."""
        embedding = self.embed(batch)
        found = self.heads(embedding, batch)
        if self.charges is not None:
            parts = self.long_range_parts(self.sources(embedding.atoms, batch), batch)
            energy = aggregate(parts, batch.batch, batch.num_crystals)
            for key, spec in self.heads.specs.items():
                if spec.extensive:
                    found[key] = found[key].double() + energy
        return found

    def atom_parts(self, batch: CrystalBatch, key: str) -> dict[str, Tensor]:
        """As for every network; with the long-range energies, and `charges` (N,) where there are any.

        Charges times the square root of the target's scale are in e.
        """
        s = self.embed(batch).atoms
        found = {"atoms": self.heads[key].layers(s).squeeze(-1)}  # type: ignore[operator]
        if self.charges is None:
            return found
        sources = self.sources(s, batch)
        found["atoms"] = found["atoms"].double() + self.long_range_parts(sources, batch)
        if "coulomb" in self.long_range:
            found["charges"] = sources[:, self.long_range.index("coulomb")]
        return found
