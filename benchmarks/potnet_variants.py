"""The default network with one thing changed; docs/ablations.md has what was measured.

    PYTHONPATH=benchmarks potnet train experiment=mp_bulk_modulus seed=0 \
      model._target_=potnet_variants.StochasticDepth

`StochasticDepth` skips, in training, the change of each layer for a whole batch, with probability 0.1
(Huang et al., ECCV 2016). `FormalCharges` gives each atom its formal charge and its Madelung potential, a
complete sum over these charges, where the composition has such charges. `LengthsAlone` has the power
spectrum of degree 0, which knows no angles. `FieldsAlone` has fields of charges and no branch over pairs.
`NoisyInputs` disturbs in training what local edges and pairs are embedded from: it is multiplied with
1 + 0.01 e, e normal and of each number its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.models import PotNet
from potnet.nn import HeadSpecs
from potnet.nn.angular import PowerSpectrum
from potnet.nn.equivariant import mlp

ANIONS = {"H", "N", "O", "F", "P", "S", "Cl", "As", "Se", "Br", "Te", "I"}


class SkippedLayers(nn.Module):
    """In training nothing with probability `skip`, otherwise the change, scaled so that its mean stays."""

    def __init__(self, skip: float) -> None:
        super().__init__()
        self.skip = skip

    def forward(self, change: Tensor) -> Tensor:
        if not self.training:
            return change
        keep = torch.rand((), device=change.device) >= self.skip
        return change * (keep / (1 - self.skip))


class StochasticDepth(PotNet):
    """PotNet whose layers are skipped now and then in training."""

    def __init__(self, skip: float = 0.1, heads: HeadSpecs | None = None, **others: Any) -> None:
        super().__init__(heads=heads, **others)
        self.dropout = SkippedLayers(skip)  # type: ignore[assignment]


class LengthsAlone(PotNet):
    """PotNet whose atoms begin with elements and lengths around them, without angles."""

    def __init__(self, width: int = 128, heads: HeadSpecs | None = None, **others: Any) -> None:
        super().__init__(width=width, heads=heads, **others)
        self.spectrum = PowerSpectrum(others["angular_cutoff"], others["angular"], degree=0)
        self.angular_embedding = mlp(self.spectrum.features, width, width)


class NoChange(nn.Module):
    """Changes nothing, whatever it is given."""

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return torch.zeros_like(x)


class FieldsAlone(PotNet):
    """PotNet that reads complete sums by the fields of learned charges alone: linear in them."""

    def __init__(self, heads: HeadSpecs | None = None, **others: Any) -> None:
        super().__init__(heads=heads, **others)
        self.pair_layers = nn.ModuleList(NoChange() for _ in self.pair_layers)


class RelativeNoise(nn.Module):
    """In training x (1 + size e), e normal and of each component its own."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.size * torch.randn_like(x)) if self.training else x


class NoisyInputs(PotNet):
    """PotNet whose local edges and pairs have other lengths and sums at every step of training."""

    def __init__(self, noise: float = 0.01, heads: HeadSpecs | None = None, **others: Any) -> None:
        super().__init__(heads=heads, **others)
        self.edge_embedding = nn.Sequential(RelativeNoise(noise), self.edge_embedding)
        self.pair_embedding = nn.Sequential(RelativeNoise(noise), self.pair_embedding)  # type: ignore[assignment]


def formal_charges(numbers: tuple[int, ...]) -> dict[int, float]:
    """Charges of elements that pymatgen derives from the composition of some atoms; empty without any."""
    from pymatgen.core import Composition, Element

    names = {number: Element.from_Z(number).symbol for number in set(numbers)}
    composition = Composition(Counter(names[number] for number in numbers))
    if not ANIONS & set(names.values()) or not 2 <= len(composition) <= 4:
        return {}
    guesses: Any = composition.oxi_state_guesses(max_sites=-1)
    return {number: guesses[0][name] for number, name in names.items()} if guesses else {}


class MadelungFeatures(nn.Module):
    """Features of elements, then formal charge and sum over b of q_b S(a, b), 1/Å, of the first potential."""

    def __init__(self, elements: nn.Module, features: int) -> None:
        super().__init__()
        self.elements, self.features = elements, features + 2
        self.known: dict[tuple[tuple[int, int], ...], dict[int, float]] = {}

    def forward(self, batch: CrystalBatch) -> Tensor:
        of_elements = self.elements(batch)
        charges: list[float] = []
        for z in batch.z.split(batch.num_atoms.tolist()):
            numbers = z.tolist()
            key = tuple(sorted(Counter(numbers).items()))
            if key not in self.known:
                self.known[key] = formal_charges(tuple(numbers))
            charges += [self.known[key].get(number, 0.0) for number in numbers]
        q = torch.tensor(charges, dtype=batch.dtype, device=batch.z.device)
        assert batch.pair_index is not None
        assert batch.pair_sums is not None
        first, second = batch.pair_index
        field = torch.zeros_like(q).index_add_(0, first, q[second] * batch.pair_sums[:, 0].to(q.dtype))
        return torch.cat([of_elements, torch.stack([q, field], 1).to(of_elements.dtype)], 1)


class FormalCharges(PotNet):
    """PotNet whose atoms begin with their formal charge and Madelung potential."""

    def __init__(self, heads: HeadSpecs | None = None, **others: Any) -> None:
        super().__init__(heads=heads, **others)
        self.elements = MadelungFeatures(self.elements, self.elements.features)  # type: ignore[assignment]
        self.atom_embedding = nn.Linear(self.elements.features, self.atom_embedding.out_features)
