"""Networks, one file each. A model maps a `CrystalBatch` to one number a crystal, (B,)."""

from potnet.models.branched import BranchedPotNet
from potnet.models.cgcnn import CGCNN
from potnet.models.megnet import MEGNet
from potnet.models.potnet import PotNet
from potnet.models.schnet import SchNet

__all__ = ["CGCNN", "BranchedPotNet", "MEGNet", "PotNet", "SchNet"]
