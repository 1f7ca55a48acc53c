"""A run in Weights & Biases: online with a key, else kept offline beside the run's own files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from potnet.config import ConfigError
from potnet.runs.checkpoint import load_checkpoint
from potnet.runs.evaluation import WORST_COLUMNS
from potnet.runs.folder import RunFolder
from potnet.training.loggers.common import Results, without_home


class WandbRun(WandbLogger):
    """Lightning's logger, with what else belongs in a run, and without what does not.

    W&B by itself also records host, user, program, arguments, git remote and everything printed; here it
    records none of that. So neither a key nor a path of yours leaves the machine.

    Args:
        save_dir: Folder of the run; W&B's files lie in its folder "wandb".
        labels: What the run is, such as `{"target": "k_vrh", "seed": 0}`. Each that is not None becomes a tag
            "key:value" and the setting `labels.key`, by which W&B can group and filter.
        offline: Whether to keep the run offline.
        checkpoint: Whether to log the best checkpoint as an artifact: weights, config and units, all that
            predicting needs, without the state of the optimizer.
        **settings: Of Lightning's `WandbLogger` and of `wandb.init`: `project`, `group`, `name`.
    """

    def __init__(
        self,
        save_dir: str,
        labels: Mapping[str, Any] | None = None,
        offline: bool = False,
        checkpoint: bool = True,
        **settings: Any,
    ) -> None:
        from wandb import Settings

        self._folder = Path(save_dir)
        self._keeps_checkpoint = checkpoint
        self._set_data_dir = False
        self._labels = {key: value for key, value in (labels or {}).items() if value is not None}
        private = Settings(
            console="off",
            host="private",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_machine_info=True,
            program="potnet.train",
            program_relpath="potnet.train",
            silent=offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun"),
        )
        super().__init__(
            **{
                "save_dir": save_dir,
                "name": self._folder.name[:128],
                "tags": [f"{key}:{value}"[:64] for key, value in self._labels.items()],
                "settings": private,
                **({"mode": "offline"} if offline else {}),
                **settings,
            }
        )
        self._wandb_init.pop("anonymous", None)  # of which W&B says that it has no effect

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Start the run, and give it its config."""
        import wandb

        if "WANDB_DATA_DIR" not in os.environ:
            # Where W&B copies files to until they are uploaded; by itself it takes the home folder.
            os.environ["WANDB_DATA_DIR"] = str((self._folder / "wandb").absolute())
            self._set_data_dir = True
        (self._folder / "wandb").mkdir(parents=True, exist_ok=True)
        if self._wandb_init["id"] is None and "WANDB_RUN_ID" not in os.environ:  # a trial of an agent has one
            self._wandb_init["id"] = self._saved_id()
        try:
            run = self.experiment
        except (wandb.Error, OSError) as error:
            raise ConfigError(
                f"logger=wandb: {' '.join(str(error).split())}. WANDB_MODE=offline keeps the run here"
            ) from error
        super().log_hyperparams({**params, "labels": self._labels})
        if run.offline:
            print(f"W&B: kept offline; to upload it: wandb sync {os.path.relpath(Path(run.dir).parent)}")
        else:
            print(f"W&B: {run.url}")

    def _saved_id(self) -> str:
        file = RunFolder(self._folder).wandb_id
        if not file.is_file():
            file.write_text(secrets.token_hex(4) + "\n")
        return file.read_text().strip()

    @rank_zero_only
    def log_results(self, results: Results) -> None:
        """Pictures, worst crystals, checkpoint, and the summary: the figures of the best checkpoint.

        W&B takes the last value logged for the summary, that of the last epoch; this overrules it.
        """
        import wandb

        run = self.experiment
        content: dict[str, Any] = {name: wandb.Image(str(file)) for name, file in results.images.items()}
        for name, rows in results.worst.items():
            content[name] = wandb.Table(columns=list(WORST_COLUMNS), data=[list(row) for row in rows])
        if content:
            run.log(content)
        if self._keeps_checkpoint:
            run.log_artifact(self._artifact(results), aliases=["best", self._folder.name[:64]])
        run.summary.update(results.summary)

    def _artifact(self, results: Results) -> Any:
        import wandb

        saved = load_checkpoint(results.checkpoint)
        kept = {key: saved[key] for key in ("state_dict", "hyper_parameters", "potnet")}
        kept["potnet"] = without_home(kept["potnet"])
        figures = {key: value for key, value in results.summary.items() if value is not None}
        artifact = wandb.Artifact(f"potnet-{self.experiment.id}", type="model", metadata=figures)
        with artifact.new_file(results.checkpoint.name, mode="wb") as file:
            torch.save(kept, file)
        return artifact

    @rank_zero_only
    def close(self, status: str) -> None:
        """End the run, so that the next one in this process is another."""
        if self._experiment is not None:
            self.experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None
        if self._set_data_dir:
            os.environ.pop("WANDB_DATA_DIR", None)
