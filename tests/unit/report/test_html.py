"""The page: one file, nothing fetched, and what a browser makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from potnet.runs.figures import as_svg
from potnet.runs.plots import parity_plot
from potnet.runs.report import collect, sections
from potnet.runs.report.command import write_report
from potnet.runs.report.html import html_report, page_data


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
    text = html_report("<b>A & B", sections(collect([study])), ["seed=3"])
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


def test_runs_without_a_test_part(study: Path) -> None:
    for file in study.glob("*/metrics.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "test": {"mae": float("nan"), "n": 0}}))
    for file in study.glob("*/predictions.csv"):
        file.write_text("id,split,target,prediction\n")
    found = sections(collect([study]))
    assert [row.comparison for row in found[0].rows] == [None, None, None]
    assert "NaN" not in html_report("t", found, [])


def test_data_cannot_end_its_element(study: Path) -> None:
    text = html_report("t", sections(collect([study])), ["a=</script><script>alert(1)"])
    assert "</script><script>alert" not in text


def test_pictures_are_part_of_the_page(study: Path) -> None:
    found = sections(collect([study]))
    data = page_data(found, [])["sections"][0]
    assert set(data["pictures"]) == {"errors", "learning"}
    errors, learning = (ElementTree.fromstring(data["pictures"][name]) for name in ("errors", "learning"))
    rows = {row.name for row in found[0].rows}
    # Each row can be pointed at, and each run has its name and its error.
    assert {node.get("data-row") for node in learning.iter() if node.get("data-row")} == rows
    titles = [node.text for node in errors.iter("{http://www.w3.org/2000/svg}title")]
    runs = {f"{run.folder.name}: {run.error('test'):.4f}" for row in found[0].rows for run in row.finished}
    assert set(titles) == runs
    assert len(titles) == len(runs)
    # Names of groups would be those of the next picture as well; equal pictures are equal text.
    assert not [node for node in errors.iter() if node.tag.endswith("}g") and node.get("id")]
    assert page_data(found, [])["sections"][0]["pictures"] == data["pictures"]
    # Errors by crystal are kept once, in the order of their names.
    complete = next(row for row in data["rows"] if row["name"] == "complete")
    assert dict(zip(data["crystals"], complete["errors"], strict=True))["mp-1"] == pytest.approx(0.205)


def test_points_that_cannot_be_drawn_have_no_title() -> None:
    """On a logarithmic axis there is no zero."""
    metrics = {"mae": 1.0, "unit": "", "r2": None}
    draw = partial(
        parity_plot, target=[1.0, 0.0, 3.0], prediction=[2.0, 2.0, 4.0], metrics=metrics, name="k", unit="",
        log=True, ids=["a", "b", "c<"],
    )  # fmt: skip
    root = ElementTree.fromstring(as_svg(draw))
    titles = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["a: 1, predicted 2", "c<: 3, predicted 4"]


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
    (page,) = write_report([str(study)], tmp_path / "report", ["html"])
    text = opened(chromium, page, tmp_path / "profile", "sort=-difference")
    document = Page(text)
    body = next(attributes for tag, attributes in document.tags if tag == "body")
    assert body.get("data-ready") == "true"
    assert "data-error" not in body
    heads = [attributes for tag, attributes in document.tags if tag == "th" and "data-column" in attributes]
    assert {head["data-column"]: head.get("aria-sort") for head in heads}["difference"] == "descending"
    assert rows_of(text) == ["pairs_none", "complete", "radius_4"]
    # Two pictures of three rows, and the one of crystals, which the page draws.
    assert [tag for tag, _ in document.tags].count("svg") == 3
    assert [tag for tag, _ in document.tags].count("circle") == 4
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
    runs = [str(study)] if kind == "search" else [str(collect([study])[0].folder)]
    (page,) = write_report(runs, tmp_path / "report", ["html"], kind=kind)
    document = Page(opened(chromium, page, tmp_path / "profile", ""))
    body = next(attributes for tag, attributes in document.tags if tag == "body")
    assert body.get("data-ready") == "true"
    assert "data-error" not in body
    assert [tag for tag, _ in document.tags].count("svg") == 2
    shown = {text for _, text in document.texts}
    assert ("The largest errors" if kind == "run" else "All trials") in shown
