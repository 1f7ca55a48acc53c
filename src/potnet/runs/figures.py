"""The look of all pictures, and pictures as text for a page. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakKeyDictionary
from xml.etree import ElementTree

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    Destination = Path | IO[bytes]
    """Where a picture goes: a file, or a stream."""

INK, GRID = "#222222", "#dddddd"
ORANGE, BLUE = "#e08214", "#2166ac"


def new_figure(width: float, height: float, dpi: int = 160) -> tuple[Figure, Axes]:
    """An empty picture with one pair of axes, to be saved with `Figure.savefig`.

    Args:
        width: Inches.
        height: Inches.
        dpi: Pixels of an inch.
    """
    # Figure without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, which="both")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def plain_log(axis: Axis) -> None:
    """Ticks of a logarithmic axis as people write them: 5, 10, 20, 50, 100; more where little is shown."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_data_interval()
    narrow = 0 < low < high < 4 * low
    axis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


_TITLES: WeakKeyDictionary[Figure, list[tuple[Sequence[str], str]]] = WeakKeyDictionary()


def title_marks(artist: Artist, titles: Sequence[str], row: str = "") -> None:
    """Say what the marks of a picture are; on a page this shows where the pointer is.

    Args:
        artist: A line, or the points of `Axes.scatter`.
        titles: One for each point, or one for the whole.
        row: Of the report's table that this belongs to; pointing at it there brings it out here.
    """
    figure: Any = artist.get_figure()
    known = _TITLES.setdefault(figure, [])
    artist.set_gid(f"titled-{len(known)}")
    known.append((titles, row))


def as_svg(draw: Callable[[Destination], None]) -> str:
    """A picture as an SVG element, its text as text, with the titles that `title_marks` gave.

    Args:
        draw: Saves one figure into the stream that it is given.
    """
    import matplotlib

    stream = _Svg()
    # Equal pictures give equal text: no random ids, no date.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "potnet", "savefig.format": "svg"}):
        draw(stream)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(stream.getvalue())
    for extra in ("metadata", "title"):
        for found in root.findall(f"{{{_SVG}}}{extra}"):
            root.remove(found)
    groups = {node.get("id"): node for node in root.iter(f"{{{_SVG}}}g")}
    for number, (titles, row) in enumerate(stream.titles):
        group = groups.get(f"titled-{number}")
        if group is None:  # all of it lies outside of the axes
            continue
        if row:
            group.set("data-row", row)
        marks = [group] if len(titles) == 1 else list(group.iter(f"{{{_SVG}}}use"))
        for mark, title in zip(marks, titles, strict=True):
            ElementTree.SubElement(mark, f"{{{_SVG}}}title").text = title
    for node in root.iter():
        if node.tag == f"{{{_SVG}}}g":  # names of groups, which other pictures of the page have as well
            node.attrib.pop("id", None)
        for name in ("d", "x", "y", "transform"):
            if name in node.attrib:
                node.set(name, re.sub(r"(\.\d\d)\d+", r"\1", node.attrib[name]))
    for size in ("width", "height"):
        root.attrib.pop(size)  # the page chooses; the viewBox keeps the proportions
    return ElementTree.tostring(root, encoding="unicode")


_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


class _Svg(io.BytesIO):
    """Receives a picture, and the titles of its marks."""

    titles: Sequence[tuple[Sequence[str], str]] = ()


def save(figure: Figure, to: Destination) -> None:
    """Write a picture: PNG into a file, and into the stream of `as_svg` as SVG."""
    if isinstance(to, _Svg):
        to.titles = _TITLES.get(figure, [])
        figure.savefig(to, metadata={"Date": None})
    else:
        figure.savefig(to)
