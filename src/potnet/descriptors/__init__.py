"""Descriptors: a crystal as one long, sparse vector, for models that are not networks."""

from potnet.descriptors.grid import Grid
from potnet.descriptors.mbtr import MBTR, term_of

__all__ = ["MBTR", "Grid", "term_of"]
