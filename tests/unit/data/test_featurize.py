from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from potnet.crystals import Crystal, CrystalError, Descriptor, collate, edge_vectors
from potnet.data import DataError, Failure, Featurizer
from potnet.data.features.settings import build_descriptor, build_potential, potential_settings
from potnet.lattice import Coulomb, London, Pauli, lattice_sums

NACL = Crystal.from_fractional(
    5.64 * np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    [[0, 0, 0], [0.5, 0.5, 0.5]],
    [11, 17],
    id="NaCl",
    properties={"k_vrh": 24.0},
)
CONVENTIONAL = Crystal.from_fractional(
    5.64 * np.eye(3),
    [
        [0, 0, 0],
        [0.5, 0.5, 0],
        [0.5, 0, 0.5],
        [0, 0.5, 0.5],
        [0.5] * 3,
        [0, 0, 0.5],
        [0, 0.5, 0],
        [0.5, 0, 0],
    ],
    [11] * 4 + [17] * 4,
    id="cubic",
)


def test_a_graph_holds_edges_sums_and_properties(feature_settings: dict[str, Any]):
    featurizer = Featurizer(**feature_settings)
    (graph,) = featurizer.featurize([NACL])
    assert graph.id == "NaCl"
    assert sorted(graph.z.tolist()) == [11, 17]
    assert graph.targets == {"k_vrh": 24.0}
    assert graph.edge_index.dtype == torch.int64
    assert graph.edge_index.shape[1] == len(graph.edge_shift) == 2 * 18  # 6 at 2.82 Å, 12 at 3.99 Å
    assert graph.pair_sums.dtype == torch.float32
    assert graph.positions.dtype == graph.cell.dtype == torch.float64
    assert graph.pair_sums.shape == (4, featurizer.channels) == (4, 3)


def test_labels_that_are_arrays_need_the_cell_as_given(feature_settings: dict[str, Any]):
    forces = np.arange(24.0).reshape(8, 3)
    labelled = dataclasses.replace(CONVENTIONAL, properties={"forces": forces, "gap": 1.0})
    with pytest.raises(
        CrystalError, match=r"'cubic': forces: labels of atoms .* set features\.cell=as_given"
    ):
        Featurizer(**feature_settings).featurize([labelled])
    (graph,) = Featurizer(**feature_settings).featurize([labelled], labels=False)
    assert graph.targets == {}
    (graph,) = Featurizer(**{**feature_settings, "cell": "as_given"}).featurize([labelled])
    assert graph.targets["gap"] == 1.0
    np.testing.assert_array_equal(graph.targets["forces"], forces)
    np.testing.assert_array_equal(graph.positions, CONVENTIONAL.positions)


def test_sums_are_those_of_the_lattice(feature_settings: dict[str, Any]):
    featurizer = Featurizer(**{**feature_settings, "cell": "as_given"})
    graphs = featurizer.featurize([CONVENTIONAL, NACL])
    for crystal, graph in zip([CONVENTIONAL, NACL], graphs, strict=True):
        expected = lattice_sums(
            torch.tensor(crystal.cell)[None],
            torch.tensor(crystal.positions),
            torch.zeros(len(crystal), dtype=torch.int64),
            [Coulomb(), London(), Pauli(alpha=3.0)],
        ).values
        torch.testing.assert_close(graph.pair_sums, expected.float())


def test_features_do_not_depend_on_the_cell(feature_settings: dict[str, Any]):
    primitive, conventional = Featurizer(**feature_settings).featurize([NACL, CONVENTIONAL])
    assert len(primitive.z) == len(conventional.z) == 2
    torch.testing.assert_close(primitive.pair_sums.sort(0).values, conventional.pair_sums.sort(0).values)
    lengths = [
        edge_vectors(collate([graph])).norm(dim=1).sort().values for graph in (primitive, conventional)
    ]
    torch.testing.assert_close(*lengths)


def test_cell_as_given(feature_settings: dict[str, Any]):
    (graph,) = Featurizer(**{**feature_settings, "cell": "as_given"}).featurize([CONVENTIONAL])
    assert len(graph.z) == 8


def test_only_what_is_needed(feature_settings: dict[str, Any]):
    featurizer = Featurizer(**feature_settings)
    (edges,) = featurizer.restricted({"edges"}).featurize([NACL])
    (pairs,) = featurizer.restricted({"pairs"}).featurize([NACL])
    assert edges.pair_sums is None
    assert edges.edge_index is not None
    assert pairs.edge_index is None
    assert pairs.edge_shift is None
    assert pairs.pair_sums is not None


def test_unmet_needs():
    with pytest.raises(DataError, match=r"needs local edges: set features\.neighbors"):
        Featurizer(potentials=[Coulomb()]).restricted({"edges"})
    with pytest.raises(DataError, match=r"needs pair sums: .*features\.potentials"):
        Featurizer(neighbors={"k": 3}).restricted({"pairs"})
    with pytest.raises(DataError, match="unknown feature 'angels'"):
        Featurizer().restricted({"angels"})


def test_angles_on_request(feature_settings: dict[str, Any]):
    plain = Featurizer(**feature_settings)
    (graph,) = plain.restricted({"angles"}).featurize([NACL])
    (edges,) = plain.restricted({"edges"}).featurize([NACL])
    assert edges.angle_index is None
    assert graph.pair_sums is None
    first, second = graph.angle_index
    source, target = graph.edge_index
    assert torch.equal(target[first], source[second])
    # Every atom has 18 neighbours within 4 Å: 6 of the other kind and 12 of its own.
    assert graph.angle_index.shape == (2, 2 * 18 * 18)
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 2 * 18 * 18
    assert "angles" not in plain.restricted({"edges"}).settings()
    assert Featurizer.from_settings(plain.restricted({"angles"}).settings()).angles
    with pytest.raises(DataError, match=r"angles lie between local edges"):
        Featurizer(angles=True, neighbors=None)


@dataclasses.dataclass(frozen=True)
class Composition(Descriptor):
    """Fraction of each element, as feature number `first` + Z."""

    first: int = 0

    def __call__(self, crystal):
        z, count = np.unique(crystal.z, return_counts=True)
        if 118 in z:
            raise ValueError("oganesson is not described")
        return self.first + z.astype(np.int64), (count / len(crystal.z)).astype(np.float32)


def test_descriptors_on_request():
    featurizer = Featurizer(descriptor=Composition(first=1000), neighbors={"cutoff": 3.0})
    assert "descriptor" not in featurizer.restricted({"edges"}).settings()
    sparse = featurizer.restricted({"descriptors"})
    (graph,) = sparse.featurize([NACL])
    assert graph.descriptor_index.tolist() == [1011, 1017]
    assert graph.descriptor_value.tolist() == [0.5, 0.5]
    assert graph.edge_index is None
    settings = sparse.settings()["descriptor"]
    assert settings == {"_target_": f"{Composition.__module__}.Composition", "first": 1000}
    assert type(build_descriptor(settings).first) is int
    with pytest.raises(DataError, match=r"set features\.descriptor"):
        Featurizer().restricted({"descriptors"})
    with pytest.raises(
        DataError, match=r"features\.descriptor: potnet\.lattice\.Coulomb is not a descriptor"
    ):
        Featurizer(descriptor={"_target_": "potnet.lattice.Coulomb"})
    oganesson = dataclasses.replace(NACL, id="heavy", z=np.full(len(NACL.z), 118))
    failures: list[Failure] = []
    assert sparse.featurize([oganesson], failures) == []
    assert failures == [Failure("heavy", "oganesson is not described")]


def test_settings_round_trip(feature_settings: dict[str, Any]):
    featurizer = Featurizer(**feature_settings, device="cpu", memory_mib=16)
    settings = featurizer.settings()
    assert Featurizer.from_settings(settings).settings() == settings
    assert "device" not in settings
    assert "memory_mib" not in settings


def test_settings_say_what_shapes_the_features():
    base = Featurizer(neighbors={"cutoff": 4}, potentials=[Pauli()]).settings()
    spelled_out = {"_target_": "potnet.lattice.Pauli", "alpha": 3, "convention": "physical"}
    same = Featurizer(neighbors={"cutoff": 4.0, "k": None}, potentials=[spelled_out]).settings()
    assert base == same
    for change in (
        {"neighbors": {"cutoff": 5.0}},
        {"neighbors": {"cutoff": 4.0, "k": 12}},
        {"neighbors": {"cutoff": 4.0, "shell_tolerance": 0.01}},
        {"potentials": [Pauli(alpha=2.0)]},
        {"potentials": [Pauli(convention="published")]},
        {"potentials": [London()]},
        {"accuracy": 1e-6},
        {"pair_cutoff": 6.0},
        {"pair_split": 6.0},
        {"cell": "as_given"},
        {"symprec": 0.1},
    ):
        assert (
            Featurizer(**{"neighbors": {"cutoff": 4}, "potentials": [Pauli()], **change}).settings() != base
        )
    # Without sums their accuracy shapes nothing.
    one, other = (Featurizer(neighbors={"cutoff": 4}, accuracy=accuracy) for accuracy in (1e-6, 1e-8))
    assert one.settings() == other.settings()


def test_sums_cut_at_a_radius_differ():
    whole, cut = Featurizer(potentials=[London()]), Featurizer(potentials=[London()], pair_cutoff=4.0)
    (a,), (b,) = whole.featurize([NACL]), cut.featurize([NACL])
    assert a.pair_sums.shape == b.pair_sums.shape
    assert (b.pair_sums < a.pair_sums).all()
    unlike = 6 / 2.82**6
    assert b.pair_sums[1].item() == pytest.approx(unlike, rel=1e-5)


def test_sums_split_at_a_radius_add_up():
    settings = {"potentials": [Coulomb(), London()]}
    whole, near, split = (
        Featurizer(**settings, **radius) for radius in ({}, {"pair_cutoff": 4.0}, {"pair_split": 4.0})
    )
    assert (whole.channels, split.channels) == (2, 4)
    (a,), (b,), (c,) = (featurizer.featurize([NACL]) for featurizer in (whole, near, split))
    torch.testing.assert_close(c.pair_sums[:, :2], b.pair_sums)
    torch.testing.assert_close(c.pair_sums[:, :2] + c.pair_sums[:, 2:], a.pair_sums)
    assert Featurizer.from_settings(split.settings()).settings() == split.settings()


def test_isolated_atom_has_no_edges():
    lonely = Crystal(10 * np.eye(3), np.zeros((1, 3)), np.array([10]), "Ne")
    (graph,) = Featurizer(neighbors={"cutoff": 4.0}).featurize([lonely])
    assert graph.edge_index.shape == (2, 0)
    assert graph.edge_index.dtype == torch.int64
    assert graph.edge_shift.shape == (0, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "primtive"}, r"features\.cell='primtive'; did you mean primitive"),
        ({"neighbors": {"cutof": 4}}, r"features\.neighbors\.cutof is unknown; did you mean cutoff"),
        ({"neighbors": {}}, "give cutoff"),
        ({"neighbors": {"cutoff": -4}}, r"features\.neighbors\.cutoff=-4: give a positive"),
        ({"neighbors": {"cutoff": "far"}}, r"features\.neighbors\.cutoff=far: give a positive"),
        ({"neighbors": {"k": 1.5}}, r"features\.neighbors\.k=1\.5: give a whole number"),
        ({"neighbors": {"k": 3, "shell_tolerance": -1}}, r"shell_tolerance=-1: give"),
        ({"symprec": 0.0}, r"features\.symprec=0\.0"),
        ({"accuracy": 1e-20}, r"features\.accuracy=1e-20: give 1e-12 to below 1"),
        ({"pair_cutoff": 0.0}, r"features\.pair_cutoff=0\.0"),
        ({"pair_split": math.inf}, r"features\.pair_split=inf"),
        ({"pair_cutoff": 6.0, "pair_split": 4.0}, r"pair_split=4\.0 would tell apart"),
        ({"potentials": []}, r"features\.potentials is empty"),
        ({"potentials": [{"_target_": "potnet.lattice.Coulom"}]}, "there is no 'potnet.lattice.Coulom'"),
        ({"potentials": [{}]}, "there is no ''"),
        ({"potentials": [{"_target_": "os.system", "command": "true"}]}, "os.system is not a pair potential"),
        (
            {"potentials": [{"_target_": "potnet.lattice.Pauli", "alpha": -1}]},
            "alpha must be a positive number",
        ),
        ({"potentials": [{"_target_": "potnet.lattice.Pauli", "beta": 1}]}, "beta"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        Featurizer(**settings)


def test_potentials_have_one_plain_form():
    plain = potential_settings(Pauli(alpha=2))
    assert plain == {
        "_target_": "potnet.lattice.potentials.Pauli",
        "alpha": 2.0,
        "convention": "physical",
    }
    assert build_potential(plain) == Pauli(alpha=2.0)


class _Refused(Featurizer):
    """Refuses some crystals: one stage in the first half, one in the batched sums."""

    def _local(self, crystal: Crystal) -> Any:
        if crystal.id == "no-cell":
            raise CrystalError("no symmetry", crystal.id)
        return super()._local(crystal)

    def _sums(self, crystals: list[Crystal]) -> Any:
        if any(crystal.id == "no-sum" for crystal in crystals):
            raise ValueError("crystal 0: sites 0 and 1 are too close")
        return super()._sums(crystals)


def named(id: str) -> Crystal:
    return Crystal(NACL.cell, NACL.positions, NACL.z, id)


def test_one_failure_does_not_lose_the_others(feature_settings: dict[str, Any]):
    failures: list[Failure] = []
    crystals = [named("a"), named("no-cell"), named("b"), named("no-sum"), named("c")]
    graphs = _Refused(**feature_settings).featurize(crystals, failures)
    assert [graph.id for graph in graphs] == ["a", "b", "c"]
    assert failures == [
        Failure("no-cell", "no symmetry"),
        Failure("no-sum", "sites 0 and 1 are too close"),
    ]


@pytest.mark.parametrize("id", ["no-cell", "no-sum"])
def test_a_failure_names_the_crystal(feature_settings: dict[str, Any], id: str):
    with pytest.raises(CrystalError, match=f"crystal '{id}': (no symmetry|sites 0 and 1)"):
        _Refused(**feature_settings).featurize([named("a"), named(id)])


def test_no_crystals_and_progress(feature_settings: dict[str, Any]):
    featurizer = Featurizer(**feature_settings)
    assert featurizer.featurize([]) == []
    for shaped in (featurizer, featurizer.restricted({"edges"})):
        done: list[float] = []
        shaped.featurize([named(str(i)) for i in range(40)], progress=done.append)
        assert sum(done) == pytest.approx(40)
    assert all(featurizer.seconds[stage] > 0 for stage in ("standardize", "neighbors", "sums"))
