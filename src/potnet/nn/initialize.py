"""Initial weights other than torch's."""

from __future__ import annotations

from torch import nn

from potnet.nn.linear import EdgeLinear


def glorot_(module: nn.Module) -> None:
    """Uniform weights after Glorot and Bengio (2010) and zero biases in all linear layers, in place.

    The default of Keras and TensorFlow, in which SchNet and MEGNet were published.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | EdgeLinear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
