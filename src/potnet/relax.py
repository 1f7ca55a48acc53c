"""Relax structures with a force field: `potnet relax --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potnet.config import entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("relax")
def main(config: DictConfig) -> None:
    """Do as the command line says."""
    from potnet.forcefield.commands import checked, relax_files

    relax_files(**checked(relax_files, plain(config)))


if __name__ == "__main__":
    main()
