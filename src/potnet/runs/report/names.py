"""Names of rows: the settings in which they differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from potnet.config import flat
from potnet.config.paths import groups

_ELSEWHERE = (
    "logger", "runs_dir", "published", "resume", "name", "data.cache_dir", "data.num_workers",
    "trainer.devices", "trainer.accelerator", "trainer.strategy", "allow",
)  # fmt: skip
"""Settings, with all below them, that say where a run lies or runs, not what it computes."""


def settings_of(config: Mapping[str, Any], over: Sequence[str]) -> dict[str, Any]:
    """Every setting by its full name, without those that do not shape the result and those in `over`.

    Args:
        config: Plain containers.
        over: Full names, or last parts of names: "seed" stands for "data.seed", too.
    """
    return {
        key: value
        for key, value in flat(_short(config)).items()
        if not any(key == place or key.startswith(place + ".") for place in _ELSEWHERE)
        and not _averaged(key, over)
    }


def _short(config: Any) -> Any:
    """Lists of built things on one line each, as a list of potentials: ["Coulomb", "Pauli(alpha=3.0)"]."""
    if isinstance(config, Mapping):
        return {key: _short(value) for key, value in config.items()}
    if isinstance(config, list) and all(isinstance(item, Mapping) and "_target_" in item for item in config):
        return [_call(item) for item in config]
    return config


def _call(item: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in item.items() if key != "_target_")
    name = str(item["_target_"]).rpartition(".")[2]
    return f"{name}({arguments})" if arguments else name


def repeat_of(config: Mapping[str, Any], over: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """The name of a run within its row: the settings in `over` with their values."""
    return tuple(sorted((key, value) for key, value in flat(config).items() if _averaged(key, over)))


def changes(reference: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings in which two rows differ: name -> (the reference's, the other's), None where one has none."""
    keys = [key for key in {**reference, **settings} if reference.get(key) != settings.get(key)]
    return {key: (reference.get(key), settings.get(key)) for key in sorted(keys)}


def name_rows(rows: Sequence[tuple[Sequence[str], Mapping[str, Any]]], over: Sequence[str]) -> list[str]:
    """A name for each row: what its command had and others had not, else the settings that differ.

    Keys are cut to their last part where that is clear, numbers to four digits.

    Args:
        rows: Overrides of a command, and settings, of each row.
        over: As for `settings_of`.

    Returns:
        Names that differ from each other, such as "complete" and "radius_4" where `ablation` alone varies.
    """
    given = [
        [override for override in overrides if not _averaged(override.partition("=")[0].lstrip("+"), over)]
        for overrides, _ in rows
    ]
    counts = Counter(override for overrides in given for override in set(overrides))
    varying = [[override for override in overrides if counts[override] < len(rows)] for overrides in given]
    chosen = {override.partition("=")[0] for overrides in varying for override in overrides}
    short = short_keys(chosen)
    # The name of an option says what it is; a value needs its key.
    alone = len(chosen) == 1 and chosen <= set(groups())
    names = []
    for overrides in varying:
        pairs = [override.partition("=")[::2] for override in overrides]
        texts = [short_value(v) if alone else f"{short[k]}={short_value(v)}" for k, v in pairs]
        names.append(", ".join(texts))
    keys = varying_keys([settings for _, settings in rows])
    short = short_keys(keys)
    repeated = Counter(names)
    for i, (_, settings) in enumerate(rows):
        if repeated[names[i]] > 1 or not names[i]:
            details = ", ".join(
                f"{short[key]}={short_value(settings[key])}" for key in keys if key in settings
            )
            names[i] = ", ".join(part for part in (names[i], details) if part) or "all runs"
    # What differs beyond the digits that are shown is numbered.
    seen: Counter[str] = Counter()
    repeated = Counter(names)
    for i, name in enumerate(names):
        seen[name] += 1
        if repeated[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return names


def varying_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings in which rows differ, in the order of the first row that has them."""
    keys = {key: None for one in settings for key in one}
    return [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each name, or the whole name where several end alike."""
    keys = list(keys)
    last = {key: key.lstrip("+").rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: last[key] if counts[last[key]] == 1 else key for key in keys}


def short_value(value: Any) -> str:
    """A value for people: numbers with at most four significant digits."""
    text = "null" if value is None else str(value)
    try:
        number = float(text)
    except ValueError:
        return text
    if isinstance(value, bool) or not math.isfinite(number) or len(text.strip("-0").replace(".", "")) <= 4:
        return text
    return text if number.is_integer() and abs(number) < 1e6 else f"{number:.4g}"


def averaged_keys(keys: Iterable[str], over: Sequence[str]) -> list[str]:
    """Those of some settings that rows average over."""
    return [key for key in keys if _averaged(key, over)]


def _averaged(key: str, over: Sequence[str]) -> bool:
    # model.fold says how a network computes, not which part of the data it sees.
    return any(
        key == name or (key.rpartition(".")[2] == name and not key.startswith("model.")) for name in over
    )
