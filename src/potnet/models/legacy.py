"""Names of models and parameters in checkpoints of format 1, and today's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

#: Old class path -> today's. In format 1, `PotNet` was the published network.
LEGACY_CLASSES = {
    "potnet.models.BranchedPotNet": "potnet.models.PotNet",
    "potnet.models.branched.BranchedPotNet": "potnet.models.PotNet",
    "potnet.models.PotNet": "potnet.models.PublishedPotNet",
    "potnet.models.potnet.PotNet": "potnet.models.PublishedPotNet",
    **{
        f"potnet.models.{module}.{name}": f"potnet.models.{name}"
        for module, name in (
            ("alignn", "ALIGNN"),
            ("cgcnn", "CGCNN"),
            ("gatgnn", "GATGNN"),
            ("kernel_ridge", "KernelRidge"),
            ("matformer", "Matformer"),
            ("megnet", "MEGNet"),
            ("schnet", "SchNet"),
        )
    },
}

#: Today's class path -> arguments with another name, old -> new.
LEGACY_ARGUMENTS = {
    "potnet.models.GATGNN": {"heads": "attention_heads"},
    "potnet.models.Matformer": {"heads": "attention_heads"},
}

#: Today's class path -> beginnings of the names of parameters, as patterns, and what they are in the head.
LEGACY_HEAD_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "potnet.models.PotNet": ((r"readout\.hidden\.", "hidden.0."), (r"readout\.output\.", "output.")),
    "potnet.models.PublishedPotNet": ((r"readout\.hidden\.", "hidden.0."), (r"readout\.output\.", "output.")),
    "potnet.models.CGCNN": ((r"hidden\.", "hidden."), (r"output\.", "output.")),
    "potnet.models.GATGNN": ((r"hidden\.", "hidden."), (r"output\.", "output.")),
    "potnet.models.ALIGNN": ((r"output\.", "output."),),
    "potnet.models.Matformer": ((r"hidden\.", "hidden.0."), (r"output\.", "output.")),
    "potnet.models.SchNet": ((r"atomwise\.0\.", "hidden.0."), (r"atomwise\.2\.", "output.")),
    "potnet.models.MEGNet": (
        (r"readout\.0\.", "hidden.0."),
        (r"readout\.2\.", "hidden.1."),
        (r"readout\.4\.", "output."),
    ),
}


def upgraded_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model of format 1, `_target_` and arguments, as today's classes take them.

    A class that is not of this package stays as it is.
    """
    old = str(settings["_target_"])
    target = LEGACY_CLASSES.get(old, old)
    renamed = LEGACY_ARGUMENTS.get(target, {})
    return {renamed.get(key, key): value for key, value in settings.items()} | {"_target_": target}


def upgraded_names(model_class_path: str, state_dict: Mapping[str, T], key: str) -> dict[str, T]:
    """Weights of format 1 by today's names: the one readout becomes the head of a target.

    Args:
        model_class_path: `_target_` of the model in the checkpoint, old or new.
        state_dict: Weights of the model, without the prefix that a module around it adds.
        key: Of the target that it learned.
    """
    # "potnet.models.PotNet" is an old name and a new one; the rule of both is the same.
    rules = LEGACY_HEAD_NAMES.get(LEGACY_CLASSES.get(model_class_path, model_class_path), ())
    found = {}
    for name, value in state_dict.items():
        for pattern, head in rules:
            if match := re.match(pattern, name):
                name = f"heads.{key}.{head}{name[match.end() :]}"
                break
        found[name] = value
    return found
