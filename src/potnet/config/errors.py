"""The error that stands for a wrong setting."""


class ConfigError(ValueError):
    """A setting that cannot be used. The message names the key, what was given and what is valid."""
