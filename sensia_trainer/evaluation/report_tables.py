"""Tables of a report: retrieval and likelihood on parallel sentences, and what the model writes."""

import json
from pathlib import Path

from ..languages import language
from ..utils.markdown import bold, escape, table, with_interval
from ..utils.statistics import paired_bootstrap


PAPER = json.loads((Path(__file__).parent / "data" / "paper_table1.json").read_text(encoding="utf-8"))
PAIR_TITLES = {"flores": "FLORES-200", "tatoeba": "Tatoeba"}
DIRECTIONS = {"source_to_target": "source → target", "target_to_source": "target → source"}
PAIR_ROWS = {
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
PAIR_ROWS |= {
    f"beyond_overlap_pairs_{way}": f"sentences where overlap fails, {arrow}" for way, arrow in DIRECTIONS.items()
}
PAIR_ROWS |= {
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


def measured_on(result: dict, name: str) -> dict:
    """What a result has measured on a bitext: "flores", or a name under `bitexts`; empty where it did not."""
    return result.get("flores", {}) if name == "flores" else result.get("bitexts", {}).get(name, {})


MATRIX_ROWS = {
    "sense": "recall@1 {}, sense vectors",
    "context": "recall@1 {}, context vectors",
    "overlap": "recall@1 {}, token overlap (no model)",
    "random_sense": "recall@1 {}, sense vectors, random weights",
    "random_context": "recall@1 {}, context vectors, random weights",
    "sense_beyond_overlap": "recall@1 {}, sense vectors where overlap fails",
    "context_beyond_overlap": "recall@1 {}, context vectors where overlap fails",
    "bits_per_byte": "bits per byte, {}",
}
MATRIX_MEANS = {"from_source": "from the source", "to_source": "into the source", "zero_shot": "zero-shot"}


def matrix_tables(results) -> list[str]:
    """Several languages: a row for each mean and direction of retrieval and for bits per byte of each language. Means
    are over languages, so that those of other languages than the first's do not stand beside each other."""
    found = {result["name"]: result["matrix"] for result in results if "matrix" in result}
    are_of_same = len({(matrix["source"], *sorted(matrix["languages"])) for matrix in found.values()}) == 1
    lines = []
    for kind, title in MATRIX_ROWS.items():
        keys = dict.fromkeys(key for matrix in found.values() for key in matrix.get(kind, {}))
        for key in sorted(keys, key=lambda key: (key not in MATRIX_MEANS, key)):
            if key.endswith("_interval") or (key in MATRIX_MEANS and not are_of_same):
                continue
            what = MATRIX_MEANS.get(key) or " → ".join(language(code).name for code in key.split("-"))
            values = [matrix.get(kind, {}) for matrix in found.values()]
            cells = [with_interval(of.get(key), of.get(f"{key}_interval")) for of in values]
            lines.append([title.format(what), *cells])
    if not lines:
        return []
    lines.append(["sentences of", *(f"{m.get('split', '–')}: {m['sentences']:,}" for m in found.values())])
    lines.append(["languages, the source first", *(_of_matrix(matrix) for matrix in found.values())])
    note = "Zero-shot: the mean over directions between two languages other than the source."
    if not are_of_same:
        note = "No means: they would be over other languages in each column."
    return ["", "## Several languages", "", table(["FLORES-200", *found], lines), "", note]


def _of_matrix(matrix) -> str:
    return ", ".join(sorted(matrix["languages"], key=lambda code: (code != matrix["source"], code)))


def _items_key(name: str) -> str:
    return name if name == "flores" else f"bitext/{name}"


def recall_significance(first: dict, other: dict, key: str, name="flores") -> dict | None:
    """Paired bootstrap of a recall of `other` minus that of `first` over the same sentence pairs; `None` if they
    are not the same or one model has no such vectors."""
    a, b = (result["items"].get(_items_key(name), {}) for result in (other, first))
    if a.get("fingerprint") != b.get("fingerprint") or not (key in a.get("hits", ()) and key in b.get("hits", ())):
        return None
    return paired_bootstrap(a["hits"][key], b["hits"][key], iterations=2000)["difference"]


def nll_significance(first: dict, other: dict, side="target", name="flores") -> dict | None:
    """Paired bootstrap of the likelihood of the same whole sentences of one side under two models, whatever their
    tokenizers: it decides about bits per byte and perplexity per word. `None` if the sentences are not the same or
    some were cut."""
    a, b = (result["items"].get(_items_key(name), {}) for result in (other, first))
    key = f"{side}_nll_from_start"
    if a.get("fingerprint") != b.get("fingerprint") or not (key in a and key in b):
        return None
    if any(measured_on(result, name)[f"{side}_from_start"]["truncated"] for result in (first, other)):
        return None
    return paired_bootstrap(a[key], b[key], iterations=2000)["difference"]


UNTESTED = "°"


def mark(test: dict | None, is_due: bool) -> str:
    """What stands at a value: `*` where its test finds a difference (p < .05), `°` where a test is due that could not
    be made, so that its absence is not read as no difference."""
    if test is None:
        return UNTESTED if is_due else ""
    return "*" if test["p_value"] < 0.05 else ""


def pairs_tables(results: list[dict]) -> list[str]:
    """Retrieval and likelihood on FLORES-200 and on every other bitext, each a table, with tests against the first."""
    others = dict.fromkeys(name for result in results for name in result.get("bitexts", {}))
    return [line for name in ("flores", *others) for line in _pairs_table(results, name)]


def _pairs_table(results, name) -> list[str]:
    measured = [result for result in results if measured_on(result, name)]
    if not measured:
        return []
    found = [measured_on(result, name) for result in measured]
    pairs = sorted({f"{r['source']} – {r['target']}{', ' + r['split'] if 'split' in r else ''}" for r in found})
    rows = []
    for key, title in PAIR_ROWS.items():
        cells = []
        for result in measured:
            value, interval = measured_on(result, name).get(key), measured_on(result, name).get(f"{key}_interval")
            is_other = result is not measured[0]
            test = recall_significance(measured[0], result, key, name) if is_other else None
            is_due = is_other and "_recall_" in key and not key.startswith("random")
            cells.append(_readable(value, mark(test, is_due), interval))
        rows.append([title, *cells])
    for side in ("source", "target"):
        spaced = all(language(result[side]).has_spaces for result in found)
        for key, title in FROM_START_ROWS.items():
            if key == "perplexity_per_word" and not spaced:  # its sentences are a word each
                continue
            cells = []
            for result in measured:
                from_start = measured_on(result, name).get(f"{side}_from_start", {})
                is_due = result is not measured[0] and key != "perplexity"
                test = nll_significance(measured[0], result, side, name) if is_due else None
                cells.append(_readable(from_start.get(key), mark(test, is_due), from_start.get(f"{key}_interval")))
            rows.append([title.format(side), *cells])
    rows = [row for row in rows if set(row[1:]) != {"–"}]  # measured for one model at least
    rows.append(["pairs (truncated)", *(f"{r['pairs']} ({r['truncated']})" for r in found)])
    overlap = (
        " Token overlap is TF-IDF over the model's own tokens, without a model; where it fails, a wrong sentence "
        "shares as much as the translation."
    )
    about = overlap if any("overlap" in str(row[0]) for row in rows) else ""
    lines = [
        "",
        f"## {PAIR_TITLES.get(name, escape(name))} ({'; '.join(pairs)})",
        "",
        table(["", *(r["name"] for r in measured)], rows),
        "",
        f"95 % bootstrap intervals over pairs; * differs from {escape(measured[0]['name'])} (paired bootstrap, "
        f"p < .05). Perplexity per token is not tested: models may split the text differently.{about}",
    ]
    if any(UNTESTED in cell for row in rows for cell in row[1:]):
        first = escape(measured[0]["name"])
        why = f"other sentences than those of {first}, sentences that were cut, no such vectors in {first}"
        lines += ["", f"{UNTESTED} not tested: {why}, or no file `.items.json` beside a result."]
    published = PAPER["flores_perplexity"] if name == "flores" else {}
    for code in sorted({language(r["target"]).code for r in found} & set(published)):
        value = published[code]
        lines += [
            "",
            f"The paper's SENSIA in {language(code).name}: perplexity {value} per token ({published['source']}).",
        ]
    return lines


def writing_tables(results: list[dict]) -> list[str]:
    """Whether continuations read like the language, scores against references, and the continuations of prompts."""
    return [*_fluency(results), *_against_references(results), *_examples(results)]


def _fluency(results) -> list[str]:
    rows = [
        [result["name"], kind, *(found[kind][name] for name in ("repetition", "in_language", "empty", "words"))]
        for result in results
        for found in [result.get("fluency")]
        for kind in (("greedy", "sampled", "human") if found else ())
    ]
    if not rows:
        return []
    rows = [[name, kind, *(with_interval(value) for value in values)] for name, kind, *values in rows]
    counts = sorted({result["fluency"]["prompts"] for result in results if "fluency" in result})
    return [
        "",
        f"## Does it read like the language? ({' or '.join(map(str, counts))} prompts)",
        "",
        table(["", "continuations", "repeated 4-grams", "identified as the language", "empty", "words"], rows),
        "",
        "Continuations of the first words of real sentences; *human* is how those go on, cut to the same length.",
    ]


def _against_references(results) -> list[str]:
    rows = []
    for result in results:
        for task in result.get("writing", []):
            scores = [with_interval(task[name], task[f"{name}_interval"], 1) for name in ("chrf", "rougeL")]
            scores += [with_interval(task["other_references"][name], digits=1) for name in ("chrf", "rougeL")]
            place = [task["task"], language(task["language"]).name, task["items"]]
            rows.append([result["name"], *place, *scores])
    if not rows:
        return []
    header = ["", "task", "language", "items", "chrF", "ROUGE-L", "chrF of another's reference", "ROUGE-L of it"]
    return ["", "## Generation against references", "", table(header, rows)]


def _examples(results) -> list[str]:
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
    if isinstance(value, int):
        return with_interval(value, digits=0)
    return with_interval(value, interval, 1 if value is not None and abs(value) >= 100 else 3, mark)
