"""From a run's folder to a folder of `model_cards/`: half-precision weights, one copy of the code, the card.

What a run measures itself is on the data that guided it. The results of a released model are those of
`examples/evaluate.py` on the reporting split, of the base model and of the control likewise: see [`reported`].
"""

import json
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..evaluation.report import TITLES
from ..evaluation.results import read_result
from ..evaluation.tasks import TASKS
from ..languages import language
from ..training.runs import METRICS_FILE
from ..utils.files import portable, write_json
from .model_card import write_card


FIGURES = ("training_dynamics.png", "training_dynamics.svg")


def release(run_folder, destination, code_folder, dtype="float16", **evaluations):
    """
    Make the Hub-ready folder of a finished run.

    Args:
        run_folder: What `examples/adapt.py` or `examples/pretrain.py` left.
        destination: Folder to write; its name is the model's.
        code_folder: The package with the model's code, linked to and not copied: publishing uploads the files.
        dtype (`str`): Type of the stored weights.
        evaluations: Files of results for the card, see [`reported`]: `after`, `before`, `control`.

    Returns:
        The destination (`Path`).

    Raises:
        `ValueError`: if `run_folder` holds no finished run, or `dtype` is no half-precision type.
    """
    run_folder, destination = Path(run_folder), Path(destination)
    if dtype not in ("float16", "bfloat16"):
        raise ValueError(f"`dtype` is {dtype!r}, but released weights are float16 or bfloat16.")
    if not (run_folder / METRICS_FILE).is_file():
        raise ValueError(f"{run_folder} has no {METRICS_FILE}: the run is not finished. Start its command again.")
    for link in destination.glob("*_backpack.py"):  # of an earlier release; saving would write through it
        link.unlink()
    model = AutoModelForCausalLM.from_pretrained(run_folder, dtype="float32")
    model.to(getattr(torch, dtype)).save_pretrained(destination)
    AutoTokenizer.from_pretrained(run_folder).save_pretrained(destination)
    for copy in destination.glob("*_backpack.py"):
        copy.unlink()
        copy.symlink_to(os.path.relpath(Path(code_folder) / copy.name, destination))
    for name in FIGURES:
        if (run_folder / name).is_file():
            (destination / name).write_bytes((run_folder / name).read_bytes())
    metrics = json.loads((run_folder / METRICS_FILE).read_text(encoding="utf-8"))
    measured = {name: read_result(file) for name, file in evaluations.items() if file}
    metrics |= reported(**measured) if measured else {}
    write_json(destination / METRICS_FILE, portable(metrics) | {"model_name": destination.name})
    write_card(destination)
    return destination


def reported(after, before=None, control=None):
    """
    The entries of a card's metrics that hold the results of `examples/evaluate.py`.

    Args:
        after, before, control (`dict`): Its results for the released model, the base model, and the control. Of
            multiple-choice tasks, the card shows the plain template by length-averaged log-likelihood.

    Returns:
        `dict`: `after`, `before`, `control` (intrinsic results with intervals), `evaluation`, `benchmarks`.

    Raises:
        `ValueError`: if the results were not measured on the same sentences.
    """
    results = {"after": after, "before": before, "control": control}
    results = {name: result for name, result in results.items() if result}
    prints = {name: result["flores"]["fingerprint"] for name, result in results.items()}
    if len(set(prints.values())) > 1:
        raise ValueError(f"The results are not of the same sentences: {prints}. Evaluate all with one recipe.")
    flores = after["flores"]
    facts = ("split", "purpose", "source", "target", "fingerprint", "source_from_start", "target_from_start")
    intrinsic = {name: {k: v for k, v in r["flores"].items() if k not in facts} for name, r in results.items()}
    place = {"name": "FLORES-200", "type": "openlanguagedata/flores_plus", "split": flores["split"]}
    scores = {name: _task_scores(result) for name, result in results.items()}
    benchmarks = []
    for key, (task, score) in scores["after"].items():
        source, code = TASKS[key[0]], language(key[1])
        row = {"name": f"{TITLES[key[0]]}, {code.name}", "type": source.hub or key[0]}
        row["config"] = (source.config or "{iso}").format(iso=code.code, flores=code.flores)
        row |= {"split": task["split"], "items": task["items"]}
        row |= {"value": score["accuracy"], "interval": score.get("interval")}
        row["protocol"] = "plain template, length-averaged log-likelihood"
        row["protocol"] += ", this model at chance" if score["at_chance"] else ""
        if key in scores.get("control", {}):
            other = scores["control"][key][1]
            row |= {"control": other["accuracy"], "control_interval": other.get("interval")}
        benchmarks.append(row)
    return intrinsic | {"evaluation": place, "benchmarks": benchmarks}


def _task_scores(result):
    tasks = [task for task in result["tasks"] if task["template"] == "plain"]
    return {(task["task"], task["language"]): (task, task["scores"]["cond"]) for task in tasks}
