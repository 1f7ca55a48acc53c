"""Phonons of a force field: `potnet phonons --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potnet.config import entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("phonons")
def main(config: DictConfig) -> None:
    """Do as the command line says."""
    from potnet.forcefield.commands import checked, phonon_files

    phonon_files(**checked(phonon_files, plain(config)))


if __name__ == "__main__":
    main()
