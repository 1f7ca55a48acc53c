"""Evaluate a trained model again: `potnet evaluate --help`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, check_arguments, did_you_mean, entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def evaluate_checkpoint(
    checkpoint: str | Path,
    parts: Sequence[str] = ("val", "test"),
    cache_dir: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    path: str | None = None,
    allow: Sequence[str] = (),
    by: str | None = None,
) -> list[Any]:
    """Predict the data and split a model was trained with.

    Args:
        checkpoint: See `potnet.load`.
        parts: Any of "train", "val", "test".
        cache_dir: Of the features; None takes that of the run, or the default if it has none.
        batch_size: None takes that of the run, with which the figures are the same to the last digit.
        device: "cpu", "cuda", ..., or "auto".
        path: Where the data are now, if they were moved; None takes the place in the run's config.yaml.
        allow: Classes outside of potnet that the checkpoint and the run's config may build.
        by: Column of the data, such as `set`: figures of each of its values.

    Returns:
        An `Evaluation` for each part, group and target.

    Raises:
        CheckpointError: The checkpoint cannot be used, or the data are no longer those of the run.
        ConfigError: An unknown part or device, or a class that may not be built.
        DataError: `by` is no column of the data, or has too many values.
    """
    from potnet.config.trusted import check_trusted
    from potnet.data.errors import DataError
    from potnet.data.table import PARTS
    from potnet.inference.predictor import Predictor
    from potnet.runs.checkpoint import CheckpointError, find_checkpoint
    from potnet.runs.evaluation import evaluate
    from potnet.training.setup import build_data, quieten

    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"parts: unknown part {part}{did_you_mean(part, PARTS)}")
    quieten()
    file = find_checkpoint(checkpoint)
    predictor = Predictor.from_checkpoint(file, device, allow)
    record = predictor.record
    if "data" not in record["config"]:
        raise CheckpointError(
            f"{file}: it does not say where its data came from, as it was not trained by potnet train; use "
            "trainer.test(module, datamodule=data)"
        )
    config = {**record["config"], "data": data_config(file, record["config"]["data"], allow)}
    config["data"]["cache_dir"] = cache_dir or config["data"].get("cache_dir")
    if batch_size is not None:
        config["data"]["batch_size"] = batch_size
    if path is not None:
        config["data"]["source"] = {**config["data"]["source"], "path": path}
    check_trusted({key: config[key] for key in ("data", "features") if key in config}, allow)
    data = build_data(config, predictor.model)
    try:
        content = data.source.content_hash()
    except DataError as error:
        if path is not None:
            raise
        raise CheckpointError(f"{file}: {error}. Say where the data of the run are now: path=FILE") from error
    if content != record["content_hash"]:
        raise CheckpointError(
            f"{file}: {data.source.name} is not what the run was trained on: structures or labels "
            "have changed since, so its figures would be others. Restore the data, or say where they are: "
            "path=FILE"
        )
    data.prepare_data()
    data.setup()
    if data.split.hash() != record["split_hash"]:
        raise CheckpointError(
            f"{file}: {data.source.name} is no longer split as in the training run, so the test "
            "would not be fair: restore the data it was trained on"
        )
    return evaluate(predictor, data, parts, by)


def data_config(checkpoint: Path, recorded: Mapping[str, Any], allow: Sequence[str]) -> dict[str, Any]:
    """The settings of the data, with places if the checkpoint lies in the folder of its run.

    A checkpoint names no places of the machine that it was made on; the run's config.yaml does.
    """
    from potnet.config.trusted import read_saved_config
    from potnet.runs.folder import RunFolder
    from potnet.runs.record import portable
    from potnet.runs.upgrade import renamed

    run = RunFolder.containing(checkpoint)
    if run.is_run():
        saved = read_saved_config(run.config, allow, renamed)["data"]
        if portable(saved) == portable(recorded):
            return dict(saved)
    return dict(recorded)


@entry_point("evaluate")
def main(config: DictConfig) -> None:
    """Evaluate as the command line says."""
    settings = plain(config)

    from potnet.files import check_writable
    from potnet.predict import path_setting
    from potnet.runs.choice import choose_checkpoint
    from potnet.runs.evaluation import print_table, write_predictions

    output = settings.pop("output")
    settings["checkpoint"] = path_setting("checkpoint", settings["checkpoint"])
    for name in ("path", "cache_dir"):
        if settings[name] is not None:
            settings[name] = path_setting(name, settings[name])
    if isinstance(settings["parts"], str):
        settings["parts"] = [settings["parts"]]
    check_arguments(evaluate_checkpoint, settings)
    choice = choose_checkpoint(settings["checkpoint"])
    for line in choice.lines():
        print(line)
    settings["checkpoint"] = str(choice.file)
    if output is not None:
        output = Path(path_setting("output", output))
        check_writable(output)
    evaluations = evaluate_checkpoint(**settings)
    print_table(str(choice.file), evaluations)
    if output is not None:
        write_predictions(output, evaluations)
        print(f"predictions  {output}")


if __name__ == "__main__":
    main()
