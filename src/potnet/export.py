"""Write the weights of a checkpoint as safetensors: `potnet export --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potnet.config import entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("export")
def main(config: DictConfig) -> None:
    """Export as the command line says."""
    settings = plain(config)

    from potnet.predict import path_setting
    from potnet.runs.checkpoint import export
    from potnet.runs.choice import choose_checkpoint

    choice = choose_checkpoint(path_setting("checkpoint", settings["checkpoint"]))
    for line in choice.lines():
        print(line)
    output = settings["output"]
    output = None if output is None else path_setting("output", output)
    file = export(choice.file, output, str(settings["dtype"]), settings["only"])
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB (of {choice.file})")


if __name__ == "__main__":
    main()
