"""A report as one page: plots to look into, a table to sort, rows to compare. It needs no network.

The page is `page.html`, its behaviour `page.js`, its content the JSON that `page_data` makes.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potnet.config import ConfigError
from potnet.runs.report.markdown import METHOD, missing_runs, published_notes, section_title
from potnet.runs.report.plots import curve
from potnet.runs.report.rows import Row, Section, Spread, mean_errors


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


def html_report(title: str, sections: Sequence[Section], not_begun: Sequence[str], plotly: str) -> str:
    """The page.

    Args:
        title: Its heading.
        sections: With at least one row each.
        not_begun: Jobs without a folder.
        plotly: From `plotly_javascript`.
    """
    here = Path(__file__)
    # "</script>" in the name of a row would end the element that holds the data.
    data = json.dumps(page_data(sections, not_begun), allow_nan=False).replace("</", "<\\/")
    page = here.with_name("page.html").read_text(encoding="utf-8")
    contents = {
        "TITLE": html.escape(title),
        "METHOD": html.escape(METHOD),
        "SCRIPT": here.with_name("page.js").read_text(encoding="utf-8"),
        "DATA": data,
        "PLOTLY": plotly,
    }
    return re.sub("@([A-Z]+)@", lambda mark: contents[mark[1]], page)


def page_data(sections: Sequence[Section], not_begun: Sequence[str]) -> dict[str, Any]:
    """What the page shows, as plain containers; page.js says how."""
    runs = [run for section in sections for row in section.rows for run in row.runs]
    return {
        "sections": [_section(section) for section in sections],
        "missing": [line.replace("`", "") for line in missing_runs(runs, not_begun)],
    }


def _section(section: Section) -> dict[str, Any]:
    first = section.rows[0].settings
    keys = {key: None for row in section.rows for key in row.settings}
    varying = [key for key in keys if any(row.settings.get(key) != first.get(key) for row in section.rows)]
    return {
        "key": section.key,
        "title": section_title(section),
        "unit": section.unit,
        "part": section.part,
        "reference": section.reference.name,
        "published": published_notes(section),
        "rows": [_row(section, row, varying) for row in section.rows],
        "common": {key: _text(value) for key, value in first.items() if key not in varying},
    }


def _row(section: Section, row: Row, varying: Sequence[str]) -> dict[str, Any]:
    comparison = row.comparison
    return {
        "name": row.name,
        "finished": len(row.finished),
        "begun": len(row.runs),
        "val": _spread(row.error("val")),
        "test": _spread(row.error("test")),
        "runs": [
            {"folder": run.folder.name, "mae": mae}
            for run in row.finished
            if (mae := run.metric(section.part)) is not None
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


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
