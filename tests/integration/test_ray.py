"""Screening on a Ray cluster: two nodes on this machine, one of which is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow.parquet
import pytest
from ase.build import bulk
from small_models import K, registry

from potnet.screen import screen
from potnet.screening.listing import Task
from potnet.screening.work import Worker

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "potnet[ray]"')

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and processes to the interpreter's end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head with one core, where the driver is."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # A lost node is noticed within seconds.
    system = {
        **{"health_check_initial_delay_ms": 0, "health_check_period_ms": 500},
        **{"health_check_failure_threshold": 8, "worker_niceness": 0},
    }
    found = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20, "_system_config": system},
    )
    yield found
    ray.shutdown()
    found.shutdown()


def test_a_lost_node_costs_nothing(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two nodes is killed in the midst of a task: nothing is lost, and nothing is there twice."""
    head = cluster.head_node.node_id
    other = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(24):
        bulk("Cu", a=3.5 + 0.01 * number).write(folder / f"{number}.cif")
    settings: dict[str, Any] = {"models": "k_vrh", "registry": str(registry(tmp_path, k_vrh=K)), "piece": 2}
    marker = tmp_path / "in the midst"
    monkeypatch.setattr("potnet.screening.work.Worker", Stuck)
    monkeypatch.setattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", {__name__})
    Stuck.head, Stuck.marker = head, str(marker)

    def kill() -> None:
        while not marker.exists():
            time.sleep(0.05)
        other.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = screen(str(folder), str(tmp_path / "out"), backend="ray", address=cluster.address, **settings)
    assert marker.exists()
    killer.join()
    assert not other.any_processes_alive()
    assert (found.predicted, found.failed) == (24, 0)
    screen(str(folder), str(tmp_path / "alone"), workers=1, **settings)
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    assert len(list((tmp_path / "out").glob("part-*"))) == 12


def content(folder: Path) -> dict[str, Any]:
    rows = pyarrow.parquet.read_table(folder).to_pylist()
    found = {row["source"]: row for row in rows}
    assert len(found) == len(rows)
    return found


class Stuck(Worker):
    """On the other node, does one task and never ends the second."""

    head = marker = ""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "head": type(self).head, "marker": type(self).marker, "tasks": 0}

    def __call__(self, task: Task) -> int:
        if ray.is_initialized() and ray.get_runtime_context().get_node_id() != self.head:
            if self.tasks == 1:
                Path(self.marker).touch()
                threading.Event().wait()
            self.tasks += 1
        return super().__call__(task)
