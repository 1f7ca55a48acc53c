"""`potnet COMMAND ...`: one command over the entry points. `potnet --help` lists them.

To add one: a line in `COMMANDS`, a module with `main()`, and where it has a configuration conf/NAME.yaml and
its help, conf/hydra/help/NAME.yaml. Nothing is imported before it is known which command is meant.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: Has `main()`, which reads `sys.argv` and may return an exit status.
        summary: One line for `potnet --help`.
        example: One command line.
    """

    module: str
    summary: str
    example: str


COMMANDS = {
    "train": Command(
        "potnet.train",
        "train a network, evaluate it, keep all in one folder",
        "experiment=mp_bulk_modulus",
    ),
    "predict": Command("potnet.predict", "predict crystals in files", "structures/*.cif model=k_vrh,gap"),
    "finetune": Command(
        "potnet.finetune",
        "train a network that begins with another one's weights",
        "my.csv --from=formation_energy --target=gap --unit=eV",
    ),
    "evaluate": Command("potnet.evaluate", "repeat the test of a trained model", "runs/mp_bulk_modulus"),
    "screen": Command(
        "potnet.screen",
        "predict very many crystals, in processes or on a cluster",
        "source=candidates/ output=out/ model=k_vrh",
    ),
    "serve": Command("potnet.serve", "a local page: drop a CIF, see what is predicted", "model=k_vrh"),
    "export": Command(
        "potnet.export", "weights alone, as one safetensors file", "runs/mp_bulk_modulus output=k.safetensors"
    ),
    "relax": Command(
        "potnet.relax", "relax structures with a force field", "POSCAR checkpoint=runs/mlearn_Si"
    ),
    "md": Command(
        "potnet.md", "molecular dynamics with a force field", "POSCAR checkpoint=runs/mlearn_Si time=10"
    ),
    "elastic": Command(
        "potnet.elastic", "elastic constants of a force field", "POSCAR checkpoint=runs/mlearn_Si"
    ),
    "phonons": Command(
        "potnet.phonons", "phonons and heat capacity of a force field", "POSCAR checkpoint=runs/mlearn_Si"
    ),
    "rank": Command(
        "potnet.rank",
        "rank structures by energy or by what a committee of force fields disputes",
        "candidates.extxyz checkpoint=[runs/a,runs/b]",
    ),
    "report": Command("potnet.report", "tables and plots of runs and sweeps", "multirun/mp_bulk_modulus"),
    "wandb_report": Command(
        "potnet.wandb_report", "a report in W&B, of runs that are there", "entity=me group=baselines by=model"
    ),
    "register": Command(
        "potnet.pretrained.build",
        "make a model with intervals from trained runs, for a registry of yours",
        "name=mine 'runs=[runs/a,runs/b]' registry=my/registry.yaml",
    ),
    "data": Command("potnet.data.__main__", "prepare data sets; list, verify or clear the cache", "list"),
    "completion": Command("potnet.completion", "print the completion of this command for a shell", "bash"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `potnet`; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        _print(overview())
        return 0 if words else 2
    name, *rest = words
    if name in ("-V", "--version"):
        from potnet import __version__

        _print(f"potnet {__version__}\n")
        return 0
    if name not in COMMANDS:
        from potnet.config.suggest import did_you_mean

        print(f"error: unknown command {name}{did_you_mean(name, COMMANDS)}", file=sys.stderr)
        return 2
    # As python -m does: classes of the user's, model._target_=mynet.Net, are found in the working folder.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.argv = [f"potnet {name}", *rest]
    status = importlib.import_module(COMMANDS[name].module).main()
    return int(status or 0)


def overview() -> str:
    """What `potnet --help` prints."""
    lines = ["Properties of crystals from their structure.", "", "  potnet COMMAND [...]", "", "Commands"]
    width = max(map(len, COMMANDS))
    lines += [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "Examples"]
    lines += [f"  potnet {name} {command.example}" for name, command in COMMANDS.items()]
    lines += ["", "potnet COMMAND --help says more; potnet --version prints the version."]
    return "\n".join(lines) + "\n"


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # as in `potnet --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
