"""Who a process is among ranks, and how many devices a run asks for."""

from __future__ import annotations

import pytest

from potnet.config import ConfigError
from potnet.process_rank import rank, started_by
from potnet.training.processes import devices as devices_module
from potnet.training.processes.devices import check_devices, check_started, devices, ranks_to_start


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, 1), ({"devices": 2}, 2), ({"devices": [0, 3]}, 2), ({"devices": "0, 1"}, 2), ({"devices": "3"}, 3)],
)
def test_devices_are_counted(given: dict[str, object], count: int) -> None:
    assert devices({"accelerator": "cpu", **given}) == count
    assert ranks_to_start({"accelerator": "cpu", "strategy": "ddp", **given}) == count


def test_all_devices_of_a_machine_without_gpus_is_one() -> None:
    assert devices({"accelerator": "cpu", "devices": "auto"}) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"accelerator": "gup"}, "trainer.accelerator=gup; did you mean gpu"),
        ({"accelerator": "tpu", "devices": 8}, "trainer.accelerator=tpu"),
        ({"accelerator": "cpu", "devices": 0}, "trainer.devices=0: give at least 1"),
    ],
)
def test_devices_that_cannot_be_used_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_devices(given)


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu: no CUDA device .*accelerator=cpu"):
        check_devices({"accelerator": "gpu"})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_devices({"accelerator": "gpu", "devices": 2})
    with pytest.raises(ConfigError, match=r"trainer\.devices=4: there are 2 GPUs"):
        check_devices({"accelerator": "gpu", "devices": 4})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_nodes": 2}, "several nodes need torchrun or srun"),
        ({"devices": 2, "strategy": "dpp"}, "trainer.strategy=dpp on 2 devices; did you mean ddp"),
        ({"devices": 2, "strategy": "fsdp"}, "trainer.strategy=fsdp on 2 devices"),
    ],
)
def test_what_needs_another_start_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ranks_to_start({"accelerator": "cpu", **given})


@pytest.mark.parametrize(
    ("environment", "trainer", "said"),
    [
        ({"WORLD_SIZE": "2"}, {"devices": 1}, "torchrun started 2 processes.*ask for 1.*trainer.devices=2"),
        ({"WORLD_SIZE": "8"}, {"devices": 2, "num_nodes": 2}, "8 processes.*ask for 4.*trainer.devices=4"),
        ({"WORLD_SIZE": "2"}, {"devices": 1, "accelerator": "gpu"}, "trainer=ddp trainer.devices=2"),
        ({"WORLD_SIZE": "2"}, {"devices": 2}, None),
        ({"WORLD_SIZE": "8"}, {"devices": 4, "num_nodes": 2}, None),
        ({"WORLD_SIZE": "1"}, {"devices": 1}, None),
        ({"WORLD_SIZE": "4"}, {"devices": "auto", "accelerator": "gpu"}, None),  # Lightning compares
    ],
)
def test_processes_that_would_train_the_same_are_refused(
    environment: dict[str, str],
    trainer: dict[str, object],
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_started(trainer)  # nobody started this process
    for name, value in ({"TORCHELASTIC_RUN_ID": "x"} | environment).items():
        monkeypatch.setenv(name, value)
    settings = {"accelerator": "cpu", **trainer}
    if said is None:
        check_started(settings)
    else:
        with pytest.raises(ConfigError, match=said):
            check_started(settings)


def test_ranks_that_others_started_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert started_by() is None
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert started_by() is None  # a batch script without srun
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert started_by() == "srun"
    assert rank() == 3
    assert ranks_to_start({"devices": 4, "num_nodes": 2}) == 1
    with pytest.raises(ConfigError, match="a sweep cannot run under srun"):
        devices_module.check_alone()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "1")
    assert started_by() == "torchrun"
    assert rank() == 1
