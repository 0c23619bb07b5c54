"""Figures of the evaluation, drawn from measured numbers; distinguishable without colour."""

from pathlib import Path

from matplotlib.figure import Figure  # without pyplot, which would choose a backend for the whole process

from ..schedule import PHASES
from ..utils.figures import save_figure


# Key (with the direction or the side in braces), label, line, marker, colour.
RECALLS = (
    ("sense_recall_{}", "sense vectors", "-", "o", "#1b3a6b"),
    ("context_recall_{}", "context vectors", "--", "s", "#c4622d"),
    ("overlap_recall_{}", "token overlap, no model", ":", "", "0.35"),
)
BITS = (
    ("target_bits_per_byte", "{target}", "-", "o", "#1b3a6b"),
    ("source_bits_per_byte", "{source}", "--", "s", "#c4622d"),
)


def training_dynamics(history, path, *, phase_starts=(), languages=("source", "target")) -> list[Path]:
    """Figure 2, and what alignment costs: target-side sense entropy, recall@1 in both directions beside the overlap of
    tokens, and bits per byte of both languages, against training steps.

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
    figure = Figure(figsize=(14, 3.2), layout="constrained")
    for ax, (title, lines) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for key, label, style, marker, colour in lines:
            points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
            if points:
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
        if len(lines) > 1 and ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False, fontsize=8)
    return save_figure(figure, path)


def training_dynamics_of_pairs(histories, path, *, phase_starts=()) -> list[Path]:
    """[`training_dynamics`] of several pairs of languages: recall@1 in both directions, by sense vectors or, without
    senses, by context vectors, and bits per byte of the target, a line for each pair.

    Args:
        histories (`dict[str, list[dict]]`): The evaluations of each pair, as [`training_dynamics`] takes them.
        path, phase_starts: Likewise.
    """
    has_senses = any("sense_recall_source_to_target" in row for rows in histories.values() for row in rows)
    kind = "sense" if has_senses else "context"
    panels = {
        f"(a) recall@1, source to target, {kind} vectors": f"{kind}_recall_source_to_target",
        f"(b) recall@1, target to source, {kind} vectors": f"{kind}_recall_target_to_source",
        "(c) bits per byte, target": "target_bits_per_byte",
    }
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for ax, (title, key) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for number, (name, rows) in enumerate(histories.items()):
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                style, marker = ("-", "--", "-.", ":")[number % 4], "os^Dv*Px"[number % 8]
                ax.plot(*zip(*points, strict=True), style, marker=marker, markersize=3, label=name)
        for step in phase_starts:
            ax.axvline(step, color="0.6", linestyle=":", linewidth=1)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("training steps")
        ax.grid(alpha=0.25)
        if "recall" in title:
            ax.set_ylim(0, 1)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False, fontsize=8)
    return save_figure(figure, path)


def induction_dynamics(history, path) -> list[Path]:
    """What inducing senses does, against training steps: the gate, how much the senses add, how far the model is from
    its base, how alike senses are, and perplexity beside that of the base.

    Args:
        history (`list[dict]`): The logged history of an `InductionTrainer`.
        path: Where to save; PNG and SVG are written.

    Returns:
        The files written.
    """
    panels = {
        "(a) gate": [("gate", "gate", "-")],
        "(b) |g m| / |b|": [("contribution", "training", "-"), ("eval_contribution", "held out", "--")],
        "(c) KL(base || model) (nats)": [("divergence", "training", "-"), ("eval_divergence", "held out", "--")],
        "(d) likeness of senses": [
            ("diversity", "mean squared cosine", "-"),
            ("eval_ambiguous_cosine", "mean cosine, ambiguous words", "--"),
        ],
        "(e) held-out perplexity": [("eval_perplexity", "model", "-"), ("eval_base_perplexity", "base", ":")],
    }
    figure = Figure(figsize=(16, 3.2), layout="constrained")
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
