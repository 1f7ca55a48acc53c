"""What a user sees when a configuration is wrong: one message that names the nearest valid key."""

from __future__ import annotations

import difflib
import errno
import re
import shlex
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from potnet.config import paths
from potnet.config.arguments import POSITIONAL
from potnet.config.errors import ConfigError
from potnet.config.hydra_config import hydra_config
from potnet.config.signatures import argument_names, locate
from potnet.config.suggest import did_you_mean


def explain(error: BaseException, config_name: str = "train", overrides: Sequence[str] = ()) -> str:
    """One message for an error of Hydra or OmegaConf, with the nearest valid key, group or option.

    Args:
        error: From composing `config_name`.
        config_name: Such as "train".
        overrides: Among which the error is; the nearest key is one of the options that they choose.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error)
    found = re.match(r"ConfigError raised while resolving interpolation: (.*)", text)
    if found:  # by a resolver of ours
        return found[1]
    if isinstance(error, OverrideParseException):
        return _explain_override(str(error.override))
    if isinstance(error, MissingConfigException):
        found = re.search(r"Could not find '(.+?)'", text)
        if found:
            group, _, option = found[1].rpartition("/")
            options = _options(group)
            hint = did_you_mean(option, options)
            valid = "" if "valid are" in hint else f" (valid: {', '.join(options)})"
            plugins = '; there are more with pip install "potnet[sweeps]"' if group in _PLUGINS else ""
            return f"unknown option {group}={option}{hint}{valid}{plugins}"
    found = re.match(r"Ambiguous value for argument '(.*?)'\s+1\. ", text, flags=re.DOTALL)
    if found:  # a comma: a list, a sweep, or a part of a name
        key, _, value = found[1].partition("=")
        return (
            f"{found[1]!r} may be a list or a name with a comma: write {_shell_quoted(key, value)} for one "
            f"name, {key}=[{value}] for a list, or add -m to run once for each"
        )
    found = re.search(r"In '(\w+/\S+?)': Could not override '(\w+)@\w", text)
    if found:
        return f"{found[1]}.yaml overrides {found[2]}: let it begin with the line # @package _global_"
    found = re.search(r"Could not override '([^']+)'", text)
    if found:
        # Of a value with keys, `a.b={c: 1}`, Hydra names a.b and the cause a.b.c, which is not there.
        inner = re.search(r"full_key: (\S+)", str(error.__cause__))
        key = inner[1] if inner and inner[1].startswith(f"{found[1]}.") else found[1].partition("@")[0]
        return _explain_key(key, config_name, overrides)
    found = re.search(r"Interpolation key '(.+?)' not found\s+full_key: (\S+)", text)
    if found:
        return f"{found[2]} is taken from {found[1]}, which is not there: give {found[2]}=VALUE"
    # An interpolation of a key that must be given: the key itself is missing, not the one that refers to it.
    found = re.match(r"MissingMandatoryValue .*interpolation: Missing mandatory value: (\S+)", text)
    if found:
        return _missing(found[1], config_name)
    found = re.search(r"full_key: (\S+)", text) or re.search(r"Missing mandatory value: (\S+)", text)
    if found and ("Missing mandatory value" in text or "MissingMandatoryValue" in type(error).__name__):
        return _missing(found[1], config_name)
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _missing(key: str, config_name: str) -> str:
    word = {"inputs": "FILE ...", "runs": "FOLDER ...", "checkpoint": "RUN", "source": "FILES"}.get(key, "")
    if word and POSITIONAL.get(config_name) == key:
        return f"missing key {key}: potnet {config_name} {word} (or {key}=VALUE)"
    return f"missing key {key}: give it on the command line, {key}=VALUE"


def _explain_override(override: str) -> str:
    """What to write for an override that Hydra cannot read, such as a path with `( ) =` or an umlaut."""
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w./@-]+", key):
        return f"cannot read {override!r}: write key=value, and quote what the shell would change"
    return f"cannot read {override!r}: quote the value twice, {_shell_quoted(key, value.strip())}"


def _shell_quoted(key: str, value: str) -> str:
    """An override as it is written in a shell: quoted once for Hydra, and once for the shell."""
    inner = value.replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'{key}="{inner}"')


def _explain_key(key: str, config_name: str, overrides: Sequence[str]) -> str:
    """What is wrong with a key that is not in the configuration."""
    from hydra.errors import HydraException

    groups = paths.groups()
    chosen = [word for word in overrides if word.partition("=")[0] in groups]
    if chosen and chosen == list(overrides):  # the fault is within an option: a file of conf/ itself
        chosen = []
    try:
        config = hydra_config(config_name, chosen)
    except (ConfigError, HydraException, OmegaConfBaseException):
        if not chosen:  # a file of conf/ itself is at fault
            return f"unknown key {key}"
        # One of the choices is wrong as well, or several are to be tried.
        return _explain_key(key, config_name, [])
    if config_name == "train" and key in _OTHER_NAMES:
        return f"unknown key {key}; did you mean {_OTHER_NAMES[key]}?"
    group = re.split(r"[./]", key)[0]
    if config_name == "train" and group in paths.groups() and group not in config:
        _, dot, leaf = key.partition(".")
        if dot and (place := paths.package(group)):
            found = f"the settings of {group}=OPTION are in {place}; did you mean {place}.{leaf}?"
            return f"unknown key {key}: {found}"
        example = (paths.options(group) or ["NAME"])[0]
        return (
            f"unknown key {key}: {group} is a group, of which one option is chosen, as {group}={example} "
            f"(there are {', '.join(paths.options(group))})"
        )
    parent, _, leaf = key.rpartition(".")
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        parent, _, leaf = parent.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    options = [str(option) for option in node if option != "_target_"]
    prefix = f"{parent}." if parent else ""
    above = f"{prefix}{leaf}"
    if key != above and OmegaConf.select(config, above, default="") is None:
        given = f"'{above}={{{key.removeprefix(above)[1:]}: VALUE}}'"
        return f"unknown key {key}: {above} is null; give what it should hold as a whole, {given}"
    if not parent:
        options += [group for group in paths.groups() if group not in options]
    if not _nearly(leaf, options) and "_target_" in node and leaf in _arguments(node):
        return f"unknown key {key}: it is not in conf/; add it with a plus, +{key}=VALUE"
    if not parent and not difflib.get_close_matches(leaf, options, n=1):
        deeper = [path for path in _paths(config) if path.rpartition(".")[2] == leaf]
        if deeper:
            return f"unknown key {key}; did you mean {' or '.join(deeper)}?"
    return f"unknown key {key}{did_you_mean(leaf, options, prefix)}"


_OTHER_NAMES = {
    "lr": "optimizer.learning_rate",
    "wd": "optimizer.weight_decay",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "device": "trainer.accelerator",
    "hidden_dim": "model.width",
    "dataset": "data",
    "data_path": "data.source.path",
    "data.path": "data.source.path",
    "property": "target",
    "unit": "target.unit",
    "transform": "target.transform",
    "checkpoint": "resume",
    "workers": "data.num_workers",
    "optimizer.lr": "optimizer.learning_rate",
}
"""What other programs call a key, and what it is called here."""


def _paths(config: Any, prefix: str = "") -> list[str]:
    """All keys below a node, with the keys above them: model.width."""
    if not isinstance(config, DictConfig):
        return []
    found = []
    for key in map(str, config):
        path = f"{prefix}{key}"
        inner = None if OmegaConf.is_missing(config, key) else config._get_node(key)
        found += [path, *_paths(inner, f"{path}.")]
    return found


def _nearly(name: str, options: Iterable[str]) -> bool:
    """Whether a name is surely a slip of the keyboard: then the class need not be imported to ask it."""
    return bool(difflib.get_close_matches(name, options, n=1, cutoff=0.88))


def _arguments(node: DictConfig) -> list[str]:
    try:
        return argument_names(locate(node))[0]
    except ConfigError:
        return []


def _options(group: str) -> list[str]:
    """Names of a group's options, with those that plugins of Hydra add."""
    own = set(paths.options(group))
    return sorted(own | _plugin_options(group) if group in _PLUGINS else own)


_PLUGINS = ("hydra/launcher", "hydra/sweeper")
"""Groups in which Hydra and its plugins have options."""


def _plugin_options(group: str) -> set[str]:
    from hydra.core.config_store import ConfigStore

    return {
        name.removesuffix(".yaml") for name in ConfigStore.instance().list(group) if name.endswith(".yaml")
    }


def _raised_in(error: BaseException, *packages: str) -> bool:
    """Whether the error was raised by one of these packages."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).partition(".")[0] in packages


def message_of(error: BaseException, config_name: str = "train", overrides: Sequence[str] = ()) -> str | None:
    """The message for a user, or None for an unexpected error, which needs its traceback.

    Args:
        error: Any.
        config_name, overrides: See `explain`.
    """
    from hydra.errors import HydraException

    if type(error).__module__.partition(".")[0] == "potnet":
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error, config_name, overrides)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        room = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{place}{error.strerror.lower()}; {'make room, or ' if room else ''}choose another folder"
    # Raised by this package, and so written for users; or by Hydra, about an override such as model=3, or by
    # Optuna, about a search without a single trial that succeeded.
    if isinstance(error, ValueError | ImportError) and _raised_in(
        error, "potnet", "__main__", "hydra", "optuna"
    ):
        return str(error)
    return None
