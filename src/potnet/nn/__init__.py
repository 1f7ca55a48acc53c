"""Layers that models share: element features, radial bases, split linear layers, norms, aggregation."""

from potnet.nn.activation import ShiftedSoftplus
from potnet.nn.aggregate import aggregate, softmax
from potnet.nn.edges import Edges, distinct, local_vectors, unordered_pairs
from potnet.nn.elements import ElementEmbedding, ElementFeatures
from potnet.nn.fold import Classes, fold, folded_distances, nearly_equal
from potnet.nn.initialize import glorot_
from potnet.nn.linear import EdgeLinear
from potnet.nn.norm import BatchNorm
from potnet.nn.radial import GaussianBasis, MultiquadricBasis
from potnet.nn.readout import Readout
from potnet.nn.set2set import Set2Set

__all__ = [
    "BatchNorm",
    "Classes",
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
    "fold",
    "folded_distances",
    "glorot_",
    "local_vectors",
    "nearly_equal",
    "softmax",
    "unordered_pairs",
]
