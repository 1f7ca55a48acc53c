"""Layers that models share: element features, radial bases, split linear layers, norms, aggregation."""

from potnet.nn.activation import ShiftedSoftplus
from potnet.nn.aggregate import aggregate
from potnet.nn.edges import Edges, distinct, unordered_pairs
from potnet.nn.elements import ElementFeatures
from potnet.nn.linear import EdgeLinear
from potnet.nn.norm import BatchNorm
from potnet.nn.radial import GaussianBasis, MultiquadricBasis
from potnet.nn.readout import Readout

__all__ = [
    "BatchNorm",
    "EdgeLinear",
    "Edges",
    "ElementFeatures",
    "GaussianBasis",
    "MultiquadricBasis",
    "Readout",
    "ShiftedSoftplus",
    "aggregate",
    "distinct",
    "unordered_pairs",
]
