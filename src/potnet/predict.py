"""Predict crystals in files: `potnet predict --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potnet.config import ConfigError, check_arguments, entry_point, plain
from potnet.files import check_writable

if TYPE_CHECKING:
    from omegaconf import DictConfig

NO_CSV = (".parquet", ".pq", ".xlsx", ".xls", ".json", ".jsonl", ".feather", ".h5", ".db", ".pkl", ".gz")
"""Endings of files of other kinds."""


def predict_files(
    checkpoint: str | None = None,
    inputs: str | Sequence[str] = (),
    output: str | None = None,
    on_error: Literal["raise", "skip"] = "skip",
    box: float | None = None,
    plausibility: Literal["refuse", "warn", "ignore"] = "refuse",
    batch_size: int = 64,
    max_memory_gib: float | None = None,
    device: str = "auto",
    allow: Sequence[str] = (),
    models: str | Sequence[str] | None = None,
    registry: str | None = None,
    level: float = 0.9,
) -> tuple[int, list[Any]]:
    """Predict files and write a table, piece by piece, so memory does not grow with the number of crystals.

    What was predicted before an error or Ctrl-C is kept in the file.

    Args:
        checkpoint: A file or folder, see `potnet.load`; or `models` is given.
        inputs: Files, folders, patterns.
        output: CSV file; None prints the table.
        on_error, box, plausibility, batch_size, max_memory_gib: See `Predictor.predict`.
        device, allow, registry: See `potnet.load`.
        models: Names of models, or paths; with neither of the two, all models of the registry.
        level: Of the intervals.

    Returns:
        How many crystals were predicted, and a `Failure` for each input that could not be.

    Raises:
        ConfigError: Both `checkpoint` and `models`, or neither and no model in the registry.
    """
    from potnet.data.features.featurizer import Failure
    from potnet.inference.predictions import CsvTable, PrintedTable

    predictor, by = chosen_model(checkpoint, models, registry, device, allow)
    if output is not None:
        if Path(output).suffix.lower() in NO_CSV:
            raise ConfigError(
                f"output={output}: predictions are written as CSV; give a name that ends in .csv (Parquet: "
                "potnet screen, or to_dataframe().to_parquet(...) from Python)"
            )
        check_writable(Path(output))
    failures: list[Failure] = []
    flagged, intervals = 0, False
    with PrintedTable() if output is None else CsvTable(Path(output)) as table:
        for piece in predictor.tables(
            inputs, on_error, batch_size, box, plausibility, max_memory_gib, progress=True, level=level
        ):
            table.add(piece)
            intervals = intervals or any(name.endswith("lower") for name in piece.columns)
            failures += piece.failures
            flagged += sum(1 for flag in piece.flags if flag)
    targets = ", ".join(f"{key} in {t.unit}" if t.unit else key for key, t in predictor.targets.items())
    place = "" if output is None else f": {output}"
    print(f"{table.rows} crystal{'' if table.rows == 1 else 's'}, {targets}{place} (by {by})")
    if output is None and intervals and table.rows:
        print(f"in brackets: {100 * level:g} % intervals; with output=FILE.csv also the standard deviation")
    if flagged:
        verb = "is" if flagged == 1 else "are"
        print(f"{flagged} of them {verb} unlike the training crystals: see the column flags")
    return table.rows, failures


def chosen_model(
    checkpoint: str | None,
    model: str | Sequence[str] | None,
    registry: str | None,
    device: str,
    allow: Sequence[str],
) -> tuple[Any, str]:
    """The model to predict with, and what it is called."""
    from potnet.api import load
    from potnet.pretrained.registry import SHIPPED, Registry, is_name
    from potnet.runs.choice import choose_checkpoint

    if checkpoint is not None and model is not None:
        raise ConfigError(f"checkpoint={checkpoint} model={model}: give one of the two")
    if checkpoint is not None and is_name(checkpoint) and checkpoint in Registry(registry or SHIPPED):
        checkpoint, model = None, checkpoint
    if checkpoint is not None:
        choice = choose_checkpoint(checkpoint)
        for line in choice.lines():
            print(line, file=sys.stderr)
        return load(choice.file, device, allow), str(choice.file)
    names = (
        [model] if isinstance(model, str) else list(Registry(registry or SHIPPED) if model is None else model)
    )
    if not names:
        raise ConfigError(
            f"there are no models in {registry or 'this installation'}: train one, and give "
            "checkpoint=RUN_OR_FILE"
        )
    return load(names, device, allow, registry), ", ".join(names)


@entry_point("predict")
def main(config: DictConfig) -> None:
    """Predict as the command line says; the exit status is 1 if an input could not be used."""
    settings = plain(config)
    for name in ("checkpoint", "output", "registry"):
        if settings[name] is not None:
            settings[name] = path_setting(name, settings[name])
    inputs = settings["inputs"]
    settings["inputs"] = (
        [path_setting("inputs", entry) for entry in inputs]
        if isinstance(inputs, list)
        else path_setting("inputs", inputs)
    )
    check_arguments(predict_files, settings)
    _, failures = predict_files(**settings)
    if failures:
        print(f"{len(failures)} could not be predicted:", file=sys.stderr)
        for failure in failures:
            reason = failure.reason if failure.id in failure.reason else f"{failure.id}: {failure.reason}"
            print(f"  {reason}", file=sys.stderr)
        sys.exit(1)


def path_setting(name: str, value: Any) -> str:
    """A path given on the command line, where 2024 is read as a number.

    Raises:
        ConfigError: It is none, or more than one.
    """
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ConfigError(f"{name}={value}: give one path")


if __name__ == "__main__":
    main()
