"""Checks of a configuration against the signatures of the classes that it names."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from potnet.config.errors import ConfigError
from potnet.config.suggest import did_you_mean


def locate(config: Mapping[str, Any], where: str = "") -> Any:
    """The class or function that `_target_` names.

    Raises:
        ConfigError: There is no `_target_`, or nothing of this name.
    """
    path = config.get("_target_")
    if not isinstance(path, str):
        raise ConfigError(
            f"{where or 'config'}: no _target_ is given; name a class, such as potnet.models.PotNet"
        )
    try:
        return _object(path)
    except Exception as error:
        raise ConfigError(
            f"{where}._target_: cannot find {path} ({_first_line(error)}); a module of your own must be in "
            "the working folder or on PYTHONPATH"
        ) from error


def _object(path: str) -> Any:
    """What a dotted path names: the longest part that is a module, then attributes."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Another module that is missing is an error of the module that imports it.
            if end == 1 or error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(f"{path!r} names no module")


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def argument_names(function: Callable[..., Any]) -> tuple[list[str], bool]:
    """Names of the arguments of a call, and whether it takes any others.

    A class that takes `**others` passes them on to the class it derives from, whose arguments count then.
    """
    calls: list[Callable[..., Any]] = [function]
    if inspect.isclass(function):
        calls += [vars(base)["__init__"] for base in function.__mro__[1:-1] if "__init__" in vars(base)]
    names: list[str] = []
    for call in calls:
        parameters = inspect.signature(call).parameters
        names += [
            name
            for name, parameter in parameters.items()
            if parameter.kind in _BY_NAME and name != "self" and name not in names
        ]
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return names, False
    return names, True


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], where: str = "") -> None:
    """Compare arguments with a signature before the call, so that a mistake is named by its key.

    Raises:
        ConfigError: An argument is unknown, missing, or plainly not of the annotated kind.
    """
    parameters = inspect.signature(function).parameters
    names, takes_any = argument_names(function)
    prefix = f"{where}." if where else ""
    for key in arguments:
        if key not in names and not takes_any:
            raise ConfigError(f"unknown key {prefix}{key}{did_you_mean(key, names, prefix)}")
    missing = [
        name
        for name, parameter in parameters.items()
        if name in names and name not in arguments and parameter.default is parameter.empty
    ]
    if missing:
        raise ConfigError(f"missing key {prefix}{missing[0]}: give it a value")
    hints = _hints(function)
    for key, value in arguments.items():
        if key in hints:
            check_value(prefix + key, value, hints[key])


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # an annotation that cannot be evaluated at run time is no mistake of the user
        return {}


def check_value(key: str, value: Any, hint: Any) -> None:
    """Refuse a plain value that an annotation of plain types and choices excludes."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = typing.get_args(hint) if is_union else (hint,)
    choices = [
        choice
        for option in options
        if typing.get_origin(option) is Literal
        for choice in typing.get_args(option)
    ]
    kinds = [option for option in options if typing.get_origin(option) is not Literal]
    if value in choices or any(_fits(value, kind) for kind in kinds):
        return
    if choices:
        also = [] if type(None) not in kinds else ["null"]
        raise ConfigError(f"{key}={value}{did_you_mean(str(value), [*map(str, choices), *also])}")
    wanted = " or ".join(_KIND_NAMES.get(kind, str(kind)) for kind in kinds)
    if isinstance(value, list):
        raise ConfigError(f"{key}: expected {wanted}, and not a list ({', '.join(map(str, value))})")
    raise ConfigError(f"{key}={value!r}: expected {wanted}")


_KIND_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    list: "a list",
}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value can be of this kind; kinds other than plain ones are left to the callee."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (str, bool, list, type(None)):
        return isinstance(value, kind)
    return not (isinstance(value, str) and typing.get_origin(kind) in (list, dict, tuple))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
