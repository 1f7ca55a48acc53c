"""Force fields: energies of crystals and their derivatives, forces and stress."""

from potnet.forcefield.derivatives import derivatives

__all__ = ["derivatives"]
