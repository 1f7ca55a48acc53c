"""Errors of runs: their checkpoints and their folders."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or foreign. The message names the file and what to do."""


class BusyError(RuntimeError):
    """The folder of a run in which another process is training. The message names it."""
