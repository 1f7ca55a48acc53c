"""Networks, one file each. A model maps a `CrystalBatch` to one number a crystal, (B,)."""

from potnet.models.branched import BranchedPotNet
from potnet.models.potnet import PotNet

__all__ = ["BranchedPotNet", "PotNet"]
