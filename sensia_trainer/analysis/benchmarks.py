"""Are they senses? The benchmarks of senses of one Backpack as one result, and their tables."""

from ..utils.files import fingerprint, plain
from ..utils.markdown import Markdown, table, with_interval
from . import BENCHMARKS
from .disambiguation import KINDS, REGIMES, disambiguate, load_coarsewsd
from .steering import steering
from .substitution import load_swords, rank_substitutes


KIND_TITLES = {
    "contributions": "sense contributions",
    "random_contributions": "those of a random sense path",
    "dense": "dense state",
    "most_frequent": "most frequent meaning",
}
RANKING_TITLES = {
    "likelihood": "likelihood of the sentence",
    "likelihood_without_senses": "the same without the senses",
    "senses": "senses as the context weighs them",
    "random_senses": "those of a random sense path",
    "embedding": "word embedding",
    "any_order": "any order",
}


def load_benchmarks(names, *, coarsewsd="", swords="", max_items=None) -> dict:
    """The data of the benchmarks asked for.

    Args:
        names: Of [`BENCHMARKS`].
        coarsewsd: Folder of CoarseWSD-20, for disambiguation and steering.
        swords: File of SWORDS, for substitution.
        max_items (`int`, *optional*): Sentences a word and split, and targets, at most.

    Raises:
        `ValueError`: For an unknown benchmark or data that are not there.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise ValueError(f"`benchmarks` may hold {list(BENCHMARKS)} (got {unknown[0]!r}).")
    data = {}
    if "disambiguation" in names or "steering" in names:
        if not coarsewsd:
            raise ValueError("`coarsewsd` is not set: disambiguation and steering need the folder of CoarseWSD-20.")
        data["words"] = load_coarsewsd(coarsewsd, max_items=max_items)
    if "substitution" in names:
        if not swords:
            raise ValueError("`swords` is not set: substitution needs the file of SWORDS (swords-v1.1_dev.json.gz).")
        data["targets"] = load_swords(swords, max_items=max_items)
    return data


RUNS = {
    "disambiguation": (disambiguate, "words"),
    "substitution": (rank_substitutes, "targets"),
    "steering": (steering, "words"),
}


def data_fingerprints(names, data: dict) -> dict[str, str]:
    """What tells the data of each benchmark asked for from other data: 16 hex digits of sentences, places and labels.

    Args:
        data (`dict`): From [`load_benchmarks`].
    """
    digests = {key: fingerprint(plain(content))[:16] for key, content in data.items()}
    return {name: digests[RUNS[name][1]] for name in names}


def run_benchmarks(model, tokenizer, names, data: dict, **options) -> dict:
    """The results of the benchmarks asked for, by their names.

    Args:
        data (`dict`): From [`load_benchmarks`].
        options: `batch_size`, `iterations`, `seed`, `progress`.
    """
    return {
        name: measure(model, tokenizer, data[key], **options) for name, (measure, key) in RUNS.items() if name in names
    }


def render_benchmarks(results: list[dict]) -> str:
    """The tables of results of [`run_benchmarks`], each with `model`, as Markdown; empty without any."""
    if not results:
        return ""
    sections = [_disambiguation(results), _substitution(results), _steering(results)]
    intro = "Intervals are 95 % bootstrap intervals; a difference (Δ) comes with its p-value."
    return "\n\n".join(["## Are they senses?", intro, *(section for section in sections if section)]) + "\n"


def _mean(entry, digits=3) -> Markdown:
    return with_interval(entry["mean"], entry["interval"], digits)


def _difference(entry) -> str:
    return f"{_mean(entry)}, p = {entry['p_value']:.2g}"


def _disambiguation(results):
    rows = []
    for result in results:
        for kind in KINDS if "disambiguation" in result else ():
            found = [result["disambiguation"]["average"][regime][kind] for regime in REGIMES]
            cells = [_mean(entry) for entry in found]
            cells += [_difference(entry["difference"]) if "difference" in entry else "" for entry in found]
            most = (result.get("settings") or {}).get("max_items")
            rows.append([result["model"], KIND_TITLES[kind], f"{most:,}" if most else "all", *cells])
    if not rows:
        return ""
    header = ["model", "nearest centroid by", "sentences a word, at most", "those of training"]
    header += ["one of each meaning", "contributions less it", "one-shot"]
    by_word = []
    for result in results:
        for word, entry in result.get("disambiguation", {}).get("words", {}).items():
            cells = [with_interval(entry["all"][k]["accuracy"], entry["all"][k]["interval"]) for k in KINDS]
            by_word.append([result["model"], word, len(entry["classes"]), entry["test"], *cells])
    return (
        "### Disambiguation: CoarseWSD-20\n\nAccuracy, mean over words; read at the word, so that only what stands "
        f"before it is known.\n\n{table(header, rows)}\n\n"
        f"{table(['model', 'word', 'meanings', 'sentences', *(KIND_TITLES[k] for k in KINDS)], by_word)}"
    )


def _substitution(results):
    rows = []
    for result in results:
        found = result.get("substitution", {})
        for name in RANKING_TITLES:
            if name in found:
                beaten = [
                    f"{RANKING_TITLES[one['than']]}: {_difference(one)}" for one in found[name].get("differences", [])
                ]
                cells = [_mean(found[name][key]) for key in ("gap", "recall")]
                rows.append([result["model"], RANKING_TITLES[name], found["targets"], *cells, "; ".join(beaten)])
    header = ["model", "ranked by", "targets", "GAP", "recall of the first ten", "Δ GAP"]
    title = "### Lexical substitution: SWORDS\n\nSubstitutes ranked for a word in its context, a target: the first."
    return f"{title}\n\n{table(header, rows)}" if rows else ""


def _steering(results):
    rows = []
    for result in results:
        found = result.get("steering")
        for name, title in (("own", "a sense of the word"), ("other", "that of another word")) if found else ():
            difference = _difference(found["difference"]) if name == "own" else ""
            cells = [with_interval(found[name]["towards"]), _mean(found[name]["shift"]), difference]
            rows.append([result["model"], title, found["meanings"], *cells])
    header = ["model", "boosted", "meanings", "moved towards it", "shift (nats)", "Δ"]
    title = (
        "### Steering\n\nFor every meaning, the sense that moves the next word most towards it on training sentences, "
        "on test sentences; a meaning is told by the words of its sentences."
    )
    return f"{title}\n\n{table(header, rows)}" if rows else ""
