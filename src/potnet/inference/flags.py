"""Warnings about crystals unlike those a network was trained on: it gives a number for them all the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from potnet.crystals import Crystal, CrystalGraph
from potnet.crystals.elements import symbol

RARE = 5
"""An element in fewer training crystals than this is called rare."""

MARGIN = 1.25
"""How far a size or density may lie outside the training range before it is called so."""


class TrainingDomain:
    """What a network saw in training, from the record in its checkpoint.

    Args:
        facts: `elements`: atomic number -> training crystals that contain it; `max_atoms`; `density`: [least,
            most], g/cm³. Each may be missing, as in older checkpoints: then nothing is said about it.
    """

    def __init__(self, facts: Mapping[str, Any] | None = None) -> None:
        facts = facts or {}
        self.elements = {int(z): int(count) for z, count in (facts.get("elements") or {}).items()}
        self.max_atoms: int | None = facts.get("max_atoms")
        self.density: tuple[float, float] | None = None
        if facts.get("density"):
            low, high = facts["density"]
            self.density = (float(low), float(high))

    def flags(self, crystal: Crystal, graph: CrystalGraph) -> str:
        """Why a prediction may be wrong, as text; "" if nothing speaks against it.

        Args:
            crystal: As it was given.
            graph: Its features, in the cell that the network sees.
        """
        found = []
        kinds = sorted(set(crystal.z.tolist()))
        if self.elements:
            unseen = [symbol(z) for z in kinds if z not in self.elements]
            rare = [f"{symbol(z)} ({self.elements[z]})" for z in kinds if 0 < self.elements.get(z, 0) < RARE]
            if unseen:
                found.append(f"no training crystal has {' or '.join(unseen)}")
            if rare:
                found.append(f"few training crystals have {', '.join(rare)}")
        n = len(graph.z)
        if self.max_atoms and n > MARGIN * self.max_atoms:
            found.append(f"{n} atoms, training crystals have at most {self.max_atoms}")
        if self.density:
            density, (low, high) = density_of(crystal), self.density
            if not low / MARGIN <= density <= high * MARGIN:
                found.append(f"density {density:.3g} g/cm³, training crystals have {low:.3g} to {high:.3g}")
        if graph.edge_index is not None:
            alone = n - len(np.unique(graph.edge_index[1].numpy()))
            if alone == n:
                found.append("no atom has a neighbour within the cutoff")
            elif alone:
                found.append(f"{alone} of {n} atoms have no neighbour within the cutoff")
        return "; ".join(found)


def density_of(crystal: Crystal) -> float:
    """Mass density, g/cm³."""
    from ase.data import atomic_masses

    return float(atomic_masses[crystal.z].sum() / abs(np.linalg.det(crystal.cell)) * 1.66053907)


NEAREST = 5
"""Neighbours over which the distance to the training crystals is a mean."""

REFERENCES = 1000
"""Training crystals that are kept to compare with."""

DIRECTIONS = 16
"""Principal directions of the embedding that are kept."""


class Reference(NamedTuple):
    """A training crystal that others are compared with.

    Attributes:
        id, formula: What it is.
        value: Its label, in the unit of the target.
    """

    id: str
    formula: str
    value: float


class Surroundings:
    """How far a crystal is from the training crystals, in the embedding of a network.

    The distance is the mean over the 5 nearest of some training crystals, in the first principal directions
    of their embedding. A crystal is far if its distance is above that of 99 % of crystals that are like them
    but were not trained on.

    Args:
        center: (G,) mean embedding.
        directions: (G, D) orthonormal columns.
        references: (R, D) training crystals in these directions, R at least 5.
        threshold: 99th percentile of the distances of held-out crystals.
        known: What the R training crystals are; empty where it was not kept.
    """

    def __init__(
        self,
        center: Tensor,
        directions: Tensor,
        references: Tensor,
        threshold: float = math.inf,
        known: Sequence[Reference] = (),
    ) -> None:
        self.center, self.directions = center.float(), directions.float()
        self.references, self.threshold = references.float(), float(threshold)
        self.known = list(known)

    @classmethod
    def fit(
        cls, training: Tensor, held_out: Tensor, seed: int = 0, known: Sequence[Reference] = ()
    ) -> Surroundings:
        """From embeddings of training crystals (n, G), with what they are, and of others like them (m, G).

        Raises:
            ValueError: Fewer training crystals than are needed for a distance, or no others.
        """
        if len(training) < NEAREST or not len(held_out):
            raise ValueError(
                f"at least {NEAREST} training crystals and 1 other are needed, got {len(training)} and "
                f"{len(held_out)}"
            )
        training = training.double()
        center = training.mean(0)
        _, _, directions = torch.linalg.svd(training - center, full_matrices=False)
        kept = directions[:DIRECTIONS].T.contiguous()
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))[:REFERENCES]
        # As they are stored, so that the threshold belongs to what is compared later.
        references = ((training - center) @ kept)[order].half()
        chosen = [known[n] for n in order.tolist()] if known else []
        found = cls(center, kept, references, known=chosen)
        found.threshold = float(torch.quantile(found.distances(held_out).double(), 0.99))
        return found

    def places(self, embeddings: Tensor) -> Tensor:
        """(B, G) embeddings to (B, D), in the directions that are kept."""
        return (embeddings.float() - self.center) @ self.directions

    def distances(self, embeddings: Tensor) -> Tensor:
        """(B, G) embeddings to (B,) distances."""
        found = torch.cdist(self.places(embeddings), self.references)
        return found.topk(min(NEAREST, found.shape[1]), largest=False).values.mean(1)

    def nearest(self, embeddings: Tensor, count: int = NEAREST) -> list[list[tuple[Reference, float]]]:
        """Of each of B crystals the nearest training crystals, with distances in parts of the threshold.

        Empty where it was not kept what they are.
        """
        if not self.known:
            return [[] for _ in embeddings]
        found = torch.cdist(self.places(embeddings), self.references)
        distances, rows = found.topk(min(count, found.shape[1]), largest=False)
        return [
            [(self.known[n], d / self.threshold) for n, d in zip(*pair, strict=True)]
            for pair in zip(rows.tolist(), distances.tolist(), strict=True)
        ]

    def flags(self, embeddings: Tensor) -> list[str]:
        """B texts, "" for crystals that are near."""
        return [
            f"unlike the training crystals: distance {distance / self.threshold:.2f} times that of 99 % of "
            "their kind"
            if distance > self.threshold
            else ""
            for distance in self.distances(embeddings).tolist()
        ]

    def tensors(self) -> dict[str, Tensor]:
        """What to keep in a file."""
        return {
            "surroundings.center": self.center.contiguous(),
            "surroundings.directions": self.directions.contiguous(),
            "surroundings.references": self.references.half().contiguous(),
            "surroundings.threshold": torch.tensor(self.threshold, dtype=torch.float64),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], known: Sequence[Sequence[Any]] = ()
    ) -> Surroundings | None:
        """From `tensors()`, and what the references are; None if there are none.

        Raises:
            KeyError: Some are missing.
        """
        if "surroundings.center" not in tensors:
            return None
        center, directions, references, threshold = (
            tensors[f"surroundings.{name}"] for name in ("center", "directions", "references", "threshold")
        )
        if known and len(known) != len(references):
            raise KeyError(f"{len(known)} names of {len(references)} training crystals")
        return cls(center, directions, references, float(threshold), [Reference(*entry) for entry in known])
