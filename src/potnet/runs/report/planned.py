"""Jobs of a sweep that were never begun."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from potnet.config import config_dir
from potnet.runs.folder import RunFolder
from potnet.runs.report.collect import Run, overrides_of


def not_begun(runs: Iterable[Run]) -> list[str]:
    """The overrides of the jobs that a sweep's command asks for and that have no folder yet.

    Read from the multirun.yaml that Hydra leaves in the folder of a sweep. A search has no list of jobs, and
    patterns such as `ablation=glob(*)` are read with the options that are installed now.

    Args:
        runs: As `collect` found them.

    Returns:
        One text a job, such as "ablation=radius_4, seed=0": the seed, and what else differs
        between the jobs of its sweep.
    """
    missing = []
    for folder in dict.fromkeys(run.folder.parent for run in runs):
        file = folder / "multirun.yaml"
        if not file.is_file():
            continue
        begun = {frozenset(overrides_of(job)) for job in folder.iterdir() if job.is_dir()}
        jobs = _jobs(file)
        same = set(jobs[0]).intersection(*jobs) if len(jobs) > 1 else set()
        missing += [
            ", ".join(text for text in job if text not in same or text.startswith("seed="))
            for job in jobs
            if frozenset(job) not in begun
        ]
    return missing


def sweeper_of(folder: Path) -> str:
    """The class that chose the settings of a run; "" for a run by itself.

    From what Hydra leaves in the run's folder: a multirun.yaml in the sweep's is written by its own sweeper
    alone, and not by Optuna's.
    """
    file = RunFolder(folder).hydra / "hydra.yaml"
    if not file.is_file():
        return ""
    config = OmegaConf.load(file)
    if "MULTIRUN" not in str(OmegaConf.select(config, "hydra.mode")):
        return ""
    return str(OmegaConf.select(config, "hydra.sweeper._target_"))


def _jobs(multirun: Path) -> list[tuple[str, ...]]:
    """Every job of a sweep by Hydra's basic sweeper; none for other sweepers."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    hydra: Any = OmegaConf.load(multirun).hydra
    if "BasicSweeper" not in str(hydra.sweeper.get("_target_")):
        return []
    task = list(map(str, hydra.overrides.task))
    given = {text.partition("=")[0] for text in task}
    params = hydra.sweeper.get("params") or {}
    task = [f"{key}={value}" for key, value in params.items() if key not in given] + task
    loader = ConfigLoaderImpl(create_config_search_path(str(config_dir())))
    try:
        choices = [
            [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
            if o.is_sweep_override()
            else [f"{o.get_key_element()}={o.get_value_element_as_str()}"]
            for o in OverridesParser.create(config_loader=loader).parse_overrides(task)
        ]
    except HydraException:
        return []
    return list(itertools.product(*choices))
