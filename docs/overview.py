"""Draw the pictures of the method into `docs/figures/`: `python docs/overview.py`."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sensia_trainer.schedule import PHASES, PhaseSchedule
from sensia_trainer.utils.figures import save_figure


FOLDER = Path(__file__).resolve().parent / "figures"
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "0.35"


def box(ax, x, y, width, height, text, colour, size=9):
    ax.add_patch(
        FancyBboxPatch((x, y), width, height, "round,pad=0.02,rounding_size=0.06", fc=colour + "22", ec=colour)
    )
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)


def arrow(ax, start, end, colour=GRAY, style="-|>", bend=0.0):
    look = {"arrowstyle": style, "mutation_scale": 11, "color": colour, "connectionstyle": f"arc3,rad={bend}"}
    ax.add_patch(FancyArrowPatch(start, end, **look))


def canvas(width, height, right, top):
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, right), ylim=(0, top))
    ax.axis("off")
    return figure, ax


def model():
    """A Backpack: K senses of each word, weighed by the context, added up, and read by the head."""
    figure, ax = canvas(9, 4.2, 9, 4.2)
    for n, word in enumerate(("the", "river", "bank")):
        x = 0.3 + 1.7 * n
        box(ax, x, 0.2, 1.3, 0.45, f'"{word}"', "#555555", 10)
        for k in range(3):
            box(ax, x + 0.45 * k, 1.35, 0.38, 0.55, f"$s_{k + 1}$", BLUE)
        arrow(ax, (x + 0.65, 0.68), (x + 0.65, 1.3))
        for k in range(3):
            strong = (n, k) in ((1, 1), (2, 2))
            line = {"color": ORANGE, "linewidth": 2.6 if strong else 0.7, "alpha": 1 if strong else 0.5, "zorder": 0}
            ax.plot((x + 0.45 * k + 0.19, 2.6), (1.95, 3.1), **line)
    ax.text(5.35, 0.8, "sense network:\na function of the word alone", fontsize=9, color=GRAY, va="center")
    ax.text(5.35, 1.55, "K senses of each word,\nthe same in every sentence", fontsize=9, color=BLUE, va="center")
    ax.text(5.35, 2.5, r"weights $\alpha$: how much each sense of each" "\nearlier word counts here (the context)",
            fontsize=9, color="#9a6a00", va="center")  # fmt: skip
    box(ax, 1.6, 3.1, 2.0, 0.55, r"mixture $h=\sum\alpha_k\,s_k$", ORANGE, 10)
    arrow(ax, (3.68, 3.38), (4.6, 3.38))
    box(ax, 4.65, 3.1, 1.1, 0.55, "head", "#555555", 10)
    arrow(ax, (5.82, 3.38), (6.6, 3.38))
    ax.text(6.7, 3.38, 'next word: "was", "flooded", …', fontsize=9, va="center")
    return figure


def losses():
    """The three losses of one batch of pairs."""
    figure, ax = canvas(9, 4.0, 9, 4.0)
    for y, language, sentence in ((2.75, "source", "two weeks ago"), (0.55, "target", "dua minggu yang lalu")):
        box(ax, 0.1, y, 2.0, 0.6, f"{language}: {sentence}", "#555555", 8)
        arrow(ax, (2.15, y + 0.3), (2.6, y + 0.3))
        box(ax, 2.65, y, 1.2, 0.6, "Backpack", "#555555")
        arrow(ax, (3.9, y + 0.3), (4.35, y + 0.5), bend=-0.1)
        arrow(ax, (3.9, y + 0.3), (4.35, y + 0.05), bend=0.1)
        above, below = (0.36, -0.18) if language == "source" else (-0.18, 0.36)
        box(ax, 4.4, y + above, 1.5, 0.4, "sense vector", BLUE, 8)
        box(ax, 4.4, y + below, 1.5, 0.4, "context vector", ORANGE, 8)
    ax.text(3.25, 2.0, "the same weights", fontsize=8, color=GRAY, ha="center")
    arrow(ax, (5.93, 3.3), (5.93, 0.57), BLUE, "<|-|>", -0.12)
    arrow(ax, (5.15, 2.54), (5.15, 1.34), ORANGE, "<|-|>")
    ax.text(6.45, 2.65, "sense loss: the pair's vectors are nearer\nthan those of all other pairs (InfoNCE)",
            fontsize=9, color=BLUE, va="center")  # fmt: skip
    ax.text(6.45, 1.75, "context loss: the same, for the states\nthat have seen the whole sentence",
            fontsize=9, color="#9a6a00", va="center")  # fmt: skip
    box(ax, 6.35, 0.15, 2.5, 0.6, "language-model loss:\npredict the next target word", GREEN, 9)
    arrow(ax, (3.25, 0.5), (6.3, 0.25), GREEN, bend=0.16)
    return figure


def phases():
    """Weights of the losses over the training steps, from the schedule itself."""
    schedule, progress = PhaseSchedule(), np.linspace(0, 1, 401)
    states = [schedule.at(float(p)) for p in progress]
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    ax = figure.subplots()
    for name, label, style, colour in (
        ("w_sense", "sense loss", "-", BLUE),
        ("w_context", "context loss", "--", "#9a6a00"),
        ("w_lm", "language-model loss", "-.", GREEN),
    ):
        ax.plot(progress * 100, [getattr(state, name) for state in states], style, color=colour, label=label)
    for start, phase in zip((0, *schedule.boundaries), PHASES, strict=False):
        ax.axvline(100 * start, color="0.7", linewidth=0.8)
        ax.text(100 * start + 1, 0.93, phase, fontsize=9, color=GRAY)
    ax.text(100 * schedule.boundaries[1] + 1, 0.84, "senses frozen", fontsize=8, color=GRAY)
    ax.set(xlabel="training steps (%)", ylabel="weight of the loss", xlim=(0, 100), ylim=(0, 1))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1, 0.55))
    return figure


PICTURES = {"model": model, "losses": losses, "phases": phases}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        save_figure(draw(), FOLDER / name)
