"""Heads: from the features of atoms and crystals to one output for each target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.nn.aggregate import aggregate

DEFAULT_HEAD = "value"
"""Name of the one head that a network has when no heads are given."""


class Embedding(NamedTuple):
    """What a backbone makes of a batch of B crystals with N atoms.

    Attributes:
        atoms: (N, F), features of atoms.
        crystals: (B, G), features of crystals, pooled over their atoms as the network has it.
    """

    atoms: Tensor
    crystals: Tensor


@dataclass(frozen=True)
class HeadSpec:
    """What a head gives.

    Args:
        outputs: Numbers for each crystal or atom: 1 for a scalar, 6 for a tensor in Voigt order, or one logit
            a class.
        per: "crystal" or "atom".
        extensive: Whether the output of a crystal grows with its cell: the sum over its atoms of what the
            head gives for each.

    Raises:
        ValueError: Fewer than one output, another word for `per`, or an extensive output of atoms.
    """

    outputs: int = 1
    per: Literal["crystal", "atom"] = "crystal"
    extensive: bool = False

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise ValueError(f"a head needs at least 1 output, got outputs={self.outputs}")
        if self.per not in ("crystal", "atom"):
            raise ValueError(f"per must be 'crystal' or 'atom', got {self.per!r}")
        if self.extensive and self.per == "atom":
            raise ValueError("extensive=true is for heads of crystals, but this one has per='atom'")

    @classmethod
    def of(cls, given: HeadSpec | Mapping[str, Any]) -> HeadSpec:
        """From plain arguments, as configurations and checkpoints hold them.

        Raises:
            ValueError: An unknown argument, or as for the class.
        """
        if isinstance(given, HeadSpec):
            return given
        try:
            return cls(**given)
        except TypeError:
            raise ValueError(
                f"a head takes {', '.join(cls.__dataclass_fields__)}; got {', '.join(map(str, given))}"
            ) from None

    def to_plain(self) -> dict[str, Any]:
        """Plain arguments: `HeadSpec(**spec.to_plain())` is the same."""
        return {"outputs": self.outputs, "per": self.per, "extensive": self.extensive}


HeadSpecs = Mapping[str, HeadSpec | Mapping[str, Any]]
"""Heads by the key of their target, as networks take them."""


def head_specs(heads: HeadSpecs | None) -> dict[str, HeadSpec]:
    """Heads by name; one scalar of crystals named "value" if none are given.

    Raises:
        ValueError: There is none, or one that cannot be.
    """
    if heads is None:
        return {DEFAULT_HEAD: HeadSpec()}
    if not heads:
        raise ValueError("a network needs at least one head, one for each target")
    return {key: HeadSpec.of(spec) for key, spec in heads.items()}


class Head(nn.Module):
    """Linear layers with an activation between them, on features of crystals or of atoms.

    | spec | output |
    |---|---|
    | crystal | layers(features of the crystal) |
    | crystal, `pool="outputs"` | mean over its atoms of layers(features of the atom) |
    | crystal, extensive | sum over its atoms of layers(features of the atom) |
    | atom | layers(features of the atom) |

    Args:
        spec: What it gives.
        atoms: F, features of an atom.
        crystals: G, features of a crystal.
        hidden: Widths of the hidden layers; none for a single linear layer.
        activation: After each hidden layer.
        pool: What an intensive output of a crystal is made of: its pooled "features", or the "outputs" of its
            atoms.
    """

    def __init__(
        self,
        spec: HeadSpec,
        atoms: int,
        crystals: int,
        hidden: Sequence[int],
        activation: Callable[[], nn.Module],
        pool: Literal["features", "outputs"] = "features",
    ) -> None:
        super().__init__()
        self.spec = spec
        self.by_atom = spec.per == "atom" or spec.extensive or pool == "outputs"
        sizes = [atoms if self.by_atom else crystals, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.activation = activation()
        self.output = nn.Linear(sizes[-1], spec.outputs)

    def forward(self, embedding: Embedding, batch: CrystalBatch) -> Tensor:
        """(B, outputs) of crystals or (N, outputs) of atoms; (B,) or (N,) if there is one output."""
        x = self.layers(embedding.atoms if self.by_atom else embedding.crystals)
        if self.by_atom and self.spec.per == "crystal":
            x = aggregate(x, batch.batch, batch.num_crystals, "sum" if self.spec.extensive else "mean")
        return x.squeeze(-1) if self.spec.outputs == 1 else x

    def layers(self, x: Tensor) -> Tensor:
        """(R, features) of atoms or crystals to (R, outputs)."""
        for layer in self.hidden:
            x = self.activation(layer(x))
        return self.output(x)


class Heads(nn.ModuleDict):
    """One head for each target.

    Args:
        specs: By the key of the target; see `head_specs`.
        make: A head of a spec, such as `Head` with the sizes of the network.

    Raises:
        ValueError: No head, or a key that cannot name a module.
    """

    def __init__(self, specs: HeadSpecs | None, make: Callable[[HeadSpec], nn.Module]) -> None:
        super().__init__()
        for key, spec in head_specs(specs).items():
            if not key or "." in key or hasattr(self, key):
                raise ValueError(
                    f"{key!r} cannot name a head, as it is empty, has a dot in it or is a name of torch's: "
                    "rename the property in the data"
                )
            self[key] = make(spec)

    @property
    def specs(self) -> dict[str, HeadSpec]:
        """What each head gives."""
        return {key: head.spec for key, head in self.items()}  # type: ignore[misc]

    @property
    def read_atoms_alone(self) -> bool:
        """Whether no head reads features of crystals, so that nothing trains the layers that pool them."""
        return all(getattr(head, "by_atom", False) for head in self.values())

    def forward(self, embedding: Embedding, batch: CrystalBatch) -> dict[str, Tensor]:
        """The output of each head, by the key of its target."""
        return {key: head(embedding, batch) for key, head in self.items()}
