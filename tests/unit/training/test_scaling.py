"""Scalers and losses of typed targets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potnet.crystals import CrystalBatch
from potnet.data import CrystalDataModule, DataError, Target, Targets
from potnet.training.losses import Objective
from potnet.training.outputs import labels_of
from potnet.training.scaling import EnergyScaler, Scaler, check_labels, fit_scalers, scalers_of

NAN = float("nan")


class Batches:
    """Stands for a data module with one training batch."""

    def __init__(self, batch: CrystalBatch) -> None:
        self.batch = batch

    def dataset(self, part: str) -> None:
        return None

    def dataloader(self, part: str) -> list[CrystalBatch]:
        return [self.batch]


def crystals(small_data: CrystalDataModule, count: int = 12) -> CrystalBatch:
    return small_data.dataset("train").batch(range(count))


def with_targets(batch: CrystalBatch, **targets: torch.Tensor) -> CrystalBatch:
    from dataclasses import replace

    return replace(batch, targets=targets)


def test_numbers_are_scaled_by_mean_and_deviation_of_the_training_part(small_data: CrystalDataModule) -> None:
    targets = Targets([Target("k_vrh", "GPa", transform="log10")])
    scalers = scalers_of(targets)
    fit_scalers(scalers, targets, small_data)
    values = torch.log10(torch.from_numpy(small_data.dataset("train").values("k_vrh")))
    scaler = scalers["k_vrh"]
    assert isinstance(scaler, Scaler)
    assert float(scaler.mean) == pytest.approx(float(values.mean()))
    assert float(scaler.std) == pytest.approx(float(values.std(correction=0)))
    batch = crystals(small_data)
    torch.testing.assert_close(scaler.value(scaler.scaled(values[:12], batch), batch), values[:12])


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_label_too_large_to_compute_with_is_refused(part: str, small_data: CrystalDataModule) -> None:
    targets = Targets([Target("k_vrh", "GPa")])
    check_labels(targets, small_data)
    row = int(small_data.split.rows(part)[3])
    with pytest.MonkeyPatch.context() as patch:
        labels = small_data.dataset("train").labels["k_vrh"].copy()
        labels[row] = 1e300
        patch.setitem(small_data._labels, "k_vrh", labels)
        with pytest.raises(DataError, match=rf"^{small_data.split[part][3]}: k_vrh is 1e\+300 GPa, and"):
            check_labels(targets, small_data)
        check_labels(Targets([Target("k_vrh", "GPa", transform="log10")]), small_data)  # 300


def test_reference_energies_are_found_and_forces_set_the_scale(small_data: CrystalDataModule) -> None:
    batch = crystals(small_data, 60)
    reference = torch.randn(119, dtype=torch.float64)
    energy = torch.zeros(60, dtype=torch.float64).index_add_(0, batch.batch, reference[batch.z])
    forces = torch.randn(len(batch.z), 3, dtype=torch.float64)
    forces[0] = NAN
    targets = Targets(
        [
            Target("energy", "eV", extensive=True),
            Target("forces", "eV/Å", per="atom", shape=(3,), derived_from="energy", on_missing="mask"),
        ]
    )
    scalers = scalers_of(targets)
    fit_scalers(scalers, targets, Batches(with_targets(batch, energy=energy, forces=forces)))  # type: ignore[arg-type]
    scaler = scalers["energy"]
    assert isinstance(scaler, EnergyScaler)
    torch.testing.assert_close(scaler.of_atoms(batch), energy)
    assert float(scaler.std) == pytest.approx(float(forces[1:].square().mean().sqrt()))


def loss_of(objective: Objective, targets: Targets, value: list, label: list, batch: CrystalBatch) -> float:
    scalers = scalers_of(targets)
    values = {key: torch.tensor(v, dtype=torch.float64) for key, v in zip(targets, value, strict=True)}
    labels = {key: torch.tensor(v, dtype=torch.float64) for key, v in zip(targets, label, strict=True)}
    sums = objective.sums(targets, scalers, values, labels, batch)
    return float(objective.total(targets, sums, {key: count for key, (_, count) in sums.items()}))


def test_losses(small_data: CrystalDataModule) -> None:
    batch, one = crystals(small_data, 2), Targets([Target("a")])
    for name, delta, expected in (("mse", 1.0, 5.0), ("mae", 1.0, 2.0), ("huber", 2.0, (0.5 + 2 * 2) / 2)):
        objective = Objective(name, delta)  # type: ignore[arg-type]
        assert loss_of(objective, one, [[0.0, 0.0]], [[1.0, 3.0]], batch) == pytest.approx(expected)


def test_missing_labels_do_not_count_and_weights_do(small_data: CrystalDataModule) -> None:
    batch, objective = crystals(small_data, 2), Objective("mae", 1.0)
    both = Targets([Target("a"), Target("b", weight=10.0, loss="mse")])
    found = loss_of(objective, both, [[0.0, 0.0], [0.0, 0.0]], [[NAN, 3.0], [2.0, 4.0]], batch)
    assert found == pytest.approx(3.0 + 10 * (4 + 16) / 2)


def test_gradients_survive_missing_labels(small_data: CrystalDataModule) -> None:
    batch, targets = crystals(small_data, 2), Targets([Target("a")])
    value = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([NAN, 3.0], dtype=torch.float64)
    sums = Objective("huber", 1.0).sums(targets, scalers_of(targets), {"a": value}, {"a": label}, batch)
    sums["a"][0].backward()
    assert value.grad is not None
    assert value.grad.tolist() == [0.0, -1.0]


def test_cross_entropy_of_classes(small_data: CrystalDataModule) -> None:
    targets = Targets([Target("m", kind="classification", classes=("a", "b"))])
    logits, label = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64), [1.0, NAN]
    found = loss_of(Objective("mae", 1.0), targets, [logits.tolist()], [label], crystals(small_data, 2))
    assert found == pytest.approx(float(nn.functional.cross_entropy(logits[:1], torch.tensor([1]))))


def test_labels_keep_their_precision(small_data: CrystalDataModule) -> None:
    """Labels are never rounded to the type of the network's output, which mixed precision makes bfloat16."""
    targets = Targets([Target("a")])
    batch = with_targets(crystals(small_data, 2), a=torch.tensor([1.0001, 2.0], dtype=torch.float64))
    value = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    scalers, labels = scalers_of(targets), labels_of(targets, batch)
    values = {"a": scalers["a"].value(value, batch)}  # type: ignore[operator]
    total, _ = Objective("mae", 1.0).sums(targets, scalers, values, labels, batch)["a"]
    assert float(total) == pytest.approx(1e-4, rel=1e-6)
