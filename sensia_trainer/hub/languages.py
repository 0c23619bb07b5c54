"""What the card of a model of several languages says of each, from `by_pair` and `matrix` of its metrics."""

from pathlib import Path

from ..evaluation.languages import LABELS, matrix_figure
from ..evaluation.retrieval import DIRECTIONS
from ..languages import Language, language
from ..training.by_pair import DRIFT, mean_of_pairs
from ..utils.markdown import Markdown, table, with_interval


FIGURE = "languages"
COLUMNS = {
    f"{kind}_{direction}": f"{title} {arrow}"
    for kind, title in {
        "sense_recall": "sense R@1",
        "context_recall": "context R@1",
        "overlap_recall": "overlap R@1",
        "random_sense_recall": "random weights, sense R@1",
        "random_context_recall": "random weights, context R@1",
        "sense_beyond_overlap": "where overlap fails, sense R@1",
        "context_beyond_overlap": "where overlap fails, context R@1",
    }.items()
    for direction, arrow in zip(DIRECTIONS, "→←")
}
COLUMNS |= {"target_bits_per_byte": "bits per byte", "source_bits_per_byte": "bits per byte of the first"}


def languages_of_card(metrics: dict) -> list[Language]:
    """The languages of a model: the source, then the target or all targets."""
    codes = metrics["languages"]
    return [language(code) for code in (codes["source"], *codes.get("targets", [codes.get("target")])) if code]


def joined_names(languages: list[Language]) -> str:
    """`Indonesian, Swahili and Turkish`."""
    names = [one.name for one in languages]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 2 else names)


def languages_of_pair(name: str) -> tuple[Language, Language]:
    """The two languages of `en-id`."""
    source, target = map(language, name.split("-"))
    return source, target


def pair_table(metrics: dict) -> Markdown:
    """A row for each pair of languages before adaptation and one after it, and below how far the source's senses have
    moved; empty for a model of one pair."""
    found = metrics.get("by_pair") or {}
    keys = [key for key in COLUMNS if any(key in one["after"] for one in found.values())]
    rows = []
    for name, one in found.items():
        for when, label in (("before", "before"), ("after", "this model"), ("control", "control")):
            values = one.get(when)
            if values:
                cells = [with_interval(values.get(key), values.get(f"{key}_interval")) for key in keys]
                rows.append(["–".join(side.name for side in languages_of_pair(name)), label, *cells])
    shown, drift = (
        table(["languages", "", *(COLUMNS[key] for key in keys)], rows),
        (metrics.get("after") or {}).get(DRIFT),
    )
    if not rows or drift is None:
        return shown
    return Markdown(
        f"{shown}\n\n{languages_of_card(metrics)[0].name} senses, mean cosine to those before: {drift:.3f}."
    )


def matrix_table(metrics: dict) -> Markdown:
    """Recall@1 from each language (rows) into each other, by sense vectors, or by context vectors without senses; in
    parentheses by token overlap."""
    matrix = metrics.get("matrix")
    if not matrix:
        return Markdown("")
    codes, values = matrix["languages"], matrix.get("sense", matrix["context"])
    overlap = matrix.get("overlap", {})

    def cell(way):
        return with_interval(values[way], mark=f" ({overlap[way]:.3f})" if way in overlap else "")

    rows = [[language(one).name, *("" if one == two else cell(f"{one}-{two}") for two in codes)] for one in codes]
    return table(["query in", *(language(code).name for code in codes)], rows)


def zero_shot_text(metrics: dict) -> str:
    """One sentence: how often translations are found between languages other than the source."""
    matrix = metrics.get("matrix") or {}
    parts = [
        f"{with_interval(matrix[kind]['zero_shot'], matrix[kind].get('zero_shot_interval'))} by {label}"
        for kind, label in LABELS.items()
        if "zero_shot" in matrix.get(kind, {})
    ]
    if not parts:
        return ""
    trained = set((metrics.get("languages") or {}).get("pairs", []))
    others = [name for name in sorted(trained) if matrix["source"] not in name.split("-")]
    apart = f" ({', '.join(others)} among them was trained)" if others else ", which never met in training,"
    return (
        f"Between two languages other than {language(matrix['source']).name}{apart} recall@1 is {', '.join(parts)} "
        "(mean over directions)."
    )


def draw_matrix(metrics: dict, folder) -> None:
    """The figure of the matrix into a model's folder, where the metrics have one."""
    if metrics.get("matrix"):
        matrix_figure(metrics["matrix"], Path(folder) / FIGURE)


def reported_languages(names: list[str], after: dict, before: dict | None = None, control: dict | None = None) -> dict:
    """
    The entries of a card's metrics that hold the results of `sensia evaluate` with `languages`.

    Args:
        names (`list[str]`): The pairs that were trained (`en-id`).
        after, before, control (`dict`): Its results for the model, the base model and the control.

    Raises:
        `ValueError`: if a result has no matrix, lacks a language, or was measured on other sentences.
    """
    results = {"before": before, "after": after, "control": control}
    results = {when: result for when, result in results.items() if result}
    for when, result in results.items():
        known = result.get("matrix", {}).get("languages", [])
        missing = [code for name in names for code in name.split("-") if code not in known]
        if missing:
            raise ValueError(
                f"The results of `{when}` have no matrix with {missing[0]!r}: evaluate with `languages`, all that the "
                "model was trained with."
            )
    prints = {when: result["matrix"]["fingerprint"] for when, result in results.items()}
    if len(set(prints.values())) > 1:
        raise ValueError(f"The results are not of the same sentences: {prints}. Evaluate all with one recipe.")
    by_pair: dict[str, dict] = {
        name: {when: _of_pair(result["matrix"], name) for when, result in results.items()} for name in names
    }
    means = {when: mean_of_pairs({name: one[when] for name, one in by_pair.items()}) for when in results}
    place = {"name": "FLORES-200", "type": "openlanguagedata/flores_plus", "split": after["matrix"]["split"]}
    return {"by_pair": by_pair, "matrix": after["matrix"], **means, "evaluation": place}


def _of_pair(matrix: dict, name: str) -> dict:
    """The entries of a matrix about one pair, named as `evaluate_bitext` names them."""
    source, target = name.split("-")
    names = dict(zip(DIRECTIONS, (f"{source}-{target}", f"{target}-{source}"), strict=True))
    found = {}
    for kind in LABELS:
        for direction, key in names.items():
            recall = kind if kind.endswith("beyond_overlap") else f"{kind}_recall"
            found |= _with_interval(matrix.get(kind, {}), key, f"{recall}_{direction}")
    for side, code in (("source", source), ("target", target)):
        for key in ("bits_per_byte", "perplexity"):
            found |= _with_interval(matrix.get(key, {}), code, f"{side}_{key}")
        found |= _with_interval(matrix.get("sense_entropy", {}), code, f"sense_entropy_{side}")
    return found | {"pairs": matrix["sentences"]}


def _with_interval(values: dict, key: str, name: str) -> dict:
    keys = {key: name, f"{key}_interval": f"{name}_interval"}
    return {new: values[old] for old, new in keys.items() if old in values}
