"""From a run's folder to a folder of `model_cards/`: half-precision weights, one copy of the code, the card."""

import json
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .model_card import write_card
from .runs import METRICS_FILE, portable, write_json


FIGURES = ("training_dynamics.png", "training_dynamics.svg")


def release(run_folder, destination, code_folder, dtype="float16"):
    """
    Make the Hub-ready folder of a finished run.

    Args:
        run_folder: What `examples/adapt.py` or `examples/pretrain.py` left.
        destination: Folder to write; its name is the model's.
        code_folder: The package with the model's code, linked to and not copied: publishing uploads the files.
        dtype (`str`): Type of the stored weights.

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
    write_json(destination / METRICS_FILE, portable(metrics) | {"model_name": destination.name})
    write_card(destination)
    return destination
