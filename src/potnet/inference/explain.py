"""What a prediction is made of: contributions of atoms, of pairs, and what the complete potentials change.

Of atoms. Where a head adds up what it gives for each atom (extensive targets), that is the contribution.
Where a crystal's features are the mean m of its atoms' x_i, integrated gradients (Sundararajan et al., ICML
2017) from a reference m0 to m divide f(m) - f(m0) among the atoms:

    c_i = (x_i - m0) · g / n,    g = integral over t in [0, 1] of grad f(m0 + t (m - m0)),

so that the sum over the n atoms is f(m) - f(m0). They say how the network divides its answer, not what
physics does: x_i already has its neighbours in it.

Of potentials. The sums of one potential, or of all, are set to zero, and the prediction is repeated: complete
against local. A network was trained with the sums, so this is what it makes of them, and no network without
them.

Of pairs. What all sums together change, f(S) - f(0), is divided among the pairs of atoms and the potentials
by the gradient along a path from no sums to S. The path is straight in u = asinh(S / 1e-4), as sums span
decades and small ones matter: c = u · integral over t of df/du at t u.
"""  # fmt: skip

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from potnet.config import ConfigError, did_you_mean
from potnet.crystals import CrystalBatch, Plausibility, collate
from potnet.crystals.elements import symbol
from potnet.data.features.featurizer import Failure
from potnet.inference.embeddings import _check_embeds, featurized_batches
from potnet.inference.inputs import Inputs
from potnet.inference.limits import Limits
from potnet.nn.aggregate import aggregate
from potnet.nn.heads import Head
from potnet.training.scaling import scaler_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from potnet.inference.predictor import Predictor

STEPS = 32
"""Points at which gradients are taken between reference and crystal."""

PAIR_STEPS = 64
"""The same between no sums and the sums of the pairs (Gauss-Legendre), where the network is less smooth."""

SMALL_SUM = 1e-4
"""Sums below this count in proportion to their size, larger ones to its logarithm."""

MOST_PAIRS = 20_000
"""Ordered pairs of a batch whose gradients are taken; a crystal with more is alone."""


@dataclass
class Explanation:
    """Contributions to the predictions of one target, in its learned unit (log10(GPa) for a modulus).

    Attributes:
        target: Its key.
        unit: The learned unit.
        atoms: Columns `id`, `atom` (from 0, of the cell that the network sees), `element`, `contribution`; a
            row an atom.
        crystals: Columns `id`, `value`, `reference` (the value without any contribution), and for each
            potential `without_NAME` and `without_all`: the value with its sums at zero; a row a crystal.
        pairs: If asked for, columns `id`, `atom_1`, `atom_2` (also an atom and its own images), `element_1`,
            `element_2`, `distance` (Å, to the nearest image), a column for each potential, `contribution`
            (all of them): a row a pair. They add up to `value` - `without_all`.
        cells: The cell that the network sees, as ASE Atoms, by id.
        failures: Inputs that could not be used.
    """

    target: str
    unit: str
    atoms: dict[str, list[Any]] = field(default_factory=dict, repr=False)
    crystals: dict[str, list[Any]] = field(default_factory=dict, repr=False)
    pairs: dict[str, list[Any]] = field(default_factory=dict, repr=False)
    cells: dict[str, Atoms] = field(default_factory=dict, repr=False)
    failures: list[Failure] = field(default_factory=list)

    def to_dataframe(self, of: Literal["atoms", "crystals", "pairs"] = "atoms") -> pandas.DataFrame:
        """One of the tables in pandas."""
        import pandas

        if of not in ("atoms", "crystals", "pairs"):
            raise ConfigError(f"of={of!r}{did_you_mean(of, ('atoms', 'crystals', 'pairs'))}")
        return pandas.DataFrame(getattr(self, of))

    def plot(self, id: str | None = None) -> Figure:
        """A picture of one crystal: its atoms coloured by what they contribute, what each potential changes,
        and, if they were asked for, the pairs.

        Args:
            id: Of the crystal; None is the first.

        Raises:
            ConfigError: There is no such crystal.
        """
        from potnet.inference.explain_plot import plot

        known = self.crystals.get("id", [])
        if id is None and known:
            id = known[0]
        if id not in known:
            raise ConfigError(f"{id}: no crystal of this name was explained{did_you_mean(str(id), known)}")
        return plot(self, str(id))


def explain(
    predictor: Predictor,
    inputs: Inputs,
    target: str | None = None,
    pairs: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    box: float | None = None,
    plausibility: Plausibility = "refuse",
) -> Explanation:
    """See `Predictor.explain`."""
    _check_embeds(predictor)
    key = target or predictor.targets.first.key
    if key not in predictor.targets.direct:
        raise ConfigError(f"target={key}{did_you_mean(key, predictor.targets.direct)}")
    chosen = predictor.targets[key]
    head = predictor.model.heads[key]  # type: ignore[index]
    if not isinstance(head, Head) or chosen.outputs != 1 or chosen.per != "crystal":
        raise ConfigError(f"target={key}: contributions are of one number a crystal")
    found = Explanation(key, chosen.learned_unit)
    kinds = [type(potential).__name__ for potential in predictor.featurizer.potentials or ()]
    names = [kind if kinds.count(kind) == 1 else f"{kind}_{n + 1}" for n, kind in enumerate(kinds)]
    columns = ("id", "value", "reference", *(f"without_{name}" for name in (*names, "all") if names))
    found.crystals = {name: [] for name in columns}
    found.atoms = {name: [] for name in ("id", "atom", "element", "contribution")}
    if pairs and names:
        ends = ("atom_1", "atom_2", "element_1", "element_2", "distance")
        found.pairs = {name: [] for name in ("id", *ends, *names, "contribution")}
    limits = Limits(16, pairs=MOST_PAIRS) if found.pairs else Limits(16)
    for graphs in featurized_batches(predictor, inputs, on_error, limits, box, plausibility, found.failures):
        _explain_batch(predictor, head, key, collate(graphs), names, found)
    return found


def _explain_batch(
    predictor: Predictor, head: Head, key: str, batch: CrystalBatch, names: list[str], found: Explanation
) -> None:
    batch = batch.to(predictor.device)
    model, scaler = predictor.model, scaler_of(predictor.scalers, key)

    def value(of: CrystalBatch) -> Tensor:
        with torch.no_grad():
            return scaler.value(model(of)[key].reshape(-1), of)

    with torch.no_grad():
        vectors = model.embed(batch)  # type: ignore[operator]
    whole = value(batch)
    shares = contributions(head, vectors.atoms, vectors.crystals, batch, _reference(predictor)) * scaler.std
    sums = aggregate(shares, batch.batch, batch.num_crystals)
    rows: dict[str, list[Any]] = {
        "id": batch.ids, "value": whole.tolist(), "reference": (whole - sums).tolist()
    }  # fmt: skip
    if names:
        assert batch.pair_sums is not None
        for number, name in enumerate([*names, "all"]):
            sums_without = batch.pair_sums.clone()
            sums_without[:, slice(None) if name == "all" else number] = 0
            rows[f"without_{name}"] = value(replace(batch, pair_sums=sums_without)).tolist()
    for name, column in found.crystals.items():
        column += rows[name]
    first = batch.num_atoms.cumsum(0) - batch.num_atoms
    places = torch.arange(len(batch.z), device=first.device) - first.repeat_interleave(batch.num_atoms)
    found.atoms["id"] += [batch.ids[n] for n in batch.batch.tolist()]
    found.atoms["atom"] += places.tolist()
    found.atoms["element"] += [symbol(z) for z in batch.z.tolist()]
    found.atoms["contribution"] += shares.tolist()
    for id, graph in zip(batch.ids, _cells(batch), strict=True):
        found.cells[id] = graph
    if found.pairs:
        values = pair_contributions(predictor.model, key, batch) * scaler.std
        _add_pairs(found, batch.ids, values.cpu().numpy(), names)


def pair_contributions(model: torch.nn.Module, key: str, batch: CrystalBatch) -> Tensor:
    """What the sums of each ordered pair contribute to a scaled output, (M, P) float64; see the module.

    Args:
        model: A network that reads pair sums.
        key: Of its head.
        batch: With M pairs of P potentials.
    """
    assert batch.pair_sums is not None
    u = torch.asinh(batch.pair_sums.double() / SMALL_SUM)
    total = torch.zeros_like(u)
    with _unfolded(model), torch.enable_grad():
        for place, weight in zip(*np.polynomial.legendre.leggauss(PAIR_STEPS), strict=True):
            point = ((place + 1) / 2 * u).requires_grad_(True)
            output = model(replace(batch, pair_sums=SMALL_SUM * torch.sinh(point)))[key]
            (gradient,) = torch.autograd.grad(output.sum(), point)
            total += weight / 2 * gradient
    return total * u


@contextmanager
def _unfolded(model: torch.nn.Module) -> Iterator[None]:
    """Equal pairs each for themselves, as gradients want it."""
    before = getattr(model, "fold", False)
    setattr(model, "fold", False)  # noqa: B010  (a module's attributes have the types of its parts)
    try:
        yield
    finally:
        setattr(model, "fold", before)  # noqa: B010


def _cells(batch: CrystalBatch) -> list[Atoms]:
    """The crystals of a batch as ASE Atoms."""
    sizes = batch.num_atoms.tolist()
    parts = zip(batch.z.cpu().split(sizes), batch.positions.cpu().split(sizes), batch.cell.cpu(), strict=True)
    return [Atoms(z.numpy(), x.detach().numpy(), cell=cell.numpy(), pbc=True) for z, x, cell in parts]


def _add_pairs(found: Explanation, ids: list[str], values: np.ndarray, names: list[str]) -> None:
    """Put contributions (M, P) of the ordered pairs of a batch into the table; i, j and j, i are one row."""
    from ase.geometry import get_distances, minkowski_reduce

    start = 0
    for id in ids:
        atoms = found.cells[id]
        n, symbols = len(atoms), atoms.get_chemical_symbols()
        square = values[start : start + n * n].reshape(n, n, -1)
        start += n * n
        _, distances = get_distances(atoms.positions, cell=atoms.cell, pbc=True)
        own = float(np.linalg.norm(minkowski_reduce(atoms.cell)[0], axis=1).min())
        for i in range(n):
            for j in range(i, n):
                both = square[i, j] if i == j else square[i, j] + square[j, i]
                row = {"id": id, "atom_1": i, "atom_2": j, "element_1": symbols[i], "element_2": symbols[j]}
                row["distance"] = own if i == j else float(distances[i, j])
                row |= dict(zip(names, both.tolist(), strict=True)) | {"contribution": float(both.sum())}
                for name, value in row.items():
                    found.pairs[name].append(value)


def contributions(
    head: Head, atoms: Tensor, crystals: Tensor, batch: CrystalBatch, reference: Tensor | None
) -> Tensor:
    """What each atom contributes to the output of a head, (N,) float64.

    Args:
        head: With one output.
        atoms: (N, F) and
        crystals: (B, G), of the embedding.
        batch: B crystals.
        reference: (G,) of integrated gradients; None is zero.

    Raises:
        ConfigError: The network does not pool its atoms by their mean.
    """
    n = batch.num_atoms.index_select(0, batch.batch).double()
    if head.by_atom:
        with torch.no_grad():
            found = head.layers(atoms).squeeze(-1).double()
        return found if head.spec.extensive else found / n
    mean = aggregate(atoms, batch.batch, batch.num_crystals, "mean")
    if mean.shape != crystals.shape or not torch.allclose(mean, crystals, rtol=1e-3, atol=1e-4):
        raise ConfigError("contributions of atoms need a network whose crystals are the mean of their atoms")
    layers = _double(head)
    start = torch.zeros_like(mean[0]) if reference is None else reference.to(mean)
    x, m, m0 = atoms.double(), mean.double(), start.double()
    total = torch.zeros_like(m)
    for step in range(STEPS):
        point = (m0 + (step + 0.5) / STEPS * (m - m0)).requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(layers.layers(point).sum(), point)
        total += gradient / STEPS
    return ((x - m0) * total.index_select(0, batch.batch)).sum(1) / n


def _double(head: Head) -> Head:
    import copy

    return copy.deepcopy(head).double().eval()


def _reference(predictor: Predictor) -> Tensor | None:
    """The mean embedding of the training crystals, where a calibration has it."""
    calibration = getattr(predictor, "calibration", None)
    surroundings = getattr(calibration, "surroundings", None)
    return None if surroundings is None else surroundings.center


def mean_by_element(explanation: Explanation) -> dict[str, float]:
    """Mean contribution of the atoms of each element, in the learned unit."""
    values: dict[str, list[float]] = {}
    columns = (explanation.atoms["element"], explanation.atoms["contribution"])
    for element, value in zip(*columns, strict=True):
        values.setdefault(element, []).append(value)
    return {element: float(np.mean(found)) for element, found in sorted(values.items())}


__all__ = ["Explanation", "contributions", "explain", "mean_by_element", "pair_contributions"]
