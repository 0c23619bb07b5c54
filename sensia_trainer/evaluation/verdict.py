"""What the numbers of a run mean, in plain words, and what to do next. Pure functions of what `metrics.json` holds."""

from math import exp, log

from ..utils.statistics import difference_interval, wilson_interval
from .retrieval import DIRECTIONS


# Shares by which bits per byte of the source may grow before it counts as worse, and as forgotten.
WORSE, FORGOTTEN = 0.03, 0.15
TAKE_PART = 0.0005  # of the length of the state, which induced senses add at least; less is shown as 0.0%
KEPT = 0.005  # of induced senses, which are trained on the language that they are measured on
# Bits per byte that are a difference from the control, or from an earlier step.
CLEARLY = 0.03


def verdict(
    before: dict, after: dict, names: tuple[str, str], control: dict | None = None, during: list[dict] = (), **settings
) -> list[str]:
    """
    Sentences about an adaptation.

    Args:
        before, after (`dict`): Held-out metrics, as [`evaluate_bitext`] gives them, with intervals or without.
        names (`tuple[str, str]`): The languages, source and target.
        control (`dict`, *optional*): `after` of the same model trained by the language-model loss alone.
        during (`list[dict]`, *optional*): Evaluations on the way, each with its `step`.
        settings: What was done, as [`next_steps`] takes it.

    Returns:
        `list[str]`: translations found, beside chance, random weights, token overlap and the control; fluency of both
        languages; and what to do next.
    """
    source, target = names
    lines = _retrieval(before, after, source, target, control)
    lines += _fluency(before, after, source, target, control, during)
    steps = next_steps(before, after, names, control, during, **settings)
    return [*lines, "Next: " + "; ".join(steps) + "."]


def _retrieval(before, after, source, target, control):
    kind, name = ("sense", "sense vectors") if "sense_recall_source_to_target" in after else ("context", "its vectors")
    found = _recall(after, kind)
    if found is None:
        return []
    was = _recall(before, kind)
    earlier = f" ({was:.0%} before)" if was is not None else ""
    lines = [
        f"Translations found: {found:.0%} of {after['pairs']:,} {source} and {target} sentences find theirs by "
        f"{name}, a mean of both directions{earlier}."
    ]
    beside = {"random weights": (after, f"random_{kind}"), "token overlap without a model": (after, "overlap")}
    groups = {_beside_chance(after, kind): [_with_share("chance", 1 / after["pairs"])]}
    for other, (metrics, of) in (beside | {"the control": (control or {}, kind)}).items():
        value = _recall(metrics, of)
        if value is not None:
            groups.setdefault(_compared(after, kind, metrics, of), []).append(_with_share(other, value))
    lines.append(f"That is {'; '.join(f'{how} {_listed(others)}' for how, others in groups.items())}.")
    beyond = [after.get(f"{kind}_beyond_overlap_{direction}") for direction in DIRECTIONS]
    if None not in beyond:
        lines.append(f"Where overlap fails, names and numbers cannot help: {sum(beyond) / 2:.0%} are found there.")
    return lines


def _fluency(before, after, source, target, control, during):
    lines = []
    key = "target_bits_per_byte"
    if key in after:
        line = f"{target}: {after[key]:.2f} bits a byte" + (f", {before[key]:.2f} before" if key in before else "")
        if control and key in control:
            gap = after[key] - control[key]
            how = "as fluent as" if abs(gap) <= CLEARLY else "more fluent than" if gap < 0 else "less fluent than"
            line += f"; {how} the control ({control[key]:.2f})"
        lines.append(f"{line} (lower is more fluent).")
        best = _more_fluent(after, during)
        if best:
            when = f"at step {best['step']:,}" if best["step"] else "at the start"
            what = "its last steps" if best["step"] else "training"
            lines.append(f"It was more fluent {when} ({best[key]:.2f}), so {what} did it no good.")
    drift = _drift(before, after)
    if drift is not None:
        state = "is kept" if drift <= WORSE else "has become worse" if drift <= FORGOTTEN else "is being forgotten"
        key = "source_bits_per_byte"
        lines.append(f"{source} {state}: {after[key]:.2f} bits a byte, {before[key]:.2f} before ({drift:+.0%}).")
    return lines


def next_steps(
    before: dict,
    after: dict,
    names: tuple[str, str],
    control: dict | None = None,
    during: list[dict] = (),
    *,
    aligned: bool = True,
    both_sides: bool = False,
    new_words: bool = False,
    replay: bool = False,
) -> list[str]:
    """
    What to do after a run with these numbers.

    Args:
        before, after, names, control, during: As those of [`verdict`].
        aligned (`bool`): Whether a contrastive loss took part; without one, that vectors find little is no news.
        both_sides (`bool`): Whether the source side was predicted as well, as much as the target side.
        new_words (`bool`): Whether the language has words of its own.
        replay (`bool`): Whether there was text of the source language beside the pairs.
    """
    steps = []
    kind = "sense" if "sense_recall_source_to_target" in after else "context"
    found, overlap = (_recall(after, kind), _recall(after, "overlap")) if aligned else (None, None)
    by_heart = _more_fluent(after, during)
    if found is not None and _beside_chance(after, kind) != "better than":
        steps.append("look at ten pairs of the bitext, since these vectors are not clearly better than chance")
    elif found is not None and overlap is not None and _compared(after, kind, after, "overlap") != "better than":
        ways = [] if by_heart else ["longer"]
        ways += ["on more pairs"] + ([] if new_words else ["with words of the language (`--vocabulary_size`)"])
        steps.append(f"train {_listed(ways, 'or')}")
    if by_heart:
        steps.append(
            f"fewer steps (`--max_steps`), or text of {names[1]} beside the pairs (`--monolingual_target`), lest it "
            "learns them by heart"
        )
    drift = _drift(before, after)
    if drift is not None and drift > WORSE:
        text = "more text of it (`--replay_ratio`)" if replay else "text of it beside the pairs (`--replay_source`)"
        steps.append(f"to keep {names[0]}, " + ("" if both_sides else "`--source_lm_weight 1` and ") + text)
    if control is None and aligned:
        steps.append(
            "to know what alignment costs, a control (`--method lm-only`), shown with `--control` its metrics.json"
        )
    steps.append("measure on text that no choice was made on (`sensia evaluate`)")
    return steps


def _recall(metrics, kind):
    values = [metrics.get(f"{kind}_recall_{direction}") for direction in DIRECTIONS]
    return None if None in values else sum(values) / 2


def _compared(metrics, kind, others, other):
    """How the recall of `kind` in `metrics` stands to that of `other` in `others`, by the interval of their
    difference."""
    return _against(_recall(metrics, kind), _interval(metrics, kind), _recall(others, other), _interval(others, other))


def _beside_chance(metrics, kind):
    """How the recall of `kind` stands to chance: by its interval or, where a bootstrap has none since all hits are
    alike, by that of a share of its pairs."""
    pairs, found, interval = metrics["pairs"], _recall(metrics, kind), _interval(metrics, kind)
    if interval is None or interval[1] - interval[0] < 1e-6:
        interval = wilson_interval(round(found * pairs), pairs)
    return _against(found, interval, 1 / pairs)


def _interval(metrics, kind):
    """The mean of the intervals of both directions; None without them."""
    ends = [metrics.get(f"{kind}_recall_{direction}_interval") for direction in DIRECTIONS]
    return None if None in ends else [sum(end[side] for end in ends) / 2 for side in (0, 1)]


def _against(value, interval, other, other_interval=None):
    low, high = difference_interval(value, interval, other, other_interval)
    return "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"


def _with_share(name, value):
    return f"{name} ({value:.1%})" if value < 0.02 else f"{name} ({value:.0%})"


def _listed(names, last="and"):
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _more_fluent(after, during):
    """The most fluent of the evaluations on the way, where the model is clearly less fluent in the end; else None."""
    key = "target_bits_per_byte"
    best = min((one for one in during if key in one), key=lambda one: one[key], default=None)
    return best if best and key in after and after[key] - best[key] > CLEARLY else None


def _drift(before, after):
    """Share by which the source language's bits per byte grew."""
    key = "source_bits_per_byte"
    return after[key] / before[key] - 1 if key in after and key in before else None


def induction_verdict(after: dict) -> list[str]:
    """Sentences about induced senses, whose measures are those of [`InductionTrainer.evaluate`]."""
    gate, change = after["gate"], after["perplexity"] / after["base_perplexity"] - 1
    opened = after["contribution"] >= TAKE_PART
    kept = "is kept" if log(after["perplexity"]) <= (1 + KEPT) * log(after["base_perplexity"]) else "has become worse"
    lines = [
        f"The gate is {gate:.3f}: the senses {'take part' if opened else 'do nothing yet'}; they add "
        f"{after['contribution']:.1%} to the state.",
        f"What the model knows {kept}: perplexity {after['perplexity']:.2f} on held-out text, "
        f"{after['base_perplexity']:.2f} of the base ({change:+.1%}).",
    ]
    if opened:
        lines.append(
            "Next: look at what senses speak for (the card's table), then `sensia adapt --model` this folder."
        )
    else:
        lines.append("Next: more steps, or a higher `--gate_learning_rate`.")
    return lines


def pretraining_verdict(loss: float, vocabulary: int) -> list[str]:
    """Sentences about a pretraining: its held-out loss (nats a token) beside guessing among `vocabulary` words."""
    perplexity = f"{exp(loss):,.1f}" if loss < 700 else "beyond all numbers"
    return [
        f"Perplexity on held-out text: {perplexity}, where guessing among the words has {vocabulary:,}.",
        "Next: `sensia adapt --model` this folder, or go on with more text (`sensia pretrain --model` this folder).",
    ]
