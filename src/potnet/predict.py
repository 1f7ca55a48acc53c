"""Predict crystals in files: `python -m potnet.predict --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from potnet.config import entry_point, plain
from potnet.files import check_writable

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("predict")
def main(config: DictConfig) -> None:
    """Predict as the command line says; the exit status is 1 if an input could not be used."""
    settings = plain(config)

    from potnet.inference.predictor import Predictor
    from potnet.runs.checkpoint import find_checkpoint

    output = Path(settings.pop("output"))
    checkpoint = find_checkpoint(settings.pop("checkpoint"))
    predictor = Predictor.from_checkpoint(checkpoint, settings.pop("device"))
    check_writable(output)
    result = predictor.predict(**settings, progress=True)
    result.to_csv(output)
    what = ", ".join(f"{key} in {t.unit}" if t.unit else key for key, t in result.targets.items())
    print(f"{len(result)} crystals, {what}: {output} (by {checkpoint})")
    if result.failures:
        print(f"{len(result.failures)} could not be predicted:", file=sys.stderr)
        for failure in result.failures:
            reason = failure.reason if failure.id in failure.reason else f"{failure.id}: {failure.reason}"
            print(f"  {reason}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
