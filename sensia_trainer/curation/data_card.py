"""A bitext as others see it: tables, figure and data card, from its statistics."""

import json
from pathlib import Path

import numpy as np

from ..languages import language
from ..utils.figures import save_figure
from ..utils.files import write_json, write_text
from ..utils.markdown import bold, escape, number, table
from .statistics import BEYOND, GOLDFISH_MEGABYTES, RATIO_BINS, longest


def write_report(statistics: dict, output: Path) -> None:
    """`statistics.json`, `statistics.md`, `lengths.png`, `lengths.svg` and `README.md` in the output folder."""
    draw_lengths(statistics, output)
    write_text(output / "statistics.md", tables(statistics))
    write_text(output / "README.md", data_card(statistics))
    write_json(output / "statistics.json", statistics)


def tables(statistics: dict) -> str:
    """Markdown: pairs by corpus and filter, size by side, corpora with licence and origin, and what was missing."""
    names = list(statistics["dropped"])
    rows = [
        [one["name"], one["read"], one["normalised"], *(one["dropped"].get(name, 0) for name in names), one["kept"]]
        for one in statistics["corpora"]
    ]
    every = [statistics["read"], statistics["normalised"], *statistics["dropped"].values(), statistics["pairs"]]
    rows.append([bold("all"), *every])
    parts = [
        "Pairs read, of these changed by normalisation, taken by each filter (in order), and kept:\n",
        table(["corpus", "read", "normalised", *(name.replace("_", " ") for name in names), "kept"], rows),
    ]
    rows = [
        [
            language(side).name,
            facts["tokens"] if facts["tokens"] is not None else "not counted",
            number(facts["megabytes"]),
            f"{100 * facts['megabytes'] / GOLDFISH_MEGABYTES:.2g} %",
        ]
        for side, facts in statistics["sides"].items()
    ]
    counted = f"tokens by the {escape(statistics['tokenizer'])} tokenizer, " if statistics["tokenizer"] else ""
    parts += [
        f"\nSize by side ({counted}megabytes of UTF-8, and their share of the 1 GB of a Goldfish model):\n",
        table(["language", "tokens", "MB", "of Goldfish's"], rows),
        "\nOrigin:\n",
        table(
            ["corpus", "release", "read", "licence", "origin"],
            [
                [one["name"], f"{one['release']} {one['codes']}" if "release" in one else "-"]
                + [_what_was_read(one), one["licence"], one["origin"]]
                for one in statistics["corpora"]
            ],
        ),
    ]
    if statistics["evaluation_texts"]:
        rows = [[name, *counts.values()] for name, counts in statistics["evaluation_texts"].items()]
        parts += [
            "\nEvaluation texts that no pair shares a side with, and those too short to be evidence of it:\n",
            table(["evaluation set", "texts", "exempt"], rows),
        ]
    if statistics["missing"]:
        parts += ["\nMissing corpora:\n"]
        parts += [f"- {escape(one['name'])}: {escape(one['reason'])}" for one in statistics["missing"]]
    if statistics["problems"]:
        problems = ((name, what, n) for name, found in statistics["problems"].items() for what, n in found.items())
        parts += ["\nProblems met while reading:\n"]
        parts += [f"- {escape(name)}: {escape(what.replace('_', ' '))}: {count:,}" for name, what, count in problems]
    return "\n".join(parts) + "\n"


def _what_was_read(corpus: dict) -> str:
    parts = [f"the first {corpus['max_pairs']:,} pairs of its source"] if corpus.get("max_pairs") else []
    for column, values in corpus.get("where", {}).items():
        parts += [f"{column}: {' or '.join(map(str, values if isinstance(values, list) else [values]))}"]
    return "; ".join(parts) or "all"


def data_card(statistics: dict) -> str:
    """README.md of the dataset: metadata of the Hub, then the tables."""
    source, target = statistics["source"], statistics["target"]
    names = (
        f"English–{language(target).name}" if source == "en" else f"{language(source).name}–{language(target).name}"
    )
    sizes = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
    size = next((name for limit, name in sizes if statistics["pairs"] < limit), "10M<n<100M")
    rules, semantic, caps = statistics["filters"], statistics["semantic"], statistics["caps"]
    steps = [
        "Unicode NFC, the punctuation of each language, single spaces",
        f"sides of at most {rules['side_characters']} characters, words of at most {rules['word_characters']}",
        f"length {rules['source_length'][0]} to {rules['source_length'][1]} ({_unit(source)}) and "
        f"{rules['target_length'][0]} to {rules['target_length'][1]} ({_unit(target)})",
        f"length ratio {rules['length_ratio'][0]:.3g} to {rules['length_ratio'][1]:.3g} in {_ratio_unit(statistics)}",
    ]
    steps += ["identical sides dropped"] * rules["drop_identical"]
    steps += ["the same digits on both sides"] * rules["match_digits"] + ["the same URLs on both sides"] * rules[
        "match_urls"
    ]
    if rules["language_confidence"] is not None:
        confidence = rules["language_confidence"]
        steps += [f"py3langid: sides in another language with at least {confidence} dropped, close relatives excepted"]
    if statistics["evaluation_texts"]:
        steps += ["no side in common, up to case, punctuation and numbers, with the evaluation texts listed below"]
    steps += [f"exact and near duplicates dropped, at most {rules['max_targets_per_source']} targets of a source"]
    if semantic:
        if semantic["max_pairs"]:
            steps += [f"at most {semantic['max_pairs']:,} of the pairs left drawn to be scored, the others dropped"]
        steps += [
            f"{escape(semantic['encoder'])} {semantic['mode']} of at least {semantic['threshold']} (column `score`)"
        ]
    drawn = ", ".join(f"{name} {count:,}" for name, count in caps.items() if count)
    steps += [f"seeded draws ({statistics['seed']}): {drawn}"] if drawn else []
    scripts = [one.replace("_", "-") for one in (source, target) if "_" in one]  # the Hub has none in `language`
    front = {
        "language": list(dict.fromkeys(one.partition("_")[0] for one in (source, target))),
        **({"language_bcp47": scripts} if scripts else {}),
        "license": "other", "license_name": "see-the-corpora", "license_link": "README.md",
        "task_categories": ["translation"], "size_categories": [size], "pretty_name": f"{names} bitext",
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in statistics["versions"].items())
    return f"""---
{chr(10).join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in front.items())}
---

# {names} bitext

{statistics["pairs"]:,} sentence pairs in the column `translation`, built as in Appendix D of "Multilinguality as Sense
Adaptation". Each corpus keeps its own licence; the column `corpus` says which pair is whose.

## How it was made

{chr(10).join(f"{n}. {step}" for n, step in enumerate(steps, 1))}

```
{" ".join((statistics["command"] or "built from Python").split())}
```

`recipe.yaml` holds the recipe with all that the command sets; of files it gives the names, without their folders.

Fingerprint (SHA-256 of the texts): `{statistics["fingerprint"]}`. Versions: {escape(versions)}.

## Statistics

{tables(statistics)}
![Lengths of the sentences read and kept](lengths.png)
"""


def _unit(code: str) -> str:
    return "words" if language(code).has_spaces else "characters"


def _ratio_unit(statistics: dict) -> str:
    spaced = language(statistics["source"]).has_spaces and language(statistics["target"]).has_spaces
    return statistics["filters"]["ratio_unit"] if spaced else "characters"


def draw_lengths(statistics: dict, output: Path) -> None:
    """`lengths.png` and `lengths.svg`: lengths of both sides and length ratio, of the pairs read and of those kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    read, kept = statistics["histograms"]["read"], statistics["histograms"]["kept"]
    for axis, side, code in zip(axes, ("source", "target"), (statistics["source"], statistics["target"])):
        for counts, style, label in ((read, dict(color="0.6", ls="--"), "read"), (kept, dict(color="k"), "kept")):
            axis.plot(np.array(counts[side]) / max(1, sum(counts[side])), label=label, **style)
        bounds = statistics["filters"][f"{side}_length"]
        for bound in bounds:
            axis.axvline(bound, color="0.6", lw=0.8, ls=":")
        axis.set(xlabel=f"{language(code).name}: {_unit(code)}", ylabel="share of pairs", xlim=(0, longest(bounds)))
    bounds = statistics["filters"]["length_ratio"]
    limit = BEYOND * bounds[1]
    middle = (np.arange(RATIO_BINS) + 0.5) / RATIO_BINS * limit
    for counts, style, label in ((read, dict(color="0.6", ls="--"), "read"), (kept, dict(color="k"), "kept")):
        axes[2].plot(middle, np.array(counts["ratio"]) / max(1, sum(counts["ratio"])), label=label, **style)
    for bound in bounds:
        axes[2].axvline(bound, color="0.6", lw=0.8, ls=":")
    axes[2].set(xlabel=f"ratio of lengths in {_ratio_unit(statistics)}", ylabel="share of pairs", xlim=(0, limit))
    axes[2].legend(frameon=False)
    save_figure(figure, output / "lengths.png")
