"""Fine-tune a trained network on labels of your own: `potnet finetune --help`.

    potnet finetune my.csv --from=formation_energy --target=gap --unit=eV

is `potnet train` with the data, target and split that this means, and `finetune.from`; words of that command
may follow.
"""  # fmt: skip

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potnet.config.errors import ConfigError
from potnet.config.suggest import did_you_mean

HELP = """\
Fine-tune a trained network on labels of your own.

  potnet finetune DATA --from=NAME_OR_RUN --target=COLUMN [--unit=UNIT] [key=value ...]

Examples
  potnet finetune my.csv --from=formation_energy --target=gap --unit=eV
  potnet finetune my.csv --from=runs/pretrained --target=bulk --unit=GPa --transform=log10
  potnet finetune structures/ --from=k_vrh --target=hardness --unit=GPa --folds=5 trainer.max_epochs=30
  potnet finetune my.csv --from=formation_energy --target=bulk,gap --unit=GPa,eV --transform=log10,none
  potnet finetune my.csv --from=gap --target=is_metal --classes=no,yes --freeze=atom_embedding,edge_embedding

DATA is a table (CSV, JSON lines, Parquet, extended XYZ, ASE database) or a folder with id_prop.csv:
docs/data.md. The network, its features and its elements are those of the source; the head is new.

  --from=       name of a model of `potnet predict`, a run's folder, or a checkpoint
  --target=     column that is learned, or several by commas: a crystal may lack some of them
  --unit=       of its values; of several columns one for all, or one each
  --transform=  none or log10; likewise
  --classes=    names of classes, for a column of classes
  --folds=N     cross-validation, for small sets: N runs, whose mean and spread the report shows
  --rate=       learning rate of the weights that are taken over, as a factor (1)
  --freeze=     parts that are not trained

Everything else is as for `potnet train`: see `potnet train --help`. At least 20 labelled crystals are needed.
"""

OPTIONS = ("from", "target", "unit", "transform", "classes", "folds", "rate", "freeze")


def train_words(arguments: Sequence[str]) -> list[str]:
    """The words of `potnet train` that a command line means.

    Raises:
        ConfigError: Something is missing, unknown, or given twice.
    """
    given: dict[str, str] = {}
    data: list[str] = []
    rest: list[str] = []
    for word in arguments:
        option = re.fullmatch(r"(?:--)?([a-z]+)=(.*)", word, re.DOTALL)
        if option and option[1] in OPTIONS and (word.startswith("--") or option[1] != "target"):
            given[option[1]] = option[2]
        elif word.startswith("--") and option:
            raise ConfigError(f"unknown option --{option[1]}{did_you_mean(option[1], OPTIONS, '--')}")
        elif "=" in word or word.startswith("-"):
            rest.append(word)
        else:
            data.append(word)
    if len(data) != 1:
        raise ConfigError(
            f"give one file or folder of labelled crystals, got {len(data)}: potnet finetune --help"
        )
    for name in ("from", "target"):
        if not given.get(name):
            raise ConfigError(f"missing --{name}: potnet finetune --help")
    if not Path(data[0]).exists():
        raise ConfigError(f"{data[0]}: no such file or folder (working folder: {Path.cwd()})")
    keys = [key.strip() for key in given["target"].split(",") if key.strip()]
    repeated = [key for number, key in enumerate(keys) if key in keys[:number]]
    if repeated or not keys:
        what = f"{repeated[0]} is named twice" if repeated else "no column is named"
        raise ConfigError(f"--target={given['target']}: {what}; give each column once")
    words = [
        f"data={'folder' if Path(data[0]).is_dir() else 'table'}",
        f"data.source.path={data[0]}",
        "data.on_missing=drop",
        f"name=finetuned_{'_'.join(keys)}",
        f"finetune.from={given['from']}",
        "optimizer.learning_rate=1e-3",
        "data.batch_size=16",  # so that few labels make some steps
        "trainer.max_epochs=100",
    ]
    words += _one_target(keys[0], given) if len(keys) == 1 else _several_targets(keys, given)
    if "rate" in given:
        words.append(f"finetune.rate={given['rate']}")
    if "freeze" in given:
        words.append(f"finetune.freeze=[{given['freeze']}]")
    if "folds" in given:
        folds = given["folds"]
        if not folds.isdigit() or int(folds) < 2:
            raise ConfigError(f"--folds={folds}: give 2 or more")
        numbers = ",".join(map(str, range(int(folds))))
        # Before all others: behind them Hydra takes what follows for something else.
        words = ["-m", *words]
        words += ["split=kfold", f"data.split.folds={folds}", f"data.split.fold={numbers}",
                  "data.split.by=formula"]  # fmt: skip
    elif not any(word.startswith("split=") for word in rest):
        words.append("split=formula")
    return [*words, *rest]


def _one_target(key: str, given: Mapping[str, str]) -> list[str]:
    for option in ("unit", "transform"):
        if "," in given.get(option, ""):
            raise ConfigError(f"--{option}={given[option]}: give one, as there is one --target, {key}")
    words = ["target=own", f"target.key={key}"]
    if "unit" in given:
        words.append(f"target.unit={given['unit']}")
    if "transform" in given:
        words.append(f"target.transform={given['transform']}")
    if "classes" in given:
        words += ["target.kind=classification", f"target.classes=[{given['classes']}]"]
    return words


def _several_targets(keys: Sequence[str], given: Mapping[str, str]) -> list[str]:
    """Columns of which a crystal may lack some; units and transforms one for all, or one each."""
    if "classes" in given:
        raise ConfigError("--classes goes with one --target: fine-tune on classes by themselves")
    words = ["target=columns"]
    for option in ("unit", "transform"):
        values = given[option].split(",") if option in given else []
        if len(values) not in (0, 1, len(keys)):
            raise ConfigError(
                f"--{option}={given[option]}: give one for all of {', '.join(keys)}, or {len(keys)}, one each"
            )
        words += [
            f"+target.{key}.{option}={value}"
            for key, value in zip(keys, values * len(keys) if len(values) == 1 else values, strict=False)
        ]
    return [*words, *(f"+target.{key}.on_missing=mask" for key in keys)]


def check_folds(words: Sequence[str]) -> None:
    """Refuse more folds of a cross-validation than there are formulas: every job would fail.

    Crystals are read until there are enough.

    Args:
        words: From `train_words`.

    Raises:
        ConfigError: There are too few.
        DataError: The data cannot be read.
    """
    number = next((word.partition("=")[2] for word in words if word.startswith("data.split.folds=")), None)
    if number is None:
        return
    from potnet.config import build, compose, plain
    from potnet.config.arguments import readable
    from potnet.data.targets import Targets

    one_job = [word for word in words if word != "-m" and not word.startswith("data.split.fold=")]
    try:
        config = plain(compose("train", readable("train", one_job)))
    except ConfigError:  # `potnet train` says what is wrong, or it is a word for Hydra, or a sweep
        return
    folds, by = (config["data"]["split"].get(key) for key in ("folds", "by"))
    if by != "formula" or not isinstance(folds, int):
        return
    columns = [target.column or key for key, target in Targets.from_config(config["target"]).items()]
    formulas: set[str] = set()
    for item in build(config["data"]["source"], "data.source").read("skip"):
        crystal = getattr(item, "crystal", None)  # not one that cannot be read
        if crystal is not None and any(_is_given(crystal.properties.get(column)) for column in columns):
            formulas.add(crystal.formula)
        if len(formulas) >= folds:
            return
    if formulas:  # else the column may be another one, and `potnet train` knows the nearest
        raise ConfigError(
            f"--folds={folds}: there are {len(formulas)} different formulas with a label, and those of one "
            "formula are in one fold; give fewer folds, or more data"
        )


def _is_given(label: Any) -> bool:
    return label is not None and str(label) not in ("", "nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or {"-h", "--help"} & set(words):
        print(HELP, end="")
        return 0 if words else 2
    from potnet.config.messages import message_of

    try:
        words = train_words(words)
        check_folds(words)
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1
    from potnet.train import main as train

    sys.argv = ["potnet finetune", *words]
    train()
    return 0


if __name__ == "__main__":
    sys.exit(main())
