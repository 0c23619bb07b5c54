"""Figures of the evaluation, drawn from measured numbers; distinguishable without colour."""

from pathlib import Path

from matplotlib.figure import Figure  # without pyplot, which would choose a backend for the whole process
from matplotlib.lines import Line2D

from ..schedule import PHASES
from ..utils.figures import save_figure


# Key (with the direction or the side in braces), label, line, marker, colour.
RECALLS = (
    ("sense_recall_{}", "sense vectors", "-", "o", "#1b3a6b"),
    ("context_recall_{}", "context vectors", "--", "s", "#c4622d"),
    ("overlap_recall_{}", "token overlap, no model", ":", "", "0.35"),
    ("random_sense_recall_{}", "sense vectors of random weights", "-.", "", "#1b3a6b"),
    ("random_context_recall_{}", "context vectors of random weights", "-.", "", "#c4622d"),
    ("sense_beyond_overlap_{}", "senses, where overlap fails", "-", "^", "#1b3a6b"),
    ("context_beyond_overlap_{}", "contexts, where overlap fails", "--", "v", "#c4622d"),
)
BITS = (
    ("target_bits_per_byte", "{target}", "-", "o", "#1b3a6b"),
    ("source_bits_per_byte", "{source}", "--", "s", "#c4622d"),
)
PANELS_OF_SEVERAL = {
    "sense entropy, {target} (nats)": "sense_entropy_target",
    "recall@1, {source} to {target}, {kind} vectors": "{kind}_recall_source_to_target",
    "recall@1, {target} to {source}, {kind} vectors": "{kind}_recall_target_to_source",
    "bits per byte, {target}": "target_bits_per_byte",
    "bits per byte, {source}": "source_bits_per_byte",
}
# What stands beside the recall of each language, in its colour: line, label.
BESIDE = {
    "overlap_recall_{}": ("--", "token overlap, no model"),
    "random_{kind}_recall_{}": (":", "random weights"),
    "{kind}_beyond_overlap_{}": ("-.", "where overlap fails"),
}
# Of Okabe and Ito, told apart by every kind of colour vision; markers tell apart without colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def training_dynamics(history, path, *, phase_starts=(), languages=("source", "target")) -> list[Path]:
    """Figure 2, and what alignment costs: target-side sense entropy, recall@1 in both directions beside the overlap of
    tokens, random weights and the sentences that overlap cannot solve, and bits per byte of both languages, against
    training steps.

    Args:
        history (`list[dict]`): Evaluations in the order of training, each with `step` and the keys of
            `evaluate_bitext`; keys that are absent (a model without senses) leave out their line.
        path: Where to save; PNG and SVG are written.
        phase_starts: Steps at which the joint and polish phases begin, drawn as vertical lines.
        languages (`tuple[str, str]`): Names of the source and of the target language.

    Returns:
        The files written.
    """
    if not history:
        raise ValueError("`history` is empty: there is nothing to draw before the first evaluation.")
    source, target = languages
    panels = {
        f"(a) sense entropy, {target} (nats)": [("sense_entropy_target", "sense", "-", "o", "#1b3a6b")],
        f"(b) recall@1, {source} to {target}": [(key.format("source_to_target"), *look) for key, *look in RECALLS],
        f"(c) recall@1, {target} to {source}": [(key.format("target_to_source"), *look) for key, *look in RECALLS],
        "(d) bits per byte": [(key, label.format(source=source, target=target), *look) for key, label, *look in BITS],
    }
    figure = Figure(figsize=(14, 3.7), layout="constrained")
    of_recall: dict[str, Line2D] = {}  # by label; their legend is beside the panels, where it hides no line
    for ax, (title, lines) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for key, label, style, marker, colour in lines:
            points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
            if points and key.startswith("random_"):  # measured once
                ax.axhline(points[0][1], linestyle=style, linewidth=1, color=colour, label=label)
            elif points:
                steps, values = zip(*points, strict=True)
                ax.plot(steps, values, style, marker=marker, markersize=3, color=colour, label=label)
        for step in phase_starts:
            ax.axvline(step, color="0.6", linestyle=":", linewidth=1)
        if phase_starts:
            for step, phase in zip((0, *phase_starts), PHASES):
                place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
                ax.annotate(f"{phase}", (step, 0.99), (2, 0), rotation=90, fontsize=7, color="0.4", **place)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("training steps")
        ax.grid(alpha=0.25)
        if "recall" in title:
            ax.set_ylim(0, 1)
            of_recall |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        elif len(lines) > 1 and ax.get_legend_handles_labels()[0]:
            ax.legend(edgecolor="none", framealpha=0.85, fontsize=7)
    if of_recall:
        place = {"loc": "outside lower center", "ncols": len(of_recall), "frameon": False, "fontsize": 7}
        figure.legend(of_recall.values(), of_recall.keys(), **place)
    return save_figure(figure, path)


def training_dynamics_of_several(histories, path, *, phase_starts=(), languages=("source", "target")) -> list[Path]:
    """Figure 2 with several languages on one axis, a line for each: target-side sense entropy, recall@1 in both
    directions by sense vectors (without senses, by context vectors) with the overlap of tokens, random weights and the
    sentences that overlap cannot solve as dashed, dotted and dash-dotted lines, and bits per byte of both languages,
    against training steps.

    Args:
        histories (`dict[str, list[dict]]`): By name, evaluations as [`training_dynamics`] takes them.
        path, phase_starts, languages: Likewise.

    Returns:
        The files written.

    Raises:
        `ValueError`: where no history has an evaluation.
    """
    rows = [row for history in histories.values() for row in history]
    if not rows:
        raise ValueError("`histories` are empty: there is nothing to draw before the first evaluation.")
    kind = "sense" if any("sense_recall_source_to_target" in row for row in rows) else "context"
    words = {"kind": kind, **dict(zip(("source", "target"), languages, strict=True))}
    panels = {title.format(**words): key.format(**words) for title, key in PANELS_OF_SEVERAL.items()}
    panels = {title: key for title, key in panels.items() if any(row.get(key) is not None for row in rows)}
    looks = {
        name: {"color": COLOURS[number % 7], "marker": "os^Dv*P"[(number + number // 7) % 7]}
        for number, name in enumerate(histories)
    }
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    *axes, last = figure.subplots(2, 3).flat
    for ax, (title, key) in zip(axes, panels.items(), strict=False):
        for name, history in histories.items():
            points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
            if points:
                ax.plot(*zip(*points, strict=True), markersize=4, **looks[name])
            for name_of, (style, _) in BESIDE.items() if "recall" in key else ():
                known = name_of.format(key.partition("recall_")[2], kind=kind)
                points = [(row["step"], row[known]) for row in history if row.get(known) is not None]
                look = {"color": looks[name]["color"], "linestyle": style, "linewidth": 1}
                if points and "beyond" in known:
                    ax.plot(*zip(*points, strict=True), **look)
                elif points:  # which training does not change
                    ax.axhline(points[-1][1], **look)
        for step in phase_starts:
            ax.axvline(step, color="0.6", linestyle=":", linewidth=1)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("training steps")
        ax.grid(alpha=0.25)
        if "recall" in key:
            ax.set_ylim(0, 1)
    for ax in (*axes[len(panels) :], last):
        ax.axis("off")
    lines = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    for style, label in BESIDE.values():
        lines.append(Line2D([], [], color="0.35", linestyle=style, linewidth=1, label=label))
    last.legend(handles=lines, loc="center", frameon=False)
    return save_figure(figure, path)


def induction_dynamics(history, path) -> list[Path]:
    """What inducing senses does, against training steps: the gate, how much the senses add, how far the model is from
    its base, how alike senses are, how many of them take part, and perplexity beside that of the base.

    Args:
        history (`list[dict]`): The logged history of an `InductionTrainer`.
        path: Where to save; PNG and SVG are written.

    Returns:
        The files written.
    """
    panels = {
        "(a) gate": [("gate", "training", "-"), ("eval_gate", "as measured, opened in the end", "--")],
        "(b) |g m| / |b|": [("contribution", "training", "-"), ("eval_contribution", "held out", "--")],
        "(c) KL(base || model) (nats)": [
            ("divergence", "training, at its temperature", "-"),
            ("eval_divergence", "held out", "--"),
        ],
        "(d) likeness of senses": [
            ("diversity", "mean squared cosine", "-"),
            ("eval_ambiguous_cosine", "mean cosine, ambiguous words", "--"),
        ],
        "(e) sense entropy (nats)": [("eval_sense_entropy", "held out", "--")],
        "(f) held-out perplexity": [("eval_perplexity", "model", "-"), ("eval_base_perplexity", "base", ":")],
    }
    figure = Figure(figsize=(19, 3.2), layout="constrained")
    for ax, (title, lines) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for (key, label, style), colour in zip(lines, ("#1b3a6b", "#c4622d")):
            points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
            if points:
                ax.plot(*zip(*points, strict=True), style, color=colour, label=label)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("training steps")
        ax.grid(alpha=0.25)
        if len(lines) > 1 and ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False, fontsize=8)
    return save_figure(figure, path)
