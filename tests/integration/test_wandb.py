"""A sweep with logger=wandb, kept offline and read back with W&B's own reader."""

from __future__ import annotations

import copy
import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from potnet.inference.predictor import Predictor

# Its fixtures take seconds: one process of pytest-xdist makes them, not each.
pytestmark = pytest.mark.xdist_group("wandb")

KEY = "5ec2e7" + "ab" * 17
SETTINGS = (
    "logger=wandb",
    "model=potnet_published",
    "model.width=8",
    "model.layers=1",
    "data.limit=60",
    "data.batch_size=16",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
)


@dataclass
class Offline:
    """A run's folder, and the records in its offline file."""

    folder: Path
    records: list[dict[str, Any]]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def history(self) -> list[dict[str, Any]]:
        return [entry["item"] for entry in self.all("history")]

    @property
    def summary(self) -> dict[str, Any]:
        """As W&B ends up with it: later values overrule earlier ones."""
        return {key: value for entry in self.all("summary") for key, value in entry["update"].items()}

    @property
    def config(self) -> dict[str, Any]:
        return {key: value for entry in self.all("config") for key, value in entry["update"].items()}

    def curve(self, key: str) -> list[tuple[int, float]]:
        return [(row["trainer/global_step"], row[key]) for row in self.history if key in row]

    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / "metrics.json").read_text())

    def epochs(self) -> list[dict[str, str]]:
        with (self.folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def read(folder: Path) -> Offline:
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")  # one run in a folder
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return Offline(folder, [json.loads(line) for line in done.stdout.splitlines()])


def train(home: Path, cache_dir: Path, *arguments: str) -> str:
    """Run the command in a folder of a user who has a key, and return what it prints."""
    work = home / "work"
    work.mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"HOME": str(home), "WANDB_API_KEY": KEY, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    environment["WANDB__SERVICE_WAIT"] = "300"  # seconds; its process starts slowly on a busy machine
    (work / "cache").symlink_to(cache_dir)
    done = subprocess.run(
        [sys.executable, "-m", "potnet.train", *arguments, *SETTINGS, f"data.cache_dir={work}/cache"],
        cwd=work, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("someone")


@pytest.fixture(scope="module")
def output(home: Path, cache_dir: Path) -> str:
    return train(home, cache_dir, "-m", "seed=0,1", "ablation=pairs_none", "hydra.sweep.dir=study")


@pytest.fixture(scope="module")
def runs(home: Path, output: str) -> list[Offline]:
    return [read(folder) for folder in sorted((home / "work" / "study").glob("[01]_*"))]


def test_each_job_of_a_sweep_is_a_run_that_says_what_it_is(runs: list[Offline]) -> None:
    assert len(runs) == 2
    for seed, run in enumerate(runs):
        (started,) = run.all("run")
        assert started["project"] == "potnet"
        assert started["run_group"] == "study"
        assert started["host"] == "private"
        tags = {"sweep:study", "target:k_vrh", "model:potnet_published", "data:embedded"}
        assert set(started["tags"]) == {*tags, "ablation:pairs_none", f"seed:{seed}"}
        assert run.folder.name.startswith(started["display_name"])
        assert [end["exit_code"] for end in run.all("exit")] == [0]
    assert len({run.all("run")[0]["run_id"] for run in runs}) == 2


def test_the_config_is_whole_with_units_versions_and_commit(runs: list[Offline]) -> None:
    for run in runs:
        saved = yaml.safe_load((run.folder / "config.yaml").read_text())
        assert saved["data"].pop("cache_dir").endswith("/work/cache")
        logged = dict(run.config)
        assert logged["data"].pop("cache_dir") == "~/work/cache"
        assert {key: logged[key] for key in saved} == saved
        assert logged["units"]["val/k_vrh/mae"] == "log10(GPa)"
        assert logged["versions"]["torch"] == torch.__version__
        assert logged["labels"] | {"seed": None} == {
            "sweep": "study", "data": "embedded", "target": "k_vrh", "model": "potnet_published",
            "ablation": "pairs_none", "seed": None,
        }  # fmt: skip
        # A checkout knows its commit; what is installed does not.
        assert logged["git"] == {} or re.fullmatch("[0-9a-f]{40}", logged["git"]["commit"])


def test_curves_have_the_values_of_the_table_at_its_steps(runs: list[Offline]) -> None:
    for run in runs:
        rows = run.epochs()
        errors = ("train/k_vrh/mae", "val/k_vrh/mae", "val/k_vrh/rmse")
        for key in ("train/loss", "val/loss", *errors, "lr", "train/grad_norm"):
            steps, values = zip(*run.curve(key), strict=True)
            assert list(steps) == [int(row["step"]) - 1 for row in rows], key
            assert values == pytest.approx([float(row[key]) for row in rows], rel=1e-4), key
        for key in ("crystals_per_second", "memory_gib", "seconds"):
            assert len(run.curve(key)) == len(rows)
            assert all(value > 0 for _, value in run.curve(key))
        logged = {key for row in run.history for key in row if not key.startswith("_")}
        plain = {key for key in logged if "." not in key}
        assert plain <= {*run.config["units"], "epoch", "trainer/global_step"}


def test_the_summary_is_that_of_the_best_checkpoint(runs: list[Offline]) -> None:
    for run in runs:
        metrics = run.metrics()
        for part in ("val", "test"):
            for key, value in metrics[part]["k_vrh"].items():
                assert run.summary[f"{part}/k_vrh/{key}"] == value
        assert run.summary["parameters"] == metrics["parameters"]
        assert run.summary["seconds/total"] == metrics["seconds"]["total"]
        assert run.summary["interrupted"] is False


def test_pictures_and_the_worst_crystals_are_logged(runs: list[Offline]) -> None:
    for run in runs:
        files = next((run.folder / "wandb").glob("offline-run-*/files"))
        for name in ("parity", "error_by_element", "learning_curve"):
            logged = files / run.summary[f"{name}.path"]
            assert logged.read_bytes() == (run.folder / f"{name}.png").read_bytes()
        table = json.loads((files / run.summary["worst_test_crystals.path"]).read_text())
        assert table["columns"] == ["id", "formula", "atoms", "value", "prediction", "error"]
        errors = [row[-1] for row in table["data"]]
        assert errors == sorted(errors, reverse=True)
        with (run.folder / "predictions.csv").open(newline="") as file:
            tested = [row for row in csv.DictReader(file) if row["split"] == "test"]
        assert {row[0] for row in table["data"]} <= {row["id"] for row in tested}
        assert len(errors) == min(20, len(tested))
        # Fewer than 20 are tested.
        assert sum(errors) / len(errors) == pytest.approx(run.summary["test/k_vrh/mae"])


def test_the_checkpoint_is_an_artifact_that_predicts(runs: list[Offline], tmp_path: Path) -> None:
    for run in runs:
        (artifact,) = [entry for entry in run.all("artifact") if entry["type"] == "model"]
        assert {"latest", "best"} < set(artifact["aliases"])
        assert json.loads(artifact["metadata"])["test/k_vrh/mae"] == run.metrics()["test"]["k_vrh"]["mae"]
        (entry,) = artifact["manifest"]["contents"]
        assert entry["path"] == "best.ckpt"
        content = torch.load(entry["local_path"], weights_only=True)
        assert set(content) == {"state_dict", "hyper_parameters", "potnet"}
        ours = Predictor.from_checkpoint(run.folder).model.state_dict()
        uploaded = tmp_path / "best.ckpt"
        uploaded.write_bytes(Path(entry["local_path"]).read_bytes())
        theirs = Predictor.from_checkpoint(uploaded).model.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_no_key_and_no_home_folder_is_in_a_run(runs: list[Offline], home: Path, output: str) -> None:
    assert KEY not in output
    for run in runs:
        for file in (run.folder / "wandb").rglob("*"):
            if not file.is_file():
                continue
            content = file.read_bytes()
            assert KEY.encode() not in content, file
            # Logs stay on this machine; the records are looked at below.
            if "logs" not in file.resolve().parts and file.suffix != ".wandb":
                assert str(home).encode() not in content, file
        records = copy.deepcopy(run.records)
        for record in records:
            for entry in record.get("artifact", {}).get("manifest", {}).get("contents", []):
                del entry["local_path"]  # where `wandb sync` finds the file; not itself uploaded
        assert str(home) not in json.dumps(records)
    # All of it lies with the run: a folder that is removed leaves nothing behind but W&B's own log.
    left = [path for path in home.rglob("*") if path.is_file() and "wandb" in str(path)]
    assert all("/work/study/" in str(path) or "/.cache/wandb/logs/" in str(path) for path in left)


def test_a_line_says_how_to_upload(runs: list[Offline], output: str) -> None:
    for run in runs:
        (folder,) = run.folder.glob("wandb/offline-run-*")
        assert (
            f"W&B: kept offline; to upload it: wandb sync study/{run.folder.name}/wandb/{folder.name}"
            in output
        )


@pytest.mark.slow
def test_two_ranks_are_one_run(tmp_path: Path, cache_dir: Path) -> None:
    train(tmp_path / "home", cache_dir, "trainer=ddp_cpu", "runs_dir=runs")
    (folder,) = (tmp_path / "home" / "work" / "runs").glob("*/*")
    run = read(folder)
    assert len(run.curve("val/k_vrh/mae")) == 2
    assert run.summary["test/k_vrh/mae"] == run.metrics()["test"]["k_vrh"]["mae"]
    assert [end["exit_code"] for end in run.all("exit")] == [0]
