"""Reports from result files: Table 1 with the paper's columns beside measured ones, as Markdown, CSV and a figure."""

import csv
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..languages import language
from ..utils.figures import save_figure
from ..utils.files import with_note
from ..utils.markdown import escape, table, with_interval
from ..utils.statistics import mcnemar
from .report_tables import PAPER, UNTESTED, mark, matrix_tables, pairs_tables, writing_tables
from .results import read_result
from .tasks import TASKS


TITLES = {
    "xcopa": "XCOPA", "copa": "COPA", "xstorycloze": "XStoryCloze", "belebele": "Belebele",
    "xstorycloze_like": "XStoryCloze-like (machine-translated)", "global_mmlu_lite": "Global-MMLU-Lite (stand-in)",
}  # fmt: skip
PAPER_MARKERS = {"Goldfish": "x", "SENSIA": "*"}  # the paper's columns that the figure shows
CHOICES = {"causal": 2, "story": 2, "reading": 4}  # choices of an item by kind of task
CSV_FIELDS = [
    "model", "task", "language", "template", "scoring", "accuracy", "low", "high", "correct", "total", "chance",
    "at_chance", "p_value", "only_this", "only_first", "data", "source",
]  # fmt: skip


def load_results(paths) -> list[dict]:
    """Result files with their per-item predictions under "items". `ValueError` as [`read_result`], and for equal
    names."""
    results = [read_result(path, with_items=True) for path in paths]
    names = [result["name"] for result in results]
    if len(set(names)) < len(names):
        raise ValueError(f"Each result needs a name of its own (got {names}); set `name` when evaluating.")
    return results


def significance(first: dict, other: dict, key: str, scoring: str) -> dict | None:
    """Exact McNemar test of `other` against `first` on one task; `None` unless both were scored on the same items."""
    a, b = other["items"].get(key), first["items"].get(key)
    if not a or not b or a["fingerprint"] != b["fingerprint"] or a["ids"] != b["ids"]:
        return None
    if scoring not in a["predictions"] or scoring not in b["predictions"]:
        return None
    hits = [[int(p == y) for p, y in zip(x["predictions"][scoring], x["labels"], strict=True)] for x in (a, b)]
    return mcnemar(*hits)


def accuracy_rows(results) -> list[dict]:
    """One row per model, task, language, template and scoring, with the test against the first result."""
    rows = []
    for result in results:
        for task in result["tasks"]:
            key = f"{task['task']}/{task['language']}/{task['template']}"
            for scoring, score in task["scores"].items():
                row = {name: task[name] for name in ("task", "language", "template", "data")}
                row |= {"model": result["name"], "scoring": scoring, "source": "measured"}
                row |= {name: score[name] for name in ("accuracy", "correct", "total", "chance", "at_chance")}
                row["low"], row["high"] = score["interval"]
                test = None if result is results[0] else significance(results[0], result, key, scoring)
                if test:
                    row |= {"p_value": test["p_value"], "only_this": test["only_a"], "only_first": test["only_b"]}
                rows.append(row)
    return rows


def paper_rows(languages) -> list[dict]:
    """The paper's accuracies for some languages (ISO 639-1), in the fields of `accuracy_rows`."""
    return [
        {"model": column, "task": row["task"], "language": row["language"], "accuracy": value, "source": "paper"}
        for row in PAPER["rows"]
        if row["language"] in languages
        for column, value in zip(PAPER["columns"], row["values"], strict=True)
        if value is not None
    ]


def compare(paths, output, scoring="cond", template="plain") -> list[Path]:
    """Renders results: Markdown at `output`, and beside it a CSV of everything and a figure (PNG and SVG). What
    `note.txt` beside it says stands below the title.

    Args:
        paths: Result files; significance is tested against the first.
        scoring, template: What the main table shows; all others are in the last table and in the CSV.

    Returns:
        The files written.
    """
    output = Path(output)
    results = load_results(paths)
    rows = accuracy_rows(results)
    shown = [row for row in rows if row["scoring"] == scoring and row["template"] in (template, "own")]
    if rows and not shown:
        present = sorted({(row["scoring"], row["template"]) for row in rows})
        raise ValueError(f"Nothing was scored by {scoring!r} with template {template!r}; there are {present}.")
    paper = paper_rows({row["language"] for row in shown})
    output.parent.mkdir(parents=True, exist_ok=True)
    names = [result["name"] for result in results]
    parts = ["# Evaluation", "", *_accuracy_table(names, shown, paper, scoring, template), *_remarks(results, shown)]
    parts += pairs_tables(results) + matrix_tables(results)
    parts += _all_scorings(names, rows)
    parts += writing_tables(results)
    output.write_text(with_note("\n".join(parts) + "\n", output.parent), encoding="utf-8")
    stem = output.stem if output.suffix.lower() in (".md", ".markdown") else output.name  # not so in `rate-0.5`
    everything = output.with_name(f"{stem}.csv")
    with everything.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows + paper)
    return [output, everything, *_accuracy_figure(names, shown, paper, output.with_name(f"{stem}.png"))]


def _ordered_keys(shown, paper) -> list[tuple[str, str]]:
    order = list(TITLES)
    keys = {(row["task"], row["language"]) for row in shown + paper}
    return sorted(keys, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key))


def _accuracy_table(names, shown, paper, scoring, template) -> list[str]:
    header = ["Benchmark", "Language", *(f"{name} (paper)" for name in PAPER["columns"]), *names]
    lines = []
    by_paper = {(row["task"], row["language"], row["model"]): row for row in paper}
    by_model = {(row["task"], row["language"], row["model"]): row for row in shown}
    for task, code in _ordered_keys(shown, paper):
        cells = [by_paper.get((task, code, column)) for column in PAPER["columns"]]
        cells = [f"{cell['accuracy']:.3f}" if cell else "–" for cell in cells]
        cells += [_cell(by_model.get((task, code, name)), names[0]) for name in names]
        lines.append([TITLES.get(task, task), language(code).name, *cells])
    return [
        "## Accuracy",
        "",
        table(header, lines),
        "",
        f"Measured columns: scoring `{scoring}`, template `{template}`, 95 % Wilson intervals. ≈ the interval holds "
        f"the chance level; * differs from {escape(names[0])} on the same items (exact McNemar test, p < .05, not "
        "corrected for the number of tests). – not measured or not published.",
        *_untested_note(names[0], shown),
        "",
        f"Paper columns: {PAPER['source']}",
    ]


def _is_untested(row, first) -> bool:
    return row["model"] != first and "p_value" not in row


def _untested_note(first, rows) -> list[str]:
    if not any(_is_untested(row, first) for row in rows):
        return []
    return [
        "",
        f"{UNTESTED} not tested: other items than those of {escape(first)}, or no file `.items.json` beside a result.",
    ]


def _cell(row, first) -> str:
    if row is None:
        return "–"
    marks = ("≈" if row["at_chance"] else "") + mark(row if "p_value" in row else None, _is_untested(row, first))
    return with_interval(row["accuracy"], [row["low"], row["high"]], mark=marks)


def _remarks(results, shown) -> list[str]:
    lines = []
    for result in results:
        rows = [row for row in shown if row["model"] == result["name"]]
        chance = sum(row["at_chance"] for row in rows)
        if rows:
            lines.append(f"- {escape(result['name'])}: {chance} of {len(rows)} measured cells above are at chance.")
    facts, cut = {}, {}
    for result in results:
        for task in result["tasks"]:
            place, items = (
                f"{TITLES.get(task['task'], task['task'])}, {language(task['language']).name}",
                task["items"],
            )
            if task["note"]:
                facts.setdefault(f"- {place}: {task['note']}.")
            if task["questions_corrected"]:
                facts.setdefault(f"- {place}: {task['questions_corrected']} of {items} `question` fields corrected.")
            for side in ("context", "answer"):
                count = task[f"cut_{side}"]
                if count:
                    what = f"- {place}, template `{task['template']}`: the {side} of {count} of {items} items"
                    cut.setdefault(what, []).append(result["name"])
    return [
        "",
        *lines,
        *facts,
        *(f"{what} was cut to fit {', '.join(map(escape, names))}." for what, names in cut.items()),
    ]


def _all_scorings(names, rows) -> list[str]:
    if not rows:
        return []
    lines = []
    keys = dict.fromkeys((row["task"], row["language"], row["template"], row["scoring"]) for row in rows)
    for task, code, template, scoring in keys:
        cells = [
            next((row for row in rows if (row["task"], row["language"], row["template"], row["scoring"], row["model"])
                  == (task, code, template, scoring, name)), None)
            for name in names
        ]  # fmt: skip
        lines.append(
            [
                TITLES.get(task, task),
                language(code).name,
                template,
                scoring,
                *(_cell(cell, names[0]) for cell in cells),
            ]
        )
    every = table(["Benchmark", "Language", "Template", "Scoring", *names], lines)
    note = (
        "`paper` uses λ and α of Table 11, `searched` those found on the validation split of the same task, `given` "
        "those of the command."
    )
    return ["", "## Every template and scoring", "", every, "", note, *_untested_note(names[0], rows)]


def _accuracy_figure(names, shown, paper, path) -> list[Path]:
    """One row per benchmark and language: measured accuracies with intervals, the paper's beside them, chance."""
    keys = _ordered_keys(shown, [row for row in paper if row["model"] in PAPER_MARKERS])
    if not keys:
        return []
    figure = Figure(figsize=(8, 1.2 + (0.3 + 0.1 * len(names)) * len(keys)), layout="constrained")
    ax = figure.subplots()
    styles = [("o", "#1b3a6b"), ("s", "#c4622d"), ("^", "#5a8f3c"), ("v", "#7a5195"), ("P", "#444444")]
    step = 0.8 / (len(names) + 1)  # the paper's values have a lane of their own above the measured ones
    for y, key in enumerate(keys):
        measured = [row for row in shown if (row["task"], row["language"]) == key]
        chance = measured[0]["chance"] if measured else 1 / CHOICES[TASKS[key[0]].kind]
        ax.plot([chance] * 2, [y - 0.4, y + 0.4], color="0.55", linestyle=":")
        for column, marker in PAPER_MARKERS.items():
            for row in paper:
                if (row["task"], row["language"], row["model"]) == (*key, column):
                    ax.plot(row["accuracy"], y - 0.4 + step / 2, marker, color="black", markersize=7, zorder=3)
        for row in measured:
            i = names.index(row["model"])
            marker, colour = styles[i % len(styles)]
            ax.errorbar(
                row["accuracy"],
                y - 0.4 + (i + 1.5) * step,
                xerr=[[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]],
                fmt=marker,
                color=colour,
                markerfacecolor=_face(row, names[0], colour),
                markersize=5,
            )
    handles = [Line2D([], [], color="0.55", linestyle=":", label="chance")]
    handles += [
        Line2D([], [], color="black", marker=m, linestyle="", label=f"{c} (paper)") for c, m in PAPER_MARKERS.items()
    ]
    for i, name in enumerate(names):
        marker, colour = styles[i % len(styles)]
        handles.append(Line2D([], [], color=colour, marker=marker, markerfacecolor="white", label=name))
    ax.set_yticks(range(len(keys)), [f"{TITLES.get(task, task)}, {language(code).name}" for task, code in keys])
    ax.invert_yaxis()
    untested = "; grey: not tested" if any(_is_untested(row, names[0]) for row in shown) else ""
    ax.set_xlabel(f"accuracy, 95 % intervals\nfilled: differs from {names[0]} (p < .05){untested}")
    ax.grid(axis="x", alpha=0.25)
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return save_figure(figure, path)


def _face(row, first, colour) -> str:
    if _is_untested(row, first):
        return "0.75"
    return colour if row.get("p_value", 1) < 0.05 else "white"
