"""Manage features and downloads: `potnet data --help`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from potnet.config import INTERRUPTED, build, compose, message_of, plain

if TYPE_CHECKING:
    from potnet.data.catalogue import Entry
    from potnet.data.features.store import FeatureStore


EXAMPLES = """\
Examples
  potnet data prepare data=table data.source.path=my.jsonl.gz
  potnet data list
  potnet data show mp_elastic
  potnet data verify
  potnet data clear mp_megnet
"""


def prepare(overrides: Sequence[str]) -> None:
    """Download and featurize a data set, as training would, and say what it holds.

    Args:
        overrides: As on the command line of `potnet train`.
    """
    from potnet.training.setup import build_data, with_absolute_source

    config = with_absolute_source(plain(compose("train", overrides)))
    data = build_data(config, build(config["model"], "model", nested=False))
    data.prepare_data()
    data.setup()
    summary = data.summary()
    parts = ", ".join(f"{size} {part}" for part, size in summary["crystals"].items())
    print(f"{summary['name']}: {parts}")
    for reason, count in summary["removed"].items():
        print(f"not used: {count} {reason}")
    print(f"{summary['cache_mib']} MiB in {summary['cache']}")
    print(f"licence: {data.source.licence or 'not stated'}\ncite: {data.source.citation or 'not stated'}")


def list_all(root: Path) -> None:
    """Print what is kept, with sizes."""
    from potnet.data.catalogue import entries

    found = entries(root)
    print(f"{root}: {_size(sum(entry.bytes for entry in found))}")
    for entry in found:
        about = f"{entry.crystals} crystals" if entry.crystals is not None else entry.state
        print(f"  {_size(entry.bytes):>10}  {entry.kind:8}  {entry.name}{'  ' + about if about else ''}")


def show(entry: Entry) -> None:
    """Print what is known of one entry."""
    from potnet.data.catalogue import shards_of
    from potnet.data.download.verify import read_record
    from potnet.data.features.store import FeatureStore

    print(f"{entry.path}\n{_size(entry.bytes)}, {entry.state or entry.kind}")
    if entry.state == "finished":
        store = FeatureStore(entry.path)
        removed = Counter(store.table.removed.counts())
        removed["not featurized"] += len(store.failures)
        print(f"{len(store)} crystals of {store.num_atoms.mean():.1f} atoms in {len(store.shards)} shards")
        for reason, count in (+removed).items():
            print(f"left out: {count} {reason}")
        for key, unit in store.table.units.items():
            told = f"property: {key}{f' ({unit})' if unit else ''}"
            print(
                f"{told}, an array" if key in store.table.arrays else f"{told}, {_known(store, key)} crystals"
            )
        print(json.dumps(store.settings, indent=1))
    elif entry.kind == "features":
        print(f"{shards_of(entry.path)} shards so far; the next start with its settings goes on")
    elif record := read_record(entry.path):
        print(f"from: {record.url or 'put here by hand'}\nfetched: {record.fetched}\nsha256: {record.sha256}")


def _known(store: FeatureStore, key: str) -> int:
    """How many crystals have a label."""
    import numpy as np

    values = store.table.values(key)
    if values.dtype == object:
        return sum(value is not None for value in values)
    return int(np.isfinite(values).sum())


def verify(chosen: Sequence[Entry]) -> int:
    """Print whether entries are whole; the exit status says if one is damaged."""
    from potnet.data.catalogue import verify as verdict_of

    verdicts = {entry.name: verdict_of(entry) for entry in chosen}
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict}")
    return int(any(v not in ("whole", "unfinished", "no checksum is known") for v in verdicts.values()))


def clear(chosen: Sequence[Entry], sure: bool) -> int:
    """Delete entries, once the user has agreed."""
    from potnet.data.catalogue import remove

    if not chosen:
        print("nothing to delete")
        return 0
    for entry in chosen:
        print(f"  {_size(entry.bytes):>10}  {entry.name}")
    total = _size(sum(entry.bytes for entry in chosen))
    if not sure:
        if not sys.stdin.isatty():
            print("error: no terminal to confirm on: add --yes to delete this", file=sys.stderr)
            return 1
        if input(f"delete these {len(chosen)} ({total})? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing is deleted")
            return 1
    for entry in chosen:
        remove(entry)
    print(f"deleted {len(chosen)}, {total}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        status = _run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader went away, as in `| head`; nothing more can be said to it, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "prepare":
        prepare(options.overrides)
        return 0

    from potnet.data.catalogue import entries, select
    from potnet.files import cache_root

    root = cache_root(options.cache_dir)
    if options.command == "list":
        list_all(root)
        return 0
    if options.command == "show":
        for entry in select(root, [options.name]):
            show(entry)
        return 0
    if options.command == "verify":
        return verify(select(root, options.names) if options.names else entries(root))
    if not (options.names or options.all):
        print("error: name what to delete (potnet data list), or give --all", file=sys.stderr)
        return 2
    return clear(entries(root) if options.all else select(root, options.names), options.yes)


def _size(number: float) -> str:
    """Bytes, as people read them."""
    if number < 1024:
        return f"{number:.0f} B"
    for unit in ("KiB", "MiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} GiB"


def parser() -> argparse.ArgumentParser:
    """The command line; its `prog` and help are what a user sees."""
    parser = argparse.ArgumentParser(
        prog="potnet data",
        description="Prepare data sets without training, and manage what is kept on disk.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    work = commands.add_parser(
        "prepare",
        help="download and featurize a data set, as training would",
        epilog="example: potnet data prepare data=table data.source.path=my.jsonl.gz",
    )
    work.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for potnet train")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cache-dir", metavar="DIR", help="default: POTNET_CACHE or the user's cache folder")
    commands.add_parser("list", parents=[common], help="feature caches and downloads, with sizes")
    one = commands.add_parser("show", parents=[common], help="settings, contents and origin of one of them")
    one.add_argument("name", metavar="NAME", help="as listed, or its beginning")
    some = commands.add_parser("verify", parents=[common], help="read everything and compare checksums")
    some.add_argument("names", nargs="*", metavar="NAME", help="as listed, or the beginning; default: all")
    gone = commands.add_parser("clear", parents=[common], help="delete, after asking")
    gone.add_argument("names", nargs="*", metavar="NAME", help="as listed, or the beginning")
    gone.add_argument("--all", action="store_true", help="everything")
    gone.add_argument("--yes", action="store_true", help="do not ask")
    return parser


if __name__ == "__main__":
    sys.exit(main())
