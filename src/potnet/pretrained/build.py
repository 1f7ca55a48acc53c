"""Make an entry of a registry from finished runs.

    potnet register name=NAME 'runs=[RUN,...]' registry=FILE [key=value ...]

Examples
    potnet register name=k_vrh 'runs=[multirun/k/0,multirun/k/1]' registry=my/registry.yaml cards=my/cards
    potnet register name=gap 'runs=[runs/gap]' registry=my/registry.yaml ood=others.jsonl ood_atoms=21-40
    potnet predict x.cif model=k_vrh registry=my/registry.yaml

Writes, beside the registry, the members as safetensors and their calibration; the entry; and the card NAME.md
with a plot. The test part, which no member was trained on or chosen by, calibrates the intervals. Figures of
coverage are means over 20 divisions of it by formula, one half calibrating, the other tested.
"""  # fmt: skip

from __future__ import annotations

import datetime
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
import yaml

from potnet.config import ConfigError, did_you_mean
from potnet.data.table import places, texts_of
from potnet.files import file_hash, write_whole
from potnet.inference.ensemble import Calibration, Ensemble
from potnet.inference.flags import Reference, Surroundings
from potnet.inference.intervals import Intervals
from potnet.inference.local_errors import LocalErrors
from potnet.inference.predictor import Predictor
from potnet.pretrained import measure
from potnet.pretrained.card import write_card
from potnet.pretrained.outside import judge_outside, read_labelled
from potnet.pretrained.registry import is_name
from potnet.runs.checkpoint import export, find_checkpoint

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule

FLOOR = 0.1
"""Least scale of intervals, in parts of the median error of the validation part."""

TOLERANCE = 1e-3
"""What storing weights with fewer digits may change predictions by, in parts of the test MAE."""

WEIGHTS_LICENCE = "MIT"


def build_entry(
    name: str,
    runs: Sequence[str],
    registry: str | Path,
    title: str = "",
    target: str | None = None,
    cards: str | Path | None = None,
    data: str | Path | None = None,
    cache_dir: str | None = None,
    aliases: Sequence[str] = (),
    train_crystals: int = 3000,
    command: Sequence[str] = (),
    finetune_member: int = 0,
    notes: str = "",
    device: str = "auto",
    licence: str = "",
    citation: str = "",
    data_name: str = "",
    ood: str | Path | None = None,
    ood_label: str | None = None,
    ood_where: str | None = None,
    ood_atoms: tuple[int, int] | None = None,
    ood_title: str = "",
) -> dict[str, Any]:
    """Export members, calibrate, measure, and write the entry and the card.

    Args:
        name: Of the model.
        runs: Folders of runs or checkpoints, one a member, that learned one target on the same split.
        registry: Its file; other entries are kept.
        title: For people; by default that of the target.
        target: The one that the model predicts, where the runs learned several.
        cards: Folder of the card; by default that of the registry.
        data: The file of the data, where it is no longer where the first run had it.
        cache_dir: Of features.
        aliases: Further names.
        train_crystals: How many training crystals the training error and the distance to them are taken from.
        command: That trained the members; for the card.
        finetune_member: The member that fine-tuning begins with, counted from 0.
        notes: Markdown, for the card: what the model is not for, besides what is said there anyway.
        device: See `potnet.load`.
        licence, citation, data_name: Of the data, where their source does not state them.
        ood: A table of crystals of another kind with labels, on which flags and intervals are tried; see
            `read_labelled`. Crystals whose formula is in the data of the model are left out.
        ood_label: Column of the label there; by default the key of the target.
        ood_where: Which rows of it.
        ood_atoms: Fewest and most atoms, 21-40.
        ood_title: What these crystals are, for the card.

    Returns:
        The entry.

    Raises:
        ConfigError: Runs that cannot be one model.
    """
    if not is_name(name):
        raise ConfigError(f"name={name}: give letters, digits and _")
    if not runs:
        raise ConfigError("runs=[]: give at least one run")
    if not 0 <= finetune_member < len(runs):
        raise ConfigError(f"finetune_member={finetune_member}: give 0 to {len(runs) - 1}, one of the runs")
    registry = Path(registry)
    registry.parent.mkdir(parents=True, exist_ok=True)
    members = [Predictor.from_checkpoint(run, device, target=target) for run in runs]
    ensemble = Ensemble(members, name=name)
    if len(ensemble.targets) > 1 or ensemble._with_spread != list(ensemble.targets):
        given = ", ".join(ensemble.targets)
        raise ConfigError(
            f"name={name}: a shipped model predicts one number a crystal: give target=, of {given}"
        )
    predicted = ensemble.targets.first
    key = predicted.key
    hashes = {str(member.record.get("split_hash")) for member in members}
    if len(hashes) > 1:
        raise ConfigError(
            f"runs: members were trained on {len(hashes)} splits, so that no crystal is new to all of them"
        )
    module = _data(runs[0], ensemble, data, cache_dir)
    parts = {
        part: measure.predictions(ensemble, module, part, key, train_crystals if part == "train" else None)
        for part in ("train", "val", "test")
    }
    figures: dict[str, Any] = {part: measure.errors(found) for part, found in parts.items()}
    files, dtype = _export(name, runs, registry.parent, parts["test"], module, key, device)

    test = parts["test"]
    formulas = _formulas(test, module)
    train = parts["train"]
    values = predicted.physical(torch.from_numpy(train.label)).tolist()
    known = [
        Reference(id, formula, float(f"{value:.4g}"))
        for id, formula, value in zip(train.ids, _formulas(train, module), values, strict=True)
    ]
    held_out = torch.cat([parts["val"].embedding, test.embedding])
    surroundings = Surroundings.fit(train.embedding, held_out, known=known)
    local = LocalErrors.fit(surroundings.places(parts["val"].embedding), parts["val"].error)
    calibration = Calibration(
        {},
        surroundings,
        _domain(module),
        {"split_hash": hashes.pop(), "part": "test", "crystals": int(np.isfinite(test.label).sum())},
        {key: local},
    )
    floor = FLOOR * float(local.errors.median()) or 1e-9
    hard = calibration.difficulty(key, test.spread, test.embedding)
    intervals = Intervals.fit(test.label, test.mean, hard, floor)
    calibration.intervals[key] = intervals
    calibration_file = registry.parent / f"{name}.calibration.safetensors"
    calibration.save(calibration_file)

    outside: dict[str, Any] = {}
    if ood is not None:
        trained = set(module.store.table.texts["formula"].to_pylist())
        others = read_labelled(ood, key, ood_label, ood_where, ood_atoms, trained)
        outside = {
            "title": ood_title or Path(ood).name,
            **judge_outside(Ensemble(members, calibration, name), others),
        }
    sigma = measure.last_layer(parts["train"], parts["val"], test)
    reliability = measure.judged(test, formulas, floor, sigma=sigma, difficulty=hard)
    source = module.source
    entry = {
        "title": title or predicted.title,
        "aliases": list(aliases),
        "target": key,
        "unit": predicted.unit,
        "learned_unit": predicted.learned_unit,
        "members": [{"file": file.name, "sha256": file_hash(file)} for file in files],
        **({"finetune_member": finetune_member} if finetune_member else {}),
        "calibration": {"file": calibration_file.name, "sha256": file_hash(calibration_file)},
        "weights": dtype,
        "data": {
            "name": data_name or source.name,
            "content_hash": source.content_hash(),
            "split_hash": module.split.hash(),
            "sizes": module.split.sizes,
            "licence": licence or str(getattr(source, "licence", "")),
            "citation": citation or str(getattr(source, "citation", "")),
        },
        "licence": WEIGHTS_LICENCE,
        "figures": {
            **figures,
            **{k: v for k, v in reliability.items() if k not in ("classes", "curve")},
            **({"outside": outside} if outside else {}),
        },
        "date": datetime.date.today().isoformat(),
        "command": list(command),
    }
    _write(registry, name, entry)
    write_card(
        Path(cards or registry.parent), name, entry, reliability["classes"], measure.errors_by_element(test),
        measure.errors_by_size(test), test, intervals.half_width(hard, 0.9), reliability["curve"]["coverage"],
        notes, _costs(runs), members[0],
    )  # fmt: skip
    return entry


def _data(run: str, ensemble: Ensemble, path: str | Path | None, cache_dir: str | None) -> CrystalDataModule:
    """The data and split of a run, set up."""
    from potnet.evaluate import data_config
    from potnet.training.setup import build_data, quieten

    quieten()
    record = ensemble.record
    config = {**record["config"], "data": data_config(find_checkpoint(run), record["config"]["data"], ())}
    if cache_dir is not None:
        config["data"]["cache_dir"] = cache_dir
    if path is not None:
        config["data"]["source"] = {**config["data"]["source"], "path": str(Path(path).absolute())}
    module = build_data(config, ensemble.model)
    module.prepare_data()
    module.setup()
    if module.split.hash() != record["split_hash"]:
        raise ConfigError(
            f"{run}: the data are no longer split as in training: restore them, or give data=FILE"
        )
    return module


def _export(
    name: str,
    runs: Sequence[str],
    folder: Path,
    test: measure.Part,
    module: CrystalDataModule,
    key: str,
    device: str,
) -> tuple[list[Path], str]:
    """Members as safetensors, in half precision where predictions of the test part stay what they were."""
    mae = float(np.nanmean(test.error))
    files = [folder / f"{name}.{number}.safetensors" for number in range(len(runs))]
    for dtype in ("float16", "bfloat16", "float32"):
        for run, file in zip(runs, files, strict=True):
            export(run, file, dtype, key)
        if dtype == "float32":
            break
        again = measure.predictions(Ensemble.from_files(files, device=device), module, "test", key, 200)
        row = {id: number for number, id in enumerate(test.ids)}
        before = test.take(np.array([row[id] for id in again.ids]))
        change = float(np.abs(again.mean - before.mean).mean())
        print(f"{dtype}: predictions change by {change / mae:.1e} of the test MAE", file=sys.stderr)
        if change <= TOLERANCE * mae:
            break
    return files, dtype


def _formulas(part: measure.Part, module: CrystalDataModule) -> list[str]:
    """The reduced formula of each crystal of a part."""
    table = module.store.table
    rows = places(texts_of(part.ids), table.ids)
    return table.texts["formula"].take(pa.array(rows)).to_pylist()


def _domain(module: CrystalDataModule) -> dict[str, Any]:
    from potnet.data.features.domain import training_domain

    found = training_domain(module.store, module.dataset("train").rows)
    return {**found, "elements": {str(z): n for z, n in found["elements"].items()}}


def _costs(runs: Sequence[str]) -> list[float]:
    """Seconds that each run trained, where its folder says so."""
    from potnet.runs.folder import RunFolder

    found = []
    for run in runs:
        path = Path(run)
        metrics = RunFolder(path).metrics() if path.is_dir() else None
        seconds = ((metrics or {}).get("seconds") or {}).get("train")
        if seconds:
            found.append(float(seconds))
    return found


def _write(registry: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Put an entry into a registry file; the others stay."""
    content = yaml.safe_load(registry.read_text(encoding="utf-8")) if registry.is_file() else {}
    content = {**(content or {}), name: dict(entry)}
    head = "# Trained models, one entry each, written by `potnet register`.\n"
    write_whole(registry, head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))


KEYS = (
    *("name", "runs", "target", "title", "registry", "cards", "data", "cache_dir", "aliases"),
    *("train_crystals", "device", "notes", "command", "finetune_member"),
    *("licence", "citation", "data_name"),
    *("ood", "ood_label", "ood_where", "ood_atoms", "ood_title"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `potnet register`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        arguments_of = (build_entry.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
        print(f"{__doc__}\nKeys\n{textwrap.indent(textwrap.dedent(arguments_of), '    ')}")
        return 0
    settings: dict[str, Any] = {}
    try:
        for word in words:
            key, equals, value = word.partition("=")  # ood_where='a=="b"' has more of them
            if not equals or key not in KEYS:
                raise ConfigError(f"unknown argument {word}{did_you_mean(key, KEYS)}")
            settings[key] = _value(key, value)
        for key in ("name", "runs", "registry"):
            if key not in settings:
                raise ConfigError(f"missing key {key}: give {key}=VALUE")
        entry = build_entry(**settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    figures = entry["figures"]
    held = figures["conformal"]["coverage"][0.9]
    print(f"{settings['name']}: test MAE {figures['test']['mae']} {entry['learned_unit']}, members "
          f"{figures['test']['members_mae']}; 90 % intervals hold {100 * held:.1f} %")  # fmt: skip
    return 0


def _value(key: str, value: str) -> Any:
    if key in ("runs", "aliases", "command"):
        inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        separator = ";" if key == "command" else ","
        return [entry.strip() for entry in inner.split(separator) if entry.strip()]
    if key == "ood_atoms":
        low, dash, high = value.partition("-")
        if not (low.isdigit() and dash and high.isdigit()):
            raise ConfigError(f"ood_atoms={value}: give fewest and most, such as 21-40")
        return int(low), int(high)
    return int(value) if key in ("train_crystals", "finetune_member") else value


if __name__ == "__main__":
    sys.exit(main())
