"""What a run with several pairs of languages measured of each: a mapping by pair, made of flat logs; its summary."""

from transformers.utils import logging

from ..evaluation.dynamics import training_dynamics, training_dynamics_of_several
from ..evaluation.retrieval import DIRECTIONS
from ..evaluation.verdict import verdict
from ..languages import language, named
from ..schedule import PhaseSchedule
from .adaptation import evaluations, summary


logger = logging.get_logger(__name__)

DRIFT = "source_sense_drift_cosine"
SHOWN = {
    f"{kind}_recall_{way}": f"{kind} {arrow}"
    for kind in ("sense", "context", "overlap")
    for way, arrow in zip(DIRECTIONS, "→←")
}
TITLE = "recall@1 by sense and context vectors and by token overlap (no model), and bits per byte, before > after"
SHOWN |= {"target_bits_per_byte": "bits/byte", "source_bits_per_byte": "bits/byte of the source"}


def by_pair(metrics: dict, names: list[str], prefix: str = "") -> dict[str, dict]:
    """`{"eval_en-id_pairs": 9, …}` as `{"en-id": {"pairs": 9, …}}`; what is of no pair is left out.

    Args:
        metrics (`dict`): Flat, its keys as `BitextTrainer.evaluate` names them.
        names (`list[str]`): The pairs.
        prefix (`str`, *optional*): What stands before the names, such as `"eval"`.
    """
    found: dict[str, dict] = {name: {} for name in names}
    starts = {f"{prefix}_{name}_" if prefix else f"{name}_": name for name in names}
    for key, value in metrics.items():
        if of := [start for start in starts if key.startswith(start)]:
            start = max(of, key=len)  # `en-zh_Hant_` begins with `en-zh_`
            found[starts[start]][key[len(start) :]] = value
    return found


def histories(history: list[dict], names: list[str]) -> dict[str, list[dict]]:
    """The evaluations of a logged history by pair, each with its `step`."""
    found: dict[str, list[dict]] = {name: [] for name in names}
    for row in evaluations(history):
        for name, own in by_pair(row, names).items():
            if own:
                found[name].append({"step": row["step"]} | own)
    return found


def mean_of_pairs(metrics: dict[str, dict]) -> dict:
    """The mean over pairs of every number that all of them have; numbers of sentences are added up."""
    shared = set.intersection(*(set(one) for one in metrics.values())) if metrics else set()
    means = {}
    for key in next(iter(metrics.values()), {}):
        values = [one[key] for one in metrics.values() if key in shared and isinstance(one[key], int | float)]
        if len(values) == len(metrics):
            is_number = "pairs" in key or key == "truncated"
            means[key] = sum(values) / (1 if is_number else len(values))
    return means


def summary_of_pairs(before: dict[str, dict], after: dict[str, dict]) -> str:
    """A printed table, a line for each pair: retrieval and bits a byte before and after adaptation."""
    keys = [key for key in SHOWN if any(key in one for one in after.values())]
    cells = [["pair", *(SHOWN[key] for key in keys)]]
    for name, one in after.items():
        cells.append([name, *(f"{before[name][key]:.3f} > {one[key]:.3f}" if key in one else "" for key in keys)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(keys) + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([TITLE, *lines])


def names_of(languages: dict) -> tuple[str, str]:
    """The names of the source and of the target; of several targets, all their names."""
    source = language(languages["source"]).name
    if "targets" in languages:
        return source, ", ".join(language(code).name for code in languages["targets"])
    return source, named(languages["target"], languages.get("target_name")).name


def with_drift(metrics: dict) -> dict:
    """The metrics with the drift of the source's senses, as training logged it last, among those `after` it."""
    logged = [row[DRIFT] for row in metrics.get("history") or [] if DRIFT in row]
    return metrics | {"after": (metrics.get("after") or {}) | {DRIFT: logged[-1]}} if logged else metrics


def closing_table(metrics: dict) -> str:
    """What a run says in the end, from its metrics."""
    source, target = names_of(metrics["languages"])
    if "by_pair" not in metrics:
        table = summary(metrics["before"], metrics["after"], source, target)
    else:
        of_pairs = ({name: one[when] for name, one in metrics["by_pair"].items()} for when in ("before", "after"))
        table = summary_of_pairs(*of_pairs)
    drift = with_drift(metrics)["after"].get(DRIFT)
    return table if drift is None else f"{table}\n{source} senses, mean cosine to those before: {drift:.3f}"


def closing_words(metrics: dict) -> list[str]:
    """What its numbers mean, in sentences; those of each pair of languages where there are several."""
    config, data = metrics.get("config") or {}, metrics.get("data") or {}
    settings = {
        "aligned": config.get("w_sense") != 0 or config.get("w_context") != 0,
        "both_sides": config.get("source_lm_weight", 0) >= 1,
        "new_words": bool(metrics.get("vocabulary")),
        "replay": "replay source" in data,
    }
    speaks = config.get("w_lm") != 0  # else the language is forgotten, and was more fluent before
    control, history = metrics.get("control"), metrics.get("history") or []
    if "by_pair" not in metrics:
        names = names_of(metrics["languages"])
        during = _from_start(metrics["before"], evaluations(history)) if speaks else ()
        return verdict(metrics["before"], metrics["after"], names, control, during, **settings)
    lines, rows = [], histories(history, list(metrics["by_pair"]))
    for name, one in metrics["by_pair"].items():
        during = _from_start(one["before"], rows[name]) if speaks else ()
        names = tuple(language(code).name for code in name.split("-"))
        own = None if control is None else control.get("by_pair", {}).get(name, {})
        lines += verdict(one["before"], one["after"], names, own, during, **settings)
    return lines


def phase_starts(config: dict) -> list[int]:
    """The steps at which the joint and the polish phase of a run begin, from its configuration; none where the phases
    are alike: the same weights and temperatures in all of them, and nothing frozen in polish."""
    schedule = PhaseSchedule.of(config)
    states = [schedule.at(boundary)[1:] for boundary in (0.0, *schedule.boundaries, 1.0)]
    if len(set(states)) == 1 and config.get("polish_freeze") == "none":
        return []
    return [round(boundary * config["steps"]) for boundary in schedule.boundaries]


def draw_dynamics(metrics: dict, path):
    """Draws how a run went, from its metrics; of several pairs of languages, a line for each."""
    history, starts = metrics.get("history") or [], phase_starts(metrics["config"])
    if "by_pair" not in metrics:
        rows = _from_start(metrics.get("before"), evaluations(history))
        return training_dynamics(rows, path, phase_starts=starts, languages=names_of(metrics["languages"]))
    rows = histories(history, list(metrics["by_pair"]))
    rows = {name: _from_start(metrics["by_pair"][name].get("before"), own) for name, own in rows.items()}
    return training_dynamics_of_several(rows, path, phase_starts=starts)


def draw_dynamics_of_runs(runs: dict[str, dict], path):
    """
    Draws how several runs went on one axis, a line for each, and of a run of several pairs of languages for each pair:
    those with evaluations during training, by the language that they adapt to or, where that does not tell them apart,
    by their names. Runs without languages or evaluations are left out with a warning that names them.

    Args:
        runs (`dict[str, dict]`): The metrics of each run.
        path: Where to save; PNG and SVG are written.

    Returns:
        `list[Path]`: The files written; none where no run has such evaluations.
    """
    rows, languages = {}, {}
    for name, metrics in runs.items():
        lines = _lines_of_run(name, metrics) if "languages" in metrics else {}
        rows |= {line: own for line, (own, _) in lines.items()}
        languages |= {line: names for line, (_, names) in lines.items()}
        if not lines:
            logger.warning(f"{name} is not drawn: it has no languages or no evaluations during training.")
    if not rows:
        return []
    sources, targets = ({names[side] for names in languages.values()} for side in (0, 1))
    if len(targets) == len(rows):
        rows = {languages[name][1]: own for name, own in rows.items()}
    names = (*sources, "target") if len(sources) == 1 else ("source", "target")
    return training_dynamics_of_several(rows, path, languages=names)


def _lines_of_run(name: str, metrics: dict) -> dict[str, tuple[list[dict], tuple[str, str]]]:
    """The evaluations of a run and the names of its two languages; of several pairs, of each pair. By name."""
    history = metrics.get("history") or []
    if "by_pair" not in metrics:
        found = evaluations(history)
        return {name: (_from_start(metrics.get("before"), found), names_of(metrics["languages"]))} if found else {}
    lines = {}
    for pair, found in histories(history, list(metrics["by_pair"])).items():
        if found:
            names = names_of(dict(zip(("source", "target"), pair.split("-"), strict=True)))
            lines[f"{name}, {pair}"] = _from_start(metrics["by_pair"][pair].get("before"), found), names
    return lines


def _from_start(before: dict | None, rows: list[dict]) -> list[dict]:
    """Evaluations with that before the first step in front; where they begin with it, it has random weights besides,
    which are measured once."""
    if not before:
        return rows
    if not rows or rows[0]["step"] > 0:
        return [{"step": 0} | before, *rows]
    random = {key: value for key, value in before.items() if key.startswith("random_")}
    return [random | rows[0], *rows[1:]]
