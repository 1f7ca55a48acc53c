"""Which process of a run on several devices this one is."""

from __future__ import annotations

import os


def rank() -> int:
    """Number of this process among those that torchrun, srun or `potnet train` started; 0 if it is alone."""
    return int(os.environ["RANK" if "RANK" in os.environ else "SLURM_PROCID"]) if started_by() else 0


def started_by() -> str | None:
    """Who started this process as one rank of several: "torchrun" (or `potnet train`), "srun", or None."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    # A batch script has SLURM_NTASKS as well, but only srun makes steps.
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_ID" in os.environ:
        return "srun"
    return None
