"""Networks, one file each."""

from potnet.models.baselines.alignn import ALIGNN
from potnet.models.baselines.cgcnn import CGCNN
from potnet.models.baselines.gatgnn import GATGNN
from potnet.models.baselines.kernel_ridge import KernelRidge
from potnet.models.baselines.matformer import Matformer
from potnet.models.baselines.megnet import MEGNet
from potnet.models.baselines.schnet import SchNet
from potnet.models.cluster_expansion import ClusterExpansion
from potnet.models.leignn import LEIGNN
from potnet.models.mbtr_forces import MBTRForces
from potnet.models.pair_splines import PairSplines
from potnet.models.potnet import PotNet
from potnet.models.potnet_ff import PotNetFF
from potnet.models.potnet_published import PublishedPotNet

__all__ = [
    "ALIGNN",
    "CGCNN",
    "GATGNN",
    "LEIGNN",
    "ClusterExpansion",
    "KernelRidge",
    "MBTRForces",
    "MEGNet",
    "Matformer",
    "PairSplines",
    "PotNet",
    "PotNetFF",
    "PublishedPotNet",
    "SchNet",
]
