"""Tables of the analyses as Markdown, rendered from result files; nothing is computed here."""

import re
from pathlib import Path

from ..utils.markdown import table, with_interval
from .mixture import GATED_VARIANTS, VARIANTS


TITLE = "# Sense analyses"
# Tables 3-5 of "Multilinguality as Sense Adaptation" (arXiv 2601.10310): GPT-2 small, two million pairs, 150k steps.
# Model and control; for the mixture, cross-entropy of full, top-1 and uniform.
PAPER = {
    "et": {"topology": (0.27, 0.17), "procrustes": (0.36, 0.29), "mixture": (3.28, 8.95, 10.16)},
    "id": {"topology": (0.30, 0.21), "procrustes": (0.44, 0.33), "mixture": (2.88, 8.58, 10.10)},
    "sw": {"topology": (0.26, 0.17), "procrustes": (0.42, 0.31), "mixture": (2.98, 8.77, 10.10)},
    "tr": {"topology": (0.25, 0.16), "procrustes": (0.35, 0.26), "mixture": (2.82, 8.83, 10.13)},
}
SUBSETS = {
    "all": "all pairs (as published)",
    "different_words": "pairs of different words",
    "no_shared_subword": "pairs without a shared subword",
    "distinct_pairs": "distinct pairs without a shared subword",
    "told": "of those, what new words were told before training",
    "not_told": "of those, what they were not told",
}


def number(value, digits=3) -> str:
    return with_interval(value, digits=digits)


def estimate(entry, digits=3) -> str:
    """A mean with its interval: `0.301 [0.295, 0.307]`."""
    return "–" if entry is None else with_interval(entry["mean"], entry["interval"], digits)


def p_value(entry) -> str:
    return "–" if entry is None else f"{entry['p_value']:.2g}"


def of_paper(result) -> dict:
    """What the paper found for the languages of a result, from English; empty where it has none."""
    return PAPER.get(result["target_language"], {}) if result["source_language"] == "en" else {}


def paper_pair(result, analysis) -> str:
    values = of_paper(result).get(analysis)
    return "–" if values is None else " / ".join(f"{value:.2f}" for value in values)


def render_report(results, folder=None) -> str:
    """The report of results of `analyse`, each with `source_language`, `target_language` and `models`; with all
    figures, or those that are in `folder`."""
    return f"{TITLE}\n\n{render_sections(results, folder)}"


def with_names(results) -> list[dict]:
    """Results with the name that tables and figures call them by, `shown`: the target language, after the source where
    there are several, and the model where several results are of these."""
    sources = {result["source_language"] for result in results}
    languages = [
        result["target_language"] if len(sources) == 1 else f"{result['source_language']}–{result['target_language']}"
        for result in results
    ]
    several = {language for language in languages if languages.count(language) > 1}
    return [
        result | {"shown": f"{language}, {result['models']['model']}" if language in several else language}
        for language, result in zip(languages, results, strict=True)
    ]


def render_sections(results, folder=None) -> str:
    """The same without a title, to stand in another report."""

    def drawn(picture):
        return picture[0] if folder is None or (Path(folder) / picture[1]).is_file() else ""

    return re.sub(r"\n\n!\[[^]]*\]\((figures/[^)]+)\)", drawn, _sections(results))


def _sections(results):
    results = with_names(results)
    sections = [
        "Rendered from the result files beside it. Intervals are 95 % percentile intervals of a paired bootstrap; "
        "p-values are two-sided, from the same resamples. The paper's numbers are of a GPT-2 small trained on two "
        "million pairs: they are beside ours to compare signs and orders, not digits.",
        _inputs(results),
        _topology(results),
        _procrustes(results),
        _mixture(results),
        _senses(results),
        *_beyond_the_dictionary(results),
        _neighbours(results),
        _findings(results),
    ]
    return "\n\n".join(sections) + "\n"


def _inputs(results):
    header = ["language", "sentences", "links", "one-to-one", "content words", "frequent pairs", "of different words"]
    header += ["without a shared subword"]
    keys = ["sentences", "links", "one_to_one", "content", "pairs", "pairs_of_different_words"]
    keys += ["pairs_without_shared_subword"]
    rows = [[r["shown"], *(r["corpus"][key] for key in keys)] for r in results]
    filters = "\n".join(
        f"- {r['shown']}: model `{r['models']['model']}`, control `{r['models']['control'] or 'none'}`, "
        f"base `{r['models']['base'] or 'none'}`; links by {r['corpus']['aligner']} over layer {r['corpus']['layer']} "
        f"of `{r['corpus']['encoder']}`; {r['source_language']} words by {r['corpus']['source_filter']}, "
        f"{r['target_language']} words by {r['corpus']['target_filter']}; "
        f"both at least {r['corpus']['minimum_count']} times"
        for r in results
    )
    return f"## Word pairs\n\n{table(header, rows)}\n\n{filters}"


def _topology(results):
    header = ["language", "pairs", "n", "model ρ", "control ρ", "Δρ", "p"]
    above_header = ["language", "pairs", "shuffled, model", "shuffled, control", "ρ above shuffled, model", "control"]
    above_header += ["Δ", "p"]
    rows, above_rows = [], []
    for r in results:
        for subset, label in SUBSETS.items():
            entry = r["topology"].get(subset)
            if entry is None:
                continue
            cells = [estimate(entry["model"]), estimate(entry["control"]), estimate(entry["difference"])]
            cells += [p_value(entry["difference"])]
            shuffled, above = entry["shuffled"], entry["above_shuffled"]
            estimates = [*(shuffled[name] for name in ("model", "control")), *above.values()]
            above_rows.append([r["shown"], label, *map(estimate, estimates), p_value(above["difference"])])
            discarded = f" ({entry['discarded']} discarded)" if entry["discarded"] else ""
            rows.append([r["shown"], label, f"{entry['items']}{discarded}", *cells])
        rows.append([r["shown"], "paper (model / control)", "", paper_pair(r, "topology")])
        rows[-1] += [""] * (len(header) - len(rows[-1]))
    return (
        "## Sense topology (Table 3)\n\n"
        "Spearman correlation of the cosine patterns of the K senses of aligned words (Eq. 4–6). *Shuffled* is the "
        "mean over all mismatched pairs: what the sense index alone explains, so that only what is above it is about "
        "translation. Pairs with fewer than K distinct senses "
        "are discarded. Words spelled alike on both sides have equal senses and score 1 under any model, and words "
        "that share subwords share senses, so the next rows leave them out. Repeated pairs are not independent, so "
        "intervals over occurrences are too narrow: the row of distinct pairs counts every pair of spellings once, "
        "and its resamples draw source words.\n\n"
        f"{table(header, rows)}\n\n{table(above_header, above_rows)}\n\n"
        "![Distribution of the topology score](figures/topology.png)"
    )


def _procrustes(results):
    header = [
        "language",
        "sense weights",
        "n",
        "d",
        "model in-sample",
        "control",
        "model held-out",
        "control",
        "Δ",
        "p",
    ]
    header += ["random in-sample", "random held-out"]
    rows = []
    for r in results:
        for label, entry in r["procrustes"].items():
            if entry is None:
                continue
            inside, outside = entry["compared"]["in_sample"], entry["compared"]["held_out"]
            cells = [number((inside[name] or {}).get("mean")) for name in ("model", "control")]
            cells += [estimate(outside["model"]), estimate(outside["control"]), estimate(outside["difference"])]
            cells += [p_value(outside["difference"])]
            cells += [number(entry["model"][f"random_{name}"]["mean"]) for name in ("in_sample", "held_out")]
            warning = " (under-determined)" if entry["model"]["underdetermined"] else ""
            size = [f"{entry['model']['pairs_used']}{warning}", entry["model"]["dimensions"]]
            rows.append([r["shown"], label, *size, *cells])
        rows.append([r["shown"], "paper (model / control)", "10000", "768"])
        rows[-1] += [paper_pair(r, "procrustes")] + [""] * (len(header) - 5)
    return (
        "## Procrustes analysis (Table 4)\n\n"
        "Mean cosine of aligned words' mixtures after the best rotation (Eq. 7–9), over five subsamples of at most "
        "10,000 pairs (all n, when there are no more), centred unless said otherwise; intervals draw source words "
        "with all their pairs, rotations fixed. The in-sample cosine grows with the dimension, as *random* shows: the "
        "same fit to shuffled pairs. Held out, the rotation is fitted on half of the source words and scored on the "
        "others, where random pairs score 0; Δ and p are of the held-out cosine.\n\n"
        f"{table(header, rows)}\n\n![Procrustes cosines](figures/procrustes.png)"
    )


def _mixture(results):
    names = {"top_k": "top-{k}", "top_k_norm_matched": "top-{k}, norm-matched", "uniform": "uniform"}
    names["uniform_norm_matched"] = "uniform, norm-matched"
    entries = [entry for r in results for entry in r["mixture"].values() if entry is not None]
    gated = ["without_senses" in entry for entry in entries]
    if any(gated):
        names |= {"without_senses": "without senses", "senses_alone": "senses alone"}
    numbers = {r["settings"]["top_k"] for r in results}
    k = numbers.pop() if len(numbers) == 1 else "k"  # which stands in the row
    header = ["language", "model", "full", *(name.format(k=k) for name in names.values())]
    rows = []
    for r in results:
        for which in ("model", "control"):
            entry = r["mixture"][which]
            if entry is not None:
                shown = which if k != "k" else f"{which}, k = {r['settings']['top_k']}"
                rows.append([r["shown"], shown, *(estimate(entry.get(v), 2) for v in ("full", *names))])
        paper = of_paper(r).get("mixture") if r["settings"]["top_k"] == 1 else None
        if paper is not None:
            rows.append([r["shown"], "paper", *(number(v, 2) for v in paper[:2]), "", number(paper[2], 2), ""])
            rows[-1] += [""] * (len(header) - len(rows[-1]))
    kinds = {"": VARIANTS} if not all(gated) else {}
    kinds |= {"of a language model with a gate, ": GATED_VARIANTS} if any(gated) else {}
    isolates = ". And ".join(
        of + "; ".join(f"**{names.get(v, v).format(k=k)}**: {what}" for v, what in variants.items())
        for of, variants in kinds.items()
    )
    return (
        "## Sense-mixture ablation (Table 5)\n\n"
        "Cross-entropy of the target sentences in nats per token, lower is better (Eq. 12, without the source "
        f"sentence as context). What each column isolates — {isolates}.\n\n"
        f"{table(header, rows)}\n\n![Cross-entropy under ablated mixtures](figures/mixture.png)"
    )


def _senses(results):
    header = ["language", "model", "recall@1 →", "recall@1 ←", "lowest without one sense →", "best sense alone →"]
    header += ["I(word; sense) source", "target", "gap, source", "target"]
    header += ["translation precision@1", "best sense", "chance"]
    header += ["cosine to base, source", "target"]
    rows = []
    for r in results:
        senses = r["senses"]
        definition = r["settings"]["definitions"][0]
        for name, recall in senses["recall"].items():
            forward = recall["source_to_target"]
            worst = min(range(len(forward["without"])), key=forward["without"].__getitem__)
            best = max(range(len(forward["alone"])), key=forward["alone"].__getitem__)
            cells = [number(forward["all"]), number(recall["target_to_source"]["all"])]
            cells += [
                f"{number(forward['without'][worst])} (k={worst})",
                f"{number(forward['alone'][best])} (k={best})",
            ]
            cells += [number(senses["mutual_information"][name][side][definition]) for side in ("source", "target")]
            gap = senses.get("mutual_information_gap", {}).get(name)
            cells += [number(gap and gap[side][definition]) for side in ("source", "target")]
            precision = senses["translation_precision"].get(name)
            cells += [number(precision and precision["all_senses"]), number(precision and max(precision["by_sense"]))]
            cells += [number(precision and precision["chance"])]
            drift = senses.get("drift", {}).get(name)
            cells += [number(drift and drift[side]["cosine"]) for side in ("source", "target")]
            rows.append([r["shown"], name, *cells])
    return (
        "## Single senses\n\n"
        "Recall@1 of sentence sense vectors (by magnitude), with the sense whose removal costs most and the best one "
        "alone; how much the sense distribution tells about the word (mutual information in nats, and its gap to the "
        "base); how often the nearest target word is a translation, by all senses side by side and by the best one; "
        "and the mean cosine between each sense before and after training.\n\n"
        f"{table(header, rows)}\n\n"
        "![Recall@1 by sense](figures/recall_by_sense.png)\n\n"
        "![Translation precision by sense](figures/translation_precision.png)\n\n"
        "![Mutual information of words and senses](figures/mutual_information.png)\n\n"
        "![Sense drift](figures/drift.png)"
    )


def _beyond_the_dictionary(results):
    """Translation precision where new words were told the translation and where they were not."""
    rows = []
    for r in results:
        for label, key in (("told", "translation_precision_told"), ("not told", "translation_precision_not_told")):
            found = r["senses"].get(key)
            if found:
                cells = [number((found.get(name) or {}).get("all_senses")) for name in ("model", "control", "base")]
                cells.append(number((found.get("model") or {}).get("chance")))
                rows.append([r["shown"], label, found["words"], *cells])
    if not rows:
        return []
    header = ["language", "source words", "n", "model", "control", "base with the same new words", "chance"]
    return [
        "## Beyond the dictionary\n\n"
        "New words started from the rows of their likely translations. A pair was *told* where a new word of the "
        "target was made of a token of the source; a source word, where one of its translations here was. How often "
        "the nearest target word is a translation, by all senses side by side, for words that were told and words "
        "that were not; topology and Procrustes have such rows above.\n\n" + table(header, rows)
    ]


def _neighbours(results):
    sections = [
        "## Nearest target words of frequent source words, sense by sense",
        "Same sense on both sides, words that share no subword with their translation; all senses of "
        "the first of them are in the figure, but for languages that its font has no letters for.",
        "![Nearest target words by sense](figures/neighbours.png)",
    ]
    for r in results:
        count = min(4, r["settings"]["num_senses"])
        header = [r["source_language"], *(f"sense {k}" for k in range(count))]
        rows = [
            [entry["word"], *(", ".join(names) for names in entry["by_sense"][:count])]
            for entry in r["senses"]["neighbours"]
        ]
        sections.append(f"**{r['shown']}**\n\n{table(header, rows)}")
    return "\n\n".join(sections)


def _findings(results):
    """Which of the paper's findings these results show, decided by the intervals."""
    lines = []
    for r in results:
        language, top = r["shown"], r["mixture"]["model"]
        untold = ["not_told"] if "not_told" in r["topology"] else []
        for subset in ("all", "distinct_pairs", *untold):
            entry = r["topology"][subset]
            above = entry and entry["above_shuffled"]
            for title, difference in (
                ("ρ above the control", entry and entry["difference"]),
                ("ρ above mismatched pairs", above and above["model"]),
                ("ρ above mismatched pairs by more than the control", above and above["difference"]),
            ):
                lines.append(f"- {language}, topology, {SUBSETS[subset]}: {title}: {_verdict(difference)}")
        first = next(iter(r["procrustes"].values()))
        verdict = _verdict(first and first["compared"]["held_out"]["model"])
        lines.append(f"- {language}, Procrustes: held-out cosine above 0, that of random pairs: {verdict}")
        for label, entry in r["procrustes"].items():
            if label.endswith("told"):
                verdict = _verdict(entry and entry["compared"]["held_out"]["difference"])
                lines.append(f"- {language}, Procrustes, {label}: held-out cosine above the control: {verdict}")
        for name, title in (("in_sample", "in-sample"), ("held_out", "held-out")):
            verdict = _verdict(first and first["compared"][name]["difference"])
            lines.append(f"- {language}, Procrustes: {title} cosine above the control: {verdict}")
        for variant, title in (
            ("top_k", "one sense alone is worse than the mixture, as published"),
            ("top_k_norm_matched", "the same at equal norm"),
            ("uniform", "dividing the mixture by K is worse"),
            ("without_senses", "the language model without its senses is worse"),
        ):
            if variant in top:
                lines.append(f"- {language}, mixture: {title}: {_verdict(top[variant]['difference'])}")
    return "## Which findings hold here\n\n" + "\n".join(lines)


def _verdict(difference):
    if difference is None:
        return "not tested (no control, or too few pairs)"
    low, high = difference["interval"]
    word = "holds" if low > 0 else "the opposite holds" if high < 0 else "not decided"
    return f"**{word}** ({estimate(difference)})"
