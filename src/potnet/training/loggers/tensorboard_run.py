"""A run in TensorBoard."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from potnet.runs.evaluation import WORST_COLUMNS
from potnet.training.loggers.common import Results


class TensorBoardRun(TensorBoardLogger):
    """Lightning's logger with the final figures, pictures and worst crystals of the run.

    Args:
        save_dir: Folder of the run; the events lie in its folder "tensorboard".
        **settings: Of Lightning's `TensorBoardLogger`.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
    """

    def __init__(self, save_dir: str, **settings: Any) -> None:
        super().__init__(save_dir, name="tensorboard", version="", default_hp_metric=False, **settings)

    @rank_zero_only
    def log_results(self, results: Results) -> None:
        """Final figures as "final/...", so that they do not end the curves by epoch."""
        from matplotlib.image import imread

        numbers = {key: value for key, value in results.summary.items() if isinstance(value, int | float)}
        self.log_metrics({f"final/{key}": float(value) for key, value in numbers.items()})
        for name, file in results.images.items():
            self.experiment.add_image(name, imread(file)[..., :3], dataformats="HWC")
        for name, crystals in results.worst.items():
            rows = [WORST_COLUMNS, ["---"] * len(WORST_COLUMNS), *crystals]
            text = "\n".join("| " + " | ".join(map(_short, row)) + " |" for row in rows)
            self.experiment.add_text(name, text)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
