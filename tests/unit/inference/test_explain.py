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
from potnet.crystals import CrystalBatch, collate, from_ase
from potnet.data import Featurizer, Target, Targets
from potnet.inference.explain import mean_by_element, pair_contributions
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


def test_pairs_of_a_network_whose_answer_is_known(complete: Predictor) -> None:
    """A sum over pairs of w · asinh(S / 1e-4) gives each its own term, whatever the size of the sums."""
    batch = collate(complete.featurizer.featurize([from_ase(atoms) for atoms in CRYSTALS]))
    assert batch.pair_sums is not None
    u = torch.asinh(batch.pair_sums.double() / 1e-4)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    class Known(torch.nn.Module):
        fold = True

        def forward(self, of: CrystalBatch) -> dict[str, torch.Tensor]:
            assert not self.fold
            assert of.pair_sums is not None
            terms = (torch.asinh(of.pair_sums / 1e-4) * weights).sum(1)
            crystal = of.batch.index_select(0, batch.pair_index[0])
            return {"k": torch.zeros(of.num_crystals, dtype=torch.float64).index_add(0, crystal, terms)}

    network = Known()
    torch.testing.assert_close(pair_contributions(network, "k", batch), u * weights)
    assert network.fold


def test_pairs_add_up_to_what_the_potentials_change(complete: Predictor) -> None:
    """One row for each two atoms, and for each atom with its images; NaCl and ZnS have three, copper one."""
    found = complete.explain(CRYSTALS, pairs=True)
    table, crystals = found.to_dataframe("pairs"), found.to_dataframe("crystals").set_index("id")
    assert table.groupby("id", sort=False).size().tolist() == [3, 1, 3]
    changed = crystals["value"] - crystals["without_all"]
    total = table.groupby("id", sort=False)["contribution"].sum()
    np.testing.assert_allclose(total, changed, atol=5e-3 * changed.abs().max())
    np.testing.assert_allclose(table[["Coulomb", "London", "Pauli"]].sum(axis=1), table["contribution"])
    nearest = table[table["id"] == "0"].set_index(["element_1", "element_2"])["distance"]
    assert nearest["Na", "Cl"] == pytest.approx(2.82)
    assert nearest["Na", "Na"] == pytest.approx(5.64 / 2**0.5)
    assert complete.explain(CRYSTALS).pairs == {}
    # Networks differ in what they make of the two sorts of pairs: it is no matter of counting.
    assert table["contribution"].nunique() > 3


def test_a_picture_has_a_panel_for_each_table(complete: Predictor) -> None:
    """Atoms, potentials, pairs; a crystal that is not there is refused."""
    found = complete.explain(CRYSTALS, pairs=True)
    titles = [axes.get_title() for axes in found.plot("2").axes]
    assert [title.split()[-1] for title in titles if title] == ["atoms", "add", "potentials"]
    square = next(axes for axes in found.plot("2").axes if "pairs" in axes.get_title()).images[0].get_array()
    np.testing.assert_allclose(square, np.transpose(square))
    assert (
        square[0, 1]
        == found.to_dataframe("pairs").query("id == '2' and atom_1 != atom_2")["contribution"].item()
    )
    with pytest.raises(ConfigError, match="no crystal of this name was explained"):
        found.plot("9")


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
