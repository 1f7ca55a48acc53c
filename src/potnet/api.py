"""Trained models from Python.

import potnet

model = potnet.load("runs/mp_bulk_modulus")  # the newest run in there
predictions = model.predict("structures/*.cif")
predictions.to_csv("predictions.csv")
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from potnet.inference.predictions import Predictions
from potnet.inference.predictor import Predictor

__all__ = ["Predictions", "Predictor", "load"]


def load(path: str | os.PathLike[str], device: str = "auto", allow: Sequence[str] = ()) -> Predictor:
    """Load a trained model.

    Args:
        path: A checkpoint file, an export (.safetensors), the folder of a run (its best checkpoint is
            taken), or a folder that holds runs (the newest is taken).
        device: "cpu", "cuda", ..., or "auto" for a GPU if there is one.
        allow: A file builds classes of potnet only, unless you name others that you trust: ["mynet.Net"].

    Raises:
        CheckpointError: It is missing, damaged, no checkpoint of potnet, or asks for what it may not build.
    """
    return Predictor.from_checkpoint(path, device, allow)
