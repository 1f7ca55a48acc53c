"""The look of all pictures. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
