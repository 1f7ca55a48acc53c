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


def predict_files(
    checkpoint: str,
    inputs: str | Sequence[str],
    output: str = "predictions.csv",
    on_error: Literal["raise", "skip"] = "skip",
    box: float | None = None,
    plausibility: Literal["refuse", "warn", "ignore"] = "refuse",
    batch_size: int = 64,
    max_memory_gib: float | None = None,
    device: str = "auto",
    allow: Sequence[str] = (),
) -> tuple[int, list[Any]]:
    """Predict files and write CSV, piece by piece, so memory does not grow with the number of crystals.

    What was predicted before an error or Ctrl-C is kept in the file.

    Args:
        checkpoint: See `potnet.load`.
        inputs: Files, folders, patterns.
        output: CSV file.
        on_error, box, plausibility, batch_size, max_memory_gib: See `Predictor.predict`.
        device, allow: See `potnet.load`.

    Returns:
        How many crystals were predicted, and a `Failure` for each input that could not be.
    """
    from potnet.data.features.featurizer import Failure
    from potnet.inference.predictions import CsvTable
    from potnet.inference.predictor import Predictor
    from potnet.runs.choice import choose_checkpoint

    choice = choose_checkpoint(checkpoint)
    for line in choice.lines():
        print(line, file=sys.stderr)
    predictor = Predictor.from_checkpoint(choice.file, device, allow)
    check_writable(Path(output))
    failures: list[Failure] = []
    flagged = 0
    with CsvTable(Path(output)) as table:
        for piece in predictor.tables(
            inputs, on_error, batch_size, box, plausibility, max_memory_gib, progress=True
        ):
            table.add(piece)
            failures += piece.failures
            flagged += sum(1 for flag in piece.flags if flag)
    targets = ", ".join(f"{key} in {t.unit}" if t.unit else key for key, t in predictor.targets.items())
    print(f"{table.rows} crystal{'' if table.rows == 1 else 's'}, {targets}: {output} (by {choice.file})")
    if flagged:
        verb = "is" if flagged == 1 else "are"
        print(f"{flagged} of them {verb} unlike the training crystals: see the column flags")
    return table.rows, failures


@entry_point("predict")
def main(config: DictConfig) -> None:
    """Predict as the command line says; the exit status is 1 if an input could not be used."""
    settings = plain(config)
    for name in ("checkpoint", "output"):
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
