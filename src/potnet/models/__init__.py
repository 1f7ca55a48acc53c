"""Networks, one file each. A model maps a `CrystalBatch` to one number a crystal, (B,)."""

from potnet.models.alignn import ALIGNN
from potnet.models.branched import BranchedPotNet
from potnet.models.cgcnn import CGCNN
from potnet.models.gatgnn import GATGNN
from potnet.models.kernel_ridge import KernelRidge
from potnet.models.matformer import Matformer
from potnet.models.megnet import MEGNet
from potnet.models.potnet import PotNet
from potnet.models.schnet import SchNet

__all__ = [
    "ALIGNN",
    "CGCNN",
    "GATGNN",
    "BranchedPotNet",
    "KernelRidge",
    "MEGNet",
    "Matformer",
    "PotNet",
    "SchNet",
]
