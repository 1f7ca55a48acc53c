"""Trained models from Python.

import potnet

model = potnet.load("k_vrh")  # one that comes with the package
model = potnet.load("runs/mp_bulk_modulus")  # the newest run in there
predictions = model.predict("structures/*.cif")
predictions.to_csv("predictions.csv")
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from potnet.config import ConfigError
from potnet.inference.predictions import Predictions
from potnet.inference.predictor import Predictor

__all__ = ["Predictions", "Predictor", "load"]


def load(
    path: str | os.PathLike[str] | Sequence[str],
    device: str = "auto",
    allow: Sequence[str] = (),
    registry: str | os.PathLike[str] | None = None,
) -> Predictor:
    """Load a trained model.

    Args:
        path: The name of a model that comes with the package ("k_vrh"; the names are
            `list(potnet.pretrained.shipped())`), a checkpoint file, an export (.safetensors), the folder of
            a run (its best checkpoint is taken), or a folder that holds runs (the newest is taken). A word
            without / is a name: write ./k_vrh for a folder that is called so. A list of these is one model
            with all of their targets.
        device: "cpu", "cuda", ..., or "auto" for a GPU if there is one.
        allow: A file builds classes of potnet only, unless you name others that you trust: ["mynet.Net"].
        registry: A registry file of yours, whose names then count; see `potnet.pretrained.registry`.

    Returns:
        A `Predictor`; of a name in a registry an `Ensemble`, whose predictions have intervals; of several
        names a `PredictorSet`.

    Raises:
        RegistryError: There is no model of this name (the nearest is given), or a file is not what its
            registry says.
        ConfigError: `path` is none of these.
        CheckpointError: The file is missing, damaged, no checkpoint of potnet, or asks for what it may not
            build.
    """
    from potnet.pretrained.registry import SHIPPED, Registry, is_name

    if not isinstance(path, str | os.PathLike):
        from potnet.inference.several import PredictorSet

        if not isinstance(path, Iterable):
            raise ConfigError(f"load({path!r}): give a name, a path, or a list of these")
        names = list(dict.fromkeys(os.fspath(entry) for entry in path))
        if len(names) != 1:
            return PredictorSet({name: load(name, device, allow, registry) for name in names})
        path = names[0]
    if is_name(path) and (registry is not None or not os.path.exists(path) or path in Registry(SHIPPED)):
        return Registry(SHIPPED if registry is None else registry)[str(path)].load(device)
    return Predictor.from_checkpoint(path, device, allow)
