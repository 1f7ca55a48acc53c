"""What a descriptor is: a crystal as one long, sparse vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import Crystal


class Descriptor(ABC):
    """Turns a crystal into a sparse vector of fixed meaning: the same feature has the same number everywhere.

    Subclasses are dataclasses whose fields are plain numbers and words, so that settings and checkpoints can
    hold them.
    """

    @abstractmethod
    def __call__(self, crystal: Crystal) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The features of a crystal that are not zero.

        Args:
            crystal: In the cell that the featurizer chose.

        Returns:
            (K,) numbers of features, ascending and below 2³¹; (K,) values.

        Raises:
            ValueError: The crystal cannot be described, and why.
        """
