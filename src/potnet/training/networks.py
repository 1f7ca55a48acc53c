"""Building a network for the targets of a run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from potnet.config import ConfigError, build, locate
from potnet.data.targets import Targets


def build_network(config: Mapping[str, Any], targets: Targets) -> nn.Module:
    """The network that a config names, with a head for each target that is not derived.

    A network whose constructor has no argument `heads` is left to name its outputs itself. For forces and
    stress the network must be smooth, and it must not compute equal atoms once, as their gradients differ.

    Args:
        config: `_target_` and plain arguments.
        targets: Of the run.

    Raises:
        ConfigError: See `potnet.config.build`; or its constructor refuses a setting, or the network cannot
            give forces.
    """
    kind = locate(config, "model")
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(f"model._target_={config.get('_target_')}: this is not an nn.Module")
    given = {}
    if "heads" in inspect.signature(kind).parameters:
        given["heads"] = targets.heads()
    network: nn.Module
    try:
        network = build(config, "model", nested=False, **given)
    except (ValueError, RuntimeError) as error:
        message = _explain(error, kind)
        if message is None:
            raise
        raise ConfigError(message) from error
    if targets.derived:
        names = " and ".join(targets.derived)
        if not getattr(network, "smooth", False):
            raise ConfigError(
                f"model._target_={config['_target_']}: {names} are derivatives of the energy, but this "
                "network is not a smooth function of positions; choose one that is (`smooth = True`)"
            )
        if getattr(network, "fold", False):
            raise ConfigError(f"model.fold=true: {names} need each atom by itself; set model.fold=false")
    return network


def _explain(error: Exception, kind: type[nn.Module]) -> str | None:
    """A message for an error of a constructor; None for one of a network of the user's, which is a mistake.

    A network of ours that says "dropout=2: ..." gets the whole key.
    """
    text = " ".join(str(error).split())
    if isinstance(error, ConfigError) or not f"{kind.__module__}.".startswith("potnet."):
        return None
    return f"model.{text}" if re.match(r"\w+=", text) else f"model: {text}"
