"""Errors of force fields."""


class ForceFieldError(ValueError):
    """A structure or a network that no forces can be computed for. The message says what to change."""
