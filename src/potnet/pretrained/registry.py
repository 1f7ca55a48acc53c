"""The registry of trained models: a YAML file, one entry a model, with the checksum of each file it needs.

    k_vrh:
      title: bulk modulus
      target: k_vrh                    key of what it predicts
      unit: GPa
      members: [{file: k_vrh.0.safetensors, sha256: ...}, ...]
      finetune_member: 1               that fine-tuning begins with, counted from 0; the first by default
      calibration: {file: k_vrh.calibration.safetensors, sha256: ...}
      data: {name, content_hash, split_hash, sizes, licence, citation}
      licence: MIT
      figures: {...}                   what the card shows
      date: 2026-11-26
      command: [...]                   that trained the members
      aliases: [bulk_modulus]

Files are beside the registry. Members are safetensors: loading one runs nothing that is in it.
"""  # fmt: skip

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config.errors import ConfigError
from potnet.config.suggest import did_you_mean

if TYPE_CHECKING:
    from potnet.inference.ensemble import Ensemble

SHIPPED = Path(__file__).with_name("models") / "registry.yaml"
"""The registry that comes with the package."""

NAME = re.compile(r"[A-Za-z]\w*")
"""What the name of a model looks like; anything else is a path."""


class RegistryError(ConfigError):
    """A model that is not in a registry, or a registry that cannot be used. The message says what to do."""


@dataclass(frozen=True)
class Entry:
    """One model of a registry.

    Attributes:
        name: Of the model.
        settings: Of its entry.
        folder: That holds its files.
    """

    name: str
    settings: Mapping[str, Any]
    folder: Path

    def file(self, entry: Mapping[str, Any]) -> Path:
        """The path of a file of this model, once its content is what the registry says.

        Args:
            entry: `file` and `sha256`.

        Raises:
            RegistryError: It is missing, is not safetensors, or has another checksum.
        """
        try:
            name, wanted = str(entry["file"]), str(entry["sha256"])
        except (KeyError, TypeError):
            raise RegistryError(
                f"model {self.name}: each file needs `file` and `sha256`, got {entry}"
            ) from None
        path = self.folder / name
        if path.suffix != ".safetensors":
            raise RegistryError(
                f"model {self.name}: {name} must be .safetensors (make one by `potnet export`)"
            )
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RegistryError(f"model {self.name}: {path} cannot be read ({error.strerror})") from error
        found = hashlib.sha256(content).hexdigest()
        if found != wanted:
            raise RegistryError(
                f"model {self.name}: {path} is not the file that its registry means (sha256 {found[:16]}..., "
                f"expected {wanted[:16]}...): it was changed or damaged, and is not loaded. Fetch it again"
            )
        return path

    @property
    def finetune_member(self) -> Mapping[str, Any]:
        """`file` and `sha256` of the member that fine-tuning begins with.

        Raises:
            RegistryError: The entry has no such member.
        """
        members, chosen = self.settings.get("members"), self.settings.get("finetune_member", 0)
        if not isinstance(members, list) or not isinstance(chosen, int) or not 0 <= chosen < len(members):
            raise RegistryError(f"model {self.name}: finetune_member={chosen!r} is none of its members")
        return members[chosen]

    def load(self, device: str = "auto") -> Ensemble:
        """The model.

        Raises:
            RegistryError, CheckpointError: A file that cannot be used.
        """
        from potnet.inference.ensemble import Ensemble

        members = self.settings.get("members")
        if not isinstance(members, list) or not members:
            raise RegistryError(f"model {self.name}: the entry lists no members")
        calibration = self.settings.get("calibration")
        return Ensemble.from_files(
            [self.file(entry) for entry in members],
            None if calibration is None else self.file(calibration),
            device,
            self.name,
        )


class Registry(Mapping[str, Entry]):
    """The models of one registry file, by name or alias.

    Args:
        path: YAML. The one of the package may be missing: then there are no models.

    Raises:
        RegistryError: The file is missing or no registry.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import yaml

        self.path = Path(path).expanduser()
        try:
            content = yaml.safe_load(self.path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RegistryError(f"registry={self.path}: cannot be read ({reason})") from error
        except yaml.YAMLError as error:
            raise RegistryError(f"registry={self.path}: not YAML ({' '.join(str(error).split())})") from error
        if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
            raise RegistryError(
                f"registry={self.path}: not a registry: give NAME: {{members: [...], ...}}, one entry a model"
            )
        folder = self.path.absolute().parent
        self._entries = {str(name): Entry(str(name), entry, folder) for name, entry in content.items()}
        self._aliases = {
            str(alias): name
            for name, entry in self._entries.items()
            for alias in entry.settings.get("aliases", ())
        }

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name or alias.

        Raises:
            RegistryError: There is none; the nearest name is given. (Also a KeyError's place: see `get`.)
        """
        found = self._entries.get(self._aliases.get(name, name))
        if found is None:
            if not self._entries:
                raise RegistryError(f"model={name}: there are no models in {self.path}")
            hint = did_you_mean(name, [*self._entries, *self._aliases])
            raise RegistryError(f"model={name}: there is no model of this name{hint}")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def shipped() -> Registry:
    """The models that come with the package."""
    return Registry(SHIPPED)


def is_name(path: object) -> bool:
    """Whether this is meant as the name of a model, not as a path: a word without / and without ending."""
    return isinstance(path, str) and NAME.fullmatch(path) is not None
