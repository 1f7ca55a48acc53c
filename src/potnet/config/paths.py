"""Where the configuration is, and what it offers. Nothing but the standard library is imported."""

from __future__ import annotations

from pathlib import Path


def config_dir() -> Path:
    """The folder of the YAML files: inside an installed package, or at the top of the repository."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def groups() -> list[str]:
    """Names of the groups: folders of conf/ but Hydra's."""
    return sorted(path.name for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra")


def package(group: str) -> str | None:
    """Where the settings of a group are, if it is one other place for all options: split -> data.split."""
    first = (path.read_text().partition("\n")[0] for path in (config_dir() / group).glob("[!_]*.yaml"))
    places = {line.partition("@package ")[2].strip() for line in first}
    place = places.pop()
    return place if place not in ("", "_global_") and not places else None


def options(group: str) -> list[str]:
    """Names of a group's options; those that begin with _ are parts that others build on."""
    return sorted(path.stem for path in (config_dir() / group).glob("[!_]*.yaml"))
