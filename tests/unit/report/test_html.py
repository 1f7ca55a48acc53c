"""The page: one file, nothing fetched, and what a browser makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from potnet.config import ConfigError
from potnet.runs.report import collect, sections
from potnet.runs.report.command import write_report
from potnet.runs.report.html import html_report


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command of a Chromium that shows a page; the test is skipped where there is none."""
    folder = tmp_path_factory.mktemp("chromium")
    blank = folder / "blank.html"
    blank.write_text("<p id='probe'>")
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        # The file may be a stub that asks to install the browser, and a container may not let it run.
        with suppress(OSError, subprocess.SubprocessError):
            if shutil.which(name) and "probe" in opened(name, blank, folder / "probe", "", 60):
                return name
    pytest.skip("no Chromium that works here: the page was parsed, not run")


class Page(HTMLParser):
    """Start tags with their attributes, and the text inside each element that has an id or a class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1][0] if self.tags else "", data))


def test_page_holds_its_data_and_fetches_nothing(study: Path) -> None:
    text = html_report("<b>A & B", sections(collect([study])), ["seed=3"], plotly="")
    page = Page(text)
    assert not [tag for tag, attributes in page.tags if {"src", "href"} & attributes.keys()]
    assert ("h1", "<b>A & B") in page.texts
    (data,) = [json.loads(text) for tag, text in page.texts if text.startswith('{"sections"')]
    assert "seed=3: not begun" in data["missing"]
    assert any("unfinished, 2 of 3 epochs" in line for line in data["missing"])
    (section,) = data["sections"]
    rows = {row["name"]: row for row in section["rows"]}
    assert rows["pairs_none"]["difference"]["mean"] == pytest.approx(0.05)
    assert rows["pairs_none"]["settings"] == {"features.pair_cutoff": "null", "model.pairs": "none"}
    assert rows["radius_4"]["settings"] == {"features.pair_cutoff": "4.0", "model.pairs": "complete"}
    assert section["common"]["trainer.max_epochs"] == "3"
    assert [point[0] for point in rows["complete"]["curve"]] == [1, 2, 3]


def test_runs_without_a_test_part(study: Path) -> None:
    for file in study.glob("*/metrics.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "test": {"mae": float("nan"), "n": 0}}))
    for file in study.glob("*/predictions.csv"):
        file.write_text("id,split,target,prediction\n")
    found = sections(collect([study]))
    assert [row.comparison for row in found[0].rows] == [None, None, None]
    assert "NaN" not in html_report("t", found, [], plotly="")


def test_data_cannot_end_its_element(study: Path) -> None:
    text = html_report("t", sections(collect([study])), ["a=</script><script>alert(1)"], plotly="")
    assert "</script><script>alert" not in text


def test_without_plotly(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=r'format=html needs plotly: pip install "potnet\[report\]"'):
        write_report([str(study)], tmp_path / "report", ["html"])
    assert not (tmp_path / "report").exists()


def opened(chromium: str, page: Path, folder: Path, fragment: str, seconds: float = 300) -> str:
    """The document after its scripts have run, as Chromium has it."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder}", "--virtual-time-budget=5000", "--dump-dom",
        f"{page.as_uri()}#{fragment}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    return done.stdout


def test_page_in_a_browser(study: Path, tmp_path: Path, chromium: str) -> None:
    pytest.importorskip("plotly")
    (page,) = write_report([str(study)], tmp_path / "report", ["html"])
    text = opened(chromium, page, tmp_path / "profile", "sort=-difference")
    document = Page(text)
    body = next(attributes for tag, attributes in document.tags if tag == "body")
    assert body.get("data-ready") == "true"
    assert "data-error" not in body
    heads = [attributes for tag, attributes in document.tags if tag == "th" and "data-column" in attributes]
    assert {head["data-column"]: head.get("aria-sort") for head in heads}["difference"] == "descending"
    assert rows_of(text) == ["pairs_none", "complete", "radius_4"]
    # Two plots of three rows, and the one of crystals, which Plotly draws as SVG.
    drawn = [attributes.get("class") or "" for _, attributes in document.tags]
    assert sum("js-plotly-plot" in name.split() for name in drawn) == 3
    assert sum(name == "scatterlayer mlayer" for name in drawn) == 3
    shown = {text for _, text in document.texts}
    assert {"model.pairs", "unfinished, 2 of 3 epochs"} <= {part for t in shown for part in (t, t[-25:])}
    assert any("better on 0 of 4" in t for t in shown)


def rows_of(text: str) -> list[str]:
    """First cells of the sortable table, from top to bottom."""
    table = text.partition('<table class="rows">')[2].partition("</table>")[0]
    body: Any = table.partition("<tbody>")[2]
    return [row.partition("<td>")[2].partition("</td>")[0] for row in body.split("<tr")[1:]]


@pytest.mark.parametrize("kind", ["run", "search"])
def test_the_other_pages_in_a_browser(kind: str, study: Path, tmp_path: Path, chromium: str) -> None:
    pytest.importorskip("plotly")
    runs = [str(study)] if kind == "search" else [str(collect([study])[0].folder)]
    (page,) = write_report(runs, tmp_path / "report", ["html"], kind=kind)
    document = Page(opened(chromium, page, tmp_path / "profile", ""))
    body = next(attributes for tag, attributes in document.tags if tag == "body")
    assert body.get("data-ready") == "true"
    assert "data-error" not in body
    drawn = [attributes.get("class") or "" for _, attributes in document.tags]
    assert sum("js-plotly-plot" in name.split() for name in drawn) == 2
    shown = {text for _, text in document.texts}
    assert ("The largest errors" if kind == "run" else "All trials") in shown
