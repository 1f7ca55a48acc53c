"""Structures ranked by a committee of force fields: `potnet rank --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potnet.config import entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("rank")
def main(config: DictConfig) -> None:
    """Do as the command line says."""
    from potnet.forcefield.commands import checked, rank_files

    rank_files(**checked(rank_files, plain(config)))


if __name__ == "__main__":
    main()
