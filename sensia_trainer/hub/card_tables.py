"""Tables and metadata of a card, from the contents of `metrics.json`: pure functions of what was measured."""

import math
import re
from dataclasses import fields

from huggingface_hub import EvalResult

from ..schedule import PhaseSchedule
from ..utils.markdown import Markdown, number, table, with_interval


# Keys of an intrinsic evaluation: label, decimals, metric of the model index (None: in the body only).
RESULTS = {
    "sense_recall_source_to_target": ("recall@1 {source} → {target}, sense vectors", 3, "accuracy"),
    "sense_recall_target_to_source": ("recall@1 {target} → {source}, sense vectors", 3, "accuracy"),
    "context_recall_source_to_target": ("recall@1 {source} → {target}, context vectors", 3, "accuracy"),
    "context_recall_target_to_source": ("recall@1 {target} → {source}, context vectors", 3, "accuracy"),
    "overlap_recall_source_to_target": ("recall@1 {source} → {target}, token overlap (no model)", 3, "accuracy"),
    "overlap_recall_target_to_source": ("recall@1 {target} → {source}, token overlap (no model)", 3, "accuracy"),
    "random_sense_recall_source_to_target": ("recall@1 {source} → {target}, sense vectors, random weights", 3, None),
    "random_sense_recall_target_to_source": ("recall@1 {target} → {source}, sense vectors, random weights", 3, None),
    "random_context_recall_source_to_target": (
        "recall@1 {source} → {target}, context vectors, random weights",
        3,
        None,
    ),
    "random_context_recall_target_to_source": (
        "recall@1 {target} → {source}, context vectors, random weights",
        3,
        None,
    ),
    "sense_beyond_overlap_source_to_target": ("recall@1 {source} → {target} where overlap fails, sense", 3, None),
    "sense_beyond_overlap_target_to_source": ("recall@1 {target} → {source} where overlap fails, sense", 3, None),
    "context_beyond_overlap_source_to_target": ("recall@1 {source} → {target} where overlap fails, context", 3, None),
    "context_beyond_overlap_target_to_source": ("recall@1 {target} → {source} where overlap fails, context", 3, None),
    "sense_mean_rank_source_to_target": ("mean rank {source} → {target}, sense vectors", 1, None),
    "sense_mean_rank_target_to_source": ("mean rank {target} → {source}, sense vectors", 1, None),
    "context_mean_rank_source_to_target": ("mean rank {source} → {target}, context vectors", 1, None),
    "context_mean_rank_target_to_source": ("mean rank {target} → {source}, context vectors", 1, None),
    "sense_entropy_source": ("sense entropy, {source} (nats)", 3, None),
    "sense_entropy_target": ("sense entropy, {target} (nats)", 3, None),
    "source_sense_drift_cosine": ("{source} senses, mean cosine to those before", 3, None),
    "target_perplexity": ("perplexity per token, {target}", 1, "perplexity"),
    "target_perplexity_per_word": ("perplexity per word, {target}", 1, None),
    "target_bits_per_byte": ("bits per byte, {target}", 3, "bits_per_byte"),
    "source_perplexity": ("perplexity per token, {source}", 1, None),
    "source_bits_per_byte": ("bits per byte, {source}", 3, "bits_per_byte"),
    "cross_entropy": ("cross-entropy per token, {source} (nats)", 3, None),
    "perplexity": ("perplexity per token, {source}", 1, "perplexity"),
    "perplexity_per_word": ("perplexity per word, {source}", 1, None),
    "bits_per_byte": ("bits per byte, {source}", 3, "bits_per_byte"),
    "base_perplexity": ("perplexity per token of the base, {source}", 1, None),
    "divergence": ("KL(base || model) per token (nats)", 4, None),
    "contribution": ("what the senses add, |g m| / |b|", 3, None),
    "gate": ("gate", 3, None),
    "trained_gate": ("gate as training left it", 3, None),
    "trained_perplexity": ("perplexity per token with that gate, {source}", 1, None),
    "trained_contribution": ("what the senses add with that gate", 3, None),
    "sense_entropy": ("sense entropy, {source} (nats)", 3, None),
    "ambiguous_cosine": ("mean cosine between senses of ambiguous words", 3, None),
}
TITLED = {"before": "before", "after": "this model", "control": "control"}
WEIGHTS = {"w_sense": "w sense", "w_context": "w context", "w_lm": "w LM"}
OF_SEVERAL_LANGUAGES = ("language_temperature", "batch_languages")
RATIOS = {"replay_ratio": "replay source", "monolingual_ratio": "monolingual target"}  # and the text that each is of
SCHEDULE_FIELDS = {field.name for field in fields(PhaseSchedule)} | set(WEIGHTS)
# Entries of `data` that stand in sentences, metadata or tables of their own.
DATA_IN_PROSE = ("name", "description", "licence", "hub_id", "sources", "counts", "filters", "corpora")


def two_columns(values: dict, left: str, right: str = "value") -> Markdown:
    """A mapping as a table; entries that are None are left out, underscores of names read as spaces."""
    rows = [[str(key).replace("_", " "), _plain(value)] for key, value in values.items() if value is not None]
    return table([left, right], rows)


def phase_table(config: dict) -> Markdown:
    """The schedule of a run: steps, weights and temperatures of each phase (Appendix B)."""
    schedule = _schedule(config)
    if schedule is None:
        return Markdown("")
    align_end, polish_start = schedule.boundaries
    spans = {"align": (0.0, align_end), "joint": (align_end, polish_start), "polish": (polish_start, 1.0)}
    steps = config.get("steps") or config.get("max_steps") or 0
    frozen = config.get("polish_freeze") not in (None, "none", False)
    rows = []
    for phase in schedule.phases:
        start, end = spans[phase]
        inside = 1e-9 * (end - start)  # the boundary itself belongs to one of the two phases
        first, last = schedule.at(start + inside), schedule.at(end - inside)
        row = [phase, f"{round(start * steps):,}–{round(end * steps):,}" if steps > 0 else f"{end - start:.0%}"]
        row += [_from_to(getattr(first, name), getattr(last, name)) for name in (*WEIGHTS, "tau_sense", "tau_context")]
        rows.append([*row, "frozen" if phase == "polish" and frozen else "trained"])
    return table(["phase", "steps", *WEIGHTS.values(), "τ sense", "τ context", "senses and their weights"], rows)


def constant_weights(config: dict) -> bool:
    """Whether each of the three losses weighs the same from the first step to the last."""
    schedule = _schedule(config)
    if schedule is None:
        return False
    states = [schedule.at(progress) for progress in (0.0, *schedule.boundaries, 1.0)]
    return all(math.isclose(getattr(state, name), getattr(states[0], name)) for state in states for name in WEIGHTS)


def _schedule(config: dict) -> PhaseSchedule | None:
    """The schedule of a run; `None` where its settings name none."""
    return PhaseSchedule.of(config) if SCHEDULE_FIELDS & config.keys() else None


def settings_table(metrics: dict) -> Markdown:
    """What a run was trained with, beside its schedule; the batch that negatives come from is a setting of it."""
    config = metrics.get("config") or {}
    settings = {key: value for key, value in config.items() if key not in SCHEDULE_FIELDS and value is not None}
    if "by_pair" not in metrics:
        settings = {key: value for key, value in settings.items() if key not in OF_SEVERAL_LANGUAGES}
    unused = [ratio for ratio, text in RATIOS.items() if text not in (metrics.get("data") or {})]
    settings = {key: value for key, value in settings.items() if key not in unused}
    settings |= {"seed": str(settings["seed"])} if "seed" in settings else {}
    if "steps" in settings:
        settings.pop("num_train_epochs", None)  # the steps are what was run
    if metrics.get("processes") and settings:
        settings["processes"] = metrics["processes"]
        batch = settings.get("per_device_train_batch_size")
        if batch and metrics.get("kind") not in ("pretraining", "induction"):
            settings["pairs that negatives come from"] = batch * metrics["processes"]
    return two_columns(settings, "setting")


def result_table(metrics: dict, source, target) -> Markdown:
    """A row for each measured quantity: before adaptation, after it, and in the control, with intervals.

    Perplexity per word is left out for a language that does not write spaces between words, and where it is too large
    to say anything.
    """
    columns = [name for name in TITLED if metrics.get(name)]
    rows = []
    for key, (label, digits, _) in RESULTS.items():
        side = target if key.startswith("target") else source
        largest = max((metrics[name][key] for name in columns if is_measured(metrics[name].get(key))), default=0)
        if key.endswith("per_word") and (largest >= 1e6 or not side.has_spaces):
            continue
        cells = [_measured_cell(metrics[name], key, digits) for name in columns]
        if any(cells):
            rows.append([label.format(source=source.name, target=target.name), *cells])
    return table(["", *(TITLED[name] for name in columns)], rows)


def sense_table(words: list[dict]) -> Markdown:
    """What each sense of some words votes for: a row for each sense, `[{"word", "senses": [[word, …], …]}]`."""
    rows = [(row["word"], n, ", ".join(sense)) for row in words for n, sense in enumerate(row["senses"])]
    return table(["word", "sense", "nearest words"], rows) if rows else Markdown("")


def benchmark_table(rows: list[dict]) -> Markdown:
    """Scores of tasks beside those before adaptation and of the control, where there are any."""
    models = {"before": "before", "value": "this model", "control": "control"}
    models = {key: label for key, label in models.items() if any(row.get(key) is not None for row in rows)}
    lines = []
    for row in rows:
        digits = row.get("digits", 3)
        place = " ".join(filter(None, (row["name"], row.get("split"))))
        intervals = {key: row.get("interval" if key == "value" else f"{key}_interval") for key in models}
        scores = [
            "" if row.get(key) is None else with_interval(row[key], interval, digits)
            for key, interval in intervals.items()
        ]
        measure = " ".join(filter(None, (row.get("metric", "accuracy"), row.get("protocol"))))
        lines.append([place, row.get("items", ""), *scores, measure])
    return table(["benchmark", "items", *models.values(), "score"], lines)


def writing_section(writing: dict) -> Markdown:
    """
    Whether the model's continuations read like the language, and those of a few prompts; empty without any.

    Args:
        writing (`dict`): `fluency` and `generation`, as `sensia evaluate` writes them; either may be missing.
    """
    fluency, generation, parts = writing.get("fluency"), writing.get("generation"), []
    if fluency:
        measures = ("repetition", "in_language", "empty", "words")
        rows = [
            [kind, *(with_interval(fluency[kind][name], digits=1 if name == "words" else 3) for name in measures)]
            for kind in ("greedy", "sampled", "human")
        ]
        header = ["continuations", "repeated 4-grams", "identified as the language", "empty", "words"]
        parts += [
            f"Continuations of the first words of {fluency['prompts']} sentences, beside how people went on, cut to "
            "the same length:",
            table(header, rows),
        ]
    if generation:
        parts.append("As the model goes on, greedily and sampled:")
        rows = [
            [example["prompt"], example["greedy"] or "(ends)", example["continuation"] or "(ends)"]
            for example in generation["examples"]
        ]
        parts.append(table(["prompt", "greedy", "sampled"], rows))
    return Markdown("\n\n".join(parts))


def filter_table(data: dict) -> Markdown:
    """What each step of the preparation left."""
    filters = data.get("filters") or []
    if not filters:
        return two_columns(data.get("counts") or {}, "step", "count")
    columns = list(dict.fromkeys(key for row in filters for key in row))
    rows = [[row.get(column, "") for column in columns] for row in filters]
    return table([str(column).replace("_", " ") for column in columns], rows)


def eval_results(metrics: dict, source, target, held_out: str) -> list[EvalResult]:
    """The model index: the values of `after` and of `benchmarks`, rounded as the body shows them.

    Args:
        held_out (`str`): Name of the data set where the metrics name none: part of the training data.
    """
    after, evaluation = metrics.get("after") or {}, metrics.get("evaluation") or {}
    name = evaluation.get("name") or held_out
    place = {
        "dataset_name": name,
        "dataset_type": evaluation.get("type") or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "bitext",
        "dataset_config": evaluation.get("config"),
        "dataset_split": evaluation.get("split"),
    }
    results = []
    for key, (label, digits, metric) in RESULTS.items():
        if metric and is_measured(after.get(key)):
            task = ("text-generation", "Language modelling")
            task = ("sentence-similarity", "Translation retrieval") if "recall" in key else task
            what = {"metric_type": metric, "metric_name": label.format(source=source.name, target=target.name)}
            if "recall" in key and after.get("pairs"):  # which it depends on
                what["metric_name"] += f", among {after['pairs']:,}"
            value = round(after[key], digits)
            results.append(EvalResult(task[0], task_name=task[1], metric_value=value, **what, **place))
    for row in metrics.get("benchmarks") or []:
        place = {"dataset_name": row["name"], "dataset_type": row.get("type") or row["name"].lower().replace(" ", "-")}
        place |= {"dataset_config": row.get("config"), "dataset_split": row.get("split")}
        what = {
            "metric_type": row.get("metric", "accuracy"),
            "metric_value": round(row["value"], row.get("digits", 3)),
        }
        results.append(EvalResult(row.get("task", "text-generation"), **what, **place))
    return results


def spent(metrics: dict) -> dict:
    """Time, hardware, energy and emissions, as far as they are known."""
    rows = {"training time": duration(metrics["seconds"]) if is_measured(metrics.get("seconds")) else None}
    rows["hardware"] = metrics.get("hardware")
    if is_measured(metrics.get("energy_kwh")):
        rows["energy"] = f"{number(metrics['energy_kwh'])} kWh"
    elif rows["training time"]:
        rows["energy"] = "not metered"
    if is_measured(metrics.get("co2_eq_emissions")):
        rows["emissions"] = f"{number(metrics['co2_eq_emissions'])} g CO₂ equivalent"
    return rows


def trained_tokens(metrics: dict) -> int | None:
    """Tokens of all training steps; `None` where the run does not say."""
    config, data = metrics.get("config") or {}, metrics.get("data") or {}
    needed = [config.get("steps"), config.get("per_device_train_batch_size"), data.get("block_size")]
    if None in needed:
        return None
    return math.prod(needed) * (config.get("gradient_accumulation_steps") or 1) * (metrics.get("processes") or 1)


def duration(seconds: float) -> str:
    """Seconds in words: "42 s", "17 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def is_measured(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _measured_cell(values: dict, key: str, digits: int) -> str:
    value = values.get(key)
    return with_interval(value, values.get(f"{key}_interval"), digits) if is_measured(value) else ""


def _from_to(start: float, end: float) -> str:
    return number(round(start, 4)) if abs(start - end) < 1e-4 else f"{round(start, 4):g} → {round(end, 4):g}"


def _plain(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return number(value)
