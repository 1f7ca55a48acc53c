"""Elastic constants of a force field: `potnet elastic --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potnet.config import entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("elastic")
def main(config: DictConfig) -> None:
    """Do as the command line says."""
    from potnet.forcefield.commands import checked, elastic_files

    elastic_files(**checked(elastic_files, plain(config)))


if __name__ == "__main__":
    main()
