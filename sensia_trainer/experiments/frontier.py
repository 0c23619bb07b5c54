"""What is gained against what it costs: every row of a table a point, and the frontier that none of them passes."""

from pathlib import Path

from matplotlib.figure import Figure

from ..utils.figures import save_figure
from .matrix import Matrix, Run
from .tables import table_rows


# Of Okabe and Ito, told apart by every kind of colour vision; the frontier's points have another shape besides.
FRONTIER, BEHIND, INTERVAL = "#d55e00", "#0072b2", "#bbbbbb"
# What the same row gains without a model and with random weights, at what it costs: a dash and a cross.
YARDSTICKS = {"overlap": "_", "random": "x"}


# Shares of the two axes within which a number would be written upon another.
NEAR = (0.07, 0.025)


def frontier(points: list[tuple[float, float]]) -> list[int]:
    """
    Which points no other passes: none costs less, or as much, and gains more, or as much, but not both alike.

    Args:
        points (`list[tuple[float, float]]`): Cost and gain of each.

    Returns:
        `list[int]`: their indices, the cheapest first.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    found, best = [], float("-inf")
    for index in order:
        cost, gain = points[index]
        if gain > best or (found and points[found[-1]] == (cost, gain)):
            found.append(index)
            best = gain
    return found


def draw_frontier(matrix: Matrix, runs: list[Run], results: dict[str, dict], path) -> list[Path]:
    """The panels of `matrix.frontier` as PNG and SVG: each row a numbered point with its intervals, named beside, and
    what overlap of tokens (a dash) and random weights (a cross) gain. A frontier is drawn for each value of a panel's
    axis `within`, where costs of different ones cannot be compared (bits a byte of languages)."""
    rows = [row for row in table_rows(matrix, runs, results) if row["runs"]]
    panels = [panel for panel in matrix.frontier if any(_point(row, panel) for row in rows)]
    if not panels:
        return []
    height = max(3.6, 0.6 + 0.17 * len(rows))
    figure = Figure(figsize=(4.4 * len(panels) + 2.6, height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel, rows)
    names = "\n".join(f"{number}  {', '.join(row['labels'].values())}" for number, row in enumerate(rows, 1))
    axes[-1].annotate(names, (1.03, 1), xycoords="axes fraction", va="top", fontsize=7, linespacing=1.35)
    return save_figure(figure, path)


def _draw_panel(axis, panel, rows):
    numbered = [(number, _point(row, panel)) for number, row in enumerate(rows, 1)]
    numbered = [(number, point) for number, point in numbered if point]
    centers = [(cost[0], gain[0]) for _, (cost, gain) in numbered]
    yardsticks = {number: _yardsticks(row, panel) for number, row in enumerate(rows, 1)}
    groups = {}
    for index, (number, _) in enumerate(numbered):
        groups.setdefault(rows[number - 1]["labels"].get(panel.get("within")), []).append(index)
    best = []
    for group in groups.values():
        found = [group[place] for place in frontier([centers[index] for index in group])]
        axis.plot(*zip(*(centers[index] for index in found), strict=True), color=FRONTIER, linewidth=1.2, zorder=2)
        best += found
    for index, (number, (cost, gain)) in enumerate(numbered):
        for interval, line in (
            (cost[1], lambda i, g=gain: (i, [g[0]] * 2)),
            (gain[1], lambda i, c=cost: ([c[0]] * 2, i)),
        ):
            if interval is not None:
                axis.plot(*line(interval), color=INTERVAL, linewidth=0.6, zorder=1)
        style = {"marker": "D", "color": FRONTIER} if index in best else {"marker": "o", "color": BEHIND}
        axis.plot(cost[0], gain[0], linestyle="none", markersize=4.5, zorder=3, **style)
        for marker, found in yardsticks[number].items():
            axis.plot(cost[0], found[0], linestyle="none", marker=marker, color="0.45", markersize=5, zorder=1)
    for index in readable(centers, best):
        number = str(numbered[index][0])
        axis.annotate(number, centers[index], (3, 3), textcoords="offset points", fontsize=7, zorder=4)
    axis.set_xlabel(f"{panel['cost']} (less is better)", fontsize=8)
    axis.set_ylabel(panel["gain"], fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(linewidth=0.4, color="#dddddd")
    axis.spines[["top", "right"]].set_visible(False)


def readable(points: list[tuple[float, float]], first: list[int]) -> list[int]:
    """Indices of points whose numbers do not lie upon each other, those in `first` preferred."""
    spans = [max(values) - min(values) or 1.0 for values in zip(*points)]
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: index not in first):
        apart = ([abs(a - b) / span for a, b, span in zip(points[index], points[other], spans)] for other in kept)
        if all(any(distance > near for distance, near in zip(distances, NEAR)) for distances in apart):
            kept.append(index)
    return kept


def _yardsticks(row, panel):
    """The yardsticks of the gain by their markers, where the row has them."""
    found = {marker: row["yardsticks"][name][panel["gain"]] for name, marker in YARDSTICKS.items()}
    return {marker: cell for marker, cell in found.items() if cell}


def _point(row, panel):
    """The cells (value and interval) of cost and gain; None where one is missing."""
    cells = row["cells"][panel["cost"]], row["cells"][panel["gain"]]
    return None if None in cells else cells
