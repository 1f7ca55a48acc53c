"""From crystals to what networks read: standard cell, local edges, complete pair sums.

One `Featurizer` serves training, prediction and benchmarks. Its settings are plain data: together with the
content of a data set they are the key of the feature cache, and a checkpoint carries them so that new
crystals are featurized exactly as those it was trained on.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from potnet.config.suggest import did_you_mean
from potnet.crystals import Crystal, CrystalError, CrystalGraph, Descriptor
from potnet.data.errors import DataError
from potnet.data.features.settings import (
    build_descriptor,
    build_potential,
    descriptor_settings,
    potential_settings,
)
from potnet.lattice.potentials import Potential

#: Called with the number of crystals done since the last call; fractions are allowed.
Progress = Callable[[float], None]

#: Local edges by default, as in conf/features/default.yaml.
DEFAULT_NEIGHBORS: Mapping[str, Any] = {"cutoff": 4.0}

NEEDS = ("edges", "pairs", "angles", "descriptors")
MOST_ACCURATE = 1e-12
"""Smallest absolute error that can be asked of the sums, which are computed in float64."""
_CELLS = ("primitive", "as_given")
LARGEST_CUTOFF = 50.0
"""Å. An atom of a dense crystal has some 50 000 neighbours within this; more would fill the memory."""

_NEIGHBORS: dict[str, Any] = {"cutoff": None, "k": None, "shell_tolerance": 1e-3, "symmetric": False}
_REPORT_EVERY = 32
# Atoms whose edges are found together: they stay in a CPU's cache, and a GPU's memory holds them.
_ATOMS_AT_ONCE = 4096


def default_potentials() -> list[Potential]:
    """The potentials by default, as in conf/potentials/paper.yaml."""
    from potnet.lattice.potentials import Coulomb, London, Pauli

    return [Coulomb(), London(), Pauli(alpha=3.0)]


@dataclass(frozen=True)
class Failure:
    """A crystal that could not be used, and why."""

    id: str
    reason: str


class Featurizer:
    """Builds `CrystalGraph`s. `Featurizer()` builds what the command builds by default.

    Args:
        cell: "primitive" reduces each crystal to its primitive Niggli cell, so that features do not
            depend on the choice of cell; "as_given" leaves it.
        symprec: Tolerance of the symmetry search, Å.
        neighbors: `cutoff` (Å) and/or `k` of the local edges, `shell_tolerance` (Å) and `symmetric` (see
            `local_edges`); None for no local edges. "default" is None too, unless potentials and descriptor
            are left out as well.
        angles: Whether to list the angles between local edges (the line graph).
        potentials: Pair potentials to sum over all images, as objects or as `{"_target_": class path,
            **arguments}`; None for no pair sums. "default" as for neighbors.
        descriptor: A `Descriptor` of the whole crystal, as an object or as `{"_target_": class path,
            **arguments}`; None for none.
        accuracy: Absolute error that each sum is guaranteed to keep, before rounding to float32.
        pair_cutoff: Å; sums the potentials over images within this radius alone, in place of the complete
            sums.
        pair_split: Å; gives two sums of each potential in place of one: over images within this radius, and
            the remainder of the complete sum.
        memory_mib: Working memory of the sums, MiB; None is the default of `lattice_sums`.
        device: Where edges and sums are computed: "cpu", "cuda", or "auto" for a GPU if there is one.

    Attributes:
        seconds: Time spent so far, by stage: standardize, neighbors, sums, and descriptor if there is one.

    Raises:
        DataError: A setting that is unknown or cannot be used.
    """

    def __init__(
        self,
        cell: str = "primitive",
        symprec: float = 0.01,
        neighbors: Mapping[str, Any] | Literal["default"] | None = "default",
        potentials: Sequence[Potential | Mapping[str, Any]] | Literal["default"] | None = "default",
        accuracy: float = 1e-8,
        pair_cutoff: float | None = None,
        pair_split: float | None = None,
        memory_mib: float | None = None,
        device: str = "auto",
        angles: bool = False,
        descriptor: Descriptor | Mapping[str, Any] | None = None,
    ) -> None:
        if neighbors == "default":
            ours = potentials == "default" and descriptor is None
            neighbors = DEFAULT_NEIGHBORS if ours else None
            potentials = default_potentials() if ours else potentials
        if potentials == "default":
            potentials = None
        if cell not in _CELLS:
            raise DataError(f"features.cell={cell!r}{did_you_mean(str(cell), _CELLS)}")
        if potentials is not None and not len(potentials):
            raise DataError(
                "features.potentials is empty: name at least one potential, or null for no pair sums"
            )
        if not symprec > 0:
            raise DataError(f"features.symprec={symprec}: give a positive number of Å, such as 0.01")
        if not MOST_ACCURATE <= accuracy < 1:
            raise DataError(
                f"features.accuracy={accuracy:g}: give {MOST_ACCURATE:g} to below 1, such as 1e-8 (sums are "
                "computed in float64 and kept in float32)"
            )
        for key, radius in (("pair_cutoff", pair_cutoff), ("pair_split", pair_split)):
            if radius is not None and not 0 < radius < math.inf:
                raise DataError(
                    f"features.{key}={radius}: give a positive number of Å, or null for complete sums"
                )
        if pair_cutoff is not None and pair_split is not None:
            raise DataError(
                f"features.pair_cutoff={pair_cutoff} leaves out what pair_split={pair_split} would tell "
                "apart: set one of them to null"
            )
        if angles and neighbors is None:
            raise DataError("features.angles=true: angles lie between local edges, so set features.neighbors")
        self.cell: Any = cell
        self.symprec = float(symprec)
        self.neighbors = None if neighbors is None else _checked_neighbors(neighbors)
        self.angles = bool(angles)
        self.potentials = None if potentials is None else [build_potential(entry) for entry in potentials]
        self.descriptor = None if descriptor is None else build_descriptor(descriptor)
        self.accuracy = float(accuracy)
        self.pair_cutoff = None if pair_cutoff is None else float(pair_cutoff)
        self.pair_split = None if pair_split is None else float(pair_split)
        self.memory_mib = memory_mib
        self.device = device
        self.seconds = {"standardize": 0.0, "neighbors": 0.0, "sums": 0.0}
        if self.descriptor is not None:
            self.seconds["descriptor"] = 0.0

    @property
    def channels(self) -> int:
        """P, the number of sums of each pair."""
        return len(self.potentials or ()) * (1 if self.pair_split is None else 2)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes edges and sums."""
        return self.potentials is not None and _device(self.device).type != "cpu"

    def settings(self) -> dict[str, Any]:
        """All that shapes the features, as plain data with defaults filled in: no device, no memory limit."""
        pairs = self.potentials is not None
        settings: dict[str, Any] = {
            "cell": self.cell,
            "symprec": self.symprec,
            "neighbors": None if self.neighbors is None else dict(self.neighbors),
            "potentials": None
            if self.potentials is None
            else [potential_settings(p) for p in self.potentials],
            "accuracy": self.accuracy if pairs and self.pair_cutoff is None else None,
            "pair_cutoff": self.pair_cutoff if pairs else None,
        }
        # Later additions appear only where they are used, so that older caches and checkpoints stay valid.
        if self.angles:
            settings["angles"] = True
        if pairs and self.pair_split is not None:
            settings["pair_split"] = self.pair_split
        if self.descriptor is not None:
            settings["descriptor"] = descriptor_settings(self.descriptor)
        return settings

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], **how: Any) -> Featurizer:
        """The inverse of `settings`.

        Args:
            settings: What `settings()` returned.
            how: `device` and `memory_mib`, which do not shape the result.
        """
        given = {key: value for key, value in settings.items() if not (key == "accuracy" and value is None)}
        return cls(**given, **how)

    def restricted(self, needs: Iterable[str]) -> Featurizer:
        """A featurizer that builds nothing but what is needed.

        Args:
            needs: Any of `NEEDS`, as a model declares them. Angles come with the edges they lie between.

        Raises:
            DataError: An unknown need, or one that these settings do not provide.
        """
        needs = frozenset(needs)
        for need in needs - set(NEEDS):
            raise DataError(f"a model asks for the unknown feature {need!r}{did_you_mean(need, NEEDS)}")
        edges = not needs.isdisjoint({"edges", "angles"})
        if edges and self.neighbors is None:
            raise DataError(
                "the model needs local edges: set features.neighbors.cutoff and/or features.neighbors.k"
            )
        if "pairs" in needs and self.potentials is None:
            raise DataError("the model needs pair sums: name at least one potential in features.potentials")
        if "descriptors" in needs and self.descriptor is None:
            raise DataError("the model needs a descriptor: set features.descriptor")
        settings = self.settings()
        settings["accuracy"] = self.accuracy
        settings["angles"] = "angles" in needs
        if not edges:
            settings["neighbors"] = None
        if "pairs" not in needs:
            settings["potentials"] = settings["pair_cutoff"] = settings["pair_split"] = None
        if "descriptors" not in needs:
            settings["descriptor"] = None
        return Featurizer(**settings, memory_mib=self.memory_mib, device=self.device)

    def featurize(
        self,
        crystals: Sequence[Crystal],
        failures: list[Failure] | None = None,
        progress: Progress | None = None,
        labels: bool = True,
    ) -> list[CrystalGraph]:
        """Features of each crystal, in order; edges and sums are computed for many crystals together.

        Args:
            crystals: Any number.
            failures: Collects the crystals that could not be featurized, which are then left out.
                None raises on the first of them.
            progress: Called with the number of crystals done since the last call.
            labels: Whether graphs carry the properties of their crystals as targets; prediction needs none.

        Raises:
            CrystalError: Names the crystal and what is wrong with it. Labels that are arrays (forces, stress)
                need `cell="as_given"`: atoms of a reduced cell are fewer, or in other places.
        """
        prepared: list[tuple[Crystal, dict[str, Tensor]]] = []
        # Without sums the whole of a crystal is done in the first stage, otherwise about half.
        share = 1.0 if self.potentials is None else 0.5
        for number, crystal in enumerate(crystals, 1):
            try:
                if labels and self.cell != "as_given":
                    _refuse_arrays(crystal)
                prepared.append(self._local(crystal))
            except ValueError as error:
                _record(crystal.id, error, failures)
            if progress and number % _REPORT_EVERY == 0:
                progress(share * _REPORT_EVERY)
        if progress:
            progress(share * (len(crystals) % _REPORT_EVERY))
        standard = [crystal for crystal, _ in prepared]
        if self.neighbors is not None:
            self._all_edges(standard, [arrays for _, arrays in prepared])
        sums = [None] * len(standard) if self.potentials is None else self._all_sums(standard, failures)
        graphs = [
            _graph(crystal, arrays, pair_sums, labels)
            for (crystal, arrays), pair_sums in zip(prepared, sums, strict=True)
            if self.potentials is None or pair_sums is not None
        ]
        if progress and share < 1:
            progress((1 - share) * len(crystals))
        return graphs

    def _local(self, crystal: Crystal) -> tuple[Crystal, dict[str, Tensor]]:
        """The crystal in its standard cell, and its descriptor."""
        from potnet.crystals import standardize

        arrays: dict[str, Tensor] = {}
        start = time.perf_counter()
        crystal = standardize(crystal, cell=self.cell, symprec=self.symprec)
        start = self._clock("standardize", start)
        if self.descriptor is not None:
            numbers, values = self.descriptor(crystal)
            arrays["descriptor_index"] = torch.from_numpy(numbers)
            arrays["descriptor_value"] = torch.from_numpy(values).to(torch.float32)
            self._clock("descriptor", start)
        return crystal, arrays

    def _clock(self, stage: str, start: float) -> float:
        """Add the time since `start` to a stage; the time now."""
        now = time.perf_counter()
        self.seconds[stage] += now - start
        return now

    def _all_edges(self, crystals: list[Crystal], arrays: list[dict[str, Tensor]]) -> None:
        """Add edges, and angles between them, to the arrays of each crystal."""
        from potnet.crystals import batched_edges, line_graph

        assert self.neighbors is not None
        start = time.perf_counter()
        for low, high in _slices([len(crystal) for crystal in crystals]):
            cell, positions, batch, sizes = _tensors(crystals[low:high], _device(self.device))
            index, shift = (x.cpu() for x in batched_edges(cell, positions, batch, **self.neighbors))
            first = sizes.cumsum(0) - sizes
            crystal = batch.cpu()[index[1]]
            counts = torch.bincount(crystal, minlength=len(sizes)).tolist()
            index = (index - first[crystal]).split(counts, dim=1)
            shifts = shift.to(torch.int32).split(counts)
            for some, *edges in zip(arrays[low:high], index, shifts, sizes.tolist(), strict=True):
                # Copies: a slice would keep those of all crystals.
                some["edge_index"], some["edge_shift"] = edges[0].clone(), edges[1].clone()
                if self.angles:
                    angles = line_graph(edges[0].numpy(), edges[2])
                    some["angle_index"] = torch.from_numpy(angles)
        self._clock("neighbors", start)

    def _all_sums(self, crystals: list[Crystal], failures: list[Failure] | None) -> list[Tensor | None]:
        """(n * n, P) float32 of each crystal; None where it failed."""
        if not crystals:
            return []
        start = time.perf_counter()
        try:
            return list(self._sums(crystals))
        except ValueError:
            # One bad crystal spoils the batched call: find out which, and keep the others.
            found: list[Tensor | None] = []
            for crystal in crystals:
                try:
                    found.extend(self._sums([crystal]))
                except ValueError as error:
                    _record(crystal.id, error, failures)
                    found.append(None)
            return found
        finally:
            self.seconds["sums"] += time.perf_counter() - start

    def _sums(self, crystals: list[Crystal]) -> Iterable[Tensor]:
        from potnet.lattice import lattice_sums

        assert self.potentials is not None
        cell, positions, batch, sizes = _tensors(crystals, _device(self.device))
        radius = self.pair_split if self.pair_cutoff is None else self.pair_cutoff
        near = None
        if radius is not None:
            from potnet.lattice.direct import truncated_sums

            near = truncated_sums(cell, positions, batch, self.potentials, radius).values
        if self.pair_cutoff is not None:
            assert near is not None
            values = near
        else:
            memory: dict[str, Any] = {} if self.memory_mib is None else {"memory_mib": self.memory_mib}
            values = lattice_sums(
                cell, positions, batch, self.potentials, accuracy=self.accuracy, **memory
            ).values
            if near is not None:
                values = torch.cat([near, values - near], -1)
        return values.to(torch.float32).cpu().split((sizes * sizes).tolist())


def _checked_neighbors(neighbors: Mapping[str, Any]) -> dict[str, Any]:
    for key in neighbors:
        if key not in _NEIGHBORS:
            raise DataError(f"features.neighbors.{key} is unknown{did_you_mean(str(key), _NEIGHBORS)}")
    filled = {**_NEIGHBORS, **neighbors}
    if filled["cutoff"] is None and filled["k"] is None:
        raise DataError("features.neighbors: give cutoff (Å), k, or both; null for no local edges at all")
    cutoff, k, tolerance = filled["cutoff"], filled["k"], filled["shell_tolerance"]
    if cutoff is not None and not (_is_number(cutoff) and 0 < cutoff <= LARGEST_CUTOFF):
        raise DataError(
            f"features.neighbors.cutoff={cutoff}: give a positive number of Å, at most "
            f"{LARGEST_CUTOFF:g}, or null"
        )
    if k is not None and not (_is_number(k) and k >= 1 and k == int(k)):
        raise DataError(f"features.neighbors.k={k}: give a whole number, 1 or more, or null")
    if not (_is_number(tolerance) and 0 <= tolerance < math.inf):
        raise DataError(f"features.neighbors.shell_tolerance={tolerance}: give a number of Å, 0 or more")
    if not isinstance(filled["symmetric"], bool):
        raise DataError(f"features.neighbors.symmetric={filled['symmetric']}: give true or false")
    checked = {
        "cutoff": None if cutoff is None else float(cutoff),
        "k": None if k is None else int(k),
        "shell_tolerance": float(tolerance),
    }
    # All neighbours within a radius are symmetric anyway, and settings without the key stay what they were.
    return {**checked, "symmetric": True} if filled["symmetric"] and k is not None else checked


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _tensors(crystals: list[Crystal], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells, positions and the crystal of each atom on a device, and the numbers of atoms on the CPU."""
    sizes = torch.tensor([len(crystal) for crystal in crystals])
    cell = torch.from_numpy(np.stack([crystal.cell for crystal in crystals])).to(device)
    positions = torch.from_numpy(np.concatenate([crystal.positions for crystal in crystals])).to(device)
    return cell, positions, torch.arange(len(crystals)).repeat_interleave(sizes).to(device), sizes


def _slices(sizes: list[int]) -> list[tuple[int, int]]:
    """Ranges of crystals with about `_ATOMS_AT_ONCE` atoms each."""
    cuts, atoms = [0], 0
    for number, size in enumerate(sizes):
        if atoms and atoms + size > _ATOMS_AT_ONCE:
            cuts.append(number)
            atoms = 0
        atoms += size
    return list(itertools.pairwise([*cuts, len(sizes)])) if sizes else []


def _record(id: str, error: ValueError, failures: list[Failure] | None) -> None:
    """Note a failure, or raise it, with the name of the crystal rather than its place in a batch."""
    reason = error.reason if isinstance(error, CrystalError) else str(error).removeprefix("crystal 0: ")
    if failures is None:
        raise CrystalError(reason, f"crystal {id!r}") from error
    failures.append(Failure(id, reason))


def _refuse_arrays(crystal: Crystal) -> None:
    arrays = [key for key, value in crystal.properties.items() if isinstance(value, np.ndarray)]
    if arrays:
        raise CrystalError(
            f"{', '.join(arrays)}: labels of atoms and tensors belong to the cell as it is given, but "
            "features.cell=primitive reduces it: set features.cell=as_given",
            f"crystal {crystal.id!r}",
        )


def _graph(
    crystal: Crystal, arrays: dict[str, Tensor], pair_sums: Tensor | None, labels: bool
) -> CrystalGraph:
    targets = {
        key: torch.tensor(value) if isinstance(value, np.ndarray) else value
        for key, value in (crystal.properties.items() if labels else ())
        if not isinstance(value, str)  # names of classes are in the table of labels
    }
    return CrystalGraph(
        id=crystal.id,
        z=torch.tensor(crystal.z),
        positions=torch.tensor(crystal.positions),
        cell=torch.tensor(crystal.cell),
        pair_sums=pair_sums,
        targets=targets,
        **arrays,
    )
