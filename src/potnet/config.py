"""Configuration: where it lies, how it is composed and checked, and what a user sees when it is wrong.

`entry_point` is the one place that turns errors into a message and an exit status. Nothing heavy is imported
here, so that `--help` is fast.
"""

from __future__ import annotations

import difflib
import errno
import functools
import inspect
import os
import re
import shlex
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from potnet.errors import ConfigError
from potnet.resolvers import is_multirun, register_resolvers

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

register_resolvers()


def config_dir() -> Path:
    """The folder of the YAML files: inside an installed package, or at the top of the repository."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def compose(name: str = "train", overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a configuration in Python, as the command line would.

    Args:
        name: "train", "evaluate", "predict", "report" or "wandb_report".
        overrides: As on the command line, such as `["model=potnet_published", "trainer.max_epochs=2"]`.

    Raises:
        ConfigError: A wrong key, group or option; the nearest valid one is named.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return hydra_compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, name)) from error


def plain(config: Any) -> Any:
    """Plain dictionaries and lists, interpolations resolved.

    Raises:
        ConfigError: A key that must be given is missing, or an interpolation fails.
    """
    if not isinstance(config, DictConfig | ListConfig):
        return config
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error


def build(config: Any, where: str = "", nested: bool = True, **arguments: Any) -> Any:
    """Build the object that a config names by `_target_`; every other key is an argument of it.

    Args:
        config: Mapping with `_target_`; None gives None.
        where: Key of the config, for messages.
        nested: Whether inner mappings with a `_target_` are built as well. A network takes plain
            arguments only, and so a checkpoint, which says what to build, can build nothing else.
        **arguments: Further arguments, passed as they are.

    Raises:
        ConfigError: An unknown target or argument, a missing one, or one of the wrong kind.
    """
    config = plain(config)
    if config is None:
        return None
    settings = {
        key: build(value, f"{where}.{key}")
        if nested and isinstance(value, Mapping) and "_target_" in value
        else value
        for key, value in config.items()
        if key != "_target_"
    }
    target = locate(config, where)
    check_arguments(target, settings | arguments, where)
    return target(**settings, **arguments)


def locate(config: Mapping[str, Any], where: str = "") -> Any:
    """The class or function that `_target_` names.

    Raises:
        ConfigError: There is no `_target_`, or nothing of this name.
    """
    from hydra.utils import get_object

    path = config.get("_target_")
    if not isinstance(path, str):
        raise ConfigError(
            f"{where or 'config'}: no _target_ is given; name a class, such as potnet.models.PotNet"
        )
    try:
        return get_object(path)
    except Exception as error:
        raise ConfigError(f"{where}._target_: cannot find {path} ({_first_line(error)})") from error


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], where: str = "") -> None:
    """Compare arguments with a signature before the call, so that a mistake is named by its key.

    Raises:
        ConfigError: An argument is unknown, missing, or plainly not of the annotated kind.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    names = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    prefix = f"{where}." if where else ""
    for key in arguments:
        if key not in names and not takes_any:
            raise ConfigError(f"unknown key {prefix}{key}{did_you_mean(key, names, prefix)}")
    missing = [
        name
        for name in names
        if name not in arguments
        and parameters[name].default is inspect.Parameter.empty
        and parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    if missing:
        raise ConfigError(f"missing key {prefix}{missing[0]}: give it a value")
    hints = _hints(function)
    for key, value in arguments.items():
        if key in hints:
            _check_value(prefix + key, value, hints[key])


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # an annotation that cannot be evaluated at run time is no mistake of the user
        return {}


def _check_value(key: str, value: Any, hint: Any) -> None:
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
    raise ConfigError(f"{key}={value!r}: expected {wanted}")


_KIND_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value can be of this kind; kinds other than plain ones are left to the callee."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (str, bool, type(None)):
        return isinstance(value, kind)
    return not (isinstance(value, str) and typing.get_origin(kind) in (list, dict, tuple))


def did_you_mean(name: str, options: Iterable[str], prefix: str = "") -> str:
    """A hint that names the nearest option, and else all of them: `"; did you mean model.width?"`."""
    options = list(dict.fromkeys(options))
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    if len(near) > 1 and difflib.SequenceMatcher(None, name, near[0]).ratio() > 0.8:
        near = near[:1]
    if near:
        return f"; did you mean {' or '.join(prefix + option for option in near)}?"
    return f"; valid are: {', '.join(prefix + option for option in sorted(options)) or 'none'}"


def explain(error: BaseException, config_name: str = "train") -> str:
    """One message for an error of Hydra or OmegaConf, with the nearest valid key, group or option."""
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
    found = re.search(r"Could not override '([^']+)'", text)
    if found:
        key = found[1].partition("@")[0]
        return _explain_key(key, config_name)
    found = re.search(r"Interpolation key '(.+?)' not found\s+full_key: (\S+)", text)
    if found:
        return f"{found[2]} is taken from {found[1]}, which is not there: give {found[2]}=VALUE"
    found = re.search(r"full_key: (\S+)", text) or re.search(r"Missing mandatory value: (\S+)", text)
    if found and ("Missing mandatory value" in text or "MissingMandatoryValue" in type(error).__name__):
        return f"missing key {found[1]}: give it on the command line, {found[1]}=VALUE"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


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


def _explain_key(key: str, config_name: str) -> str:
    """What is wrong with a key that is not in the configuration."""
    config = compose(config_name)
    parent, _, leaf = key.rpartition(".")
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        parent, _, leaf = parent.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    options = [str(option) for option in node if option != "_target_"]
    prefix = f"{parent}." if parent else ""
    if not parent:
        options += [group for group in _groups() if group not in options]
    if not _nearly(leaf, options) and "_target_" in node and leaf in _arguments(node):
        return f"unknown key {key}: it is not in conf/; add it with a plus, +{key}=VALUE"
    if not parent and not difflib.get_close_matches(leaf, options, n=1):
        deeper = [path for path in _paths(config) if path.rpartition(".")[2] == leaf]
        if deeper:
            return f"unknown key {key}; did you mean {' or '.join(deeper)}?"
    return f"unknown key {key}{did_you_mean(leaf, options, prefix)}"


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
        return list(inspect.signature(locate(node)).parameters)
    except ConfigError:
        return []


def _groups() -> list[str]:
    return sorted(path.name for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra")


def _options(group: str) -> list[str]:
    """Names of a group's options; those that begin with _ are parts that others build on."""
    own = {path.stem for path in (config_dir() / group).glob("[!_]*.yaml")}
    return sorted(own | _plugin_options(group) if group in _PLUGINS else own)


_PLUGINS = ("hydra/launcher", "hydra/sweeper")
"""Groups in which Hydra and its plugins have options."""


def _plugin_options(group: str) -> set[str]:
    from hydra.core.config_store import ConfigStore

    return {
        name.removesuffix(".yaml") for name in ConfigStore.instance().list(group) if name.endswith(".yaml")
    }


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _raised_in(error: BaseException, *packages: str) -> bool:
    """Whether the error was raised by one of these packages."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).partition(".")[0] in packages


def message_of(error: BaseException, config_name: str = "train") -> str | None:
    """The message for a user, or None for an error that nobody foresaw and that needs its traceback."""
    from hydra.errors import HydraException

    if type(error).__module__.partition(".")[0] == "potnet":
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error, config_name)
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


def entry_point(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a config a command: compose the config, run, turn errors into messages.

    Errors that the package foresaw end in one message on stderr and exit status 1, Ctrl-C in status 130.
    Others keep their traceback, and so does everything with HYDRA_FULL_ERROR=1.

    Args:
        config_name: File in conf/ without its suffix.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(function)
        def main() -> None:
            import hydra

            full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"

            @functools.wraps(function)
            def task(config: DictConfig) -> Any:
                try:
                    return function(config)
                except BrokenPipeError:
                    raise
                except Exception as error:
                    if full_error or is_multirun() or message_of(error, config_name) is None:
                        raise
                    _fail(error, config_name)

            run = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(task)
            # Hydra would print its own message and traceback; with this it hands the exception over.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            try:
                run()
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(INTERRUPTED)
            except BrokenPipeError:
                # The reader went away, as in `--help | head`; nothing more can be said to it, at exit either.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except Exception as error:
                if full_error or message_of(error, config_name) is None:
                    raise
                _fail(error, config_name)
            finally:
                if not full_error:
                    del os.environ["HYDRA_FULL_ERROR"]

        return main

    return decorate


def _fail(error: Exception, config_name: str) -> typing.NoReturn:
    print(f"error: {message_of(error, config_name)}", file=sys.stderr)
    sys.exit(1)
