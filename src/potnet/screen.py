"""Predict very many crystals: `potnet screen --help`.

One process reads the crystals and hands out pieces of them, workers predict, and each piece becomes one
Parquet file, written whole and then renamed. What is there is not done again, so the same command goes on
where it stopped: no crystal is lost, and none is there twice.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, check_arguments, entry_point, plain
from potnet.files import replacing, write_whole

if TYPE_CHECKING:
    import pyarrow
    from omegaconf import DictConfig

    from potnet.crystals import Crystal
    from potnet.data.features.featurizer import Failure
    from potnet.inference.predictor import Predictor

MANIFEST = "screen.json"

FAILURE = "failure"
"""Column: why a crystal has no values; empty for all others."""

TRIES = 3
"""How often workers may die before a screening gives up."""


@dataclass(frozen=True)
class Piece:
    """Some crystals, in the order of the inputs, and the inputs between them that could not be read."""

    number: int
    crystals: list[Crystal]
    unread: list[Failure]


def screen(
    source: str | Sequence[str],
    output: str,
    models: str | Sequence[str] | None = None,
    registry: str | None = None,
    where: str | None = None,
    sort: str | None = None,
    best: int = 20,
    workers: int = 1,
    piece: int = 512,
    level: float = 0.9,
    device: str = "auto",
    box: float | None = None,
    plausibility: str = "refuse",
) -> list[dict[str, Any]]:
    """Predict all crystals of a source into a folder of Parquet files, and find the best.

    Args:
        source: Files, folders, patterns, as for `Predictor.predict`.
        output: Folder; what an earlier call has finished in it is kept.
        models: See `potnet.load`; None is all models of the registry.
        registry: See `potnet.load`.
        where: Condition on the columns, such as "k_vrh>200 and formation_energy_per_atom<0"; of the best
            alone.
        sort: Column by which the best are chosen, the largest first; "-NAME" the smallest first. None is the
            first target.
        best: How many.
        workers: Processes that predict.
        piece: Crystals of one Parquet file.
        level: Of intervals.
        device, box, plausibility: See `Predictor.predict`.

    Returns:
        The best rows.

    Raises:
        ConfigError: A setting that makes no sense, or a folder of another screening.
        RuntimeError: Workers died again and again; what is finished is kept.
    """
    from potnet.data.sources.where import Where
    from potnet.inference.inputs import expand
    from potnet.predict import chosen_model

    for name, value in (("workers", workers), ("piece", piece), ("best", best)):
        if value < 1:
            raise ConfigError(f"{name}={value}: give at least 1")
    condition = None if where is None else Where(where)
    predictor, _ = chosen_model(None, models, registry, device, ())
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    inside = folder.absolute()
    items = [
        item
        for item in expand(list(source) if not isinstance(source, str) else source)
        if not (isinstance(item, Path) and item.absolute().is_relative_to(inside))
    ]
    settings = {
        "source": [str(item) for item in items],
        "targets": list(predictor.targets),
        "models": _identity(predictor),
        "piece": piece,
        "level": level,
        "box": box,
        "plausibility": plausibility,
    }
    _check_manifest(folder, settings)
    done = {int(path.stem.removeprefix("part-")) for path in folder.glob("part-*.parquet")}
    pieces = (found for found in _pieces(items, piece, box, plausibility) if found.number not in done)
    print(f"{len(items)} inputs, {len(done)} pieces are done already", file=sys.stderr)
    _work(predictor, pieces, folder, workers, level)
    key = sort or predictor.targets.first.key
    return best_rows(folder, condition, key.removeprefix("-"), best, smallest=key.startswith("-"))


def _pieces(items: list[Any], size: int, box: float | None, plausibility: Any) -> Iterator[Piece]:
    from potnet.crystals import CrystalError
    from potnet.data.features.featurizer import Failure
    from potnet.inference.inputs import crystals_of, name_of

    crystals: list[Crystal] = []
    unread: list[Failure] = []
    number = 0
    for place, outcome in crystals_of(items, box, plausibility):
        if isinstance(outcome, CrystalError):
            unread.append(Failure(name_of(items[place], place), str(outcome)))
        else:
            crystals.append(outcome)
        if len(crystals) + len(unread) == size:
            yield Piece(number, crystals, unread)
            crystals, unread, number = [], [], number + 1
    if crystals or unread:
        yield Piece(number, crystals, unread)


def _work(predictor: Predictor, pieces: Iterator[Piece], folder: Path, workers: int, level: float) -> None:
    """Predict pieces, a few more than workers at a time; a piece whose worker died is done again."""
    if workers == 1:
        for piece in pieces:
            predict_piece(predictor, piece, folder, level)
        return
    from loky import ProcessPoolExecutor
    from loky.process_executor import TerminatedWorkerError

    waiting: list[Piece] = []
    died = 0
    while True:
        running: dict[Future[Any], Piece] = {}
        try:
            with ProcessPoolExecutor(
                workers, initializer=_start, initargs=(predictor, str(folder), level)
            ) as pool:
                while True:
                    while len(running) < 2 * workers:
                        following = waiting.pop() if waiting else next(pieces, None)
                        if following is None:
                            break
                        running[pool.submit(_predict, following)] = following
                    if not running:
                        return
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        del running[future]
        except TerminatedWorkerError as error:
            died += 1
            waiting += [p for p in running.values() if not part_file(folder, p.number).exists()]
            if died == TRIES:
                raise RuntimeError(
                    f"workers ended {died} times, most likely for memory; {folder} has what is finished. "
                    "Take fewer workers or a smaller piece, and give the command again to go on"
                ) from error
            print(f"a worker ended; {len(waiting)} pieces are done again", file=sys.stderr)


_state: tuple[Predictor, Path, float] | None = None


def _start(predictor: Predictor, folder: str, level: float) -> None:
    global _state
    import torch

    torch.set_num_threads(1)
    _state = (predictor, Path(folder), level)


def _predict(piece: Piece) -> None:
    assert _state is not None
    predictor, folder, level = _state
    predict_piece(predictor, piece, folder, level)


def part_file(folder: Path, number: int) -> Path:
    """The file of a piece."""
    return folder / f"part-{number:07d}.parquet"


def predict_piece(predictor: Predictor, piece: Piece, folder: Path, level: float) -> None:
    """Predict one piece and write its file."""
    import pyarrow.parquet

    from potnet.inference.limits import Limits

    table = predictor.table(piece.crystals, piece.unread, True, Limits(level=level))
    with replacing(part_file(folder, piece.number)) as part:
        pyarrow.parquet.write_table(_arrow(table), part)


def _arrow(table: Any) -> pyarrow.Table:
    import pyarrow

    empty = len(table.failures)
    columns = {"id": pyarrow.array([*table.ids, *(f.id for f in table.failures)], pyarrow.string())}
    for name, values in table.columns.items():
        kind = pyarrow.string() if values.dtype == object else pyarrow.float64()
        columns[name] = pyarrow.array([*values.tolist(), *[None] * empty], kind)
    columns["flags"] = pyarrow.array([*table.flags, *[""] * empty], pyarrow.string())
    columns[FAILURE] = pyarrow.array(
        [*[""] * len(table), *(f.reason for f in table.failures)], pyarrow.string()
    )
    return pyarrow.table(columns)


def best_rows(
    folder: Path, condition: Any | None, key: str, count: int, smallest: bool = False
) -> list[dict[str, Any]]:
    """The best rows of all parts that fulfil a condition; one part is in memory at a time.

    Raises:
        ConfigError: There is no such column.
    """
    import pyarrow.parquet

    best: list[dict[str, Any]] = []
    for path in sorted(folder.glob("part-*.parquet")):
        table = pyarrow.parquet.read_table(path)
        if key not in table.column_names:
            raise ConfigError(f"sort={key}: the columns are {', '.join(table.column_names)}")
        rows = [row for row in table.to_pylist() if row[key] is not None and row[key] == row[key]]
        best += [row for row in rows if condition is None or condition(row)]
        best.sort(key=lambda row: row[key], reverse=not smallest)
        del best[count:]
    return best


def _identity(predictor: Predictor) -> str:
    """Of the weights: a folder is not gone on with by other networks."""
    digest = hashlib.sha256()
    models = getattr(predictor, "models", {"": predictor})
    for name, model in models.items():
        digest.update(name.encode())
        members = getattr(model, "members", [(model.model, model.scalers)])
        for network, scalers in members:
            for part in (network, scalers):
                for key, value in part.state_dict().items():
                    digest.update(key.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_manifest(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder in which another screening is.

    Raises:
        ConfigError: Its settings or inputs differ; the first of them is named.
    """
    file = folder / MANIFEST
    if not file.is_file():
        if any(folder.glob("part-*.parquet")):
            raise ConfigError(
                f"output={folder}: there are part-*.parquet files of something else; choose another"
            )
        write_whole(file, json.dumps(settings, indent=1) + "\n")
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: damaged ({error}); choose another output") from error
    for key, value in settings.items():
        if before.get(key) != value:
            raise ConfigError(
                f"output={folder}: it holds a screening with other {key}; choose another folder, or repeat "
                "the command as it was to go on"
            )


@entry_point("screen")
def main(config: DictConfig) -> None:
    """Screen as the command line says."""
    settings = plain(config)
    check_arguments(screen, settings)
    rows = screen(**settings)
    if not rows:
        print("no crystal fulfils the condition")
        return
    names = [name for name in rows[0] if name != FAILURE]
    texts = [names, *([_shown(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"all of them: {settings['output']}/part-*.parquet")


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


if __name__ == "__main__":
    main()
