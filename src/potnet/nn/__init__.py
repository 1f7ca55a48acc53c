"""Layers that models share: element features, radial bases, split linear layers, norms, aggregation."""

from potnet.nn.activation import ShiftedSoftplus
from potnet.nn.aggregate import aggregate, softmax
from potnet.nn.edges import Edges
from potnet.nn.elements import ElementEmbedding, ElementFeatures
from potnet.nn.folded_batch import FoldedBatch, bond_cosines, pair_potentials
from potnet.nn.heads import Embedding, Head, Heads, HeadSpec, HeadSpecs
from potnet.nn.initialize import glorot_
from potnet.nn.linear import EdgeLinear
from potnet.nn.norm import BatchNorm
from potnet.nn.potentials import PotentialChannels
from potnet.nn.radial import BesselBasis, Envelope, GaussianBasis, MultiquadricBasis, SmoothBasis
from potnet.nn.set2set import Set2Set
from potnet.nn.symmetry import Classes, Scalars, fold, nearly_equal

__all__ = [
    "BatchNorm",
    "BesselBasis",
    "Classes",
    "EdgeLinear",
    "Edges",
    "ElementEmbedding",
    "ElementFeatures",
    "Embedding",
    "Envelope",
    "FoldedBatch",
    "GaussianBasis",
    "Head",
    "HeadSpec",
    "HeadSpecs",
    "Heads",
    "MultiquadricBasis",
    "PotentialChannels",
    "Scalars",
    "Set2Set",
    "ShiftedSoftplus",
    "SmoothBasis",
    "aggregate",
    "bond_cosines",
    "fold",
    "glorot_",
    "nearly_equal",
    "pair_potentials",
    "softmax",
]
