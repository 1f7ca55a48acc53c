"""A report as one page: plots to look into, tables to sort. It needs no network.

The page is `page.html`, its behaviour `page.js`, its content the JSON that `page_data` makes. Plotly's own
script is 4.8 MB; it is kept compressed in the page, and the browser unpacks it.
"""  # fmt: skip

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potnet.config import ConfigError
from potnet.runs.periodic_table import UNSURE, place
from potnet.runs.report.collect import Run
from potnet.runs.report.markdown import METHOD, SEARCH, missing_runs, published_notes, section_title
from potnet.runs.report.names import short_value
from potnet.runs.report.plots import coordinates, curve, label_of, looks, trials
from potnet.runs.report.rows import Row, Section, Spread, mean_errors
from potnet.runs.report.search import parameters_of
from potnet.runs.report.single import element_errors, facts, metric_rows, pairs, worst_crystals


def plotly_javascript() -> str:
    """The library that draws, as Plotly's Python package ships it.

    Raises:
        ConfigError: That package is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError('format=html needs plotly: pip install "potnet[report]"') from None
    javascript: str = get_plotlyjs()
    return javascript


def html_report(
    title: str, sections: Sequence[Section], not_begun: Sequence[str], plotly: str, kind: str = "study"
) -> str:
    """The page.

    Args:
        title: Its heading.
        sections: With at least one row each.
        not_begun: Jobs without a folder.
        plotly: From `plotly_javascript`.
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
        "PLOTLY": base64.b64encode(gzip.compress(plotly.encode(), 9, mtime=0)).decode(),
    }
    return re.sub("@([A-Z]+)@", lambda mark: contents[mark[1]], page)


def page_data(sections: Sequence[Section], not_begun: Sequence[str], kind: str = "study") -> dict[str, Any]:
    """What the page shows, as plain containers; page.js says how."""
    runs = [run for section in sections[:1] for row in section.rows for run in row.runs]
    make = {"run": _single, "study": _section, "search": _search}[kind]
    return {
        "sections": [make(section) for section in sections],
        "kind": kind,
        "facts": facts(runs[0]) if kind == "run" else {},
        "missing": [line.replace("`", "") for line in missing_runs(runs, not_begun)],
    }


def _single(section: Section) -> dict[str, Any]:
    (run,) = section.rows[0].runs
    return {
        **_common(section),
        "metrics": [{key: _shown(value) for key, value in row.items()} for row in metric_rows(run)],
        "log": run.target.get("transform") == "log10",
        "target_unit": str(run.target.get("unit") or ""),
        "pairs": [[id, value, prediction] for id, value, prediction in pairs(run, section.part)],
        "train_curve": [list(point) for point in run.curve("train")],
        "val_curve": [list(point) for point in run.curve("val")],
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
        "coordinates": coordinates(section),
        "trials": trials(section),
    }


def _common(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "name": section.name,
        "title": section_title(section),
        "unit": section.unit,
        "part": section.part,
        "measure": section.measure,
        "labels": {part: label_of(section, part) for part in ("val", "test", "")},
        "published": published_notes(section),
    }


def _section(section: Section) -> dict[str, Any]:
    first = section.rows[0].settings
    keys = {key: None for row in section.rows for key in row.settings}
    varying = [key for key in keys if any(row.settings.get(key) != first.get(key) for row in section.rows)]
    look = looks(section)
    return {
        **_common(section),
        "reference": section.reference.name,
        "rows": [_row(section, row, varying, look[row.name]) for row in section.rows],
        "common": {key: _text(value) for key, value in first.items() if key not in varying},
    }


def _row(
    section: Section, row: Row, varying: Sequence[str], look: tuple[str, tuple[str, str]]
) -> dict[str, Any]:
    comparison = row.comparison
    color, (dash, _) = look
    return {
        "name": row.name,
        "color": color,
        "dash": dash,
        "finished": len(row.finished),
        "begun": len(row.runs),
        "val": _spread(row.error("val")),
        "test": _spread(row.error("test")),
        "runs": [
            {"folder": run.folder.name, "mae": mae}
            for run in row.finished
            if (mae := run.error(section.part)) is not None
        ],
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
        "curve": curve(row),
        "errors": {
            crystal: float(f"{error:.4g}")
            for crystal, error in mean_errors(row.finished, section.part).items()
        },
    }


def _spread(spread: Spread | None) -> dict[str, float | None] | None:
    return None if spread is None else {"mean": spread.mean, "sd": spread.deviation}


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
