"""Layers that models share: element features, radial bases, split linear layers, norms, aggregation."""

from potnet.nn.activation import ShiftedSoftplus
from potnet.nn.aggregate import aggregate, softmax
from potnet.nn.edges import Edges, distinct, local_distances, unordered_pairs
from potnet.nn.elements import ElementEmbedding, ElementFeatures
from potnet.nn.initialize import glorot_
from potnet.nn.linear import EdgeLinear
from potnet.nn.norm import BatchNorm
from potnet.nn.radial import GaussianBasis, MultiquadricBasis
from potnet.nn.readout import Readout
from potnet.nn.set2set import Set2Set

__all__ = [
    "BatchNorm",
    "EdgeLinear",
    "Edges",
    "ElementEmbedding",
    "ElementFeatures",
    "GaussianBasis",
    "MultiquadricBasis",
    "Readout",
    "Set2Set",
    "ShiftedSoftplus",
    "aggregate",
    "distinct",
    "glorot_",
    "local_distances",
    "softmax",
    "unordered_pairs",
]
