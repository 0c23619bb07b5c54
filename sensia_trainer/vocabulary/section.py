"""What a model card says of new words: a section in Markdown, and a figure."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # without pyplot, which would choose a backend for the whole process

from ..utils.figures import save_figure
from ..utils.markdown import Markdown, code, number, table


STARTS = {
    "translation": "the rows of its most probable translations, weighed by their probability",
    "parts": "the mean of the rows of the tokens that spelled it before",
    "mean": "the mean of all rows",
}


def vocabulary_section(report, source: str, target: str) -> str:
    """
    The section of a card about new words.

    Args:
        report (`dict`): See `extension.extend_vocabulary`; its `words` may hold `votes_before` and `votes_after`.
        source, target (`str`): Names of the languages.

    Returns:
        `str`: Markdown without a heading.
    """
    (source_before, source_after), (target_before, target_after) = (
        [f"{report[f'{side}_bytes_per_token'][when]:.2f}" for when in ("before", "after")]
        for side in ("source", "target")
    )
    new, whole = number(report["new_tokens"]), number(report["whole_words"])
    text = (
        f"The tokenizer of the base model was continued on the {target} side of the training pairs with {new} tokens "
        f"({whole} of them whole words). Old tokens kept their ids; {_share(report['source_change'])} of the {source} "
        f"training sentences are cut otherwise than before. A token is {target_after} bytes of {target} (before: "
        f"{target_before}) and {source_after} bytes of {source} (before: {source_before}).\n\n"
        f"Each new word started as {STARTS[report['method']]}."
    )
    if facts := report.get("translations"):
        entries = (
            f" and {number(facts['dictionary_entries'])} dictionary entries" if facts["dictionary_entries"] else ""
        )
        text += (
            f" Translations were learned from {number(facts['pairs'])} pairs{entries}: "
            f"{_share(facts['translated_words'])} of the new words have one, and {_share(facts['sure_words'])} one "
            "that has at least half of the probability."
        )
        if "held_out_nats" in facts:
            text += (
                f" On {number(facts['held_out_pairs'])} held-out pairs a token of {source} costs "
                f"{facts['held_out_nats']:.2f} nats given its translation "
                f"({facts['held_out_nats_unigram']:.2f} by frequency alone)."
            )
    return f"{text}\n\n{_word_table(report['words'])}"


def vocabulary_figure(report, path, *, languages=("source", "target")) -> list[Path]:
    """
    Bytes a token of all languages before and after, and how sure the new words are of their meanings.

    Args:
        report (`dict`): See `extension.extend_vocabulary`; of several languages, one of each under `languages`.
        path: Where to save; PNG and SVG are written.
        languages (`tuple[str, str]`): Names of the source and of the target language (of several, theirs are those of
            their codes).

    Returns:
        The files written.
    """
    reports = report.get("languages") or {languages[1]: report}
    sides = {languages[0]: next(iter(reports.values()))["source_bytes_per_token"]}
    sides |= {name: one["target_bytes_per_token"] for name, one in reports.items()}
    found = [one["translations"]["best_probability_counts"] for one in reports.values() if "translations" in one]
    counts = np.sum(found, axis=0).tolist() if found else None
    figure = Figure(figsize=(8 if counts else 4, 3), layout="constrained")
    panels = figure.subplots(1, 2 if counts else 1, squeeze=False)[0]
    for shift, when, colour, hatch in ((-0.2, "before", "0.75", ""), (0.2, "after", "#1b3a6b", "//")):
        heights = [sizes[when] for sizes in sides.values()]
        panels[0].bar(
            np.arange(len(sides)) + shift, heights, 0.38, color=colour, hatch=hatch, edgecolor="white", label=when
        )
    panels[0].set_xticks(range(len(sides)), sides)
    panels[0].set_title("bytes a token", fontsize=10)
    panels[0].legend(frameon=False, fontsize=8)
    if counts:
        edges = np.linspace(0, 1, len(counts) + 1)
        panels[1].bar(edges[:-1], counts, np.diff(edges), align="edge", color="#1b3a6b", edgecolor="white")
        panels[1].set_title("new words by the probability of their best translation", fontsize=10)
    for panel in panels:
        panel.grid(axis="y", alpha=0.25)
    return save_figure(figure, path)


def _share(value: float) -> str:
    """A share in percent; "none" where it is zero."""
    return f"{100 * value:.3g} %" if value else "none"


def _word_table(words) -> str:
    """The table of some new words."""
    whens = [when for when in ("before", "after") if any(f"votes_{when}" in word for word in words)]
    translated = any("translations" in word for word in words)
    header = ["new word", *["translations (probability)"] * translated]
    rows = []
    for word in words:
        row = [code(word["word"])]
        if translated:
            row.append(Markdown(", ".join(f"{code(text)} {p:.2f}" for text, p in word["translations"]) or "–"))
        rows.append(
            row + [Markdown(", ".join(code(text) for text in word[f"votes_{when}"] if text)) for when in whens]
        )
    return table([*header, *(f"its senses vote for, {when} training" for when in whens)], rows)
