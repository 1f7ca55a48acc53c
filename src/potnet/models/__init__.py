"""Networks, one file each. A model maps a `CrystalBatch` to one number a crystal, (B,)."""

from potnet.models.potnet import PotNet

__all__ = ["PotNet"]
