"""PotNet with the complete potentials in a branch of their own: what this package trains by default.

conf/model/potnet.yaml has the default settings, among them `angular=4` and `charges=8`; `PotNet()` by itself
has neither angles nor fields.

What differs from `PublishedPotNet`, and why, is measured in docs/network.md:

- Local edges and complete pairs have separate weights, and their sums separate norms, so that n² pairs
  cannot drown the few bonds; the sum over the n pairs of an atom is divided by sqrt(n), so its scale does
  not grow with the cell.
- Layer norm in place of batch norm: nothing depends on the rest of a batch or on running statistics.
- The potentials are separate channels on scales that fit them: they span decades, and a fixed combination
  hides all but the largest.
- An atom begins with invariants of its neighbours that know the angles between them; messages along edges
  know lengths alone.
- One linear layer an edge and one an atom in place of two an edge: the same depth for half of the work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potnet.crystals.batch import CrystalBatch
from potnet.models.network import Network
from potnet.models.potnet_published import LOCAL_STRENGTH
from potnet.nn import (
    EdgeLinear,
    Edges,
    ElementFeatures,
    Embedding,
    FoldedBatch,
    GaussianBasis,
    Head,
    Heads,
    HeadSpecs,
    PotentialChannels,
    aggregate,
)
from potnet.nn.angular import PowerSpectrum
from potnet.nn.equivariant import mlp

#: Default ranges of the Gaussians of a local edge: 0.9 to 5 Å, and -0.75 / r over the same.
LOCAL_RANGES = {"distance": (0.9, 5.0), "potential": (-0.8, -0.15)}


class PotNet(Network):
    """Gated convolutions along local edges and, in a second branch, along complete pairs.

    x_i <- x_i + SiLU(LN(U h_i)) + SiLU(LN(U' h'_i)),
    h_i = sum_j sigmoid(LN(gate(z))) * SiLU(value(z)) / sqrt(count), z = [x_i, x_j, e],
    with gate and value linear, and `count` the usual number of neighbours (local branch, h) or the number
    of atoms of the crystal (pairs, h').

    With `angular`, features of an atom begin as Linear(element) + MLP(power spectrum of its neighbours),
    which knows the angles between them (`potnet.nn.angular.PowerSpectrum`).

    Equal atoms, edges and pairs are computed once (`potnet.nn.symmetry`): the same function, in a fraction of
    the time on crystals with as much symmetry as those of the Materials Project. Dropout drops the same
    features of atoms that symmetry makes equal, and so disturbs a symmetric crystal more (not with
    `fold=False`).

    Args:
        width: Features of an atom.
        edge_width: Features of an edge.
        layers: Number of convolutions.
        local: What a local edge of length r (Å) is embedded from: "potential" is -0.75 / r,
            "distance" is r.
        local_range: First and last center of the Gaussians of a local edge; None spans 0.9 to 5 Å.
        local_bins: Gaussians of a local edge.
        angular: Radial functions of the power spectrum, at least 2; 0 leaves it out, as checkpoints do that
            do not name it. conf/model/potnet.yaml has 4.
        angular_cutoff: Å, where the power spectrum ends. Local edges should reach as far.
        pairs: Whether the complete potentials are used: "complete" or "none".
        pair_channels: P, the potentials of a pair. Unused if `pairs` is "none".
        coefficients: P weights that combine the potentials into one channel; None keeps them apart.
        pair_bins: Gaussians of each potential of a pair.
        charges: Learned charges of an atom, whose fields every layer adds (`FieldBranch`); 0 adds none, as
            checkpoints do that do not name it; conf/model/potnet.yaml has 8. Unused if `pairs` is "none".
        neighbors: Usual number of local edges of an atom; scales their sum.
        dropout: Fraction of the features of every update, and of the heads, dropped in training.
        group_features: Whether to append ten one-hot features of the element's group.
        heads: What to give for each target, by its key; None is one scalar of crystals named "value".
        fold: See `Network`.

    Attributes:
        needs: The features that `forward` reads: "edges", and "pairs" unless `pairs` is "none".

    Raises:
        ValueError: If an option has an unknown value, or a size is not positive.
    """

    def __init__(
        self,
        width: int = 128,
        edge_width: int = 64,
        layers: int = 3,
        local: Literal["potential", "distance"] = "potential",
        local_range: Sequence[float] | None = None,
        local_bins: int = 64,
        angular: int = 0,
        angular_cutoff: float = 4.0,
        pairs: Literal["complete", "none"] = "complete",
        pair_channels: int = 3,
        coefficients: Sequence[float] | None = None,
        pair_bins: int = 96,
        charges: int = 0,
        neighbors: float = 16.0,
        dropout: float = 0.0,
        group_features: bool = False,
        heads: HeadSpecs | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__(fold)
        if local not in ("potential", "distance"):
            raise ValueError(f"local must be 'potential' or 'distance', got {local!r}")
        if pairs not in ("complete", "none"):
            raise ValueError(f"pairs must be 'complete' or 'none', got {pairs!r}")
        if charges < 0:
            raise ValueError(f"charges={charges}: give 0 or the number of charges of an atom")
        if min(width, edge_width, layers) < 1 or not neighbors > 0:
            raise ValueError(
                "width, edge_width, layers and neighbors must be positive, "
                f"got {width}, {edge_width}, {layers} and {neighbors}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: give a fraction, 0 or more and below 1")
        if angular and (angular < 2 or not 2.0 <= angular_cutoff < math.inf):
            raise ValueError(
                f"angular={angular}, angular_cutoff={angular_cutoff}: give 0, or at least 2 radial functions "
                "and 2 Å"
            )
        self.local, self.neighbors = local, neighbors
        self.needs = frozenset({"edges"} if pairs == "none" else {"edges", "pairs"})

        start, stop = LOCAL_RANGES[local] if local_range is None else local_range
        self.elements = ElementFeatures(group_features)
        self.atom_embedding = nn.Linear(self.elements.features, width)
        self.spectrum = PowerSpectrum(angular_cutoff, angular) if angular else None
        if self.spectrum is not None:
            self.angular_embedding = mlp(self.spectrum.features, width, width)
        self.edge_embedding = nn.Sequential(
            GaussianBasis(start, stop, local_bins), nn.Linear(local_bins, edge_width), nn.SiLU()
        )
        self.local_layers = nn.ModuleList(GatedBranch(width, edge_width) for _ in range(layers))
        self.pair_embedding: PairChannels | None = None
        self.pair_layers = nn.ModuleList()
        if pairs == "complete":
            self.pair_embedding = PairChannels(pair_channels, pair_bins, edge_width, coefficients)
            self.pair_layers.extend(GatedBranch(width, edge_width) for _ in range(layers))
        self.field_layers = nn.ModuleList(
            FieldBranch(width, pair_channels, charges)
            for _ in range(layers if charges and pairs == "complete" else 0)
        )
        self.dropout = nn.Dropout(dropout)
        self.heads = Heads(
            heads,
            lambda spec: Head(
                spec, width, width, [width], lambda: nn.Sequential(nn.SiLU(), nn.Dropout(dropout))
            ),
        )

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms (N, width), and their mean over each crystal; see `Network.embed`."""
        spectrum = None if self.spectrum is None else self.spectrum(batch, "PotNet")
        folded = FoldedBatch(
            batch, "PotNet", self.fold, pairs=self.pair_embedding is not None, invariants=spectrum
        )
        distance = folded.distance
        scalar = distance if self.local == "distance" else LOCAL_STRENGTH / distance
        local, pairs = folded.local_edges(self.edge_embedding(scalar)), None
        if self.pair_embedding is not None:
            pairs = folded.pair_edges(self.pair_embedding(folded.potentials.values))
        x = self.atom_embedding(folded.of_atoms(self.elements(batch)))
        if spectrum is not None:
            x = x + self.angular_embedding(folded.of_atoms(spectrum).to(x.dtype))
        crystal = folded.of_atoms(batch.batch)
        num_atoms = batch.num_atoms.index_select(0, crystal)
        of_pairs = num_atoms.to(x.dtype).rsqrt().unsqueeze(1)
        for i, layer in enumerate(self.local_layers):
            change = layer(x, local, self.neighbors**-0.5)
            if pairs is not None:
                change = change + self.pair_layers[i](x, pairs, of_pairs)
            if pairs is not None and self.field_layers:
                share = folded.atoms.sizes().to(x.dtype) / num_atoms
                sums = folded.potentials.values.to(x.dtype)
                change = change + self.field_layers[i](
                    x, pairs, sums, crystal, share.unsqueeze(1), batch.num_crystals
                )
            x = x + self.dropout(change)
        atoms = folded.atoms.spread(x)
        return Embedding(atoms, aggregate(atoms, batch.batch, batch.num_crystals, "mean"))


class PairChannels(nn.Module):
    """Sums of potentials to features: Gaussians of each on two scales, Linear, SiLU.

    A linear scale tells strong sums apart (Coulomb); the scale asinh(S / 1e-4), linear about zero and
    logarithmic beyond, the weak ones (London and Pauli sums span 1e-6 to 1). Together they suit any
    potential.

    Args:
        channels: P, potentials of a pair.
        bins: Gaussians of each potential, a third of them on the linear scale.
        width: Features of the result.
        coefficients: P weights that combine the potentials into one; None keeps them apart.

    Raises:
        ValueError: There are not P coefficients.
    """

    UNIT = 1e-4
    LINEAR_LIMIT = 3.0
    LOGARITHMIC_LIMIT = 12.0

    def __init__(
        self, channels: int, bins: int, width: int, coefficients: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.potentials = PotentialChannels(channels, coefficients)
        self.linear_basis = GaussianBasis(-self.LINEAR_LIMIT, self.LINEAR_LIMIT, bins // 3)
        self.logarithmic_basis = GaussianBasis(
            -self.LOGARITHMIC_LIMIT, self.LOGARITHMIC_LIMIT, bins - bins // 3
        )
        self.linear = nn.Linear(bins * self.potentials.outputs, width)

    def forward(self, sums: Tensor) -> Tensor:
        """(U, P) to (U, width)."""
        sums = self.potentials(sums)
        # What lies beyond a scale looks like its end.
        strong = sums.clamp(-self.LINEAR_LIMIT, self.LINEAR_LIMIT)
        weak = torch.asinh(sums / self.UNIT).clamp(-self.LOGARITHMIC_LIMIT, self.LOGARITHMIC_LIMIT)
        features = torch.cat([self.linear_basis(strong), self.logarithmic_basis(weak)], -1)
        return F.silu(self.linear(features.flatten(1)))


class GatedBranch(nn.Module):
    """SiLU(LN(Linear(scale * sum_j sigmoid(LN(gate(z))) * SiLU(value(z))))), z = [x_i, x_j, e].

    Args:
        width: Features of an atom.
        edge_width: Features of an edge.
    """

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.gate_and_value = EdgeLinear(width, edge_width, 2 * width)
        self.gate_norm = nn.LayerNorm(width)
        self.update = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, edges: Edges, scale: Tensor | float) -> Tensor:
        """Change of the features of atoms.

        Args:
            x: (C, width), of each class of atoms.
            edges: One for each class.
            scale: What the sum over the edges of an atom is multiplied with, a number or (C, 1).
        """
        gate, value = self.gate_and_value(x, edges).chunk(2, 1)
        message = self.gate_norm(gate).sigmoid() * F.silu(value)
        total = aggregate(message, edges.target, len(x), times=edges.times)
        return F.silu(self.norm(self.update(scale * total)))


class FieldBranch(nn.Module):
    """Fields of learned charges, linear in the sums of the potentials.

    V_ikp = sum_j q_jk S_p(i, j), q = Linear(x) less its mean over the crystal, so that the charges of a
    crystal add up to zero; change of x = Linear([V, q V]). As a sum over the charges of all images it does
    not depend on the choice of the cell, which what is not linear in the sums does.

    Args:
        width: Features of an atom.
        channels: P, potentials of a pair.
        charges: K, charges of an atom.
    """

    def __init__(self, width: int, channels: int, charges: int) -> None:
        super().__init__()
        self.charge = nn.Linear(width, charges, bias=False)
        self.update = nn.Linear(2 * charges * channels, width)

    def forward(
        self, x: Tensor, pairs: Edges, sums: Tensor, crystal: Tensor, share: Tensor, crystals: int
    ) -> Tensor:
        """Change of the features of atoms, (C, width).

        Args:
            x: (C, width), of each class of atoms.
            pairs: One for each class; their features are not read.
            sums: (V, P), of the distinct pairs.
            crystal: (C,) int64 in [0, B), of each class.
            share: (C, 1), the part of the crystal's atoms that are in the class.
            crystals: B.
        """
        q = self.charge(x)
        mean = aggregate(q * share, crystal, crystals)
        q = q - mean.index_select(0, crystal)
        terms = q.index_select(0, pairs.source).unsqueeze(2) * pairs.per_edge(sums).unsqueeze(1)
        field = aggregate(terms, pairs.target, len(x), times=pairs.times)
        return self.update(torch.cat([field, q.unsqueeze(2) * field], 1).flatten(1))
