"""What `--help` prints: the templates of conf/hydra/help, filled in without Hydra, so that help is fast.

`potnet train --help` shows what most runs need; `potnet train --help all` every group and key.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from potnet.config.paths import config_dir, groups, options

FLAGS = ("--help", "-h")
"""What asks for help. `--hydra-help` is Hydra's own."""


def wanted(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return any(flag in arguments for flag in FLAGS)


def help_text(name: str, arguments: Sequence[str] = ()) -> str:
    """The help of a command.

    Args:
        name: Of a file in conf/ and in conf/hydra/help: "train", "predict", ...
        arguments: Of the command line. `all` chooses the long text where there is one; overrides, such as
            `model=schnet`, show in the keys and defaults.
    """
    import yaml

    everything = "all" in arguments
    folder = config_dir() / "hydra" / "help"
    file = folder / f"{name}_all.yaml"
    if not (everything and file.is_file()):
        file = folder / f"{name}.yaml"
    parts = yaml.safe_load(file.read_text(encoding="utf-8"))
    text: str = parts["template"]
    text = re.sub(r"\$\{hydra\.help\.(\w+)\}", lambda found: str(parts.get(found[1], "")), text)
    text = re.sub(r"\$OPTIONS\((\w+)\)", lambda found: _wrapped(options(found[1]), 12), text)
    if "$APP_CONFIG_GROUPS" in text:
        listed = "\n".join(f"    {group:12}{_wrapped(options(group), 16)}" for group in groups())
        text = text.replace("$APP_CONFIG_GROUPS", listed)
    if "$CONFIG" in text:
        text = text.replace("$CONFIG", _keys(name, arguments))
    return text.rstrip() + "\n"


def _wrapped(names: Sequence[str], indent: int) -> str:
    """Options of a group in lines that fit a terminal, below each other."""
    return f"\n{' ' * indent}".join(textwrap.wrap(", ".join(names), 90))


def _keys(name: str, arguments: Sequence[str]) -> str:
    """The keys of a config as YAML, without Hydra's own."""
    from omegaconf import OmegaConf

    from potnet.config.composition import compose

    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    return OmegaConf.to_yaml(compose(name, overrides))
