"""From a run's folder to a folder of `model_cards/`: half-precision weights, code, the card; and the same refreshed.

What a run measures itself is on the data that guided it. The results of a released model are those of
`sensia evaluate` on the reporting split, of the base model and of the control likewise: see [`reported`].
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm.auto import tqdm

from ..evaluation.report import TITLES
from ..evaluation.results import read_result
from ..evaluation.tasks import TASKS
from ..evaluation.vectors import SENTENCE_SETTINGS
from ..languages import language
from ..training.adaptation import evaluations
from ..training.by_pair import draw_dynamics
from ..training.runs import METRICS_FILE, SETTINGS_FILE
from ..utils.files import DELTA_FILE, portable, read_json, write_json
from ..utils.models import load_model, load_tokenizer
from ..vocabulary.extension import keep_report
from .delta import refresh_card
from .folders import FILE_SIZE, finish_folder, without_origin
from .languages import draw_matrix, reported_languages
from .licences import with_text_licence


FIGURE = "training_dynamics"
# What releases consist of where they have it; other files of a folder are somebody's own.
RELEASED = ("*.safetensors*", "*_backpack.py", "modules.json", SENTENCE_SETTINGS, "vocabulary.*", "languages.*")
RELEASED += (f"{FIGURE}.*", "chat_template.jinja", "generation_config.json")
CHAT_TEMPLATES = "additional_chat_templates"  # the folder of a tokenizer's further ones


def release(run_folder, destination, dtype=None, license=None, text_licence=None, title=None, **evaluations) -> Path:
    """
    Make the Hub-ready folder of a finished run. What an earlier release left there is replaced; nothing is when this
    one fails.

    Args:
        run_folder: What `sensia adapt` or `sensia pretrain` left.
        destination: Folder to write; its name is the model's.
        dtype (`str`, *optional*): Type of the stored weights: "float16", "bfloat16" or "float32". By default float16
            where it can hold every weight, else bfloat16.
        license (`str`, *optional*): Licence of the weights, in place of what follows from the text's.
        text_licence (`str`, *optional*): Licence of the text beside the pairs, in place of what the recipe said.
        title (`str`, *optional*): First line of the card, in place of the one made of size and languages.
        evaluations: Files of results for the card, see [`reported`]: `after`, `before`, `control`.

    Returns:
        The destination (`Path`).

    Raises:
        `ValueError`: if `run_folder` holds no finished run, or is the destination; for a destination that holds a
            run; for another `dtype`, or one that
            makes infinity of a weight; for weights that are missing, or not finite.
    """
    run_folder, destination = Path(run_folder), Path(destination)
    if destination.resolve() == run_folder.resolve():
        raise ValueError(f"The destination {str(destination)!r} is the run's own folder: give another one.")
    if (destination / SETTINGS_FILE).is_file():
        raise ValueError(
            f"The destination {str(destination)!r} is the folder of a run, which would lose its weights: give another "
            "one."
        )
    if not (run_folder / METRICS_FILE).is_file():
        raise ValueError(f"{run_folder} has no {METRICS_FILE}: the run is not finished. Start its command again.")
    metrics = read_json(run_folder / METRICS_FILE)
    measured = {name: read_result(file) for name, file in evaluations.items() if file}
    if measured:
        _check_measured(metrics, measured)
        # What the run measured before its first step, for the figure: `before` is now of the reporting split.
        metrics["history"] = _start_of(metrics) + metrics.get("history", [])
        for name in ("before", "control"):  # of other sentences than `after`
            metrics.pop(name, None)
        several = metrics.get("languages", {}).get("pairs")
        metrics |= reported_languages(several, **measured) if several else reported(**measured)
        metrics |= reported_tasks(measured)
    metrics |= {name: value for name, value in (("license", license), ("title", title)) if value}

    model = load_model(run_folder)
    model.to(getattr(torch, storable(model, dtype)))
    destination.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=destination.parent, prefix="writing-") as written:
        written = Path(written)
        model.save_pretrained(written, max_shard_size=FILE_SIZE)
        load_tokenizer(run_folder).save_pretrained(written)
        write_json(written / METRICS_FILE, portable(metrics) | {"model_name": destination.name})
        if not metrics.get("vocabulary"):  # which says so itself
            keep_report(run_folder, written)
        refresh(written, text_licence)
        destination.mkdir(exist_ok=True)
        for stale in (file for pattern in RELEASED for file in destination.glob(pattern)):
            stale.unlink()
        shutil.rmtree(destination / CHAT_TEMPLATES, ignore_errors=True)
        for file in written.iterdir():
            shutil.move(file, destination / file.name)
    return destination


def _check_measured(metrics: dict, measured: dict[str, dict]) -> None:
    """Refuses results that a card cannot show as those of its model."""
    if "after" not in measured:
        raise ValueError("`before` and `control` stand beside the results of the released model: give `after` too.")
    languages = metrics.get("languages")
    if not languages:
        raise ValueError(
            f"`after` is of translated sentences, but the card of a run of {metrics['kind']} is about one language, "
            "as the run measured it: leave it out."
        )
    if "pairs" in languages:
        return
    own = [language(languages[side]).code for side in ("source", "target")]
    for name, result in measured.items():
        found = [language(_of_pairs(name, result)[side]).code for side in ("source", "target")]
        if found != own:
            raise ValueError(
                f"`{name}` is of {' and '.join(found)}, but the run is of {' and '.join(own)}: give the results of "
                "`sensia evaluate` in its languages."
            )


def _start_of(metrics: dict) -> list[dict]:
    """What a run measured before its first step, as lines of its history."""
    parts = {f"{name}_": one["before"] for name, one in metrics.get("by_pair", {}).items()}
    parts = parts or {"": metrics.get("before")}
    return [
        {"step": 0} | {f"eval_{name}{key}": value for key, value in before.items()}
        for name, before in parts.items()
        if before
    ]


def storable(model, dtype: str | None = None) -> str:
    """
    The type that a model's weights are stored in.

    Args:
        model (`PreTrainedModel`): In float32.
        dtype (`str`, *optional*): What is wanted; by default float16 where it can hold every weight, else bfloat16.

    Raises:
        `ValueError`: for another type, a weight that is not finite, or one that `dtype` cannot hold.
    """
    if dtype not in (None, "float16", "bfloat16", "float32"):
        raise ValueError(f"`dtype` is {dtype!r}, but released weights are float16, bfloat16 or float32.")
    too_large = None
    for name, weight in tqdm(model.state_dict().items(), desc="checking weights", leave=False, disable=None):
        if not torch.isfinite(weight).all():
            raise ValueError(f"The weight {name!r} holds NaN or infinity: this model cannot be released.")
        if weight.is_floating_point() and weight.abs().max() > torch.finfo(torch.float16).max:
            too_large = too_large or name
    if dtype == "float16" and too_large:
        raise ValueError(
            f"`dtype` is 'float16', which cannot hold the weight {too_large!r}: it would become infinity. Store the "
            "weights as bfloat16 or float32."
        )
    return dtype or ("bfloat16" if too_large else "float16")


def refresh(folder, text_licence=None) -> Path:
    """
    Bring a released folder up to date with this version: its code, its figure and its card; the weights stay. The
    card of a delta says that it is one. What was written into a card by hand is lost.

    Args:
        folder: The released folder.
        text_licence (`str`, *optional*): As in [`release`].

    Returns:
        The path of the card.
    """
    folder = Path(folder)
    tokenizer_config = folder / "tokenizer_config.json"
    write_json(tokenizer_config, without_origin(read_json(tokenizer_config)))
    metrics = read_json(folder / METRICS_FILE)
    if text_licence:
        metrics = with_text_licence(metrics, text_licence)
        write_json(folder / METRICS_FILE, metrics)
    draw_matrix(metrics, folder)
    history = evaluations(metrics.get("history") or [])
    if metrics["kind"] != "pretraining" and any("context_recall_source_to_target" in " ".join(row) for row in history):
        draw_dynamics(metrics, folder / FIGURE)
    return refresh_card(folder) if (folder / DELTA_FILE).is_file() else finish_folder(folder)


def reported(after, before=None, control=None):
    """
    The entries of a card's metrics that hold the results of `sensia evaluate`.

    Args:
        after, before, control (`dict`): Its results for the released model, the base model, and the control.

    Returns:
        `dict`: `after`, `before`, `control` (intrinsic results with intervals), and `evaluation`.

    Raises:
        `ValueError`: if the results were not measured on the same sentences.
    """
    results = {"after": after, "before": before, "control": control}
    results = {name: result for name, result in results.items() if result}
    found = {name: _of_pairs(name, result) for name, result in results.items()}
    prints = {name: pairs["fingerprint"] for name, pairs in found.items()}
    if len(set(prints.values())) > 1:
        raise ValueError(f"The results are not of the same sentences: {prints}. Evaluate all with one recipe.")
    facts = ("split", "purpose", "source", "target", "fingerprint", "source_from_start", "target_from_start")
    intrinsic = {name: {k: v for k, v in pairs.items() if k not in facts} for name, pairs in found.items()}
    place = {"name": "FLORES-200", "type": "openlanguagedata/flores_plus", "split": found["after"].get("split")}
    if not after.get("flores"):
        place = {"name": next(iter(after["bitexts"])), "split": found["after"].get("split")}
    return intrinsic | {"evaluation": place}


def reported_tasks(results: dict[str, dict]) -> dict:
    """
    The entries of a card's metrics about tasks and writing, of one language or of several.

    Args:
        results (`dict[str, dict]`): What `sensia evaluate` measured: `after`, of the released model; `before` and
            `control`, where there are any. Of multiple-choice tasks, the card shows the plain template by
            length-averaged log-likelihood.

    Returns:
        `dict`: `benchmarks`, and `writing` where the released model was asked to write.
    """
    after, scores = results["after"], {name: _task_scores(result) for name, result in results.items()}
    benchmarks = []
    for key, (task, score) in scores["after"].items():
        source, code = TASKS[key[0]], language(key[1])
        row = {"name": f"{TITLES[key[0]]}, {code.name}", "type": source.hub or key[0]}
        row["config"] = (source.config or "{iso}").format(iso=code.code, flores=code.flores)
        row |= {"split": task["split"], "items": task["items"]}
        row |= {"value": score["accuracy"], "interval": score.get("interval")}
        row["protocol"] = "plain template, length-averaged log-likelihood"
        row["protocol"] += ", this model at chance" if score["at_chance"] else ""
        for name in ("before", "control"):
            of_other, other = scores.get(name, {}).get(key, ({}, None))
            if other and of_other.get("fingerprint") == task.get("fingerprint"):  # of the same items
                row |= {name: other["accuracy"], f"{name}_interval": other.get("interval")}
        benchmarks.append(row)
    writing = {name: after[name] for name in ("fluency", "generation") if name in after}
    return {"benchmarks": benchmarks} | ({"writing": writing} if writing else {})


def _of_pairs(name, result):
    """What a result holds of sentence pairs: of FLORES-200, or else of a bitext."""
    pairs = result.get("flores") or next(iter(result.get("bitexts", {}).values()), None)
    if pairs is None:
        raise ValueError(
            f"`{name}` holds no results on sentence pairs, which the card is about: evaluate with `flores`, or with a "
            "`bitext` of your own."
        )
    return pairs


def _task_scores(result):
    tasks = [task for task in result["tasks"] if task["template"] == "plain"]
    return {(task["task"], task["language"]): (task, task["scores"]["cond"]) for task in tasks}
