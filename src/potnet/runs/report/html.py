"""A report as one page: tables to sort, pictures to point at, two rows to compare. It needs no network.

The page is `page.html`, its behaviour `page.js`, its content the JSON that `page_data` makes. Pictures are
those of `format=png`, as SVG.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potnet.runs.figures import as_svg
from potnet.runs.periodic_table import UNSURE, place
from potnet.runs.report.collect import Run
from potnet.runs.report.markdown import METHOD, SEARCH, missing_runs, published_notes, section_title
from potnet.runs.report.names import short_value
from potnet.runs.report.plots import drawings
from potnet.runs.report.rows import Row, Section, Spread, mean_errors
from potnet.runs.report.search import parameters_of
from potnet.runs.report.single import element_errors, facts, metric_rows, worst_crystals


def html_report(
    title: str, sections: Sequence[Section], not_begun: Sequence[str], kind: str = "study"
) -> str:
    """The page.

    Args:
        title: Its heading.
        sections: With at least one row each.
        not_begun: Jobs without a folder.
        kind: "run", "study" or "search".
    """
    here = Path(__file__)
    # "</script>" in the name of a row would end the element that holds the data.
    data = json.dumps(page_data(sections, not_begun, kind), allow_nan=False).replace("</", "<\\/")
    page = here.with_name("page.html").read_text(encoding="utf-8")
    contents = {
        "TITLE": html.escape(title),
        "METHOD": html.escape({"study": METHOD, "search": SEARCH, "run": ""}[kind]),
        "SCRIPT": here.with_name("page.js").read_text(encoding="utf-8"),
        "DATA": data,
    }
    return re.sub("@([A-Z]+)@", lambda mark: contents[mark[1]], page)


def page_data(sections: Sequence[Section], not_begun: Sequence[str], kind: str = "study") -> dict[str, Any]:
    """What the page shows, as plain containers; page.js says how."""
    runs = [run for section in sections[:1] for row in section.rows for run in row.runs]
    make = {"run": _single, "study": _section, "search": _search}[kind]
    return {
        "sections": [make(section) | {"pictures": _pictures(section, kind)} for section in sections],
        "kind": kind,
        "facts": facts(runs[0]) if kind == "run" else {},
        "missing": [line.replace("`", "") for line in missing_runs(runs, not_begun)],
    }


def _pictures(section: Section, kind: str) -> dict[str, str]:
    """SVG by name; errors by element are a table of the page."""
    return {name: as_svg(draw) for name, draw in drawings(section, kind).items() if name != "elements"}


def _single(section: Section) -> dict[str, Any]:
    (run,) = section.rows[0].runs
    return {
        **_common(section),
        "metrics": [{key: _shown(value) for key, value in row.items()} for row in metric_rows(run)],
        "target_unit": str(run.target.get("unit") or ""),
        "worst": [
            [c.id, c.formula, short_value(c.value), short_value(c.prediction), f"{c.error:.4f}"]
            for c in worst_crystals(run, section.part)
        ],
        "elements": _elements(run),
    }


def _elements(run: Run) -> list[dict[str, Any]]:
    from potnet.crystals.elements import symbol

    found = []
    for z, error in element_errors(run).items():
        row, column = place(z)
        found.append(
            {
                "symbol": symbol(z), "row": row, "column": column, "error": error.mae,
                "crystals": error.crystals, "unsure": error.crystals < UNSURE,
            }
        )  # fmt: skip
    return found


def _search(section: Section) -> dict[str, Any]:
    names = parameters_of(section)
    return {
        **_common(section),
        "parameters": list(names.values()),
        "reference": section.reference.name if section.reference.finished else None,
        "rows": [
            {
                "name": row.name,
                "trial": row.runs[0].folder.name.partition("_")[0],
                "settings": [row.settings.get(key) for key in names],
                "shown": [short_value(row.settings[key]) if key in row.settings else "" for key in names],
                "val": _spread(row.error("val")),
                "test": _spread(row.error("test")),
                "epochs": max((len(run.epochs) for run in row.runs), default=0),
                "total": _spread(row.total_seconds),
            }
            for row in section.rows
        ],
    }


def _common(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "name": section.name,
        "title": section_title(section),
        "unit": section.unit,
        "part": section.part,
        "measure": section.measure,
        "published": published_notes(section),
    }


def _section(section: Section) -> dict[str, Any]:
    first = section.rows[0].settings
    keys = {key: None for row in section.rows for key in row.settings}
    varying = [key for key in keys if any(row.settings.get(key) != first.get(key) for row in section.rows)]
    errors = [mean_errors(row.finished, section.part) for row in section.rows]
    crystals = list(dict.fromkeys(id for found in errors for id in found))
    return {
        **_common(section),
        "reference": section.reference.name,
        "crystals": crystals,
        "rows": [
            _row(section, row, varying, [found.get(id) for id in crystals])
            for row, found in zip(section.rows, errors, strict=True)
        ],
        "common": {key: _text(value) for key, value in first.items() if key not in varying},
    }


def _row(
    section: Section, row: Row, varying: Sequence[str], errors: Sequence[float | None]
) -> dict[str, Any]:
    comparison = row.comparison
    return {
        "name": row.name,
        "finished": len(row.finished),
        "begun": len(row.runs),
        "val": _spread(row.error("val")),
        "test": _spread(row.error("test")),
        "difference": comparison
        and {
            "mean": comparison.mean,
            "sd": comparison.seeds.deviation if comparison.seeds else None,
            "low": comparison.low,
            "high": comparison.high,
            "p": comparison.p,
        },
        "published": row.published.get("mae"),
        "parameters": row.parameters,
        "epoch": _spread(row.epoch_seconds),
        "total": _spread(row.total_seconds),
        "settings": {key: _text(row.settings[key]) for key in varying if key in row.settings},
        "errors": [None if error is None else float(f"{error:.3g}") for error in errors],
    }


def _spread(spread: Spread | None) -> dict[str, float | None] | None:
    return None if spread is None else {"mean": spread.mean, "sd": spread.deviation}


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
