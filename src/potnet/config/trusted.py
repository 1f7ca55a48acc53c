"""What a file may build: the classes that a checkpoint, an export or a saved config names are a closed list.

On the command line a user may name any class. A file that came from elsewhere may name only classes of
this package, of the kind that its place asks for, a few of Lightning's, and those that the user allows, by
`allow=[mynet.Net]` on the command line or `potnet.load(path, allow=["mynet.Net"])` in Python. Everything else
is refused before anything is imported.

    trusted_target("potnet.models.PotNet", "model")        -> the class
    check_trusted(config, allow)                            every `_target_` in a config of a run
    read_saved_config(folder / "config.yaml", allow)        such a config from its file
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potnet.config.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """What may stand in one place of a config.

    Attributes:
        label: What such an object is, for messages.
        package: Package of ours in which its classes are defined; "" if none are.
        named_in: Packages through which a path may name them.
        is_one: Whether a class is one.
        others: Full names of classes of other libraries.
    """

    label: str
    package: str
    named_in: tuple[str, ...]
    is_one: Callable[[type], bool]
    others: tuple[str, ...] = ()


def _has(*methods: str) -> Callable[[type], bool]:
    return lambda found: all(callable(getattr(found, method, None)) for method in methods)


def _subclass(path: str) -> Callable[[type], bool]:
    """Whether a class is derived from the one of this name, which is imported when it is asked."""
    return lambda found: issubclass(found, _resolve(path))


_LIGHTNING = "lightning.pytorch."

KINDS: dict[str, Kind] = {
    "model": Kind("model", "potnet.models", ("potnet.models",), _subclass("torch.nn.Module")),
    "data": Kind("data module", "potnet.data.datamodule", ("potnet.data",), _has("prepare_data", "setup")),
    "source": Kind("source of data", "potnet.data.sources", ("potnet.data",), _has("content_hash", "load")),
    "split": Kind("split", "potnet.data.splits", ("potnet.data",), _has("__call__")),
    "potential": Kind(
        "pair potential",
        "potnet.lattice",
        ("potnet.lattice",),
        _subclass("potnet.lattice.potentials.Potential"),
    ),
    "descriptor": Kind(
        "descriptor", "potnet.descriptors", ("potnet.descriptors",), _subclass("potnet.crystals.Descriptor")
    ),
    "callback": Kind(
        "callback",
        "potnet.training",
        ("potnet.training",),
        _subclass("lightning.pytorch.callbacks.Callback"),
        tuple(
            f"{_LIGHTNING}callbacks.{name}"
            for name in (
                "DeviceStatsMonitor", "EarlyStopping", "GradientAccumulationScheduler",
                "LearningRateMonitor", "StochasticWeightAveraging", "Timer",
            )
        ),
    ),
    "logger": Kind(
        "logger",
        "potnet.training.loggers",
        ("potnet.training.loggers",),
        _subclass("lightning.pytorch.loggers.Logger"),
        tuple(f"{_LIGHTNING}loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger", "WandbLogger")),
    ),
    "trainer": Kind("trainer", "", (), _has("fit"), ("lightning.Trainer", f"{_LIGHTNING}Trainer")),
}  # fmt: skip
"""The closed list: place in a config -> what may be built there."""

_PLACES = (
    (re.compile(r"model"), "model"),
    (re.compile(r"data"), "data"),
    (re.compile(r"data\.source"), "source"),
    (re.compile(r"data\.(published_)?split(\.recipe)*"), "split"),
    (re.compile(r"features\.potentials\.\d+"), "potential"),
    (re.compile(r"features\.descriptor"), "descriptor"),
    (re.compile(r"callbacks\.\w+"), "callback"),
    (re.compile(r"logger\.\w+"), "logger"),
    (re.compile(r"trainer"), "trainer"),
)
"""Which kind a `_target_` at a place of a run's config is."""

_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")


def trusted_target(path: Any, kind: str, allow: Sequence[str] = (), where: str = "") -> Any:
    """The class that a file names, if a file may name it.

    Args:
        path: Value of `_target_`, such as "potnet.models.PotNet".
        kind: One of `KINDS`: what its place asks for.
        allow: Full names that the user trusts besides the closed list; such a class must still be of this
            kind if the kind is "model".
        where: Place in the file, for messages.

    Raises:
        ConfigError: It is not on the list; nothing was imported. Or nothing of this name exists.
    """
    rule = KINDS[kind]
    name = str(path)
    place = f"{where}._target_={name}" if where else f"_target_={name}"
    refusal = ConfigError(
        f"{place}: this file asks for a class that is not potnet's own ({rule.label}), and a file may build "
        f"nothing else. If you trust it, name it yourself: allow=[{name}]"
    )
    named = isinstance(path, str) and _NAME.fullmatch(path) is not None
    if named and path in allow:
        found = _located(path, place)
        if kind == "model" and not (isinstance(found, type) and rule.is_one(found)):
            raise ConfigError(f"{place}: this is not a network (a subclass of torch.nn.Module)")
        return found
    if not named or not (path in rule.others or path.startswith(tuple(f"{p}." for p in rule.named_in))):
        raise refusal
    found = _located(path, place)
    if path in rule.others:
        return found
    module = str(getattr(found, "__module__", ""))
    ours = module == rule.package or module.startswith(f"{rule.package}.")
    if not isinstance(found, type) or not ours or not rule.is_one(found):
        raise refusal
    return found


def check_trusted(config: Mapping[str, Any], allow: Sequence[str] = ()) -> None:
    """Refuse a plain config of a run, or a part of one, that names anything which a file may not build.

    Args:
        config: With any of the keys model, data, split, features, callbacks, logger, trainer.
        allow: As for `trusted_target`.

    Raises:
        ConfigError: A `_target_` that is not on the list, or that stands where none belongs.
    """
    for where, path in targets_in(config):
        kind = next((kind for pattern, kind in _PLACES if pattern.fullmatch(where)), None)
        if kind is None:
            if path in allow:
                continue
            raise ConfigError(
                f"{where}._target_={path}: nothing is built at this place of a run's settings, so a file may "
                f"not ask for it. If you trust it, name it yourself: allow=[{path}]"
            )
        trusted_target(path, kind, allow, where)


def targets_in(config: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Place and value of every `_target_` in plain containers: ("data.source", "potnet.data...")."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield where, config["_target_"]
        entries = config.items()
    elif isinstance(config, list | tuple):
        entries = enumerate(config)  # type: ignore[assignment]
    else:
        return
    for key, value in entries:
        yield from targets_in(value, f"{where}.{key}" if where else str(key))


def read_saved_config(
    file: Path, allow: Sequence[str] = (), rename: Callable[[Any], Any] | None = None
) -> dict[str, Any]:
    """The plain config of an earlier run, from its config.yaml: checked, and without interpolations.

    A run saves its config with everything filled in, so an interpolation in it was put there by somebody
    else; it could read the environment.

    Args:
        file: Written by `potnet train`.
        allow: As for `trusted_target`.
        rename: Gives classes of older versions their present names, before they are checked.

    Raises:
        ConfigError: It is no YAML, or asks for something that a file may not.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not a config of a run ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: not a config of a run: a mapping of settings is wanted")
    for where, value in _texts(config):
        if "${" in value:
            raise ConfigError(
                f"{file}: {where}={value} is an interpolation, which a run never saves: the file was "
                "changed. Write the value itself"
            )
    found = {str(key): value for key, value in (rename(config) if rename else config).items()}
    try:
        check_trusted(found, allow)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return found


def _texts(config: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _texts(value, f"{where}.{key}" if where else str(key))
    elif isinstance(config, list):
        for number, value in enumerate(config):
            yield from _texts(value, f"{where}.{number}")
    elif isinstance(config, str):
        yield where, config


def _located(path: str, place: str) -> Any:
    try:
        return _resolve(path)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{place}: there is nothing of this name ({error})") from error


def _resolve(path: str) -> Any:
    """The object of a full name; modules on the way are imported.

    Raises:
        ImportError, AttributeError: There is none.
    """
    names = path.split(".")
    found = importlib.import_module(names[0])
    for count, name in enumerate(names[1:], 2):
        try:
            found = getattr(found, name)
        except AttributeError:
            found = importlib.import_module(".".join(names[:count]))
    return found
