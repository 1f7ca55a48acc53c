"""Make tables and plots of runs: `potnet report --help`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, did_you_mean, entry_point, plain
from potnet.files import write_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig

FORMATS = ("markdown", "csv", "png", "html", "jarvis", "matbench")
KINDS = ("run", "study", "search")


@entry_point("report")
def main(config: DictConfig) -> None:
    """Write the report that the command line asks for, and print its tables."""
    settings = plain(config)
    settings["format"] = _listed(settings["format"])
    settings["runs"] = _listed(settings["runs"])
    settings["over"] = _listed(settings["over"])
    write_report(**settings)


def write_report(
    runs: Sequence[str],
    output: str | Path = "report",
    format: Sequence[str] = ("markdown", "csv", "png"),
    reference: str | None = None,
    part: str = "test",
    over: Sequence[str] = ("seed", "fold"),
    title: str | None = None,
    kind: str | None = None,
) -> list[Path]:
    """Collect runs and write what is asked for; the table is printed, too.

    Args:
        runs: Folders of runs or of sweeps, or patterns.
        output: Folder to write to; it is made. report.md, report.csv, report.html and the pictures of each
            target, such as errors_KEY.png, are replaced.
        format: Any of "markdown", "csv", "png", "html", and the files of leaderboards, "jarvis" and
            "matbench": see `submissions`.
        reference: Name of the reference row, or an override of its runs.
        part: "test" or "val".
        over: Settings that runs of one row differ in.
        title: First line; by default the names of the runs.
        kind: "run" shows one run by itself, "study" compares rows with a reference, "search" sorts trials;
            None chooses: one run, trials of a search, else a study.

    Returns:
        The files.

    Raises:
        ConfigError: No run is there, no row has the name of the reference, a format, part or kind is
            unknown, no run has a setting of `over`, or runs are not what a leaderboard wants.
    """
    from potnet.runs.report.collect import collect
    from potnet.runs.report.markdown import csv_report, markdown_report
    from potnet.runs.report.planned import not_begun
    from potnet.runs.report.plots import pictures
    from potnet.runs.report.rows import sections
    from potnet.runs.report.search import is_search, ranked

    for key, given, valid in (
        ("format", format, FORMATS),
        ("part", [part], ("val", "test")),
        ("kind", [kind] if kind else [], KINDS),
    ):
        for value in given:
            if value not in valid:
                raise ConfigError(f"{key}={value}{did_you_mean(value, valid)}")
    if not isinstance(output, str | Path):
        raise ConfigError(f"output={output}: give one folder to write to")
    found = collect(runs)
    contents: dict[str, Any] = {}
    for board in ("jarvis", "matbench"):
        if board in format:
            from potnet.runs.report.submissions import jarvis_files, matbench_file

            contents |= (jarvis_files if board == "jarvis" else matbench_file)(found)
    rest = not_begun(found)
    parts = sections(found, reference, part, over)
    kind = kind or ("run" if len(found) == 1 else "search" if is_search(found) else "study")
    if kind == "run" and len(found) > 1:
        raise ConfigError(f"kind=run shows one run, but {len(found)} are there: give the folder of one")
    if kind == "search":
        parts = [ranked(section) for section in parts]
    title = title or ", ".join(dict.fromkeys(str(run.config.get("name")) for run in found))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    images = pictures(folder, parts, kind) if "png" in format else []
    text = markdown_report(title, parts, rest, [image.name for image in images], kind)
    if "markdown" in format:
        contents["report.md"] = text
    if "csv" in format:
        contents["report.csv"] = csv_report(parts)
    if "html" in format:
        from potnet.runs.report.html import html_report

        contents["report.html"] = html_report(title, parts, rest, kind)
    for name, content in contents.items():
        write_whole(folder / name, content)
    written = [*(folder / name for name in contents), *images]
    print(text)
    print(f"{len(found)} run{'' if len(found) == 1 else 's'}: {', '.join(map(str, written))}")
    return written


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


if __name__ == "__main__":
    main()
