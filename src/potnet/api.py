"""Trained models from Python.

import potnet

model = potnet.load("runs/mp_bulk_modulus")  # the newest run in there
predictions = model.predict("structures/*.cif")
predictions.to_csv("predictions.csv")
"""

from __future__ import annotations

import os

from potnet.inference.predictor import Predictions, Predictor

__all__ = ["Predictions", "Predictor", "load"]


def load(path: str | os.PathLike[str], device: str = "auto") -> Predictor:
    """Load a trained model.

    Args:
        path: A checkpoint file, the folder of a run (its best checkpoint is taken), or a folder that holds
            runs (the newest is taken).
        device: "cpu", "cuda", ..., or "auto" for a GPU if there is one.

    Raises:
        CheckpointError: It is missing, damaged or no checkpoint of potnet.
    """
    return Predictor.from_checkpoint(path, device)
