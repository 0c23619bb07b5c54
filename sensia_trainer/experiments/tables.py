"""Tables of finished experiments: our numbers with intervals, the paper's beside them, and what they say of claims."""

import math
import textwrap
from pathlib import Path
from statistics import mean, variance

from matplotlib.figure import Figure
from scipy.stats import t as student_t

from ..evaluation.settings import EvaluationConfig
from ..evaluation.vectors import DEFAULTS
from ..training.by_pair import with_drift
from ..training.runs import defaults_of
from ..utils.figures import save_figure
from ..utils.files import plain, portable, read_json
from ..utils.markdown import bold, escape, table, with_interval
from ..utils.statistics import difference_interval
from .matrix import Matrix, Run, differing, result_file


# Fields of an evaluation on which its numbers depend, wherever its data lie.
MEASURED_ON = ("source", "target", "flores_purpose", "tasks", "templates", "questions", "max_items", "max_length")
MEASURED_ON += ("pooling", "temperature", "context_state", "context_layer")
PANELS = 4  # of a figure beside each other
# What a claim may compare a row with, besides another row and `ZERO`, which differences are compared with.
YARDSTICKS = ("overlap", "random")
ZERO = (0.0, [0.0, 0.0])


def load_results(runs: list[Run], results_dir, yardsticks="") -> dict[str, dict]:
    """
    The results of the runs that have one; the metrics after training say how far it moved the source's senses.

    Args:
        runs (`list[Run]`): The runs.
        results_dir (`str` or `Path`): Where their results are.
        yardsticks (`str`, *optional*): An evaluation of their base model, beside `results_dir` (if it is there). Where
            the runs were evaluated on the same sentences without yardsticks, its overlap, which the tokenizer alone
            decides, is theirs where they kept the tokenizer; its recall with random weights is that of a Backpack that
            is measured by the same vectors. How a Backpack's base predicts the source sentences stands as `base`
            beside a run that was evaluated on the same ones.
    """
    files = {run.name: result_file(results_dir, run) for run in runs}
    results = {name: read_json(file) for name, file in files.items() if file.is_file()}
    file = Path(results_dir).parent / yardsticks
    evaluation = read_json(file) if yardsticks and file.is_file() else {}
    of_base = evaluation.get("flores", {})
    for result in results.values():
        found, metrics = result.get("evaluation", {}).get("flores"), with_drift(result.get("metrics", {}))
        result |= {"metrics": metrics} if metrics else {}
        if not found or not of_base:
            continue
        is_backpack = metrics.get("kind") == "adaptation"
        if "vocabulary" not in metrics and _are_equal(found, of_base, "fingerprint"):
            alike = is_backpack and _vectors(result["evaluation"]) == _vectors(evaluation)
            kinds = ("overlap_", "random_") if alike else ("overlap_",)
            found |= {key: value for key, value in of_base.items() if key.startswith(kinds) and key not in found}
        if is_backpack and _are_equal(found, of_base, "source", "split"):
            result["base"] = {key: value for key, value in of_base.items() if key.startswith("source_")}
    return results


def _vectors(evaluation: dict) -> dict:
    """By which vectors an evaluation measured."""
    config = evaluation.get("config") or {}
    return {name: default if config.get(name) is None else config[name] for name, default in DEFAULTS.items()}


def _are_equal(one: dict, other: dict, *keys: str) -> bool:
    return all(one.get(key) == other.get(key) for key in keys)


def measured(result: dict, column: dict) -> tuple[float, list[float] | None] | None:
    """The value of a column in one result, with its interval where the result has one; None if it is not there."""
    if "task" in column:
        templates = (column.get("template", "plain"), "own")  # of own choices, which have no other
        scoring = column.get("scoring", "cond")
        for task in result.get("evaluation", {}).get("tasks", []):
            of_column = task["task"] == column["task"] and column.get("language") in (None, task.get("language"))
            if of_column and task["template"] in templates and scoring in task["scores"]:
                score = task["scores"][scoring]
                return score["accuracy"], score.get("interval")
        return None
    *path, last = column["metric"].split(".")
    for name in path:
        result = result.get(name) if isinstance(result, dict) else None
    value = result.get(last) if isinstance(result, dict) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(
            f"The column {column['label']!r} is of `metric` {column['metric']!r}, which is no number but a "
            f"{type(value).__name__}: name one in it."
        )
    interval = result.get("interval" if last == "mean" else f"{last}_interval")
    return value, interval if interval and None not in interval else None


def summarise(values: list[tuple[float, list[float] | None]]) -> tuple[float, list[float] | None] | None:
    """One value with its 95 % interval; of several runs, their mean with that of the mean.

    The variance of the mean of n runs is that of the test items, which the runs share (the mean of the runs' own), and
    that of the runs divided by n, with the quantile of Student's t for so few runs. A run without an interval adds no
    variance of items.
    """
    if len(values) < 2:
        return values[0] if values else None
    numbers = [value for value, _ in values]
    center = mean(numbers)
    items = mean(_half_width(interval) ** 2 for _, interval in values)
    quantile = student_t.ppf(0.975, len(numbers) - 1)
    half = math.sqrt(items + quantile**2 * variance(numbers) / len(numbers))
    return center, [center - half, center + half]


def _half_width(interval: list[float] | None) -> float:
    return (interval[1] - interval[0]) / 2 if interval else 0.0


def table_rows(matrix: Matrix, runs: list[Run], results: dict[str, dict]) -> list[dict]:
    """The rows of the table: `labels`, `name`, `runs` (with a result), `cells` (value and interval by column),
    `yardsticks`: the cells of the same runs without a model (`overlap`) and with random weights (`random`), and
    zero; and `earlier`: whether one of them is [`of_an_earlier_recipe`]."""
    rows, earlier = {}, of_an_earlier_recipe(runs, results)
    for run in runs:
        labels = {axis: value for axis, value in run.labels.items() if axis != matrix.average}
        row = rows.setdefault("-".join(labels.values()), {"labels": labels, "results": [], "earlier": False})
        row["earlier"] |= run.name in earlier
        if run.name in results:
            row["results"].append(results[run.name])
    for name, row in rows.items():
        row["name"], row["runs"] = name, len(row["results"])
        row["cells"] = _cells(row["results"], matrix.columns)
        row["yardsticks"] = {
            name: _cells(row["results"], [yardstick(column, name) for column in matrix.columns]) for name in YARDSTICKS
        } | {"zero": dict.fromkeys(row["cells"], ZERO)}
    return list(rows.values())


def _cells(results: list[dict], columns: list[dict]) -> dict:
    values = {column["label"]: [measured(result, column) for result in results] for column in columns}
    return {label: summarise([value for value in found if value is not None]) for label, found in values.items()}


def yardstick(column: dict, name: str) -> dict:
    """The column with a retrieval metric replaced by that of a yardstick: `sense_recall_source_to_target` by
    `overlap_recall_source_to_target` or `random_sense_recall_source_to_target`; in a matrix of languages,
    `sense.zero_shot` by `overlap.zero_shot` or `random_sense.zero_shot`. Others are without one."""
    path, _, metric = column.get("metric", "").rpartition(".")
    kind, retrieval, direction = metric.partition("_recall_")
    if retrieval:
        found = {"overlap": f"overlap_recall_{direction}", "random": f"random_{metric}"}[name]
    elif path.endswith((".matrix.sense", ".matrix.context")):
        path, _, kind = path.rpartition(".")
        found = {"overlap": f"overlap.{metric}", "random": f"random_{kind}.{metric}"}[name]
    else:
        return {"label": column["label"], "metric": "without a yardstick"}
    return {"label": column["label"], "metric": f"{path}.{found}"}


def render_table(matrix: Matrix, runs: list[Run], results: dict[str, dict]) -> str:
    """The matrix as Markdown: our numbers with their intervals, and the paper's beside them. Rows that have neither
    are named below the table."""
    rows, paper = table_rows(matrix, runs, results), matrix.paper.get("values", {})
    to_run = [row["name"] for row in rows if not row["runs"] and row["name"] not in paper]
    rows = [row for row in rows if row["name"] not in to_run]
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
                cells.append(with_interval(paper.get(row["name"], {}).get(label), digits=digits))
        lines.append(cells)
    notes = [matrix.caption.strip()] if matrix.caption else []
    notes += ["In brackets: 95 % interval over test items, where the evaluation gives one."]
    if matrix.average:
        notes[-1] = f"Mean over `{matrix.average}`; in brackets: its 95 % interval, over test items and runs."
    if quoted:
        notes.append(f"Paper: {matrix.paper.get('source', 'as published')}.")
    parts = [" ".join(notes), table(header, lines)]
    if to_run:
        parts.append(f"Not run yet: {', '.join(to_run)}.")
    if earlier := of_an_earlier_recipe(runs, results):
        parts.append(f"By an earlier recipe, to be run again: {', '.join(earlier)}.")
    return "\n\n".join(parts) + "\n"


def of_an_earlier_recipe(runs: list[Run], results: dict[str, dict]) -> list[str]:
    """The runs whose result is by a recipe, or an evaluation, that differs in a field that decides something."""
    trained = [(run, results.get(run.name, {}).get("recipe")) for run in runs]
    earlier = {run.name for run, then in trained if then and differing(portable(run.recipe), then, run.script)}
    defaults = plain(defaults_of(EvaluationConfig))
    for run in runs:
        then = (results.get(run.name, {}).get("evaluation") or {}).get("config") or {}
        now = portable(run.evaluation or {})
        # What a recipe leaves out has its default, but vectors, which are those of the model.
        asked = {
            name: now.get(name, defaults.get(name)) for name in MEASURED_ON if name in now or name not in DEFAULTS
        }
        earlier |= {run.name for name, value in asked.items() if name in then and then[name] != value}
    return [run.name for run in runs if run.name in earlier]


def _cell(cell, digits):
    return with_interval(*(cell or (None,)), digits=digits)


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
    """Whether the table supports a claim `{"text", "column", "better", "than", "lower"}` about two of its rows, or
    about a row and a yardstick of the same runs (`"than": "overlap"` or `"random"`; `"zero"` for differences).

    The errors of the two rows are taken as independent. On the same test items they are not: what one model finds
    hard, so does the other, so the part of the items is rather too wide than too narrow. That of single runs is not in
    it: another seed may differ by more. A row by an earlier recipe is not compared with one by that of today.

    Returns:
        The claim with `values`: the two cells; `difference`: better minus than, with its 95 % interval (None without
        both values); `verdict`: "holds" or "does not hold" where that interval leaves zero out, "open" where it does
        not or a row has no interval, "not measured" where a value is missing or of another recipe.
    """
    cells = {row["name"]: row["cells"][claim["column"]] for row in rows}
    for row in rows:
        if row["name"] == claim["better"]:
            cells = {name: found[claim["column"]] for name, found in row.get("yardsticks", {}).items()} | cells
    missing = [name for name in (claim["better"], claim["than"]) if name not in cells]
    if missing:
        raise ValueError(f"The claim {claim['text']!r} names the rows {missing}, but there are {sorted(cells)}.")
    better, than = cells[claim["better"]], cells[claim["than"]]
    verdict, difference = "not measured", None
    compared = {bool(row.get("earlier")) for row in rows if row["name"] in (claim["better"], claim["than"])}
    if better is not None and than is not None and len(compared) == 1:
        center, interval, verdict = better[0] - than[0], None, "open"
        if better[1] is not None and than[1] is not None:
            interval = difference_interval(*better, *than)
            if interval[0] > 0 or interval[1] < 0:
                verdict = "holds" if (center < 0) == bool(claim.get("lower")) else "does not hold"
        difference = center, interval
    return claim | {"verdict": verdict, "difference": difference, "values": [better, than]}


def check_claims(matrix: Matrix, runs: list[Run]) -> None:
    """Refuse, by a `ValueError`, a claim about a row that the table will not have; before the runs, not after them."""
    rows = [row["name"] for row in table_rows(matrix, runs, {})]
    for claim in matrix.claims:
        allowed = {"better": rows, "than": [*rows, *YARDSTICKS, "zero"]}
        for side, names in allowed.items():
            if claim[side] not in names:
                raise ValueError(
                    f"The claim {claim['text']!r} has {claim[side]!r} for `{side}`, which must be one of {names}."
                )


def render_claims(matrix: Matrix, runs: list[Run], results: dict[str, dict]) -> str:
    """What the table says of the matrix's claims, as Markdown; empty without claims."""
    rows = table_rows(matrix, runs, results)
    digits = {column["label"]: column.get("digits", 3) for column in matrix.columns}
    lines, unmeasured = [], 0
    for claim in matrix.claims:
        judged, places = judge(rows, claim), digits[claim["column"]]
        if judged["verdict"] == "not measured":
            unmeasured += 1
            continue
        cells = [_cell(cell, places) for cell in (*judged["values"], judged["difference"])]
        sides = (f"{claim[side]}: {cell}" for side, cell in zip(("better", "than"), cells))
        lines.append([claim["text"], claim["column"], *sides, cells[2], bold(judged["verdict"])])
    if not lines:
        return ""
    note = (
        "A claim holds, or does not, where the 95 % interval of the difference leaves out zero; otherwise it is open."
    )
    if unmeasured:
        note += f" {unmeasured} more claims are about runs or values that are not there yet, or of an earlier recipe."
    return f"{table(['claim', 'by', 'expected better', 'than', 'difference', 'verdict'], lines)}\n\n{note}\n"


def render_verdicts(verdicts: dict[str, list[dict]]) -> str:
    """Claims that several tables were asked, with the verdict of each table, and below them every claim that does not
    hold, with the tables where it does not; as Markdown, empty where there are neither.

    Args:
        verdicts: The judged claims ([`judge`]) of each table by its name.
    """
    texts = [claim["text"] for claims in verdicts.values() for claim in claims]
    shared = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
    by_text = {name: {claim["text"]: claim["verdict"] for claim in claims} for name, claims in verdicts.items()}
    names = [name for name, claims in by_text.items() if any(text in claims for text in shared)]
    rows = [[text, *(by_text[name].get(text, "–") for name in names)] for text in shared]
    parts = [table(["claim", *names], rows)] if shared else []
    refuted = {
        text: [name for name, claims in by_text.items() if claims.get(text) == "does not hold"]
        for text in dict.fromkeys(texts)
    }
    if lines := [f"- {escape(text)} ({', '.join(where)})" for text, where in refuted.items() if where]:
        parts += ["What does not hold, of all claims, and in which table:", "\n".join(lines)]
    return "\n\n".join(parts) + "\n" if parts else ""


def agreement(matrix: Matrix, runs: list[Run], results: dict[str, dict], others: dict[str, dict]) -> list[dict]:
    """The runs that were made twice: value by value, whether the second agrees with the first.

    Returns:
        A row for each run in `others` and column: `run`, `column`, `first`, `second`, `agrees`: "equal", "within the
        interval" where the 95 % interval of the difference over test items covers zero, or "differs".
    """
    rows = []
    for run in runs:
        for column in matrix.columns if run.name in others and run.name in results else ():
            first, second = measured(results[run.name], column), measured(others[run.name], column)
            if first is None or second is None:
                continue
            low, high = difference_interval(*first, *second)
            within = low <= 0 <= high
            agrees = "equal" if first[0] == second[0] else "within the interval" if within else "differs"
            row = {"run": run.name, "column": column["label"], "first": first[0], "second": second[0]}
            rows.append(row | {"agrees": agrees})
    return rows


def render_agreement(rows: list[dict]) -> str:
    """[`agreement`] as Markdown."""
    lines = [[row["run"], row["column"], f"{row['first']:.6g}", f"{row['second']:.6g}", row["agrees"]] for row in rows]
    return table(["run", "column", "first", "again", ""], lines) + "\n"


def render_report(title: str, preface: str, sections: list[tuple[str, str]]) -> str:
    """One document of all matrices: `sections` are (Markdown, path of a figure or ""); a single line is a figure's
    caption."""
    parts = [f"# {escape(title)}", preface.strip()]
    for text, figure in sections:
        shown = "The table above as a figure" if "\n" in text.strip() else text.strip()
        parts.append(text.strip() + (f"\n\n![{shown}]({figure})" if figure else ""))
    return "\n\n".join(part for part in parts if part) + "\n"
