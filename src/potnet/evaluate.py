"""Evaluate a trained model again: `python -m potnet.evaluate --help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, did_you_mean, entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from potnet.runs.evaluation import Evaluation


def evaluate_checkpoint(
    checkpoint: str | Path,
    parts: list[str],
    cache_dir: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> list[Evaluation]:
    """Predict the data and split a model was trained with.

    Args:
        checkpoint: A checkpoint file, the folder of a run, or one that holds runs (the newest is taken).
        parts: Any of "train", "val", "test".
        cache_dir: Of the features; None takes the default.
        batch_size: None takes that of the run, with which the figures are the same to the last digit.
        device: "cpu", "cuda", ..., or "auto".

    Raises:
        CheckpointError: The checkpoint cannot be used, or the data are no longer those of the run.
        ConfigError: An unknown part or device.
    """
    from potnet.data.table import PARTS
    from potnet.inference.predictor import Predictor
    from potnet.runs.checkpoint import CheckpointError
    from potnet.runs.evaluation import evaluate
    from potnet.training.setup import build_data, quieten

    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"parts: unknown part {part}{did_you_mean(part, PARTS)}")
    quieten()
    predictor = Predictor.from_checkpoint(checkpoint, device)
    config: dict[str, Any] = dict(predictor.record["config"])
    config["data"] = {**config["data"], "cache_dir": cache_dir}
    if batch_size is not None:
        config["data"]["batch_size"] = batch_size
    data = build_data(config, predictor.model)
    data.prepare_data()
    data.setup()
    if data.split.hash() != predictor.record["split_hash"]:
        raise CheckpointError(
            f"{checkpoint}: {data.source.name} is no longer split as in the training run, so the test "
            "would not be fair: restore the data it was trained on"
        )
    return evaluate(predictor, data, parts)


@entry_point("evaluate")
def main(config: DictConfig) -> None:
    """Evaluate as the command line says."""
    settings = plain(config)

    from potnet.files import check_writable
    from potnet.runs.checkpoint import find_checkpoint
    from potnet.runs.evaluation import print_table, write_predictions

    output = settings.pop("output")
    settings["checkpoint"] = find_checkpoint(settings["checkpoint"])
    if output is not None:
        check_writable(Path(output))
    evaluations = evaluate_checkpoint(**settings)
    print_table(str(settings["checkpoint"]), evaluations)
    if output is not None:
        write_predictions(Path(output), evaluations)
        print(f"predictions  {output}")


if __name__ == "__main__":
    main()
