"""PotNet as published (Lin et al., ICML 2023).

The network as published: one set of edges holds the local neighbours and every ordered pair of atoms
with its complete potentials, and gated convolutions pass messages along all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from potnet.crystals.batch import CrystalBatch
from potnet.models.network import Network
from potnet.nn import (
    BatchNorm,
    Classes,
    EdgeLinear,
    Edges,
    ElementFeatures,
    Embedding,
    FoldedBatch,
    GaussianBasis,
    Head,
    Heads,
    HeadSpecs,
    MultiquadricBasis,
    PotentialChannels,
    Scalars,
    ShiftedSoftplus,
    aggregate,
)
from potnet.nn.heads import DEFAULT_HEAD

PUBLISHED_COEFFICIENTS = (-0.801, -0.074, 0.145)
"""Of Coulomb, London and Pauli, as combined in the paper's experiments."""

LOCAL_STRENGTH = -0.75
"""Of local edges as potentials, -0.75 / r with r in Å."""


class PublishedPotNet(Network):
    """The published network and its published variants.

    Args:
        width: Features of atoms and edges.
        layers: Number of convolutions.
        local: What a local edge of length r (Å) is embedded from: "potential" is -0.75 / r,
            "distance" is r.
        pairs: What is done with the complete potentials of all ordered pairs: "none" ignores them,
            "concatenated" adds them to the local edges, "attention" gives them an attention layer
            beside each convolution.
        pair_channels: P, the potentials of a pair. Unused if `pairs` is "none".
        coefficients: P numbers: the potentials of a pair are combined into one scalar with them, as
            published. None: every potential is expanded in bins of its own.
        local_bins: Gaussians of a local edge.
        pair_bins: Multiquadrics of a pair (of each potential of a pair without coefficients).
        bin_range: First and last center of both bases.
        group_features: Whether to append ten one-hot features of the element's group.
        heads: What to give for each target, by its key; None is one scalar of crystals named "value".
        fold: See `Network`.

    Attributes:
        needs: The features that `forward` reads: "edges", and "pairs" unless `pairs` is "none".

    Raises:
        ValueError: If an option has an unknown value, a size is not positive, or coefficients and channels
            disagree.
    """

    def __init__(
        self,
        width: int = 256,
        layers: int = 3,
        local: Literal["potential", "distance"] = "potential",
        pairs: Literal["none", "concatenated", "attention"] = "concatenated",
        pair_channels: int = 3,
        coefficients: Sequence[float] | None = PUBLISHED_COEFFICIENTS,
        local_bins: int = 256,
        pair_bins: int = 64,
        bin_range: Sequence[float] = (-4.0, 4.0),
        group_features: bool = False,
        heads: HeadSpecs | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__(fold)
        _one_of("local", local, ("potential", "distance"))
        _one_of("pairs", pairs, ("none", "concatenated", "attention"))
        if width < 1 or layers < 1:
            raise ValueError(f"width and layers must be positive, got {width} and {layers}")
        self.local, self.pairs = local, pairs
        self.needs = frozenset({"edges"} if pairs == "none" else {"edges", "pairs"})
        start, stop = bin_range

        self.elements = ElementFeatures(group_features)
        self.atom_embedding = nn.Linear(self.elements.features, width)
        self.edge_embedding = nn.Sequential(
            GaussianBasis(start, stop, local_bins), nn.Linear(local_bins, width), nn.SiLU()
        )
        self.pair_embedding = None
        if pairs != "none":
            basis = MultiquadricBasis(start, stop, pair_bins)
            self.pair_embedding = PairEmbedding(width, basis, pair_channels, coefficients)
        self.convolutions = nn.ModuleList(GatedConvolution(width) for _ in range(layers))
        self.attentions = nn.ModuleList(
            PairAttention(width) for _ in range(layers if pairs == "attention" else 0)
        )
        self.heads = Heads(heads, lambda spec: Head(spec, width, width, [width], ShiftedSoftplus))

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms (N, width), and their mean over each crystal; see `Network.embed`."""
        folded = FoldedBatch(batch, "PublishedPotNet", self.fold, pairs=self.pair_embedding is not None)
        distance = folded.distance
        scalar = distance if self.local == "distance" else LOCAL_STRENGTH / distance
        edges, edges_of, pairs = folded.local_edges(self.edge_embedding(scalar)), folded.edges, None
        if self.pair_embedding is not None:
            pairs = folded.pair_edges(self.pair_embedding(folded.potentials))
            if self.pairs == "concatenated":
                edges, edges_of = edges.joined(pairs), edges_of.joined(folded.pairs)
        atoms = folded.atoms
        x = self.atom_embedding(folded.of_atoms(self.elements(batch)))
        for i, convolution in enumerate(self.convolutions):
            result = convolution(x, edges, atoms, edges_of)
            if pairs is not None and self.pairs == "attention":
                result = result + self.attentions[i](x, pairs, atoms)
            x = result
        x = atoms.spread(x)
        return Embedding(x, aggregate(x, batch.batch, batch.num_crystals, "mean"))

    @classmethod
    def load_published(
        cls,
        state_dict: Mapping[str, Tensor],
        local: Literal["potential", "distance"] = "potential",
        coefficients: Sequence[float] = PUBLISHED_COEFFICIENTS,
    ) -> PublishedPotNet:
        """Build a network from weights with the parameter names of the released code.

        Sizes and variant follow from the weights. What they don't say are the two arguments. The network has
        one head, "value".

        Args:
            state_dict: Weights of the released code, by its parameter names.
            local: As for `PublishedPotNet`; the released "euclidean" variant is "distance".
            coefficients: As for `PublishedPotNet`.

        Raises:
            ValueError: If a weight is missing or has an unknown name.
        """
        renamed = _from_published_names(state_dict)
        try:
            width, atom_features = renamed["atom_embedding.weight"].shape
            centers = state_dict["edge_embedding.0.centers"]
        except KeyError as error:
            raise ValueError(f"not the weights of a published PotNet: {error.args[0]} is missing") from None
        pair_weight = renamed.get("pair_embedding.linear.weight")
        attention = any(name.startswith("attentions.") for name in renamed)
        model = cls(
            width=width,
            layers=len({name.split(".")[1] for name in renamed if name.startswith("convolutions.")}),
            local=local,
            pairs="none" if pair_weight is None else "attention" if attention else "concatenated",
            pair_channels=len(coefficients),
            coefficients=coefficients,
            local_bins=len(centers),
            pair_bins=64 if pair_weight is None else pair_weight.shape[1],
            bin_range=(float(centers[0]), float(centers[-1])),
            group_features=atom_features > 92,
        )
        missing, unexpected = model.load_state_dict(renamed, strict=False)
        if missing or unexpected:
            raise ValueError(
                "not the weights of a published PotNet: "
                f"missing {missing or 'nothing'}, unexpected {unexpected or 'nothing'}"
            )
        return model


class PairEmbedding(nn.Module):
    """Complete potentials of a pair to features: multiquadrics, Linear, softplus, BatchNorm.

    Args:
        width: Features of the result.
        basis: Expansion of a scalar.
        channels: P, potentials of a pair.
        coefficients: P numbers that combine them into one scalar, or None to expand each.
    """

    def __init__(
        self, width: int, basis: MultiquadricBasis, channels: int, coefficients: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.potentials = PotentialChannels(channels, coefficients)
        self.basis = basis
        self.linear = nn.Linear(basis.bins * self.potentials.outputs, width)
        self.norm = BatchNorm(width)

    def forward(self, potentials: Scalars) -> Tensor:
        """(U, P) distinct potentials of the pairs, all of which the norm counts, to (U, width)."""
        sums, row = potentials
        return self.norm(F.softplus(self.linear(self.basis(self.potentials(sums)).flatten(1))), row)


class GatedConvolution(nn.Module):
    """x_i <- ReLU(x_i + BN(sum_j sigmoid(BN(gate(z))) * value(z))), z = [x_i, x_j, e].

    `gate` and `value` are Linear(3 width, width), SiLU, Linear(width, width); BN is batch norm, over
    all edges for the gate and over all atoms for the sum.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_in = EdgeLinear(width, width, width)
        self.gate_out = nn.Linear(width, width)
        self.gate_norm = BatchNorm(width)
        self.value_in = EdgeLinear(width, width, width)
        self.value_out = nn.Linear(width, width)
        self.norm = BatchNorm(width)

    def forward(self, x: Tensor, edges: Edges, atoms: Classes, edges_of: Classes) -> Tensor:
        """Features of atoms to the same.

        Args:
            x: (C, width), of each class of atoms.
            edges: One for each class.
            atoms: The atoms in each class, which the norms count.
            edges_of: The edges in each class.
        """
        gate = self.gate_norm(self.gate_out(F.silu(self.gate_in(x, edges))), edges_of.of).sigmoid_()
        value = self.value_out(F.silu(self.value_in(x, edges)))
        total = aggregate(gate * value, edges.target, len(x), times=edges.times)
        return F.relu(x + self.norm(total, atoms.of))


class PairAttention(nn.Module):
    """Gated attention along the complete pairs, x_i <- x_i + ssp(BN(mean_j message)).

    alpha = sigmoid(ssp(LN(x_i * x_j / sqrt(width) + Linear(e)))), elementwise, so that every feature
    has its own weight; message = ReLU(LN(Linear(Linear(x_j) * alpha))).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edge = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.message = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.message_norm = nn.LayerNorm(width)
        self.norm = BatchNorm(width)
        self.activation = ShiftedSoftplus()
        # The published network has these parameters and never uses them: kept so that its weights load
        # and its parameters count the same, frozen so that distributed training doesn't wait for them.
        self.unused = nn.ModuleDict(
            {
                "skip": nn.Linear(width, width),
                "concat": nn.Linear(width, width),
                "skip_norm": BatchNorm(width),
            }
        ).requires_grad_(False)

    def forward(self, x: Tensor, edges: Edges, atoms: Classes) -> Tensor:
        """As for `GatedConvolution`; the mean is over the pairs of an atom."""
        target, source = edges.target, edges.source
        similarity = x.index_select(0, target) * x.index_select(0, source) / x.shape[1] ** 0.5
        bias = edges.per_edge(self.edge(edges.features))
        alpha = self.activation(self.attention_norm(similarity + bias)).sigmoid()
        value = self.value(x).index_select(0, source)
        message = F.relu(self.message_norm(self.message(value * alpha)))
        mean = aggregate(message, target, len(x), "mean", edges.times)
        return x + self.activation(self.norm(mean, atoms.of))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


# Beginnings of the released code's parameter names, and ours.
_PUBLISHED_NAMES = (
    (r"infinite_linear\.", "pair_embedding.linear."),
    (r"infinite_bn\.", "pair_embedding.norm."),
    (r"conv_layers\.(\d+)\.bn_interaction\.", r"convolutions.\1.gate_norm."),
    (r"conv_layers\.(\d+)\.bn\.", r"convolutions.\1.norm."),
    (r"conv_layers\.(\d+)\.nonlinear_full\.0\.", r"convolutions.\1.gate_in."),
    (r"conv_layers\.(\d+)\.nonlinear_full\.2\.", r"convolutions.\1.gate_out."),
    (r"conv_layers\.(\d+)\.nonlinear\.0\.", r"convolutions.\1.value_in."),
    (r"conv_layers\.(\d+)\.nonlinear\.2\.", r"convolutions.\1.value_out."),
    (r"transformer_conv_layers\.(\d+)\.lin_edge\.", r"attentions.\1.edge."),
    (r"transformer_conv_layers\.(\d+)\.lin_msg_update\.", r"attentions.\1.value."),
    (r"transformer_conv_layers\.(\d+)\.msg_layer\.", r"attentions.\1.message."),
    (r"transformer_conv_layers\.(\d+)\.msg_ln\.", r"attentions.\1.message_norm."),
    (r"transformer_conv_layers\.(\d+)\.alpha_ln\.", r"attentions.\1.attention_norm."),
    (r"transformer_conv_layers\.(\d+)\.bn\.module\.", r"attentions.\1.norm."),
    (r"transformer_conv_layers\.(\d+)\.lin_skip\.", r"attentions.\1.unused.skip."),
    (r"transformer_conv_layers\.(\d+)\.lin_concate\.", r"attentions.\1.unused.concat."),
    (r"transformer_conv_layers\.(\d+)\.skip_bn\.module\.", r"attentions.\1.unused.skip_norm."),
    (r"fc\.0\.", f"heads.{DEFAULT_HEAD}.hidden.0."),
    (r"fc_out\.", f"heads.{DEFAULT_HEAD}.output."),
)


def published_to_own_name(name: str) -> str:
    """The name that a parameter of the released code has in `PublishedPotNet`."""
    for pattern, replacement in _PUBLISHED_NAMES:
        renamed, count = re.subn("^" + pattern, replacement, name)
        if count:
            return renamed
    return name


def _from_published_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names. Centers of bases are left out: they follow from the arguments."""
    return {
        published_to_own_name(name): tensor
        for name, tensor in state_dict.items()
        if not name.endswith(".centers")
    }
