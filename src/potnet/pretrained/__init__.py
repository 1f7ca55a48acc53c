"""Networks that come with the package, and those of a registry file of yours: `potnet.load("k_vrh")`."""

from potnet.pretrained.registry import Entry, Registry, RegistryError, shipped

__all__ = ["Entry", "Registry", "RegistryError", "shipped"]
