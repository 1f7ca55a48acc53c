"""Sweeps as a user runs them: continuing, failing jobs, launchers, searches."""

from __future__ import annotations

import csv
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from potnet.config import compose, config_dir
from potnet.runs.folder import ERROR, RunFolder
from potnet.train import main

Run = Any  # conftest.Run
Sweep = Callable[..., int]
TINY = (
    "model.width=16",
    "model.layers=1",
    "data.limit=60",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)


@pytest.fixture
def sweep(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Runs a sweep in the folder "sweep" below tmp_path as the command would, and returns its exit status."""

    def run(*overrides: str) -> int:
        monkeypatch.chdir(tmp_path)
        arguments = [*TINY, f"data.cache_dir={cache_dir}", "hydra.sweep.dir=sweep", *overrides]
        monkeypatch.setattr(sys, "argv", ["train", "--multirun", *arguments])
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path: Path(path).touch())
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "potnet.train", "--multirun", *TINY, "hydra.sweep.dir=sweep", *overrides]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def jobs(folder: Path) -> list[Path]:
    """The folders of a sweep's jobs, in order."""
    found = [path for path in folder.iterdir() if (path / ".hydra").is_dir()]
    return sorted(found, key=lambda path: int(path.name.partition("_")[0]))


def predictions(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_failing_job_is_reported_and_finished_ones_are_skipped_next_time(
    sweep: Sweep, tmp_path: Path, capfd: Any, run_training: Callable[..., Run]
) -> None:
    assert sweep("seed=0,x,1") == 1
    first, failed, last = jobs(tmp_path / "sweep")
    shown = capfd.readouterr()
    assert f"error: job {failed.name} failed: seed=x: give a whole number" in shown.err
    assert "2 of 3 jobs finished, 1 failed" in shown.out
    assert (failed / ERROR).read_text().startswith("seed=x: give a whole number")
    results = [RunFolder(job).finished() for job in (first, last)]
    assert None not in results
    # Only what varies is in the names, and they can be pasted back.
    assert [job.name for job in (first, failed, last)] == ["0_seed-0", "1_seed-x", "2_seed-1"]

    # No job knows of those before it: the last is what it would be alone.
    alone = run_training("seed=1", tiny=TINY)
    assert predictions(last) == predictions(alone.folder)

    times = [(job / "metrics.json").stat().st_mtime_ns for job in (first, last)]
    assert sweep("seed=0,2,1") == 0  # the failure, no part of this sweep, is no news
    shown = capfd.readouterr()
    assert shown.out.count("finished earlier, skipped") == 2
    assert "3 of 4 jobs finished, 0 failed" in shown.out
    assert [(job / "metrics.json").stat().st_mtime_ns for job in (first, last)] == times


def test_fine_tuned_jobs_are_known_again(sweep: Sweep, trained: Run, capfd: Any) -> None:
    """Their network and features are those of the run that they begin with, not those of the command."""
    command = (f"finetune.from={trained.folder}", "features.cell=as_given", "seed=0")
    assert sweep(*command) == 0
    assert sweep(*command) == 0
    assert "finished earlier, skipped" in capfd.readouterr().out
    assert sweep(*command, "finetune.freeze=[atom_embedding]") == 1
    assert "holds a run with another value of finetune.freeze" in capfd.readouterr().err


def test_all_jobs_of_a_sweep_lie_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    # Both fail at once, but each has a name of its own, which is part of the folder.
    arguments = ["experiment=mp_bulk_modulus,mp_shear_modulus", "seed=x"]
    monkeypatch.setattr(sys, "argv", ["train", "--multirun", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "0 of 2 jobs finished, 2 failed" in capfd.readouterr().out
    (folder,) = (tmp_path / "multirun").glob("*/*")
    assert len(jobs(folder)) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_search_finds_its_finished_trials_again(sweep: Sweep, tmp_path: Path, capfd: Any) -> None:
    # Optuna 2 uses what SQLAlchemy 2 calls deprecated.
    settings = ("search=rate_width_decay", "model.width=choice(8,16)")
    assert sweep(*settings, "hydra.sweeper.n_trials=2") == 0
    before = jobs(tmp_path / "sweep")
    assert sweep(*settings, "hydra.sweeper.n_trials=3") == 0
    after = jobs(tmp_path / "sweep")
    assert after[:2] == before
    assert len(after) == 3
    assert capfd.readouterr().out.count("finished earlier, skipped") == 2
    best = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    values = [(RunFolder(job).finished() or {})["val"]["k_vrh"]["mae"] for job in after]
    assert best["best_value"] == min(values)
    assert {"optimizer.learning_rate", "optimizer.weight_decay", "model.width"} >= set(best["best_params"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_search_without_a_good_trial_ends_in_a_message(sweep: Sweep, capfd: Any) -> None:
    assert sweep("search=rate_width_decay", "hydra.sweeper.n_trials=2", "seed=x") == 1
    shown = capfd.readouterr().err
    assert shown.count("failed: seed=x") == 2
    assert shown.splitlines()[-1] == "error: No trials are completed yet."


@pytest.mark.slow
def test_parallel_jobs_featurize_once(tmp_path: Path) -> None:
    overrides = ("seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "data.cache_dir=cache")
    done = subprocess.run(
        command(*overrides),
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs finished, 0 failed" in done.stdout
    assert done.stdout.count(" crystals of mp_elastic_2018 computed (") == 1
    assert done.stdout.count(" crystals of mp_elastic_2018 read in ") == 1
    assert [RunFolder(job).finished() is not None for job in jobs(tmp_path / "sweep")] == [True, True]


@pytest.mark.slow
def test_submitit_runs_jobs_on_this_machine(tmp_path: Path, cache_dir: Path) -> None:
    overrides = ("seed=0,x", "hydra/launcher=submitit_local", f"data.cache_dir={cache_dir}")
    for skipped in (0, 1):
        done = subprocess.run(
            command(*overrides),
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert "1 of 2 jobs finished, 1 failed" in done.stdout
        assert "seed=x: give a whole number" in done.stderr
        logs = "".join(log.read_text() for log in (tmp_path / "sweep" / ".submitit").rglob("*_log.out"))
        assert logs.count("finished earlier, skipped") == skipped


class KillOnce(Callback):
    """Kills the process of the job with seed 1 in the fourth epoch; once, which the file `done` says."""

    def __init__(self, seed: int, done: str) -> None:
        self.seed, self.done = seed, Path(done)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.seed == 1 and trainer.current_epoch == 3 and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(
    sweep: Sweep, tmp_path: Path, cache_dir: Path, capfd: Any, run_training: Callable[..., Run]
) -> None:
    end = {"_target_": f"{__name__}.KillOnce", "seed": "${seed}", "done": tmp_path / "done"}
    epochs = "trainer.max_epochs=6"
    overrides = ("seed=0,1", epochs, *(f"+callbacks.end.{key}={value}" for key, value in end.items()))
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    killed = subprocess.run(
        command(*overrides, f"data.cache_dir={cache_dir}"),
        cwd=tmp_path, env={**environment(), "PYTHONPATH": here}, timeout=600,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    first, second = jobs(tmp_path / "sweep")
    assert RunFolder(first).finished() is not None
    assert RunFolder(second).finished() is None

    capfd.readouterr()
    assert sweep(*overrides) == 0
    shown = capfd.readouterr().out
    assert shown.count("finished earlier, skipped") == 1
    assert shown.count("resumes from its last checkpoint") == 1
    uninterrupted = run_training("seed=1", epochs, tiny=TINY)
    assert predictions(second) == predictions(uninterrupted.folder)


def launcher(option: str) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = hydra_compose("train", [f"hydra/launcher={option}"], return_hydra_config=True)
    OmegaConf.set_readonly(config, False)
    config.hydra.job.name, config.hydra.sweep.dir = "train", "sweep"
    return dict(OmegaConf.to_container(config.hydra.launcher, resolve=True))


@pytest.mark.parametrize("option", ["basic", "joblib", "submitit_local", "submitit_slurm", "slurm"])
def test_every_launcher_composes(option: str) -> None:
    assert "Launcher" in launcher(option)["_target_"]


def test_slurm_settings_reach_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import submitit

    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(srun.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = launcher("slurm")
    executor = submitit.AutoExecutor(
        tmp_path, cluster="slurm", slurm_max_num_timeout=settings["max_num_timeout"]
    )
    shared = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
    shared.add("stderr_to_stdout")
    executor.update_parameters(
        **{
            key if key in shared else f"slurm_{key}": value
            for key, value in settings.items()
            if key not in ("_target_", "submitit_folder", "max_num_timeout")
        }
    )
    script = executor._executor._make_submission_file_text("python -m potnet.train", "1")
    for line in ("--time=720", "--cpus-per-task=8", "--gpus-per-node=1", "--mem=32GB", "--signal=USR2@180"):
        assert f"#SBATCH {line}" in script


def test_the_sweep_of_wandb_drives_the_same_command() -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    content = yaml.safe_load((config_dir() / "wandb_sweep.yaml").read_text())
    values = {
        name: {"value": (entry.get("values") or [entry.get("value", entry.get("min"))])[0]}
        for name, entry in content["parameters"].items()
    }
    # As an agent makes a command line of the trial that the server sends it.
    config = compose("train", create_sweep_command_args({"args": values})["args_no_hyphens"])
    assert config.name == values.pop("experiment")["value"]
    for name, entry in values.items():
        assert OmegaConf.select(config, name) == entry["value"]
    assert content["command"][-4:] == ["-m", "potnet.train", "logger=wandb", "${args_no_hyphens}"]
    assert content["metric"] == {"name": "val/k_vrh/mae", "goal": "minimize"}
