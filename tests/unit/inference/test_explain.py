"""Embeddings, and contributions that add up to the prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from ase.build import bulk
from small_models import FEATURES, K, checkpoint

import potnet
from potnet.config import ConfigError
from potnet.data import Featurizer, Target, Targets
from potnet.inference.explain import mean_by_element
from potnet.inference.predictor import Predictor
from potnet.training.networks import build_network
from potnet.training.scaling import scalers_of

CRYSTALS = [bulk("NaCl", "rocksalt", a=5.64), bulk("Cu", cubic=True), bulk("ZnS", "zincblende", a=5.41)]


@pytest.fixture
def complete() -> Predictor:
    """A network with complete potentials."""
    torch.manual_seed(0)
    model = {"_target_": "potnet.models.PotNet", "width": 8, "edge_width": 4, "layers": 1}
    targets = Targets([K])
    scalers = scalers_of(targets)
    scalers["k_vrh"].set(1.5, 0.4)  # type: ignore[operator]
    return Predictor(build_network(model, targets), scalers, targets, Featurizer(), {}, "cpu")


def test_vectors_of_crystals_and_atoms(tmp_path: Path) -> None:
    model = potnet.load(checkpoint(tmp_path / "a.ckpt", 0), device="cpu")
    found = model.embed(CRYSTALS, atoms=True)
    assert found.crystals.shape == (3, 8)
    assert [len(x) for x in found.atoms] == [2, 1, 2]  # of the primitive cell
    np.testing.assert_allclose(found.crystals, [x.mean(0) for x in found.atoms], atol=1e-5)
    assert sorted(found.elements[0].tolist()) == [11, 17]
    found.to_parquet(tmp_path / "new" / "e.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "new" / "e.parquet")
    assert table.column_names == ["id", "embedding", "elements", "atoms"]
    np.testing.assert_array_equal(table["embedding"].to_pylist(), found.crystals)
    assert found.to_dataframe().shape == (3, 8)
    assert model.embed(CRYSTALS).atoms == []
    assert len(model.embed([])) == 0


def test_contributions_of_atoms_add_up(complete: Predictor) -> None:
    values = np.log10(complete.predict(CRYSTALS)["k_vrh"])
    found = complete.explain(CRYSTALS)
    assert found.unit == "log10(GPa)"
    np.testing.assert_allclose(found.crystals["value"], values, atol=1e-6)
    sums = found.to_dataframe().groupby("id", sort=False)["contribution"].sum()
    np.testing.assert_allclose(np.add(found.crystals["reference"], sums), values, atol=1e-6)
    # All crystals begin from one reference, f(0): the integral is exact enough.
    head = complete.model.heads["k_vrh"]  # type: ignore[index]
    zero = float(head.layers(torch.zeros(1, 8)).detach()) * 0.4 + 1.5
    np.testing.assert_allclose(found.crystals["reference"], zero, atol=1e-4)
    assert set(mean_by_element(found)) == {"Na", "Cl", "Cu", "Zn", "S"}
    assert found.atoms["atom"] == [0, 1, 0, 0, 1]


def test_what_the_complete_potentials_change(complete: Predictor) -> None:
    found = complete.explain(CRYSTALS)
    names = ["without_Coulomb", "without_London", "without_Pauli", "without_all"]
    assert list(found.crystals)[3:] == names
    table = found.to_dataframe("crystals")
    assert (table[names].sub(table["value"], axis=0).abs().max() > 0).all()
    # With no sum at all the network sees what it sees of sums that are zero.
    other = complete.featurizer.featurize
    complete.featurizer.featurize = lambda crystals, **kw: [  # type: ignore[method-assign]
        type(g)(**{**g.__dict__, "pair_sums": torch.zeros_like(g.pair_sums)}) for g in other(crystals, **kw)
    ]
    zero = np.log10(complete.predict(CRYSTALS)["k_vrh"])
    np.testing.assert_allclose(table["without_all"], zero, atol=1e-6)


def test_what_cannot_be_explained(tmp_path: Path) -> None:
    model = potnet.load(checkpoint(tmp_path / "a.ckpt", 0), device="cpu")
    with pytest.raises(ConfigError, match="did you mean k_vrh"):
        model.explain(CRYSTALS, target="k_vr")
    targets = Targets([Target("kind", kind="classification", classes=("a", "b"))])
    network = build_network(
        {"_target_": "potnet.models.PotNet", "width": 8, "edge_width": 4, "layers": 1, "pairs": "none"},
        targets,
    )
    classes = Predictor(network, scalers_of(targets), targets, Featurizer(**FEATURES), {}, "cpu")
    with pytest.raises(ConfigError, match="one number a crystal"):
        classes.explain(CRYSTALS)
