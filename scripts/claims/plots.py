"""Plots as SVG, the same bytes from the same values, on a white card that suits any page."""

from __future__ import annotations

import io
import re

import matplotlib

from claims.verdicts import Plot

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

COLOURS = ("#1f5fa8", "#c1440e", "#2e7d32", "#7b3fa0", "#8a6d00", "#00798c")
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Lines differ in shape too, for readers who cannot distinguish the colours."""
SETTINGS = {
    "svg.hashsalt": "mt", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "figure.facecolor": "white", "axes.facecolor": "white", "path.simplify": True,
}  # fmt: skip


def svg(plot: Plot) -> str:
    """Return the plot as the text of an SVG file."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = pyplot.subplots(figsize=(6.8, 4.2), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        for number, line in enumerate(plot.lines):
            look = number % len(COLOURS)
            colour = COLOURS[look]
            if line.low:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, lw=0)
            axes.plot(
                line.x, line.y, color=colour, marker=MARKERS[look], markersize=4.5, lw=1.6,
                label=line.name,
            )  # fmt: skip
        axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
        if plot.log_y:
            axes.set_yscale("log")
        if plot.log_x:
            _ticks_at_values(axes, sorted({x for line in plot.lines for x in line.x}))
        if not plot.log_y:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.6g}"))
        if len(plot.lines) > 1:
            columns = 2 if len(plot.lines) in (2, 4) else 3
            figure.legend(loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    text = stream.getvalue()
    # The text does not depend on the fonts of a machine; matplotlib leaves trailing blanks.
    return re.sub(r"[ \t]+\n", "\n", text)


def _ticks_at_values(axes: pyplot.Axes, values: list[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value:,.6g}" for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
