"""Make tables and plots of runs: `python -m potnet.report --help`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, did_you_mean, entry_point, plain
from potnet.files import write_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig

FORMATS = ("markdown", "csv", "png", "html")


@entry_point("report")
def main(config: DictConfig) -> None:
    """Write the report that the command line asks for, and print its tables."""
    settings = plain(config)
    settings["format"] = _listed(settings["format"])
    settings["runs"] = _listed(settings["runs"])
    write_report(**settings)


def write_report(
    runs: Sequence[str],
    output: str | Path = "report",
    format: Sequence[str] = ("markdown", "csv", "png"),
    reference: str | None = None,
    part: str = "test",
    over: Sequence[str] = ("seed",),
    title: str | None = None,
) -> list[Path]:
    """Collect runs and write what is asked for; the table is printed, too.

    Args:
        runs: Folders of runs or of sweeps, or patterns.
        output: Folder to write to; it is made. report.md, report.csv, report.html, errors_KEY.png and
            learning_KEY.png of each property are replaced.
        format: Any of "markdown", "csv", "png", "html".
        reference: Name of the reference row, or an override of its runs.
        part: "test" or "val".
        over: Settings that runs of one row differ in.
        title: First line; by default the names of the runs.

    Returns:
        The files.

    Raises:
        ConfigError: No run is there, no row has the name of the reference, a format or part is unknown, or a
            page is asked for and plotly is not installed.
    """
    from potnet.runs.report.collect import collect
    from potnet.runs.report.markdown import csv_report, markdown_report
    from potnet.runs.report.planned import not_begun
    from potnet.runs.report.rows import sections

    for key, given, valid in (("format", format, FORMATS), ("part", [part], ("val", "test"))):
        for value in given:
            if value not in valid:
                raise ConfigError(f"{key}={value}{did_you_mean(value, valid)}")
    if "html" in format:
        from potnet.runs.report.html import plotly_javascript

        plotly = plotly_javascript()  # first of all, as it may be missing
    found = collect(runs)
    rest = not_begun(found)
    parts = sections(found, reference, part, over)
    title = title or ", ".join(dict.fromkeys(str(run.config.get("name")) for run in found))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    images = _images(folder, parts) if "png" in format else []
    text = markdown_report(title, parts, rest, [image.name for image in images])
    contents: dict[str, Any] = {}
    if "markdown" in format:
        contents["report.md"] = text
    if "csv" in format:
        contents["report.csv"] = csv_report(parts)
    if "html" in format:
        from potnet.runs.report.html import html_report

        contents["report.html"] = html_report(title, parts, rest, plotly)
    for name, content in contents.items():
        write_whole(folder / name, content)
    written = [*(folder / name for name in contents), *images]
    print(text)
    print(f"{len(found)} runs: {', '.join(map(str, written))}")
    return written


def _images(folder: Path, parts: Sequence[Any]) -> list[Path]:
    from potnet.runs.report.plots import curve, error_plot, learning_plot

    images = []
    for section in parts:
        if any(row.error(section.part) for row in section.rows):
            images.append(folder / f"errors_{section.key}.png")
            error_plot(images[-1], section)
        if any(curve(row) for row in section.rows):
            images.append(folder / f"learning_{section.key}.png")
            learning_plot(images[-1], section)
    return images


def _listed(value: Any) -> list[str]:
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


if __name__ == "__main__":
    main()
