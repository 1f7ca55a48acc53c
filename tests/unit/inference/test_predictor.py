"""`Predictor` and `Predictions` with a network simple enough that its values are known."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from torch import Tensor, nn

from potnet.config import ConfigError
from potnet.crystals import Crystal, CrystalBatch, CrystalError
from potnet.data import Featurizer, Target, Targets
from potnet.inference.memory import GIB, available_bytes, peak_bytes
from potnet.inference.predictions import CsvTable
from potnet.inference.predictor import Predictor
from potnet.training.scaling import scalers_of

TARGETS = Targets(
    [
        Target("k", "GPa", transform="log10"),
        Target("metal", kind="classification", classes=("metal", "insulator")),
        Target("energy", "eV", extensive=True),
        Target("stress", "GPa", shape=(6,)),
    ]
)


class Counting(nn.Module):
    """Outputs that follow from the numbers of atoms; it notes the crystals of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        self.batches.append(batch.num_crystals)
        if bool((batch.z == 94).any()):
            raise ValueError("no features for Pu")
        n = batch.num_atoms.float()
        return {
            "k": n.log10() * self.weight,
            "metal": torch.stack([n, 2 - n], 1),
            "energy": -n,
            "stress": n[:, None].expand(-1, 6),
        }


@pytest.fixture
def predictor() -> Predictor:
    settings = {"neighbors": {"cutoff": 4.0}, "potentials": [{"_target_": "potnet.lattice.potentials.Pauli"}]}
    training = {"elements": {29: 10, 14: 2}, "max_atoms": 3, "density": [1.0, 9.0]}
    record = {"training": training, "dataset": "some crystals"}
    return Predictor(Counting(), scalers_of(TARGETS), TARGETS, Featurizer(**settings), record, "cpu")


COPPER = bulk("Cu")


def test_columns_of_every_kind_of_target(predictor: Predictor) -> None:
    found = predictor.predict([COPPER, COPPER.repeat((2, 1, 1))])
    assert found.header == (
        "id", "k", "metal", "metal_probability_metal", "metal_probability_insulator", "energy",
        *(f"stress_{n}" for n in range(1, 7)), "flags",
    )  # fmt: skip
    np.testing.assert_allclose(found["k"], [1.0, 1.0])
    assert list(found["metal"]) == ["metal", "metal"]
    np.testing.assert_allclose(found["metal_probability_metal"], 0.5)
    # The network sees the primitive cell; the energy is that of the cell that was given.
    np.testing.assert_allclose(found["energy"], [-1.0, -2.0])
    assert found.values is found["k"]
    assert (found.key, found.unit) == ("k", "GPa")


def test_labels_of_the_input_do_not_matter(predictor: Predictor) -> None:
    """As a file of a calculation has them; only training needs the cell that they belong to."""
    cubic = bulk("Cu", cubic=True)
    labelled = Crystal(
        cubic.cell.array, cubic.positions, cubic.numbers, "labelled", {"forces": np.zeros((4, 3))}
    )
    np.testing.assert_allclose(predictor.predict([labelled])["energy"], [-4.0])


def test_rows_slices_and_frames(predictor: Predictor, tmp_path: Path) -> None:
    found = predictor.predict([COPPER, bulk("Si"), bulk("Al")])
    assert found[1]["k"] == pytest.approx(2.0)
    assert found[-1] == found.row("2") == list(found)[2]
    assert found[1:].ids == ["1", "2"]
    with pytest.raises(KeyError, match="the columns are id, k, metal"):
        found["kk"]
    with pytest.raises(IndexError):
        found[3]
    frame = found.to_dataframe()
    assert list(frame.index) == found.ids
    assert frame.loc["1", "k"] == found[1]["k"]
    assert found.to_csv(tmp_path / "a.csv") is None
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == found.ids
    assert float(rows[1]["k"]) == pytest.approx(2.0)
    lines = repr(found).splitlines()
    assert "k (GPa)" in lines[0]
    assert len(lines) == 4
    assert "<td>" in found._repr_html_()
    assert repr(predictor.predict([])) == "no predictions of k, metal, energy, stress"
    assert "rows" in repr(predictor.predict([COPPER] * 20))


def test_flags_say_why(predictor: Predictor) -> None:
    sparse = Crystal(20 * np.eye(3), np.zeros((1, 3)), np.array([29]), id="sparse")
    flags = dict(zip("abcd", predictor.predict([COPPER, bulk("Si"), bulk("Al"), sparse]).flags, strict=True))
    assert flags["a"] == ""
    assert flags["b"] == "few training crystals have Si (2)"
    assert flags["c"] == "no training crystal has Al"
    assert "no atom has a neighbour within the cutoff" in flags["d"]
    assert "density 0.0132 g/cm³, training crystals have 1 to 9" in flags["d"]


def test_tables_come_piece_by_piece(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potnet.inference.inputs.CHUNK", 4)
    read = 0

    def crystals() -> Any:
        nonlocal read
        for _ in range(10):
            read += 1
            yield COPPER

    sizes = [len(table) for table in predictor.tables(list(crystals()), batch_size=3)]
    assert sizes == [4, 4, 2]
    assert predictor.model.batches == [3, 1, 3, 1, 2]  # type: ignore[union-attr, comparison-overlap]


def test_large_crystals_come_alone(predictor: Predictor) -> None:
    predictor.predict([COPPER, bulk("Si"), COPPER, COPPER], max_pairs=3)
    assert predictor.model.batches == [1, 1, 2]  # type: ignore[union-attr, comparison-overlap]


def test_a_crystal_above_the_memory_limit_costs_only_itself(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potnet.inference.pieces.UNMEASURED", 50)
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[range(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    large = Crystal(9 * np.eye(3), 3.0 * grid + 0.4 * random.random((27, 3)), np.full(27, 29), id="large")
    found = predictor.predict([COPPER, large, COPPER], on_error="skip", max_memory_gib=1e-6)
    assert len(found) == 2
    (failure,) = found.failures
    assert failure.id == "large"
    assert "27 atoms take about" in failure.reason
    assert "max_memory_gib" in failure.reason
    with pytest.raises(CrystalError, match="large"):
        predictor.predict([large], max_memory_gib=1e-6)
    assert len(predictor.predict([large], max_memory_gib=1.0)) == 1


def test_what_the_allocator_refuses_costs_only_itself(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Counting.forward

    def refuse(self: Counting, batch: CrystalBatch) -> Any:
        if bool((batch.num_atoms > 1).any()):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return forward(self, batch)

    monkeypatch.setattr(Counting, "forward", refuse)
    found = predictor.predict([COPPER, bulk("Si"), COPPER], on_error="skip")
    assert found.ids == ["0", "2"]
    assert found.failures[0].reason == "2 atoms: there is not enough memory"


def test_a_crystal_that_the_network_refuses(predictor: Predictor) -> None:
    found = predictor.predict([COPPER, bulk("Pu", "fcc", a=4.6), COPPER], on_error="skip")
    assert found.ids == ["0", "2"]
    assert "Pu" in found.failures[0].reason


def test_a_value_that_is_not_finite_is_no_prediction(predictor: Predictor) -> None:
    key = next(iter(predictor.targets))
    plain = predictor.learned
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            predictor, "learned", lambda batch: plain(batch) | {key: plain(batch)[key] * float("nan")}
        )
        found = predictor.predict([COPPER], on_error="skip")
        assert (len(found), len(found.failures)) == (0, 1)
        assert found.failures[0].reason == f"the network gives no finite {key}"
        with pytest.raises(CrystalError, match="no finite"):
            predictor.predict([COPPER])


def test_it_can_be_sent_to_another_process(predictor: Predictor) -> None:
    other = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(other.predict(COPPER)["k"], predictor.predict(COPPER)["k"])


def test_it_prints_as_what_it_is(predictor: Predictor) -> None:
    text = repr(predictor)
    assert text.splitlines()[0] == "Predictor: Counting, 1 parameters, on cpu"
    assert "k: GPa, learned as log10(GPa)" in text
    assert "metal: one of metal, insulator" in text
    assert "some crystals" in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": "3"},
        {"batch_size": 2.5},
        {"max_pairs": 0},
        {"max_memory_gib": 0.0},
        {"on_error": "x"},
    ],
)
def test_wrong_limits(wrong: dict[str, Any], predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        predictor.tables(COPPER, **wrong)


def test_a_csv_file_keeps_what_was_predicted_before_an_error(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    table = predictor.predict([COPPER])

    def interrupted() -> None:
        with CsvTable(path) as file:
            file.add(table)
            assert not path.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(ValueError, match="nothing"), CsvTable(tmp_path / "b.csv"):
        raise ValueError("nothing")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_said_with_the_file(predictor: Predictor) -> None:
    table = predictor.predict([COPPER])
    with pytest.raises(OSError, match=r"No space left.*/dev/full"), CsvTable(Path("/dev/full")) as file:
        file.add(table)


def test_peak_memory_counts_what_is_held_together() -> None:
    def work() -> Tensor:
        a = torch.ones(1000, dtype=torch.float64)
        b = a + 1  # 16 000 bytes are held
        del a
        c = b * 2
        return c.sum()

    assert 16_000 <= peak_bytes(work) <= 16_100


def test_available_memory_minds_ulimit() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    free = available_bytes(torch.device("cpu"))
    assert free > 0
    try:
        resource.setrlimit(resource.RLIMIT_AS, (500 * GIB, before[1]))
        assert available_bytes(torch.device("cpu")) <= 500 * GIB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
