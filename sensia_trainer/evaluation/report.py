"""Reports from result files: Table 1 with the paper's columns beside measured ones, as Markdown, CSV and a figure."""

import csv
import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..languages import language
from ..utils.figures import save_figure
from ..utils.markdown import bold, escape, table, with_interval
from ..utils.statistics import mcnemar, paired_bootstrap
from .suite import items_file
from .tasks import TASKS


PAPER = json.loads((Path(__file__).parent / "data" / "paper_table1.json").read_text(encoding="utf-8"))
TITLES = {
    "xcopa": "XCOPA", "copa": "COPA", "xstorycloze": "XStoryCloze", "belebele": "Belebele",
    "xstorycloze_like": "XStoryCloze-like (machine-translated)", "global_mmlu_lite": "Global-MMLU-Lite (stand-in)",
}  # fmt: skip
DIRECTIONS = {"source_to_target": "source → target", "target_to_source": "target → source"}
FLORES_ROWS = {
    f"{kind}_{direction}": f"{title}, {arrow}"
    for kind, title in {
        "sense_recall": "recall@1, sense vectors",
        "context_recall": "recall@1, context vectors",
        "overlap_recall": "recall@1, token overlap (no model)",
        "random_sense_recall": "recall@1, sense vectors of random weights",
        "random_context_recall": "recall@1, context vectors of random weights",
        "sense_beyond_overlap": "recall@1 where overlap fails, sense vectors",
        "context_beyond_overlap": "recall@1 where overlap fails, context vectors",
        "sense_mean_rank": "mean rank, sense vectors",
        "context_mean_rank": "mean rank, context vectors",
        "sense_margin": "cosine margin, sense vectors",
        "context_margin": "cosine margin, context vectors",
    }.items()
    for direction, arrow in DIRECTIONS.items()
}
FLORES_ROWS |= {
    "sense_entropy_source": "sense entropy of the source (nats)",
    "sense_entropy_target": "sense entropy of the target (nats)",
    "source_perplexity": "source perplexity per token",
    "target_perplexity": "target perplexity per token",
}
FROM_START_ROWS = {
    "perplexity": "{} perplexity per token, from a start token",
    "perplexity_per_word": "{} perplexity per word, from a start token",
    "bits_per_byte": "{} bits per byte, from a start token",
}
PAPER_MARKERS = {"Goldfish": "x", "SENSIA": "*"}  # the paper's columns that the figure shows
CHOICES = {"causal": 2, "story": 2, "reading": 4}  # choices of an item by kind of task
CSV_FIELDS = [
    "model", "task", "language", "template", "scoring", "accuracy", "low", "high", "correct", "total", "chance",
    "at_chance", "p_value", "only_this", "only_first", "data", "source",
]  # fmt: skip


def load_results(paths) -> list[dict]:
    """Result files with their per-item predictions under "items". `ValueError` for other files and equal names."""
    results = []
    for path in paths:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(result, dict) or result.get("kind") != "evaluation":
            raise ValueError(f"{path} is no result of examples/evaluate.py (its `kind` is not 'evaluation').")
        items = items_file(path)
        result["items"] = json.loads(items.read_text(encoding="utf-8")) if items.is_file() else {}
        results.append(result)
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


def recall_significance(first: dict, other: dict, key: str) -> dict | None:
    """Paired bootstrap of a recall of `other` minus that of `first` over the same sentence pairs; `None` if they
    are not the same or one model has no such vectors."""
    a, b = other["items"].get("flores", {}), first["items"].get("flores", {})
    if a.get("fingerprint") != b.get("fingerprint") or not (key in a.get("hits", ()) and key in b.get("hits", ())):
        return None
    return paired_bootstrap(a["hits"][key], b["hits"][key], iterations=2000)["difference"]


def nll_significance(first: dict, other: dict, side="target") -> dict | None:
    """Paired bootstrap of the likelihood of the same whole sentences of one side under two models, whatever their
    tokenizers: it decides about bits per byte and perplexity per word. `None` if the sentences are not the same or
    some were cut."""
    a, b = other["items"].get("flores", {}), first["items"].get("flores", {})
    key = f"{side}_nll_from_start"
    if a.get("fingerprint") != b.get("fingerprint") or not (key in a and key in b):
        return None
    if any(result["flores"][f"{side}_from_start"]["truncated"] for result in (first, other)):
        return None
    return paired_bootstrap(a[key], b[key], iterations=2000)["difference"]


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
    """Renders results: Markdown at `output`, and beside it a CSV of everything and a figure (PNG and SVG).

    Args:
        paths: Result files; significance is tested against the first.
        scoring, template: What the main table shows; all others are in the last table and in the CSV.

    Returns:
        The files written.
    """
    output = Path(output)
    results = load_results(paths)
    rows = accuracy_rows(results)
    shown = [row for row in rows if (row["scoring"], row["template"]) == (scoring, template)]
    if rows and not shown:
        present = sorted({(row["scoring"], row["template"]) for row in rows})
        raise ValueError(f"Nothing was scored by {scoring!r} with template {template!r}; there are {present}.")
    paper = paper_rows({row["language"] for row in shown})
    output.parent.mkdir(parents=True, exist_ok=True)
    names = [result["name"] for result in results]
    parts = ["# Evaluation", "", *_accuracy_table(names, shown, paper, scoring, template), *_remarks(results, shown)]
    parts += _flores_table(results)
    parts += _all_scorings(names, rows)
    parts += _generation(results)
    output.write_text("\n".join(parts) + "\n", encoding="utf-8")
    everything = output.with_suffix(".csv")
    with everything.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows + paper)
    return [output, everything, *_accuracy_figure(names, shown, paper, output.with_suffix(".png"))]


def _ordered_keys(shown, paper) -> list[tuple[str, str]]:
    order = list(TITLES)
    keys = {(row["task"], row["language"]) for row in shown + paper}
    return sorted(keys, key=lambda key: (order.index(key[0]), key[1]))


def _accuracy_table(names, shown, paper, scoring, template) -> list[str]:
    header = ["Benchmark", "Language", *(f"{name} (paper)" for name in PAPER["columns"]), *names]
    lines = []
    by_paper = {(row["task"], row["language"], row["model"]): row for row in paper}
    by_model = {(row["task"], row["language"], row["model"]): row for row in shown}
    for task, code in _ordered_keys(shown, paper):
        cells = [by_paper.get((task, code, column)) for column in PAPER["columns"]]
        cells = [f"{cell['accuracy']:.3f}" if cell else "–" for cell in cells]
        cells += [_cell(by_model.get((task, code, name))) for name in names]
        lines.append([TITLES[task], language(code).name, *cells])
    return [
        "## Accuracy",
        "",
        table(header, lines),
        "",
        f"Measured columns: scoring `{scoring}`, template `{template}`, 95 % Wilson intervals. ≈ the interval holds "
        f"the chance level; * differs from {escape(names[0])} on the same items (exact McNemar test, p < .05, not "
        "corrected for the number of tests). – not measured or not published.",
        "",
        f"Paper columns: {PAPER['source']}",
    ]


def _cell(row) -> str:
    if row is None:
        return "–"
    marks = ("≈" if row["at_chance"] else "") + ("*" if row.get("p_value", 1) < 0.05 else "")
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
            place, items = f"{TITLES[task['task']]}, {language(task['language']).name}", task["items"]
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


def _flores_table(results) -> list[str]:
    measured = [result for result in results if "flores" in result]
    if not measured:
        return []
    pairs = sorted({f"{r['flores']['source']} – {r['flores']['target']}, {r['flores']['split']}" for r in measured})
    rows = []
    for key, title in FLORES_ROWS.items():
        cells = []
        for result in measured:
            value, interval = result["flores"].get(key), result["flores"].get(f"{key}_interval")
            test = None if result is measured[0] else recall_significance(measured[0], result, key)
            mark = "*" if test and test["p_value"] < 0.05 else ""
            cells.append(_readable(value, mark, interval))
        rows.append([title, *cells])
    for side in ("source", "target"):
        for key, title in FROM_START_ROWS.items():
            cells = []
            for result in measured:
                from_start = result["flores"].get(f"{side}_from_start", {})
                test = None
                if result is not measured[0] and key != "perplexity":
                    test = nll_significance(measured[0], result, side)
                mark = "*" if test and test["p_value"] < 0.05 else ""
                cells.append(_readable(from_start.get(key), mark, from_start.get(f"{key}_interval")))
            rows.append([title.format(side), *cells])
    rows = [row for row in rows if set(row[1:]) != {"–"}]  # measured for one model at least
    rows.append(["pairs (truncated)", *(f"{r['flores']['pairs']} ({r['flores']['truncated']})" for r in measured)])
    lines = [
        "",
        f"## FLORES-200 ({'; '.join(pairs)})",
        "",
        table(["", *(r["name"] for r in measured)], rows),
        "",
        f"95 % bootstrap intervals over pairs; * differs from {escape(measured[0]['name'])} (paired bootstrap, "
        "p < .05). Perplexity per token is not tested: models may split the text differently. Token overlap is TF-IDF "
        "over the model's own tokens, without a model; where it fails, a wrong sentence shares as much as the "
        "translation.",
    ]
    published = PAPER["flores_perplexity"]
    for code in sorted({language(r["flores"]["target"]).code for r in measured} & set(published)):
        name, value = language(code).name, published[code]
        lines += ["", f"The paper's SENSIA in {name}: perplexity {value} per token ({published['source']})."]
    return lines


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
        lines.append([TITLES[task], language(code).name, template, scoring, *map(_cell, cells)])
    every = table(["Benchmark", "Language", "Template", "Scoring", *names], lines)
    note = "`paper` uses λ and α of Table 11, `searched` those found on the validation split of the same task."
    return ["", "## Every template and scoring", "", every, "", note]


def _generation(results) -> list[str]:
    lines = []
    for result in results:
        if "generation" in result:
            sampling = ", ".join(f"{key}={value}" for key, value in result["generation"]["sampling"].items())
            lines += ["", f"### {escape(result['name'])} ({sampling})", ""]
            for example in result["generation"]["examples"]:
                continuation = escape(example["continuation"]) or "*(ended at once)*"
                lines.append(f"- {bold(example['prompt'])} {continuation}")
    return ["", "## Generation", *lines] if lines else []


def _readable(value: float | None, mark: str, interval) -> str:
    return with_interval(value, interval, 1 if value is not None and abs(value) >= 100 else 3, mark)


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
                markerfacecolor=colour if row.get("p_value", 1) < 0.05 else "white",
                markersize=5,
            )
    handles = [Line2D([], [], color="0.55", linestyle=":", label="chance")]
    handles += [
        Line2D([], [], color="black", marker=m, linestyle="", label=f"{c} (paper)") for c, m in PAPER_MARKERS.items()
    ]
    for i, name in enumerate(names):
        marker, colour = styles[i % len(styles)]
        handles.append(Line2D([], [], color=colour, marker=marker, markerfacecolor="white", label=name))
    ax.set_yticks(range(len(keys)), [f"{TITLES[task]}, {language(code).name}" for task, code in keys])
    ax.invert_yaxis()
    ax.set_xlabel(f"accuracy, 95 % intervals\nfilled: differs from {names[0]} (p < .05)")
    ax.grid(axis="x", alpha=0.25)
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return save_figure(figure, path)
