"""The error of checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or foreign. The message names the file and what to do."""
