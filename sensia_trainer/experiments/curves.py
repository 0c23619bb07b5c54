"""A column of a table against another that grows along an axis: how much more pairs bring, say."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..languages import language
from ..utils.figures import save_figure
from .matrix import Matrix, Run
from .tables import table_rows


# Of Okabe and Ito, told apart by every kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
# What the same rows find without a model and with random weights: line, label.
YARDSTICKS = {"overlap": ("dashed", "token overlap, no model"), "random": ("dotted", "random weights")}


def draw_curves(matrix: Matrix, runs: list[Run], results: dict[str, dict], path) -> list[Path]:
    """The panels of `matrix.curves` as PNG and SVG: a line with intervals for all rows that differ in `axis` alone,
    over a logarithmic scale of the column `x`; dashed what overlap of tokens finds, dotted what random weights do."""
    rows = [row for row in table_rows(matrix, runs, results) if row["runs"]]
    drawn = [(panel, _points(lines(rows, panel["axis"]), panel)) for panel in matrix.curves]
    panels = [(panel, found) for panel, found in drawn if found]
    if not panels:
        return []
    names = list(dict.fromkeys(name for _, found in panels for name in found))  # one colour in all panels
    figure = Figure(figsize=(4.2 * len(panels) + 1.8, 3.6), layout="constrained")
    for plot, (panel, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, points in found.items():
            _draw_line(plot, name, points, COLOURS[names.index(name) % len(COLOURS)])
        plot.set_xscale("log")
        plot.set_xlabel(panel["x"], fontsize=8)
        plot.set_title(panel["y"], fontsize=9)
        plot.tick_params(labelsize=8)
        plot.grid(linewidth=0.4, color="#dddddd")
        plot.spines[["top", "right"]].set_visible(False)
        plot.xaxis.set_major_formatter("{x:,.0f}")
    drawn_lines = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    handles = [drawn_lines[name] for name in names if name in drawn_lines]
    handles += [Line2D([], [], color="0.35", linestyle=style, label=label) for style, label in YARDSTICKS.values()]
    figure.legend(handles=handles, loc="outside right center", fontsize=7, frameon=False)
    return save_figure(figure, path)


def lines(rows: list[dict], axis: str) -> dict[str, list[dict]]:
    """The rows ([`table_rows`]) that differ in nothing but their value on `axis`, by what tells them from others."""
    found: dict[str, list[dict]] = {}
    values = {name: {row["labels"][name] for row in rows} for name in (rows[0]["labels"] if rows else ())}
    for row in rows:
        told = [
            _shown(other, value) for other, value in row["labels"].items() if other != axis and len(values[other]) > 1
        ]
        name = ", ".join(told)
        found.setdefault(name, []).append(row)
    return found


def _shown(axis, value):
    """A value of an axis; codes of languages by their names."""
    try:
        return language(value).name if axis == "language" else value
    except ValueError:  # a language's pair, or whatever else the axis holds
        return value


def _points(found, panel):
    """By line, its points `(x, value and interval, yardsticks)` in the order of x; lines without any are left out."""
    points = {
        name: sorted(
            (
                (row["cells"][panel["x"]][0], row["cells"][panel["y"]], _yardsticks(row, panel["y"]))
                for row in rows
                if row["cells"][panel["x"]] and row["cells"][panel["y"]]
            ),
            key=lambda point: point[0],
        )
        for name, rows in found.items()
    }
    return {name: line for name, line in points.items() if line}


def _yardsticks(row, label):
    return {name: row["yardsticks"][name][label] for name in YARDSTICKS}


def _draw_line(plot, name, points, colour):
    places = [x for x, _, _ in points]
    plot.plot(
        places, [value for _, (value, _), _ in points], "o-", color=colour, markersize=4, linewidth=1.2, label=name
    )
    for x, (_, interval), _ in points:
        if interval is not None:
            plot.plot([x, x], interval, color=colour, linewidth=0.8, alpha=0.5)
    for yardstick, (style, _) in YARDSTICKS.items():
        known = [(x, cells[yardstick][0]) for x, _, cells in points if cells[yardstick]]
        if known:
            plot.plot(*zip(*known, strict=True), color=colour, linestyle=style, linewidth=0.9)
