"""Layers that models share: element features, radial bases, split linear layers, norms, aggregation."""

from potnet.nn.activation import ShiftedSoftplus
from potnet.nn.aggregate import aggregate, softmax
from potnet.nn.edges import Edges, local_vectors
from potnet.nn.elements import ElementEmbedding, ElementFeatures
from potnet.nn.folded_batch import FoldedBatch, local_distances, pair_potentials
from potnet.nn.initialize import glorot_
from potnet.nn.linear import EdgeLinear
from potnet.nn.norm import BatchNorm
from potnet.nn.radial import GaussianBasis, MultiquadricBasis
from potnet.nn.readout import Readout
from potnet.nn.set2set import Set2Set
from potnet.nn.symmetry import Classes, Scalars, fold, nearly_equal

__all__ = [
    "BatchNorm",
    "Classes",
    "EdgeLinear",
    "Edges",
    "ElementEmbedding",
    "ElementFeatures",
    "FoldedBatch",
    "GaussianBasis",
    "MultiquadricBasis",
    "Readout",
    "Scalars",
    "Set2Set",
    "ShiftedSoftplus",
    "aggregate",
    "fold",
    "glorot_",
    "local_distances",
    "local_vectors",
    "nearly_equal",
    "pair_potentials",
    "softmax",
]
