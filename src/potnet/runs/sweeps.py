"""Many runs by one command, `potnet train -m ...`: continuing a sweep, and jobs that fail.

A job's folder lies in the sweep's folder and is named by the job's number and the settings that vary. So the
same command with the same `hydra.sweep.dir` finds its own folders again: finished jobs are skipped, and hand
the value that they reached to the sweeper; jobs that stopped half-way resume from their last checkpoint; the
others start. A job that fails leaves `error.txt` in its folder and the other jobs alone, and one that another
process is running is left to it. All of this holds for every launcher and sweeper, as it happens inside
the job.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from potnet.config import ConfigError, flat, message_of, pasteable, plain, read_saved_config
from potnet.config.arguments import hydra_quoted
from potnet.files import write_whole
from potnet.runs.begin import alone_in
from potnet.runs.errors import BusyError
from potnet.runs.folder import ERROR, RunFolder

log = logging.getLogger(__name__)

Train = Callable[[dict[str, Any], Path, bool], float | None]


def run_job(config: DictConfig, folder: Path, train: Train, resumable: Callable[[str], bool]) -> float | None:
    """Run one job of a sweep, unless it is finished.

    Args:
        config: Of the job, as Hydra composed it.
        folder: Of the job.
        train: `potnet.train.train`.
        resumable: Whether a run may be continued with another value of this setting.

    Returns:
        What `train` returns, now or when the job was finished. None if the job failed or is another
        process's: raising would end the jobs that follow, and both sweepers take None as a failure (Optuna)
        or do not look at it (basic).
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # A sweep that seemed dead may still be working in there.
        with alone_in(folder), _isolated():
            return _run(config, folder, train, resumable)
    except BusyError as error:
        # Nothing is written there: the other process would be taken for one that failed.
        print(f"left out: {error}", file=sys.stderr, flush=True)
        return None
    except Exception as error:
        _tell(error, folder)
        return None


def _run(config: DictConfig, folder: Path, train: Train, resumable: Callable[[str], bool]) -> float | None:
    from potnet.runs.folder import LAST
    from potnet.training.setup import with_absolute_source

    settings = plain(config)
    allow = settings.pop("allow", ())
    if settings["resume"] is not None:
        raise ConfigError(
            f"resume={settings['resume']}: this continues a single run. To continue a sweep give the same "
            "command with hydra.sweep.dir=FOLDER, and without resume"
        )
    run = RunFolder(folder)
    metrics, last = run.finished(), run.checkpoint((LAST,))
    if metrics is None and last is not None:
        from potnet.runs.checkpoint import check_resumable

        check_resumable(last)
    if metrics is not None or last is not None:
        saved = read_saved_config(run.config, [*allow, *_named(settings)])
        settings = with_absolute_source(settings)
        if (settings.get("finetune") or {}).get("from") is not None:
            from potnet.training.finetune import with_source  # takes seconds

            # A run that begins with another network has the settings of that one.
            settings = with_source(settings)
        key = difference(saved, settings, resumable)
        if key is not None:
            raise ConfigError(
                f"{folder} holds a run with another value of {key}: choose another hydra.sweep.dir, or move "
                "that run away"
            )
    run.error.unlink(missing_ok=True)
    if metrics is not None:
        reached = run.monitored() if "val" in metrics else None
        value = None if reached is None else reached[1]
        shown = "not validated" if value is None else f"{metrics.get('monitor', 'val/mae')} {value:.4f}"
        log.info("finished earlier, skipped: %s (%s)", folder, shown)
        return value
    if last is not None:
        log.info("resumes from its last checkpoint: %s", folder)
    return train(settings, folder, last is not None)


def _named(settings: Mapping[str, Any]) -> list[str]:
    """The classes that the command itself names; what a job's folder builds may be any of them."""
    return [value for key, value in flat(settings).items() if key.rpartition(".")[2] == "_target_"]


def difference(
    saved: Mapping[str, Any], given: Mapping[str, Any], ignored: Callable[[str], bool]
) -> str | None:
    """The first setting in which two plain configs differ, such as "model.width"; None if they agree.

    Args:
        saved: Of a run that was made.
        given: Of the run that is to be made.
        ignored: Settings that may differ, by their full name; where a run lies and its loggers may, too.
    """
    before, now = flat(saved), flat(given)
    for key in sorted(before.keys() | now.keys()):
        if key.startswith(("logger", "runs_dir", "published")) or ignored(key):
            continue
        if before.get(key) != now.get(key):
            return key
    return None


@contextmanager
def _isolated() -> Iterator[None]:
    """Leave nothing of a job to the next one in the same process: environment, and the run of W&B."""
    environment = dict(os.environ)
    try:
        yield
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish()
        for key in os.environ.keys() - environment.keys():
            del os.environ[key]
        os.environ.update(environment)


def _tell(error: Exception, folder: Path) -> None:
    """Report a job that failed: on stderr, and in its folder."""
    known = message_of(error)
    message = known or f"{type(error).__name__}: {error}"
    details = "".join(traceback.format_exception(error))
    with suppress(OSError):  # a full disk may be what went wrong
        write_whole(RunFolder(folder).error, f"{message}\n\n{details}")
    # An unexpected error needs its traceback, in the log of the sweep as well.
    print(
        f"{'' if known else details}error: job {folder.name} failed: {message}", file=sys.stderr, flush=True
    )


class SweepReport(Callback):
    """Says where a sweep lies when it begins, and what became of its jobs when it ends.

    Hydra calls it in the process of the command, whatever the launcher. If a job failed, the command ends
    with status 1.
    """

    def __init__(self) -> None:
        self._earlier: dict[Path, int] = {}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep all jobs in one folder, also where the experiment, and so `name`, differs between them."""
        folder = str(config.hydra.sweep.dir)
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = folder
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={hydra_quoted(folder)}")
            # Names of folders say what varies.
            excluded = [*config.hydra.job.config.override_dirname.exclude_keys, *_constant(config)]
            keys = ",".join(map(hydra_quoted, excluded))
            config.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{keys}]")
        # A job that failed in an earlier sweep of this folder, and is not part of this one, is no news.
        self._earlier = {file: file.stat().st_mtime_ns for file in Path(folder).glob(f"*/{ERROR}")}
        command = pasteable("hydra.sweep.dir", folder)
        print(f"sweep: {folder} (to continue it: the same command with {command})", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the jobs that failed, each with its message.

        Raises:
            SystemExit: With status 1, if there are any.
        """
        folder = Path(config.hydra.sweep.dir)
        jobs = [path for path in folder.iterdir() if (path / ".hydra").is_dir()]
        done = sum(RunFolder(job).finished() is not None for job in jobs)
        errors = [
            file for file in folder.glob(f"*/{ERROR}") if self._earlier.get(file) != file.stat().st_mtime_ns
        ]
        print(f"sweep: {folder}: {done} of {len(jobs)} jobs finished, {len(errors)} failed", flush=True)
        for file in sorted(errors, key=_number):
            message = file.read_text(encoding="utf-8").splitlines()[0]
            print(f"  {file.parent.name}: {message}", file=sys.stderr)
        for line in self._means(folder):
            print(line)
        if errors:
            sys.exit(1)

    @staticmethod
    def _means(folder: Path) -> list[str]:
        """The mean of each configuration that was run with several seeds or folds."""
        from potnet.runs.report import collect, sections

        try:
            found = sections(collect([folder]))
        except ConfigError:  # no job came as far as to have settings
            return []
        lines = []
        for section in found:
            for row in section.rows:
                val, test = row.error("val"), row.error("test")
                if max(spread.n if spread else 0 for spread in (val, test)) < 2:
                    continue
                name = "" if len(section.rows) == 1 else f"{row.name}: "
                errors = [
                    f"{part} {section.measure} {spread.mean:.4f} ± {spread.deviation:.4f}"
                    for part, spread in (("val", val), ("test", test))
                    if spread and spread.deviation is not None
                ]
                runs = f"mean ± standard deviation of {len(row.finished)} runs"
                unit = f" {section.unit}" if section.unit else ""
                lines.append(f"{section.key}: {name}{', '.join(errors)}{unit} ({runs})")
        return lines


def _number(error: Path) -> tuple[int, Path]:
    """Orders the errors of jobs as the jobs."""
    number = error.parent.name.partition("_")[0]
    return (int(number) if number.isdigit() else sys.maxsize, error)


def _constant(config: DictConfig) -> list[str]:
    """Keys on the command line that have one value in all jobs of a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    return [
        override.get_key_element().lstrip("+~") for override in overrides if not override.is_sweep_override()
    ]
