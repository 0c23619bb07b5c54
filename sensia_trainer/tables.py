"""Tables of finished experiments: our numbers with intervals, the paper's beside them, and what they say of claims."""

import math
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from .evaluation.figures import save_figure
from .experiments import Matrix, Run


# Panels of a figure beside each other.
PANELS = 4


def measured(result: dict, column: dict) -> tuple[float, list[float] | None] | None:
    """The value of a column in one result, with its interval where the result has one; None if it is not there."""
    if "task" in column:
        template, scoring = column.get("template", "plain"), column.get("scoring", "cond")
        for task in result.get("evaluation", {}).get("tasks", []):
            if task["task"] == column["task"] and task["template"] == template and scoring in task["scores"]:
                score = task["scores"][scoring]
                return score["accuracy"], score.get("interval")
        return None
    *path, last = column["metric"].split(".")
    for name in path:
        result = (result or {}).get(name)
    value = (result or {}).get(last)
    if value is None:
        return None
    return value, result.get("interval" if last == "mean" else f"{last}_interval")


def summarise(values: list[tuple[float, list[float] | None]]) -> tuple[float, list[float] | None] | None:
    """One value with its interval; of several runs, their mean, and all that their intervals cover together.

    A run without an interval counts by its value alone. Of the values alone the spread would say nothing about the test
    items: three runs that agree would be certain, however few the items.
    """
    if len(values) < 2:
        return values[0] if values else None
    numbers = [value for value, _ in values]
    bounds = [bound for value, interval in values for bound in interval or [value]]
    return sum(numbers) / len(numbers), [min(bounds), max(bounds)]


def table_rows(matrix: Matrix, runs: list[Run], results: dict[str, dict]) -> list[dict]:
    """The rows of the table: `labels`, `name`, `runs` (with a result), `cells` (value and interval by column)."""
    rows = {}
    for run in runs:
        labels = {axis: value for axis, value in run.labels.items() if axis != matrix.average}
        row = rows.setdefault("-".join(labels.values()), {"labels": labels, "results": []})
        if run.name in results:
            row["results"].append(results[run.name])
    for name, row in rows.items():
        row["name"], row["runs"] = name, len(row["results"])
        row["cells"] = {}
        for column in matrix.columns:
            values = [measured(result, column) for result in row["results"]]
            row["cells"][column["label"]] = summarise([value for value in values if value is not None])
    return list(rows.values())


def render_table(matrix: Matrix, runs: list[Run], results: dict[str, dict]) -> str:
    """The matrix as Markdown: our numbers with their intervals, and the paper's beside them."""
    rows, paper = table_rows(matrix, runs, results), matrix.paper.get("values", {})
    quoted = {c["label"] for c in matrix.columns if any(c["label"] in values for values in paper.values())}
    header = [axis for axis in matrix.axes if axis != matrix.average] + ["runs"]
    for column in matrix.columns:
        header += [column["label"]] + [f"{column['label']} (paper)"] * (column["label"] in quoted)
    lines = []
    for row in rows:
        cells = [*row["labels"].values(), str(row["runs"])]
        for column in matrix.columns:
            label, digits = column["label"], column.get("digits", 3)
            cells.append(_cell(row["cells"][label], digits))
            if label in quoted:
                value = paper.get(row["name"], {}).get(label)
                cells.append("–" if value is None else f"{value:.{digits}f}" if value < 1e6 else f"{value:.1e}")
        lines.append(cells)
    table = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *lines)]
    notes = [matrix.caption.strip()] if matrix.caption else []
    notes += ["In brackets: 95 % interval over test items, where the evaluation gives one."]
    if matrix.average:
        notes[-1] = (
            f"Mean over `{matrix.average}`; in brackets: from the lowest to the highest bound of the runs' 95 % intervals "
            f"over test items."
        )
    if quoted:
        notes.append(f"Paper: {matrix.paper.get('source', 'as published')}.")
    return "\n\n".join([" ".join(notes), "\n".join(table)]) + "\n"


def _cell(cell, digits):
    if cell is None:
        return "–"
    value, interval = cell
    text = f"{value:.{digits}f}"
    return text if interval is None else f"{text} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def draw_table(matrix: Matrix, runs: list[Run], results: dict[str, dict], path) -> list[Path]:
    """The table as dots with intervals, one panel for each column that has a number, as PNG and SVG."""
    rows = [row for row in table_rows(matrix, runs, results) if row["runs"]]
    columns = [c["label"] for c in matrix.columns if any(row["cells"][c["label"]] for row in rows)]
    if not columns:
        return []
    across = min(len(columns), PANELS)
    down = math.ceil(len(columns) / across)
    size = (1.6 + 2.2 * across, (0.9 + 0.26 * len(rows)) * down)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False).flat
    for axis in panels[len(columns) :]:
        axis.set_visible(False)
    for axis, label in zip(panels, columns):
        for place, row in enumerate(rows):
            if row["cells"][label] is not None:
                value, interval = row["cells"][label]
                if interval is not None:
                    axis.plot(interval, [place, place], color="#888888", linewidth=2, zorder=1)
                axis.plot(value, place, "o", color="#1b3a6b", markersize=5, zorder=2)
        axis.set_title(textwrap.fill(label, 24), fontsize=9)
        axis.grid(axis="y", linewidth=0.4, color="#dddddd")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [", ".join(row["labels"].values()) for row in rows])
    panels[0].invert_yaxis()
    return save_figure(figure, path)


def judge(rows: list[dict], claim: dict) -> dict:
    """Whether the table supports a claim `{"text", "column", "better", "than", "lower"}` about two of its rows.

    Returns:
        The claim with `verdict`: "holds" or "does not hold" where the intervals of the two rows do not overlap, "open"
        where they do or one has none, "not measured" where a value is missing; `values`: the two cells.
    """
    cells = {row["name"]: row["cells"][claim["column"]] for row in rows}
    missing = [name for name in (claim["better"], claim["than"]) if name not in cells]
    if missing:
        raise ValueError(f"The claim {claim['text']!r} names the rows {missing}, but there are {sorted(cells)}.")
    better, than = cells[claim["better"]], cells[claim["than"]]
    if better is None or than is None:
        verdict = "not measured"
    elif better[1] is None or than[1] is None or (better[1][0] <= than[1][1] and than[1][0] <= better[1][1]):
        verdict = "open"
    else:
        holds = better[0] < than[0] if claim.get("lower") else better[0] > than[0]
        verdict = "holds" if holds else "does not hold"
    return claim | {"verdict": verdict, "values": [better, than]}


def render_claims(matrix: Matrix, runs: list[Run], results: dict[str, dict]) -> str:
    """What the table says of the matrix's claims, as Markdown; empty without claims."""
    rows = table_rows(matrix, runs, results)
    digits = {column["label"]: column.get("digits", 3) for column in matrix.columns}
    lines = []
    for claim in matrix.claims:
        judged = judge(rows, claim)
        better, than = (_cell(cell, digits[claim["column"]]) for cell in judged["values"])
        lines.append(
            f"| {claim['text']} | {claim['column']} | {claim['better']}: {better} | {claim['than']}: {than} "
            f"| **{judged['verdict']}** |"
        )
    if not lines:
        return ""
    header = ["| claim | by | expected better | than | verdict |", "|---|---|---|---|---|"]
    note = "A claim holds, or does not, where the two intervals in the table do not overlap; otherwise it is open."
    return "\n".join([*header, *lines, "", note]) + "\n"


def agreement(matrix: Matrix, runs: list[Run], results: dict[str, dict], others: dict[str, dict]) -> list[dict]:
    """The runs that were made twice: value by value, whether the second agrees with the first.

    Returns:
        A row for each run in `others` and column: `run`, `column`, `first`, `second`, `agrees`: "equal", "within the
        interval" of the first, or "differs".
    """
    rows = []
    for run in runs:
        for column in matrix.columns if run.name in others and run.name in results else ():
            first, second = measured(results[run.name], column), measured(others[run.name], column)
            if first is None or second is None:
                continue
            interval = first[1] or [first[0], first[0]]
            within = interval[0] <= second[0] <= interval[1]
            agrees = "equal" if first[0] == second[0] else "within the interval" if within else "differs"
            row = {"run": run.name, "column": column["label"], "first": first[0], "second": second[0]}
            rows.append(row | {"agrees": agrees})
    return rows


def render_agreement(rows: list[dict]) -> str:
    """[`agreement`] as Markdown."""
    lines = [
        f"| {row['run']} | {row['column']} | {row['first']:.6g} | {row['second']:.6g} | {row['agrees']} |"
        for row in rows
    ]
    return "\n".join(["| run | column | first | again | |", "|---|---|---|---|---|", *lines]) + "\n"


def render_report(title: str, preface: str, sections: list[tuple[str, str]]) -> str:
    """One document of all matrices: `sections` are (Markdown, path of a figure or "")."""
    parts = [f"# {title}", preface.strip()]
    for text, figure in sections:
        parts.append(text.strip() + (f"\n\n![The table above as a figure]({figure})" if figure else ""))
    return "\n\n".join(part for part in parts if part) + "\n"
