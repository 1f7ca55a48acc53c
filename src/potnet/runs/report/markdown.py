"""A report as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from potnet.files import csv_text
from potnet.runs.report.collect import Run
from potnet.runs.report.names import short_value
from potnet.runs.report.rows import Row, Section, Spread
from potnet.runs.report.search import parameters_of
from potnet.runs.report.single import facts, metric_rows, worst_crystals

METHOD = (
    "Each row is one configuration; ± is the standard deviation over its runs (seeds, folds). "
    "Difference: error of the row minus error of the reference row, over the seeds and folds that both have, "
    "± the standard deviation of that difference over those; negative is better. "
    "Interval and p: paired t test over crystals (absolute error of each crystal, mean over runs, row "
    "minus reference), 95 %, two-sided, not corrected for the number of rows. They tell whether other "
    "crystals would show the same difference for these networks; whether other seeds would is told by the ± "
    "alone."
)

SEARCH = (
    "Each row is a trial, sorted by its validation error, the best in bold. The best of many trials is best "
    "partly by luck on the validation crystals: its test error is the one to quote."
)

CSV_HEADER = (
    "property", "unit", "row", "reference", "runs", "finished", "val_mae", "val_mae_sd", "test_mae",
    "test_mae_sd", "difference", "difference_sd_over_seeds", "difference_low", "difference_high", "p",
    "crystals", "compared_on", "published", "published_unit", "published_source", "parameters",
    "seconds_per_epoch", "seconds_total", "changes",
)  # fmt: skip


def csv_report(sections: Sequence[Section]) -> str:
    """Every row of every section as a line of CSV, numbers in full; empty where there is none."""
    return csv_text(
        CSV_HEADER, [[*_cells(section, row).values()] for section in sections for row in section.rows]
    )


def _cells(section: Section, row: Row) -> dict[str, Any]:
    comparison, published = row.comparison, row.published
    val, test = row.error("val"), row.error("test")
    seeds = comparison.seeds if comparison else None
    values = (
        section.key, section.unit, row.name, row is section.reference, len(row.runs), len(row.finished),
        *_pair(val), *_pair(test),
        comparison and comparison.mean, seeds and seeds.deviation, comparison and comparison.low,
        comparison and comparison.high, comparison and comparison.p, comparison and comparison.crystals,
        section.part if comparison else None,
        published.get("mae"), published.get("unit"), published.get("source"), row.parameters,
        _pair(row.epoch_seconds)[0], _pair(row.total_seconds)[0],
        "; ".join(f"{key}: {there} -> {here}" for key, (there, here) in row.changes.items()),
    )  # fmt: skip
    return dict(zip(CSV_HEADER, values, strict=True))


def _pair(spread: Spread | None) -> tuple[float | None, float | None]:
    return (spread.mean, spread.deviation) if spread else (None, None)


def markdown_report(
    title: str,
    sections: Sequence[Section],
    not_begun: Sequence[str],
    images: Sequence[str] = (),
    kind: str = "study",
) -> str:
    """The whole report.

    Args:
        title: Its first line.
        sections: With at least one row each.
        not_begun: Jobs without a folder, as `potnet.runs.report.planned` names them.
        images: Names of files beside it to show, below the tables.
        kind: "run", "study" or "search".
    """
    lines = [f"# {title}", ""]
    if kind == "run":
        shown = facts(sections[0].rows[0].runs[0])
        lines += [_line(("", "")), _line(("---", "---")), *(_line(item) for item in shown.items()), ""]
    for section in sections:
        lines += [f"## {section_title(section)}", ""]
        lines += {"run": _run_lines, "study": _study_lines, "search": _search_lines}[kind](section, images)
    missing = missing_runs(
        [run for section in sections[:1] for row in section.rows for run in row.runs], not_begun
    )
    if missing:
        lines += ["## Not in these figures", "", *(f"- {line}" for line in missing), ""]
    return "\n".join(lines)


def _study_lines(section: Section, images: Sequence[str]) -> list[str]:
    """The rows compared with the reference, and the settings in which they differ."""
    lines = [*_table(section), "", *(f"- {note}" for note in published_notes(section)), "", METHOD, ""]
    lines += _pictures(section, images)
    if any(row.changes for row in section.rows):
        lines += [f"Settings that differ from `{section.reference.name}`:", "", *_changes(section), ""]
    return lines


def _search_lines(section: Section, images: Sequence[str]) -> list[str]:
    """The trials, the best first, with what was varied."""
    names = parameters_of(section)
    header = (
        "",
        *names.values(),
        f"val {section.measure}",
        f"test {section.measure}",
        "epochs",
        "min in all",
    )
    lines = [SEARCH, "", _line(header), _line(("---", *["--:"] * (len(header) - 1)))]
    for rank, row in enumerate(section.rows, 1):
        settings = [short_value(row.settings[key]) if key in row.settings else "" for key in names]
        total, epochs = row.total_seconds, max((len(run.epochs) for run in row.runs), default=0)
        cells = [
            str(rank) if row.finished else "-", *settings, error_text(row.error("val")),
            error_text(row.error("test")), str(epochs), f"{total.mean / 60:.1f}" if total else "",
        ]  # fmt: skip
        if row is section.reference and row.finished:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append(_line(cells))
    return [*lines, "", *_pictures(section, images)]


def _run_lines(section: Section, images: Sequence[str]) -> list[str]:
    """One run by itself: its figures, and the crystals that it predicts worst."""
    (run,) = section.rows[0].runs
    rows = metric_rows(run)
    names = [name for name in ("mae", "rmse", "r2", "accuracy", "f1", "roc_auc", "log_loss", "n", "unit")
             if any(row.get(name) not in (None, "") for row in rows)]  # fmt: skip
    heads = {
        "mae": "MAE",
        "rmse": "RMSE",
        "r2": "R²",
        "roc_auc": "ROC AUC",
        "log_loss": "log loss",
        "n": "crystals",
    }
    lines = []
    if rows:
        lines = [
            _line(("", *(heads.get(name, name) for name in names))),
            _line(("---", *["--:"] * len(names))),
        ]
        lines += [_line([row["part"], *(_figure(row.get(name)) for name in names)]) for row in rows] + [""]
    lines += [f"- {note}" for note in published_notes(section)]
    lines += _pictures(section, images)
    worst = worst_crystals(run, section.part)
    if worst:
        unit = f" ({section.unit})" if section.unit else ""
        header = ("crystal", "formula", "value", "predicted", f"error{unit}")
        lines += [f"The largest errors of the {section.part} part:", "", _line(header)]
        lines += [_line(("---", "---", "--:", "--:", "--:"))]
        lines += [_line((c.id, c.formula, short_value(c.value), short_value(c.prediction), f"{c.error:.4f}"))
                  for c in worst]  # fmt: skip
        lines.append("")
    return lines


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _pictures(section: Section, images: Sequence[str]) -> list[str]:
    return [f"![{name}]({name})\n" for name in images if name.endswith(f"_{section.key}.png")]


def section_title(section: Section) -> str:
    """Such as "bulk modulus (k_vrh), MAE in log10(GPa)"."""
    unit = f" in {section.unit}" if section.unit else ""
    key = f" ({section.key})" if section.key != section.name else ""
    return f"{section.name}{key}, {section.measure}{unit}"


def published_notes(section: Section) -> list[str]:
    """One line for each published value of a section, with where it comes from."""
    notes = []
    for row in section.rows:
        if not row.published:
            continue
        value = f"{row.published.get('mae')} {row.published.get('unit') or ''}".rstrip()
        data = f", on {row.published['data']}" if row.published.get("data") else ""
        source = f"{row.published.get('source')}{data}"
        notes.append(f"Published: {value} ({source}), for that paper's own model and training.")
    return list(dict.fromkeys(notes))


def missing_runs(runs: Sequence[Run], not_begun: Sequence[str]) -> list[str]:
    """One line for each run without a result: its folder, and why; then the jobs that were never begun."""
    lines = [f"`{run.folder.name}`: {run.status}" for run in runs if run.metrics is None]
    return [*lines, *(f"`{job}`: not begun" for job in not_begun)]


def _table(section: Section) -> list[str]:
    rows = [_texts(section, row) for row in section.rows]
    header = [name for name in rows[0] if not name or any(row[name] for row in rows)]
    ruler = ["---", *["--:"] * (len(header) - 1)]
    return [_line(header), _line(ruler), *(_line([row[name] for name in header]) for row in rows)]


def _texts(section: Section, row: Row) -> dict[str, str]:
    """What a row shows, by the heads of the columns."""
    comparison, epoch, total = row.comparison, row.epoch_seconds, row.total_seconds
    name = f"**{row.name}**" if row is section.reference else row.name
    done, begun = len(row.finished), len(row.runs)
    difference, interval, p = "", "", ""
    if row is section.reference:
        difference = "reference"
    elif comparison:
        deviation = comparison.seeds.deviation if comparison.seeds else None
        difference = f"{comparison.mean:+.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
        interval = f"{comparison.low:+.4f} to {comparison.high:+.4f}"
        p = "< 0.001" if comparison.p < 0.001 else f"{comparison.p:.3f}"
    return {
        "": name,
        "runs": str(done) if done == begun else f"{done} of {begun}",
        f"val {section.measure}": error_text(row.error("val")),
        f"test {section.measure}": error_text(row.error("test")),
        f"difference ({section.part})": difference,
        "95 % over crystals": interval,
        "p": p,
        "published": str(row.published.get("mae", "")),
        "parameters": "" if row.parameters is None else f"{row.parameters:,}".replace(",", " "),
        "s / epoch": f"{epoch.mean:.1f}" if epoch else "",
        "min in all": f"{total.mean / 60:.1f}" if total else "",
    }


def error_text(spread: Spread | None) -> str:
    """Such as "0.0459 ± 0.0008"; without ± for a single run, empty for none."""
    if spread is None:
        return ""
    return f"{spread.mean:.4f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.4f}")


def _changes(section: Section) -> list[str]:
    lines = [_line(("", "setting", "reference", "here")), _line(("---",) * 4)]
    for row in section.rows:
        for i, (key, (there, here)) in enumerate(row.changes.items()):
            lines.append(_line(("" if i else row.name, f"`{key}`", _value(there), _value(here))))
    return lines


def _value(value: Any) -> str:
    return "" if value is None else f"`{value}`"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
