"""Force fields: energies of crystals, their derivatives, and what is done with them through ASE."""

from typing import TYPE_CHECKING, Any

from potnet.forcefield.errors import ForceFieldError
from potnet.nn.derivatives import derivatives

if TYPE_CHECKING:
    from potnet.forcefield.calculator import Calculator

__all__ = ["Calculator", "ForceFieldError", "derivatives"]


def __getattr__(name: str) -> Any:
    """`Calculator` is imported when it is used: ASE takes a second."""
    if name == "Calculator":
        from potnet.forcefield.calculator import Calculator

        return Calculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
