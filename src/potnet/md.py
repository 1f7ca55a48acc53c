"""Molecular dynamics with a force field: `potnet md --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potnet.config import entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("md")
def main(config: DictConfig) -> None:
    """Do as the command line says."""
    from potnet.forcefield.commands import checked, run_md

    run_md(**checked(run_md, plain(config)))


if __name__ == "__main__":
    main()
