"""
Renew what the site and the README show of results: `python docs/render.py`.

Tables stand between the marks `<!-- rendered: NAME -->` and `<!-- end -->` of the pages, figures in `docs/figures/`;
both come from the JSON files in `results/`, and the page of the notebook from `docs/first-steps.ipynb`, which
`python docs/render.py --run_notebook` runs anew.
"""

import json
import re
import sys
from contextlib import chdir, redirect_stdout
from dataclasses import MISSING, fields
from io import StringIO
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from aims import aims_table, control_of
from matplotlib.figure import Figure

from sensia_trainer.config import SensiaConfig
from sensia_trainer.experiments.curves import draw_curves
from sensia_trainer.experiments.matrix import expand, load_matrix
from sensia_trainer.experiments.tables import load_results
from sensia_trainer.languages import language
from sensia_trainer.utils.figures import save_figure
from sensia_trainer.utils.markdown import code, table
from sensia_trainer.utils.recipes import find_recipe, read_recipe
from sensia_trainer.vocabulary.settings import VocabularySettings


ROOT = Path(__file__).resolve().parents[1]
DOCS, RESULTS = ROOT / "docs", ROOT / "results"
LANGUAGES = ("id", "et", "sw", "tr", "zh")
SIDES = ("source_to_target", "target_to_source")
ADAPTED = {
    "base": "as it was",
    "induced": "with senses",
    "sensia": "adapted by senses",
    "lm-only": "adapted by the LM loss alone",
    "fine-tuning": "fine-tuned without senses",
}
# Okabe and Ito's colours, which colour-blind readers tell apart; hatches and markers tell them apart without colour.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
HATCHES, MARKERS = ("", "//", "..", "xx", "\\\\"), "os^Dv*"


# ---- What was measured ----


def read(pattern):
    """Results whose files match, in the order of their names."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob(pattern))]


def recall(flores, kind="context"):
    """Recall@1 of one kind of vectors, mean of both directions; None where it was not measured."""
    values = [flores.get(f"{kind}_recall_{side}") for side in SIDES]
    return None if None in values else mean(values)


def mean_recall(results, kind="context"):
    values = [recall(result["evaluation"]["flores"], kind) for result in results]
    return mean(values) if values and None not in values else None


def overlap_of(code):
    """Recall of what needs no training: counting the tokens (of the English tokenizer) that two sentences share."""
    (result,) = read(f"yardsticks/{code}.json")
    return recall(result["flores"], "overlap")


def adaptations():
    """
    All results of sense adaptation as published, with new words and by the recommended recipe: languages by name, then
    fewest pairs first. Each once, though several tables share it, and without those that left new words out.
    """
    found = []
    for result in read("*/*.json"):
        if result.get("labels", {}).get("method") == "sensia":
            run = [other for other in found if other["metrics"] == result["metrics"]]
            if not run and not result["recipe"].get("vocabulary_leave_out"):
                found.append(result)
    return sorted(found, key=lambda r: (name_of(r), r["metrics"]["data"]["pairs"], r["recipe"]["max_steps"], r["run"]))


def name_of(result):
    return language(result["recipe"]["target_language"]).name


def recipe_of(result):
    """Whether a run was by the recommended recipe, by what that was before some of its choices, or by the paper's."""
    recipe, recommended = result["recipe"], read_recipe("adapt")
    if any(recipe.get(name) != recommended[name] for name in ("source_lm_weight", "polish_freeze")):
        return "paper's"
    if not recipe.get("hard_negative_weight"):
        return "without hard negatives"
    warm = all(recipe.get(name) == recommended[name] for name in ("tau_sense", "tau_context"))
    return "recommended" if warm else "paper's temperatures"


# ---- Tables ----


def controls_of(code):
    """The control of a released model, or none, as a list."""
    return [one for one in [control_of(code)] if one]


def results_table():
    """The released models beside what needs no training and, where it was run, the control."""
    rows = []
    for target in LANGUAGES:
        for result in read(f"recommended/{target}-sensia.json"):
            flores, metrics = result["evaluation"]["flores"], result["metrics"]
            kinds = ("sense", "context", "overlap", "random_sense")
            recalls = [f"{recall(flores, kind):.2f}" for kind in kinds]
            sides = ("source_to_target", "target_to_source")
            recalls.append(f"{mean(flores[f'sense_beyond_overlap_{side}'] for side in sides):.2f}")
            english = f"{metrics['before']['source_bits_per_byte']:.2f}"
            (bits, kept), (control, kept_alone) = (fluencies(run) for run in (result, control_of(target)))
            fluency = [bits, control, english, kept, kept_alone]
            rows.append([language(target).name, f"{metrics['data']['pairs']:,}", *recalls, *fluency])
    names = ["language", "pairs", "senses", "contexts", "token overlap, no model", "random weights"]
    names += [
        "senses, where overlap fails",
        "bits per byte",
        "bits, LM loss alone",
        "English bits before",
        "English bits after",
    ]
    names += ["English bits, LM loss alone"]
    return table(names, rows)


def fluencies(result):
    """Bits per byte of the language (devtest) and of English (dev) after a run; dashes where it was not made."""
    if result is None:
        return "–", "–"
    bits = result["evaluation"]["flores"]["target_bits_per_byte"], result["metrics"]["after"]["source_bits_per_byte"]
    return tuple(f"{value:.2f}" for value in bits)


def runs_table():
    """What adaptations took and gave: a row for each language, recipe, vocabulary and length, means over seeds."""
    groups = {}
    for result in adaptations():
        metrics, words = result["metrics"], result["recipe"].get("vocabulary_size", 0)
        key = name_of(result), metrics["data"]["pairs"], metrics["config"]["steps"], recipe_of(result), words
        groups.setdefault(key, []).append(result)
    rows = []
    for (name, pairs, steps, recipe, words), results in sorted(groups.items()):
        if words:  # of few pairs there are fewer than asked for
            words = round(mean(result["metrics"]["vocabulary"]["new_tokens"] for result in results))
        found = [result["evaluation"]["flores"] for result in results]
        overlap = recall(found[0], "overlap") or overlap_of(results[0]["recipe"]["target_language"])
        minutes = mean(result["metrics"]["seconds"] for result in results) / 60
        bits = mean(flores["target_bits_per_byte"] for flores in found)
        numbers = (f"{minutes:.0f}", f"{mean_recall(results, 'sense'):.2f}", f"{overlap:.2f}", f"{bits:.2f}")
        rows.append([name, f"{pairs:,}", steps, recipe, f"{words:,}" if words else "–", *numbers])
    names = ["language", "pairs", "steps", "recipe", "new words", "minutes of a busy machine", "recall@1, senses"]
    return table([*names, "token overlap", "bits per byte"], rows)


# ---- Figures ----


def results_figure(path):
    """Recall@1 of the released models for each language, beside other methods and what needs no training."""
    figure = Figure(figsize=(7.6, 3.0), layout="constrained")
    ax, width = figure.subplots(), 0.19
    codes = [code for code in LANGUAGES if read(f"recommended/{code}-sensia.json")]
    models = [read(f"recommended/{code}-sensia.json") for code in codes]
    bars = {
        "senses": (models, "sense"),
        "contexts": (models, "context"),
        "contexts, LM loss alone": ([controls_of(code) for code in codes], "context"),
        "senses, random weights": (models, "random_sense"),
    }
    heights_of = {name: [mean_recall(one, kind) for one in runs] for name, (runs, kind) in bars.items()}
    heights_of = {name: heights for name, heights in heights_of.items() if any(heights)}
    for n, (name, heights) in enumerate(heights_of.items()):
        places = [place + (n - 1.5) * width for place, height in enumerate(heights) if height is not None]
        look = {"color": COLOURS[n], "hatch": HATCHES[n], "edgecolor": "white", "linewidth": 0}
        ax.bar(places, [height for height in heights if height is not None], width * 0.92, label=name, **look)
        for place, height in enumerate(heights):
            if height is None:
                at = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 6, "color": "0.4"}
                ax.text(place + (n - 1.5) * width, 0.01, "not run", **at)
    for place, model in enumerate(models):
        overlap = mean_recall(model, "overlap")
        label = "token overlap, no model" if place == 0 else None
        ax.hlines(overlap, place - 0.42, place + 0.42, color="0.2", linestyle="--", label=label)
    ax.set_xticks(range(len(codes)), [language(code).name for code in codes])
    ax.set_ylabel("translations found (recall@1)")
    ax.set_ylim(0, 1)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return save_figure(figure, path)


def curves_figure(path):
    """
    Recall@1 and fluency while the released models were trained: a line for each language, an empty marker where its
    control ended, dotted for what token overlap finds.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = {"translations found by senses (recall@1)": "sense", "bits per byte of the target language": None}
    runs = [
        (n, language(target).name, read(f"recommended/{target}-sensia.json"), controls_of(target))
        for n, target in enumerate(LANGUAGES)
        if read(f"recommended/{target}-sensia.json")
    ]
    for ax, (label, kind) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for n, name, models, controls in runs:
            for is_control, result in [(False, one) for one in models] + [(True, one) for one in controls]:
                rows = [evaluated(row) for row in result["metrics"]["history"] if "eval_target_perplexity" in row]
                rows = rows[-1:] if is_control else [{"step": 0} | result["metrics"]["before"], *rows]
                points = [(row["step"], recall(row, kind) if kind else row["target_bits_per_byte"]) for row in rows]
                look = {"color": COLOURS[n], "marker": MARKERS[n], "markersize": 4}
                look |= {"linestyle": "none", "markerfacecolor": "none", "markersize": 6} if is_control else {}
                shown = f"{name}, LM loss alone, at its end" if is_control else name
                ax.plot(*zip(*points, strict=True), label=shown, **look)
            if kind:
                ax.axhline(recall(models[0]["metrics"]["after"], "overlap"), color=COLOURS[n], linestyle=":", lw=1)
        ax.set_xlabel("training steps of 64 pairs")
        ax.set_ylabel(label)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylim(0, 1)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return save_figure(figure, path)


def induction_table():
    """What induction gave and took: SmolLM2 before it and after."""
    (found,) = read("induction/smollm2-135m.json")
    before, after = found["before"], found["after"]
    # The last evaluation is of the opened gate, the one before it of that which training left.
    *_, left, _ = (row for row in found["history"] if "eval_gate" in row)
    left = {name.removeprefix("eval_"): value for name, value in left.items()}
    rows = [
        ("perplexity of held-out text", before["perplexity"], after["perplexity"], 2),
        (
            "cross-entropy of the senses alone (nats)",
            before["mixture_cross_entropy"],
            after["mixture_cross_entropy"],
            2,
        ),
        ("what the senses add, |g m| / |b|", before["contribution"], after["contribution"], 3),
        ("gate", before["gate"], after["gate"], 3),
        ("the same as training left it", None, left["gate"], 3),
        ("perplexity with that gate", None, left["perplexity"], 2),
        ("what the senses add with that gate", None, left["contribution"], 3),
        ("mean cosine between senses of a word", before["ambiguous_cosine"], after["ambiguous_cosine"], 3),
        (
            "what is the same whatever the word (share of the squared length)",
            None,
            found["sense_words"]["common_share"],
            2,
        ),
    ]
    cells = [[name, *("" if x is None else f"{x:.{digits}f}" for x in values)] for name, *values, digits in rows]
    return table(["SmolLM2-135M-Instruct (unpacked from 4 bits), two million tokens", "before", "after"], cells)


def adapted_table():
    """SmolLM2 as it was, with senses, adapted, and what it is compared with: those that were run."""
    rows = []
    for name, label in ADAPTED.items():
        for result in read(f"smollm2/{name}.json"):
            flores = result["evaluation"]["flores"]
            found = [recall(flores, kind) for kind in ("sense", "context", "overlap")]
            bits = [flores["target_bits_per_byte"], flores["source_bits_per_byte"]]
            tasks = {one["task"]: one["scores"]["cond"]["accuracy"] for one in result["evaluation"]["tasks"]}
            numbers = [*found, *bits, *(tasks.get(task) for task in ("xcopa", "copa", "xstorycloze"))]
            rows.append([label, *("–" if x is None else f"{x:.2f}" for x in numbers)])
    names = ["SmolLM2-135M-Instruct", "senses", "contexts", "token overlap, no model", "bits per byte, Indonesian"]
    names += ["bits per byte, English", "XCOPA, Indonesian", "COPA", "XStoryCloze, English"]
    base, induced, adapted = (
        read(f"smollm2/{name}.json")[0]["evaluation"]["flores"] for name in ("base", "induced", "sensia")
    )
    changes = [one["source_bits_per_byte"] / base["source_bits_per_byte"] - 1 for one in (induced, adapted)]
    (whole,) = (result["evaluation"]["flores"] for result in read("smollm2_whole/delta.json"))
    beyond = mean(whole[f"sense_beyond_overlap_{way}"] for way in ("source_to_target", "target_to_source"))
    return (
        f"{table(names, rows)}\n\nBits a byte of English change by {changes[0]:+.1%} with the induced senses, whose "
        f"text was other than this, and by {changes[1]:+.1%} with the adaptation. On all {whole['pairs']:,} sentences "
        f"the released delta, put together with its base, finds {recall(whole, 'sense'):.2f} by senses and "
        f"{recall(whole, 'context'):.2f} by contexts, token overlap {recall(whole, 'overlap'):.2f}; where overlap "
        f"fails, senses find {beyond:.2f} ([with intervals](../results/smollm2_whole/README.md)).\n"
    )


def sense_words_table(words=("light", "spring", "bank")):
    """What the senses of some words speak for, as the card of the model has it."""
    (found,) = read("induction/smollm2-135m.json")
    of = {row["word"]: row["senses"] for row in found["sense_words"]["words"]}
    rows = [[number, *(", ".join(of[word][number]) for word in words)] for number in range(len(of[words[0]]))]
    return table(["sense", *words], rows)


SENSE_BENCHMARKS = {
    "micro Backpack": ("backpack-micro-en", "substitution-backpack-micro-en"),
    "SmolLM2-135M-Instruct, induced": ("smollm2-induced", "substitution-smollm2-induced"),
}


def senses_table():
    """Are they senses? What each benchmark of them says, as differences with their intervals and a verdict."""
    columns = [_sense_findings(*names) for names in SENSE_BENCHMARKS.values()]
    rows = {label: None for column in columns for label in column}
    cells = [[label, *(column.get(label, "not run") for column in columns)] for label in rows]
    return table(["senses against …", *SENSE_BENCHMARKS], cells)


def _sense_findings(benchmarks, substitution):
    """Cells by what is compared, of the results that are there."""
    found = {}
    for result in read(f"sense_benchmarks/{benchmarks}.json"):
        average, steering = result["disambiguation"]["average"]["all"], result["steering"]
        for kind, label in (
            ("random_contributions", "a random sense path"),
            ("most_frequent", "the most frequent meaning"),
            ("dense", "the model's dense state"),
        ):
            found[f"{label}: which meaning (accuracy)"] = _difference(average[kind]["difference"])
        found["senses of another word: steering (nats)"] = _difference(steering["difference"])
    for result in read(f"sense_benchmarks/{substitution}.json"):
        for one in result["substitution"]["senses"]["differences"]:
            than = {"random_senses": "a random sense path", "embedding": "the word's embedding"}[one["than"]]
            found[f"{than}: order of substitutes (GAP)"] = _difference(one)
        for one in result["substitution"]["likelihood"]["differences"]:
            if one["than"] == "likelihood_without_senses":
                found["the model without its sense path: order of substitutes by likelihood (GAP)"] = _difference(one)
    return found


def _difference(found):
    low, high = found["interval"]
    verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    return f"{found['mean']:+.3f} [{low:.3f}, {high:.3f}], {verdict}"


def several_table():
    """One model of six languages beside five of two, and how often it finds less than token overlap does."""
    (mixed,) = (result["evaluation"]["matrix"] for result in read("multi/mixed.json"))
    rows = []
    for target in LANGUAGES:
        (alone,) = (result["evaluation"]["matrix"] for result in read(f"multi/{target}.json"))
        ways = f"en-{target}", f"{target}-en"
        recalls = [alone["sense"], mixed["sense"], mixed["overlap"]]
        found = [f"{mean(kind[way] for way in ways):.2f}" for kind in recalls]
        bits = [f"{one['bits_per_byte'][target]:.2f}" for one in (alone, mixed)]
        rows.append([language(target).name, *found, *bits])
    names = ["language", "senses, model of two", "senses, model of six", "token overlap, no model"]
    names += ["bits per byte, model of two", "bits per byte, model of six"]
    apart = [way for way in mixed["overlap"] if re.fullmatch(r"(?!en)[a-z]{2}-(?!en)[a-z]{2}", way)]
    below = {kind: sum(mixed[kind][way] < mixed["overlap"][way] for way in apart) for kind in ("sense", "context")}
    (one_pair,) = (result["evaluation"]["matrix"] for result in read("multi/one-pair-batches.json"))
    of_both = {key: [one["sense"][key] for one in (one_pair, mixed)] for key in ("from_source", "zero_shot")}
    bits = [mean(one["bits_per_byte"][target] for target in LANGUAGES) for one in (one_pair, mixed)]
    return (
        f"{table(names, rows)}\n\nBetween languages that never met in training the senses of the model of six find "
        f"{mixed['sense']['zero_shot']:.2f} of the translations (mean of {len(apart)} directions), its contexts "
        f"{mixed['context']['zero_shot']:.2f}, token overlap {mixed['overlap']['zero_shot']:.2f}. Senses find fewer "
        f"than overlap in {below['sense']} of the {len(apart)} directions, contexts in {below['context']}.\n\n"
        "In batches of one pair each (`batch_languages: one`) senses find "
        f"{of_both['from_source'][0]:.3f} of the translations from English (mixed: {of_both['from_source'][1]:.3f}, "
        f"token overlap: {mixed['overlap']['from_source']:.3f}) and {of_both['zero_shot'][0]:.3f} between the others "
        f"({of_both['zero_shot'][1]:.3f}, {mixed['overlap']['zero_shot']:.3f}), at {bits[0]:.3f} bits per byte of the "
        f"five languages ({bits[1]:.3f}).\n"
    )


ONE_MORE = {
    "as-it-was": "English and Indonesian, as it was",
    "sw": "Swahili on top",
    "sw+5000-id": "Swahili on top, with 5,000 Indonesian pairs",
}


def one_more_table():
    """What a language learned on top of another finds, and what it costs the other."""
    rows = []
    for name, label in ONE_MORE.items():
        for result in read(f"one_more/{name}.json"):
            matrix = result["evaluation"]["matrix"]
            pairs = ("en-id", "id-en"), ("en-sw", "sw-en"), ("id-sw", "sw-id")
            numbers = [mean(matrix[kind][way] for way in ways) for ways in pairs for kind in ("sense", "overlap")]
            numbers += [matrix["bits_per_byte"][code] for code in ("id", "sw", "en")]
            rows.append([label, *(f"{x:.2f}" for x in numbers)])
    names = [f"{pair}{kind}" for pair in ("English–Indonesian", "English–Swahili", "Indonesian–Swahili, never trained")
             for kind in ("", ", token overlap")]  # fmt: skip
    names += [f"bits per byte, {name}" for name in ("Indonesian", "Swahili", "English")]
    return table(["model", *names], rows)


def adapt_table():
    """The fields of the recommended recipe beside their defaults."""
    defaults = {
        one.name: one.default if one.default_factory is MISSING else one.default_factory()
        for settings in (SensiaConfig, VocabularySettings)
        for one in fields(settings)
    }
    rows = [[code(name), written(defaults[name]), written(value)] for name, value in read_recipe("adapt").items()]
    return table(["field", "default", "in adapt"], rows)


def written(value):
    """A value of a field as the page of hyperparameters has it."""
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def evaluated(row):
    return {key.removeprefix("eval_"): value for key, value in row.items()}


# ---- The page of the notebook ----


def notebook_page(notebook):
    """The cells of a notebook as Markdown."""
    parts = ["<!-- Written by docs/render.py from first-steps.ipynb. -->"]
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        printed = "".join(line for out in cell.get("outputs", ()) for line in out.get("text", ()))
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def run_notebook(notebook):
    """Runs the cells in an empty folder, and keeps what they print."""
    names = {}
    with TemporaryDirectory() as folder, chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                with redirect_stdout(StringIO()) as printed:
                    exec("".join(cell["source"]), names)
                lines = printed.getvalue().splitlines(keepends=True)
                cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}] if lines else []


def pairs_figure(path):
    """What more pairs bring: the figure of micro/low_resource."""
    matrix = load_matrix(find_recipe("micro/low_resource"))
    runs = expand(matrix)
    draw_curves(matrix, runs, load_results(runs, RESULTS / "low_resource"), path)


# ---- Everything ----

TABLES = {
    "results": results_table,
    "runs": runs_table,
    "induction": induction_table,
    "senses": senses_table,
    "adapted": adapted_table,
    "sense_words": sense_words_table,
    "adapt": adapt_table,
    "several": several_table,
    "one_more": one_more_table,
    "aims": aims_table,
}
FIGURES = {"recall": results_figure, "curves": curves_figure, "pairs": pairs_figure}
PAGES = tuple(
    DOCS / f"{name}.md"
    for name in ("index", "your-language", "your-model", "hyperparameters", "languages", "comparison")
)


def rendered(text: str) -> str:
    """A page with the tables between its marks renewed."""
    return re.sub(
        r"(<!-- rendered: (\w+) -->\n).*?(?=<!-- end -->)",
        lambda found: f"{found[1]}{TABLES[found[2]]()}\n",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name, draw in FIGURES.items():
        draw(DOCS / "figures" / name)
    notebook = json.loads((DOCS / "first-steps.ipynb").read_text(encoding="utf-8"))
    if "--run_notebook" in sys.argv:
        run_notebook(notebook)
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        (DOCS / "first-steps.ipynb").write_text(f"{text}\n", encoding="utf-8")
    (DOCS / "first-steps.md").write_text(notebook_page(notebook), encoding="utf-8")
