"""Crystal property prediction with complete interatomic potentials."""

__version__ = "0.1.0"
