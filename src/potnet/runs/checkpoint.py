"""Reading and checking checkpoints, and exporting them as weights alone. Nothing but plain data is unpickled.

A checkpoint (format 2) is what Lightning saves, plus a record under the key "potnet":

    state_dict           tensors: "model.*", "scalers.KEY.*"
    hyper_parameters     plain settings: model, targets, objective, optimizer
    potnet               format; config of the run without absolute paths; features; dataset, content_hash,
                         split_hash; versions; elements (table of element features); training (what was seen)
    (state of optimizer, loops and callbacks, for resuming)

An export is a .safetensors file with the tensors of the first, and the others as JSON in its header. Both
load with `load_checkpoint`, which brings older formats to this one (`potnet.runs.upgrade`).
"""  # fmt: skip

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potnet.files import write_whole
from potnet.runs.choice import find_checkpoint
from potnet.runs.errors import CheckpointError
from potnet.runs.folder import BEST, LAST
from potnet.runs.record import FORMAT, portable, versions
from potnet.runs.upgrade import upgrade

__all__ = [
    "BEST",
    "FORMAT",
    "LAST",
    "CheckpointError",
    "check_resumable",
    "export",
    "find_checkpoint",
    "load_checkpoint",
    "of_one_target",
    "versions",
]

WEIGHTS = ".safetensors"
"""Ending of an export."""

_PREFIXES = ("model.", "scalers.")
"""Names of the tensors that predicting needs."""

_TABLE = "elements.table"
"""Name of the table of element features among the tensors of an export."""


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint or an export onto the CPU, in the current format.

    Args:
        path: See `find_checkpoint`.

    Raises:
        CheckpointError: The file is missing, truncated, not a checkpoint, or of another program or version.
    """
    file = find_checkpoint(path)
    checkpoint = _read_export(file) if file.suffix == WEIGHTS else _read_pickle(file)
    record = checkpoint.get("potnet") if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise CheckpointError(f"{file}: not a checkpoint of potnet; give one written by `potnet train`")
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{file}: not a checkpoint of potnet, there are no weights in it")
    if record["format"] > FORMAT:
        raise CheckpointError(
            f"{file}: written by potnet {record.get('versions', {}).get('potnet', '?')}, which is newer than "
            "this one: upgrade potnet"
        )
    try:
        return upgrade(checkpoint)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file}: damaged, or not a checkpoint of potnet: {type(error).__name__} {error}"
        ) from error


def _read_pickle(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: not a checkpoint of potnet (it holds more than tensors and plain data, or is damaged); "
            "nothing in it was run"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        # EINVAL: a zip file that says of its parts that they begin before the file does.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
        raise CheckpointError(f"{file}: damaged or truncated; take another checkpoint of the run") from error


def _read_export(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as content:
            header = dict(content.metadata() or {})
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        settings = json.loads(header.get("potnet", "null"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file}: damaged or truncated ({error}); fetch it again") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file}: not an export of potnet; make one with `potnet export`")
    record = dict(settings.get("record") or {})
    if _TABLE in tensors:
        record["elements"] = {"table": tensors.pop(_TABLE)}
    weights = {
        name: tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
        for name, tensor in tensors.items()
    }
    return {
        "state_dict": weights,
        "hyper_parameters": settings.get("hyper_parameters"),
        "potnet": record,
    }


def of_one_target(checkpoint: dict[str, Any], target: str) -> dict[str, Any]:
    """The same network with the head of one of its targets alone.

    Args:
        checkpoint: What `load_checkpoint` gives.
        target: Its key.

    Raises:
        CheckpointError: The network has no such target.
    """
    targets = checkpoint["hyper_parameters"]["targets"]
    if target not in targets:
        raise CheckpointError(f"target={target}: the network predicts {', '.join(targets)}")
    parts = ("model.heads.", "scalers.")
    others = tuple(f"{part}{key}." for key in targets if key != target for part in parts)
    record, config = checkpoint["potnet"], dict(checkpoint["potnet"].get("config") or {})
    if len(targets) > 1 and target in (config.get("target") or {}):
        config["target"] = config["target"][target]
    return {
        **checkpoint,
        "state_dict": {
            name: value for name, value in checkpoint["state_dict"].items() if not name.startswith(others)
        },
        "hyper_parameters": {**checkpoint["hyper_parameters"], "targets": {target: targets[target]}},
        "potnet": {**record, "config": config},
    }


def export(
    path: str | Path, output: str | Path | None = None, dtype: str = "float32", target: str | None = None
) -> Path:
    """Write the weights of a checkpoint, and what is needed to predict with them, as one safetensors file.

    It has no state of the optimizer, nothing that is unpickled, and no path of the machine it was trained on.

    Args:
        path: See `find_checkpoint`.
        output: File to write, ending in .safetensors; None puts it beside the checkpoint.
        dtype: "float32", "float16" or "bfloat16": how the matrices of the network are stored. They are read
            back as float32. Vectors and heads stay float32, scalers float64.
        target: Of a network with several targets, the one to keep; None keeps all.

    Returns:
        The file.

    Raises:
        CheckpointError: The checkpoint cannot be read, the output has another ending, or there is no such
            target.
    """
    from safetensors.torch import save

    file = find_checkpoint(path)
    result = file.with_suffix(WEIGHTS) if output is None else Path(output)
    if result.suffix != WEIGHTS:
        raise CheckpointError(f"output={result}: the file must end in {WEIGHTS}")
    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in kinds:
        raise CheckpointError(f"dtype={dtype}: give one of {', '.join(kinds)}")
    checkpoint = load_checkpoint(file)
    if target is not None:
        checkpoint = of_one_target(checkpoint, target)
    record = dict(checkpoint["potnet"])
    tensors = {
        name: _stored(name, value, kinds[dtype])
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(_PREFIXES)
    }
    elements = record.pop("elements", None)
    if elements is not None:
        tensors[_TABLE] = elements["table"].contiguous()
    settings = {
        "record": {**record, "config": portable(record.get("config") or {})},
        "hyper_parameters": {key: checkpoint["hyper_parameters"][key] for key in ("model", "targets")},
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    write_whole(result, save(tensors, {"potnet": json.dumps(settings)}))
    return result


def _stored(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    # Biases, scales of norms and heads are few, and rounding them changes predictions most.
    small = name.startswith("model.") and value.ndim > 1 and not name.startswith("model.heads.")
    small = small and value.dtype == torch.float32
    return (value.to(dtype) if small else value).detach().contiguous().clone()


def check_resumable(path: str | Path) -> dict[str, Any]:
    """The checkpoint of a run that is to be continued, read before Lightning reads it.

    Raises:
        CheckpointError: It is missing, damaged, malicious, or of a format that has no state to continue from.
    """
    file = find_checkpoint(path, (LAST,))
    if file.suffix == WEIGHTS:
        raise CheckpointError(f"{file}: an export has weights alone: a run cannot be continued from it")
    checkpoint: Any = _read_pickle(file)
    record = checkpoint.get("potnet") if isinstance(checkpoint, dict) else None
    written = record.get("format") if isinstance(record, dict) else None
    if isinstance(written, int) and written < FORMAT:
        raise CheckpointError(
            f"{file}: written by an older potnet (format {written}): it can be evaluated and predicts, but "
            "cannot be continued. Start a new run"
        )
    return load_checkpoint(file)
