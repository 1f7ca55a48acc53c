"""The words of a command line, as Hydra can read them.

Hydra has a grammar of its own for values, in which `( ) =`, blanks and letters outside of ASCII need quotes,
which the shell takes away. Here such values get them back, and names of files may be given without a key.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potnet.config.errors import ConfigError
from potnet.config.paths import config_dir

POSITIONAL = {
    "predict": "inputs",
    "report": "runs",
    "evaluate": "checkpoint",
    "export": "checkpoint",
    "screen": "source",
    **dict.fromkeys(("relax", "md", "elastic", "phonons", "rank"), "inputs"),
}
"""Commands that take words without a key, and the key that they are values of."""

ONE_OPTION = {"target", "data", "model", "features", "potentials", "objective", "optimizer", "split"}
"""Groups of the config of which a run has one option: of a list Hydra would merge all into one."""

LISTS = {"models"}
"""Keys that take several names without a sweep: `models=k_vrh,gap`."""

OTHER_KEYS = {(command, "model"): "models" for command in ("predict", "screen", "serve")}
"""What a key is called in a configuration: `model` is a group there, of which `predict` knows nothing."""

PATHS = {
    *(
        "registry",
        "checkpoint",
        "inputs",
        "output",
        "resume",
        "runs",
        "runs_dir",
        "cache_dir",
        "name",
        "data.path",
    ),
    "finetune.from",
    *("data.cache_dir", "data.source.path", "data.split.path", "hydra.run.dir", "hydra.sweep.dir"),
}
"""Keys whose values are text even where they look like numbers: a folder may be called 2024."""

_OVERRIDE = re.compile(r"(?P<prefix>[+]{0,2})(?P<key>[A-Za-z_][\w./@:-]*)=(?P<value>.*)", re.DOTALL)
_SIMPLE = re.compile(r"[\w./+:@%?*|\\-]*", re.ASCII)
"""Values that Hydra reads without quotes."""
_FUNCTIONS = "glob|range|choice|interval|tag|sort|shuffle|int|float|str|bool|json_str|extend_list"
_GRAMMAR = re.compile(rf"[\[{{'\"]|({_FUNCTIONS})\(")
"""Beginnings of values that are meant in Hydra's grammar: lists, mappings, text in quotes, functions."""
_TAKES_VALUE = {
    *(
        "--config-dir",
        "-cd",
        "--config-name",
        "-cn",
        "--config-path",
        "-cp",
        "--cfg",
        "-c",
        "--package",
        "-p",
    ),
    *("--info", "-i", "--experimental-rerun"),
}
"""Options of Hydra that are followed by a value."""


def readable(name: str, arguments: Sequence[str]) -> list[str]:
    """A command line that Hydra reads as it was meant.

    Args:
        name: Of the command: "train", "predict", ...
        arguments: The words behind it, without the shell's quotes.

    Raises:
        ConfigError: Inputs are given both as words and by their key, or several options of a group that has
            one.
    """
    positional = POSITIONAL.get(name)
    several = "-m" in arguments or "--multirun" in arguments
    ready: list[str] = []
    words: list[str] = []
    is_value = False
    for argument in arguments:
        if (
            positional
            and re.match(r"--[a-z]\w*=", argument)
            and argument.partition("=")[0] not in _TAKES_VALUE
        ):
            argument = argument[2:]  # --level=0.9 is level=0.9
        key, equals, value = argument.partition("=")
        key = OTHER_KEYS.get((name, key), key)
        argument = key + equals + value
        if key in ONE_OPTION and value.startswith("["):
            several_targets = "; several properties in one network: target=columns, see docs/data.md"
            raise ConfigError(
                f"{argument}: {key} takes one option{several_targets if key == 'target' else ''}; "
                f"to try several, {key}={value.strip('[]')} with -m"
            )
        if is_value or argument.startswith(("-", "~")):
            ready.append(argument)
            is_value = not is_value and argument in _TAKES_VALUE
        elif positional and not _is_override(name, argument):
            words.append(argument)
        else:
            ready.append(_quoted_where_needed(_as_list(argument) if positional else argument, several))
    if words:
        if any(argument.startswith(f"{positional}=") for argument in ready):
            raise ConfigError(
                f"{words[0]}: give {positional} either as words or as {positional}=, not as both"
            )
        texts = [hydra_quoted(word) for word in words]
        ready.append(f"{positional}={texts[0] if len(texts) == 1 else '[' + ','.join(texts) + ']'}")
    return ready


def _as_list(argument: str) -> str:
    """`model=a,b` as the list that it means."""
    key, _, value = argument.partition("=")
    return f"{key}=[{value}]" if key in LISTS and "," in value and not _GRAMMAR.match(value) else argument


def _is_override(name: str, argument: str) -> bool:
    """Whether a word is key=value, rather than the name of a file in which there is a `=`."""
    found = _OVERRIDE.fullmatch(argument)
    if not found:
        return False
    known = re.findall(r"^(\w+):", (config_dir() / f"{name}.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    return re.split(r"[./@]", found["key"])[0] in known or not Path(argument).exists()


def _quoted_where_needed(argument: str, several: bool) -> str:
    """A word whose value Hydra cannot read, or would take for a number though it is a path, in quotes."""
    found = _OVERRIDE.fullmatch(argument)
    if not found:
        return argument
    value = found["value"]
    quoted = f"{found['prefix']}{found['key']}={hydra_quoted(value)}"
    if _SIMPLE.fullmatch(value):
        is_path = found["key"] in PATHS and re.match(
            r"[+-]?[\d.]|(true|false|inf|nan)$", value, re.IGNORECASE
        )
        return quoted if is_path and not isinstance(_read(argument), str) else argument
    if found["key"] in PATHS and not several and Path(value).exists():
        return quoted  # a comma, or a bracket, in the name of a file
    if _GRAMMAR.match(value) or (several and "," in value):
        return argument
    return quoted if _read(argument) is None else argument


def _read(argument: str) -> Any:
    """The value as Hydra reads it; None if it cannot, or if it is null."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(argument).value()
    except HydraException:
        return None


def hydra_quoted(value: str) -> str:
    """A value in Hydra's quotes, in which only the quote, and backslashes before one, are special."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def pasteable(key: str, value: str | Path) -> str:
    """`key=value` for a printed command: it can be pasted into a shell, and means the value as it is."""
    # What `readable` mends needs the shell's quotes alone.
    return shlex.quote(f"{key}={value}")
