"""A figure for each analysis, drawn from result files; told apart by line, hatch and lightness, not by colour."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from ..languages import language
from ..utils.figures import save_figure
from .summary import with_names


STYLES = {
    "model": {"color": "#1b3a6b", "hatch": ""},
    "control": {"color": "#b9c4d6", "hatch": "///"},
    "base": {"color": "#ffffff", "hatch": "..."},
}
SHOWN_WORDS = 8  # of which the neighbours are drawn; the report names more
LINES = {"model": "-", "control": "--", "base": ":"}


def save_figures(results, folder) -> list[Path]:
    """Draws every figure for results of `analyse` (each with `target_language`) that these have something to show in;
    PNG and SVG, in `folder`. One of earlier results that they have nothing for is removed."""
    drawings = {
        "topology": topology,
        "procrustes": procrustes,
        "mixture": mixture,
        "recall_by_sense": recall_by_sense,
        "translation_precision": precision_by_sense,
        "mutual_information": information,
        "drift": drift,
        "neighbours": neighbours,
    }
    results, files = with_names(results), []
    for name, draw in drawings.items():
        figure = draw(results)
        if figure is not None:
            files += save_figure(figure, Path(folder) / name)
        else:
            for suffix in (".png", ".svg"):
                (Path(folder) / f"{name}{suffix}").unlink(missing_ok=True)
    return files


def _panels(count, width=4.2, height=3.2, rows=1, **options):
    figure = Figure(figsize=(width * count, height * rows), layout="constrained")
    axes = figure.subplots(rows, count, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _present(entry):
    return [name for name in STYLES if entry.get(name) is not None]


def _bars(axis, groups, series, *, digits=2, label=True):
    """Grouped bars. `series`: `{model name: [(value, interval or None), ...]}`, one per group."""
    width = 0.8 / len(series)
    for index, (name, values) in enumerate(series.items()):
        places = np.arange(len(groups)) + (index - (len(series) - 1) / 2) * width
        heights = [value for value, _ in values]
        axis.bar(places, heights, width, edgecolor="black", linewidth=0.6, label=name, **STYLES[name])
        for place, (value, interval) in zip(places, values):
            top = value
            if interval is not None:
                axis.plot([place, place], interval, color="black", linewidth=1)
                top = max(value, interval[1])
            if label:
                axis.annotate(
                    f"{round(value, digits) + 0.0:.{digits}f}",  # 0.00, never -0.00
                    (place, max(top, 0)),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # legible where a line crosses
                )
    axis.set_xticks(range(len(groups)), groups)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.margins(y=0.12)


def _legend(figure, axis):
    """Below the panels, where it covers nothing, in as many columns as their width holds."""
    handles, labels = axis.get_legend_handles_labels()
    columns = min(len(labels), int(figure.get_figwidth() / (0.6 + 0.075 * max(map(len, labels)))))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def topology(results):
    """Distribution of the topology score over pairs without a shared subword, with means and shuffled baselines."""
    entries = [(r, r["topology"]["no_shared_subword"] or r["topology"]["all"]) for r in results]
    usable = [(result, entry) for result, entry in entries if entry]
    if not usable:
        return None
    figure, axes = _panels(len(usable), sharex=True, sharey=True)
    lowest = 1.0
    for axis, (result, entry) in zip(axes[0], usable):
        for name in _present(entry["histogram"]):
            counts = np.array(entry["histogram"][name])
            edges = np.linspace(-1, 1, len(counts) + 1)
            first = edges[np.searchsorted(counts.cumsum(), 0.005 * counts.sum())]
            lowest = min(lowest, first, entry["shuffled"][name]["mean"])
            style = {"linestyle": LINES[name], "color": "#1b3a6b" if name == "model" else "#666666"}
            axis.stairs(counts / max(counts.sum(), 1), edges, linewidth=1.6, label=name, **style)
            axis.axvline(entry[name]["mean"], linewidth=1, **style)
            axis.plot(
                entry["shuffled"][name]["mean"],
                0,
                marker="^" if name == "model" else "v",
                markersize=7,
                color=style["color"],
                linestyle="none",
                clip_on=False,
                zorder=3,
                label=f"{name}, shuffled",
            )
        axis.set_title(f"{result['shown']} (n = {entry['items']})")
        axis.set_xlabel("topology score ρ; lines: means")
    # After the last panel: it ends the automatic scaling of the shared axes. Fewer than 1 % of pairs lie further left.
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_xlim(lowest - 0.02, 1.02)
    axes[0, 0].set_ylabel("share of word pairs")
    _legend(figure, axes[0, 0])
    return figure


def procrustes(results):
    """In-sample and held-out cosines beside those of random pairs, by the first definition of the sense weights."""
    groups = {"in_sample": "in-sample", "held_out": "held out"}
    groups |= {"random_in_sample": "random,\nin-sample", "random_held_out": "random,\nheld out"}
    entries = [(result, *next(iter(result["procrustes"].items()))) for result in results]
    usable = [(result, label, entry) for result, label, entry in entries if entry]
    if not usable:
        return None
    figure, axes = _panels(len(usable), sharey=True)
    for axis, (result, label, entry) in zip(axes[0], usable):
        series = {}
        for name in _present(entry):
            compared = entry["compared"]
            values = [(compared[g][name]["mean"], compared[g][name]["interval"]) for g in list(groups)[:2]]
            series[name] = values + [(entry[name][g]["mean"], None) for g in list(groups)[2:]]
        _bars(axis, list(groups.values()), series)
        axis.set_title(f"{result['shown']} (n = {entry['model']['pairs_used']}, {label})")
    axes[0, 0].set_ylabel("mean cosine after rotation")
    _legend(figure, axes[0, 0])
    return figure


def mixture(results):
    """Cross-entropy under ablated mixtures (Table 5)."""
    groups = {"full": "full", "top_k": "top-{k}", "top_k_norm_matched": "top-{k}\nnorm-\nmatched"}
    groups |= {"uniform": "uniform\n(full / K)", "uniform_norm_matched": "uniform\nnorm-\nmatched"}
    groups |= {"without_senses": "without\nsenses", "senses_alone": "senses\nalone"}  # with a gate
    figure, axes = _panels(len(results), width=4.8, sharey=True)
    for axis, result in zip(axes[0], results):
        present = _present(result["mixture"])
        shown = {g: label for g, label in groups.items() if all(g in result["mixture"][name] for name in present)}
        shown = {g: label.format(k=result["settings"]["top_k"]) for g, label in shown.items()}
        series = {
            name: [(result["mixture"][name][g]["mean"], result["mixture"][name][g]["interval"]) for g in shown]
            for name in present
        }
        _bars(axis, list(shown.values()), series, digits=1)
        guess = np.log(result["settings"]["vocab_size"])
        axis.axhline(guess, color="black", linewidth=1, linestyle=":", label="ln V (all tokens alike)")
        axis.set_title(result["shown"])
    axes[0, 0].set_ylabel("cross-entropy (nats per token)")
    _legend(figure, axes[0, 0])
    return figure


def _by_sense(axis, series, *, title, reference=None):
    """Lines over the sense index. `series`: `{model name: K numbers}`; `reference`: horizontal lines by name."""
    for name, values in series.items():
        marker = {"model": "o", "control": "s", "base": "x"}[name]
        colour = {"model": "#1b3a6b", "control": "#777777", "base": "#000000"}[name]
        axis.plot(values, LINES[name], marker=marker, markersize=4, linewidth=1, color=colour, label=name)
        if reference and name in reference:
            axis.axhline(reference[name], linestyle=LINES[name], linewidth=0.8, color=colour, alpha=0.7)
    axis.set_title(title)
    axis.set_xlabel("sense k")
    axis.set_xticks(range(0, len(next(iter(series.values()))), max(1, len(next(iter(series.values()))) // 8)))


def recall_by_sense(results):
    """Recall@1, source to target, without each sense (above) and with it alone (below); lines: all senses."""
    figure, axes = _panels(len(results), rows=2, height=2.6, sharex=True, sharey=True)
    for column, result in zip(axes.T, results):
        recall = {name: result["senses"]["recall"][name]["source_to_target"] for name in result["senses"]["recall"]}
        everything = {name: entry["all"] for name, entry in recall.items()}
        language = result["shown"]
        for axis, key, title in zip(column, ("without", "alone"), ("without sense k", "sense k alone")):
            series = {name: entry[key] for name, entry in recall.items()}
            _by_sense(axis, series, title=f"{language}: {title}", reference=everything)
        column[0].set_xlabel("")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("recall@1")
    axes[1, 0].set_ylabel("recall@1")
    _legend(figure, axes[0, 0])
    return figure


def precision_by_sense(results):
    """How often the nearest target word by sense k is a translation; lines: by all senses side by side."""
    usable = [r for r in results if r["senses"]["translation_precision"]]
    if not usable:
        return None
    figure, axes = _panels(len(usable), sharey=True)
    for axis, result in zip(axes[0], usable):
        precision = result["senses"]["translation_precision"]
        _by_sense(
            axis,
            {name: entry["by_sense"] for name, entry in precision.items()},
            title=result["shown"],
            reference={name: entry["all_senses"] for name, entry in precision.items()},
        )
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("precision@1; lines: all senses")
    _legend(figure, axes[0, 0])
    return figure


def information(results):
    """I(word; sense) by every definition of the sense weights, target side."""
    figure, axes = _panels(len(results), width=5.2, sharey=True)
    for axis, result in zip(axes[0], results):
        definitions = result["settings"]["definitions"]
        values = result["senses"]["mutual_information"]
        series = {name: [(values[name]["target"][d], None) for d in definitions] for name in _present(values)}
        _bars(axis, [d.replace("_", "\n") for d in definitions], series)
        axis.set_title(f"{result['shown']}, target words")
    axes[0, 0].set_ylabel("I(word; sense) in nats")
    _legend(figure, axes[0, 0])
    return figure


def drift(results):
    """Cosine between each sense before and after training, source words (above) and target words (below)."""
    usable = [r for r in results if r["senses"].get("drift")]
    if not usable:
        return None
    figure, axes = _panels(len(usable), rows=2, height=2.6, sharex=True, sharey=True)
    for column, result in zip(axes.T, usable):
        for axis, side in zip(column, ("source", "target")):
            series = {name: entry[side]["cosine_by_sense"] for name, entry in result["senses"]["drift"].items()}
            _by_sense(axis, series, title=f"{result['shown']}: {side} words")
        column[0].set_xlabel("")
    axes[0, 0].set_ylim(min(0, axes[0, 0].get_ylim()[0]), 1.02)
    axes[0, 0].set_ylabel("cosine to base")
    axes[1, 0].set_ylabel("cosine to base")
    _legend(figure, axes[0, 0])
    return figure


def _is_drawn(entries) -> bool:
    """Whether the font has all letters of the words of some neighbours."""
    letters = get_font(findfont(FontProperties())).get_charmap()
    return all(ord(letter) in letters for entry in entries for word in _words_of(entry) for letter in word)


def _words_of(entry):
    return [entry["word"], *(names[0] for names in entry["by_sense"])]


def neighbours(results):
    """The nearest target word by each sense of frequent source words: bluer is nearer, framed: a translation. Results
    whose words the font has no letters for are left out beside others."""
    usable = [r for r in results if r["senses"]["neighbours"]]
    if not usable:
        return None
    usable = [r for r in usable if _is_drawn(r["senses"]["neighbours"])] or usable
    senses = usable[0]["settings"]["num_senses"]
    rows = max(len(r["senses"]["neighbours"][:SHOWN_WORDS]) for r in usable)
    figure, axes = _panels(1, rows=len(usable), width=1.4 + 0.9 * senses, height=0.9 + 0.32 * rows)
    for axis, result in zip(axes[:, 0], usable):
        entries = result["senses"]["neighbours"][:SHOWN_WORDS]
        cosines = np.array([[nearest[0] for nearest in entry["cosines"]] for entry in entries])
        # The light half of the scale, from the lowest value on: black words stay legible, and cells tell apart.
        lowest = float(np.floor(10 * cosines.min()) / 10)
        image = axis.imshow(cosines, cmap="Blues", vmin=lowest, vmax=2 - lowest, aspect="auto")
        for row, entry in enumerate(entries):
            for sense, names in enumerate(entry["by_sense"]):
                right = names[0] in entry["translations"]
                axis.text(
                    sense,
                    row,
                    names[0] if len(names[0]) <= 12 else names[0][:10] + "…",
                    ha="center",
                    va="center",
                    fontsize=7,
                    weight="bold" if right else "normal",
                    bbox={"boxstyle": "square,pad=0.15", "fc": "white", "linewidth": 0.8} if right else None,
                )
        axis.set_yticks(range(len(entries)), [entry["word"] for entry in entries])
        axis.set_xticks(range(cosines.shape[1]))
        axis.set_title(f"nearest {language(result['target_language']).name} word; framed: a translation")
        axis.set_xlabel("sense")
        axis.set_ylabel(f"{language(result['source_language']).name} word")
        bar = figure.colorbar(image, ax=axis, shrink=0.8, pad=0.01, label="cosine of the senses")
        bar.ax.set_ylim(top=1.0)
    return figure
