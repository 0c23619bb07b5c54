"""Figures of the evaluation, drawn from measured numbers; distinguishable without colour."""

from pathlib import Path

from matplotlib.figure import Figure  # without pyplot, which would choose a backend for the whole process

from ..utils.figures import save_figure


def training_dynamics(history, path, *, phase_starts=()) -> list[Path]:
    """Figure 2: target-side sense entropy and recall@1 in both directions against training steps.

    Args:
        history (`list[dict]`): Evaluations in the order of training, each with `step` and the keys of
            `evaluate_bitext`; keys that are absent (a model without senses) leave out their line.
        path: Where to save; PNG and SVG are written.
        phase_starts: Steps at which the joint and polish phases begin, drawn as vertical lines.

    Returns:
        The files written.
    """
    if not history:
        raise ValueError("`history` is empty: there is nothing to draw before the first evaluation.")
    lines = {
        "(a) target sense entropy (nats)": [("sense_entropy_target", "sense", "-", "o")],
        "(b) recall@1, source to target": [
            ("sense_recall_source_to_target", "sense", "-", "o"),
            ("context_recall_source_to_target", "context", "--", "s"),
        ],
        "(c) recall@1, target to source": [
            ("sense_recall_target_to_source", "sense", "-", "o"),
            ("context_recall_target_to_source", "context", "--", "s"),
        ],
    }
    colours = {"sense": "#1b3a6b", "context": "#c4622d"}
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for ax, (title, entries) in zip(figure.subplots(1, 3), lines.items(), strict=True):
        for key, label, style, marker in entries:
            points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
            if points:
                steps, values = zip(*points, strict=True)
                ax.plot(steps, values, style, marker=marker, markersize=3, color=colours[label], label=label)
        for step in phase_starts:
            ax.axvline(step, color="0.6", linestyle=":", linewidth=1)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("training steps")
        ax.grid(alpha=0.25)
        if "recall" in title:
            ax.set_ylim(0, 1)
            if ax.get_legend_handles_labels()[0]:
                ax.legend(frameon=False, fontsize=9, loc="lower right")
    return save_figure(figure, path)
