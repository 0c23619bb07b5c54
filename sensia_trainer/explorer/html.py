"""What the tabs computed, as HTML and SVG. Everything that somebody typed, or a model wrote, is escaped here."""

import io
import re
import warnings
from html import escape

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from .models import Explored
from .views import Similarity, Steered, Weights, WordMap, WordSense


# Okabe and Ito's blue and vermilion, told apart by every kind of sight; beside them shape and place tell the same.
BLUE, VERMILION = "#0072B2", "#D55E00"
SIDES = ((BLUE, "o"), (VERMILION, "^"))
CUT = 60  # characters of a sentence in a heading


def note(text: str) -> str:
    """A message to whoever typed something."""
    return f'<p class="note" role="status">{escape(text)}</p>'


def said(text) -> str:
    """A word or text of any language, in its own direction."""
    return f'<bdi dir="auto">{escape(str(text))}</bdi>'


def cut(text: str, most=CUT) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def table(caption: str, columns: list[str], rows: list[list[str]], kind="") -> str:
    """A table whose first column names the rows; cells are HTML, headings and caption are text.

    On a narrow screen, a table of kind `stacked` shows each row as a card, its cells under their headings.
    """
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{first}</th>'
        + "".join(f'<td data-label="{escape(name)}">{cell}</td>' for name, cell in zip(columns[1:], cells))
        + "</tr>"
        for first, *cells in rows
    )
    # Above the table, where it is as wide as the page; screen readers hear it as the table's name.
    return (
        f'<p class="caption">{escape(caption)}</p><div class="scroll" tabindex="0">'
        f'<table class="{kind}" aria-label="{escape(caption)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bar(share: float, label: str) -> str:
    """A share of one as a bar with its number."""
    width = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="bar"><i style="width:{width:.1f}%"></i></span> <span class="number">{escape(label)}</span>'


def cell(value: float, most: float, text: str) -> str:
    """A number as a shade: blue where it is positive, vermilion and hatched where it is negative."""
    strength = min(abs(value) / most, 1.0) if most > 0 else 0.0
    sign = "minus" if value < 0 else "plus"
    light = " light" if strength > 0.55 else ""
    return f'<span class="cell {sign}{light}" style="--strength:{strength:.2f}" title="{value:.3f}">{text}</span>'


def senses_html(explored: Explored, word: str, senses: list[WordSense]) -> str:
    names = [explored.language_name(side) for side in range(len(explored.languages))]
    translations = {
        side: {pair[side].casefold() for pair in explored.pairs if pair[1 - side].casefold() == word.casefold()}
        for side in range(len(names))
    }
    columns = ["Sense", *(f"Nearest {name} words" for name in names), "Words it votes for next"]
    rows = []
    for sense in senses:
        near = [_neighbours(found, translations[side]) for side, found in enumerate(sense.neighbours)]
        votes = " · ".join(map(said, sense.predicted)) or "—"
        share = bar(sense.share, "<1%" if sense.share < 0.005 else f"{sense.share:.0%}")
        rows.append([f'<span class="sense">{sense.sense}</span>{share}', *near, votes])
    return table(
        f"The {len(senses)} senses of “{word}”. Bars: share of each sense in the word. Framed: a translation.",
        columns,
        rows,
        "stacked",
    )


def _neighbours(found, translations) -> str:
    words = []
    for name, cosine in found:
        tag = "mark" if name.casefold() in translations else "span"
        words.append(f'<{tag} title="cosine {cosine:.2f}">{said(name)}</{tag}>')
    return " · ".join(words) or "—"


def weights_html(explored: Explored, weights: Weights, by="alpha") -> str:
    shown = weights.alpha if by == "alpha" else weights.logits
    read = shown.shape[1]
    end = weights.tokens[read - 1]
    most = 1.0 if by == "alpha" else max(float(np.abs(shown).max()), 1e-9)
    first = weights.following[0][0]
    rows = []
    for place in range(read):
        values = [(value, _number(value, by)) for value in shown[:, place].tolist()]
        rows.append(
            [f"<small>{place + 1}</small> {said(weights.tokens[place])}", *(cell(v, most, t) for v, t in values)]
        )
    captions = {
        "alpha": f"How much each sense (column) of each token (row) weighs on the word after “{end}”, in %. "
        "Each column sums to 100.",
        "logits": f"What each sense (column) of each token (row) adds to the score of “{first}” after “{end}”, in "
        "logits. Hatched: it takes away.",
    }
    columns = ["Token", *map(str, range(len(shown)))]
    return table(captions[by], columns, rows, "heat") + following_html(weights, end)


def _number(value: float, by: str) -> str:
    if by == "alpha":
        return f"{100 * value:.0f}" if value >= 0.095 else ""
    return f"{value:.1f}" if abs(value) >= 0.95 else ""


def following_html(weights: Weights, end: str) -> str:
    rows = [[said(word), bar(share, f"{share:.1%}")] for word, share in weights.following]
    return table(f"Likeliest words after “{end}”", ["Word", "Probability"], rows, "bars")


def steered_html(text: str, steered: Steered, what: str) -> str:
    panels = "".join(
        f'<section class="panel"><h3>{escape(title)}</h3>'
        f'<p dir="auto">{escape(text)}<b>{escape(more)}</b></p></section>'
        for title, more in zip(("Before", f"After: {what}"), steered.continuations)
    )
    rows = [
        [said(word), bar(before, f"{before:.1%}"), bar(after, f"{after:.1%} {_arrow(before, after)}")]
        for word, before, after in steered.following
    ]
    same = (
        "" if steered.continuations[0] != steered.continuations[1] else " The likeliest continuation stays the same."
    )
    caption = f"Next word before and after. The prediction moved by {steered.divergence:.3f} nats (KL).{same}"
    return f'<div class="panels">{panels}</div>' + table(caption, ["Word", "Before", "After"], rows, "bars")


def _arrow(before: float, after: float) -> str:
    return "▲" if after > 1.05 * before else "▼" if after < before / 1.05 else "="


def similarity_html(found: Similarity) -> str:
    aligned = len(found.source) == len(found.target)
    parts = [_verdict(found)] if aligned and len(found.source) > 1 else []
    names = {"senses": "senses", "contexts": "contexts", "overlap": "shared tokens (no model)"}
    for kind, cosines in found.cosines.items():
        rows = []
        for row, sentence in enumerate(found.source):
            best = int(cosines[row].argmax())
            cells = [
                f'<span class="{"best" if column == best and value > 0 else ""}">'
                + cell(value, 1.0, f"{value:.2f}" + (" ✓" if aligned and column == row == best and value > 0 else ""))
                + "</span>"
                for column, value in enumerate(cosines[row].tolist())
            ]
            rows.append([f"<small>{row + 1}</small> {said(cut(sentence, 34))}", *cells])
        caption = f"Similarity by {names[kind]} (cosine). Framed: the nearest of each row" + (
            "; ✓: its translation." if aligned else "."
        )
        parts.append(table(caption, ["Sentence", *map(str, range(1, len(found.target) + 1))], rows, "heat wide"))
    listed = "".join(f"<li>{said(cut(sentence))}</li>" for sentence in found.target)
    return "".join(parts) + f'<div class="listed"><h3>Columns</h3><ol>{listed}</ol></div>'


def _verdict(found: Similarity) -> str:
    total = len(found.source)
    hits = {
        kind: sum(int(row.argmax()) == index and row.max() > 0 for index, row in enumerate(cosines))
        for kind, cosines in found.cosines.items()
    }
    return note(
        f"Line by line as translations: senses find {hits['senses']} of {total}, contexts {hits['contexts']}, "
        f"shared tokens {hits['overlap']}; by chance it would be 1."
    )


def map_html(maps: list[tuple[str, WordMap]], names: tuple[str, str], what: str) -> str:
    """One panel for each model, beside each other or, on a narrow screen, below."""
    legend = (
        f'<p class="legend"><b style="color:{BLUE}">●</b> {escape(names[0])} '
        f'<b style="color:{VERMILION}">▲</b> {escape(names[1])} — a line joins a word and its translation</p>'
    )
    panels = "".join(
        f'<figure class="panel"><figcaption><h3>{escape(title)}</h3>{escape(_nearest(found))}</figcaption>'
        f"{_map_svg(title, found, what)}</figure>"
        for title, found in maps
    )
    return f'{legend}<div class="panels">{panels}</div>'


def _nearest(found: WordMap) -> str:
    count = f"{found.nearest} of {len(found.pairs)} words are nearest to their translation"
    return f"{count}; mean cosine of translations {found.cosine:.2f}."


def _map_svg(title: str, found: WordMap, what: str) -> str:
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    for start, stop in zip(*found.points):
        axis.plot(*zip(start, stop), color="#999999", linewidth=0.9, zorder=1)
    for side, (colour, marker) in enumerate(SIDES):
        axis.scatter(*found.points[side].T, c=colour, marker=marker, s=34, zorder=2)
        for pair, place in zip(found.pairs, found.points[side]):
            # Source words above their points and target words below, so that a pair that coincides can be read.
            options = {"xytext": (0, 5 if side == 0 else -13), "textcoords": "offset points", "ha": "center"}
            axis.annotate(cut(pair[side], 20), place, **options, fontsize=9.5, color=colour, parse_math=False)
    for axis_of, share, name in ((axis.xaxis, found.variance[0], "first"), (axis.yaxis, found.variance[1], "second")):
        axis_of.set_label_text(f"{name} principal component of {what} ({share:.0%} of variance)", fontsize=9.5)
    axis.tick_params(labelsize=8)
    axis.margins(0.14)
    image = io.StringIO()
    # Text stays text: the browser has fonts for every script.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sensia"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        figure.savefig(image, format="svg", metadata={"Date": None, "Creator": None})
    text = image.getvalue()
    text = re.sub(r"<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)  # it would rule the page
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(f"{title}: {_nearest(found)}")}" ', 1)
