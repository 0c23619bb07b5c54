"""What a training script leaves beside its weights: the settings of the run, and `metrics.json`."""

import json
import os
import platform
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..utils.files import plain, portable, write_json
from ..utils.secrets import command_line


SETTINGS_FILE = "settings.json"
METRICS_FILE = "metrics.json"
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers")
# Settings that may differ when a run is resumed: where and how often it speaks, not what it computes.
FREE_PREFIXES = ("logging_", "log_", "save_", "report_", "push_", "hub_", "disable_tqdm", "run_name", "output_dir")
FREE_PREFIXES += (
    "dataloader_num_workers",
    "resume_",
    "deepspeed_plugin",
    "distributed_state",
    "local_rank",
    "trackio",
)


def run_settings(args, **groups):
    """Every setting that decides what a run computes: training arguments by name, other dataclasses by group."""
    settings = {"training": args.to_dict(), **groups}
    kept = {key: value for key, value in plain(settings["training"]).items() if not key.startswith(FREE_PREFIXES)}
    return plain(settings) | {"training": kept}


def prepare_output_dir(args, **groups):
    """
    Make `args.output_dir` this run's folder.

    Args:
        args (`TrainingArguments`): Training arguments.
        groups: Further dataclasses of settings, by name.

    Returns:
        The folder of the last checkpoint if this very run was interrupted there, otherwise `None`.

    Raises:
        `ValueError`: if the folder holds another run; the settings that differ are named.
    """
    folder, settings = Path(args.output_dir), run_settings(args, **groups)
    previous = folder / SETTINGS_FILE
    if previous.is_file():
        found = json.loads(previous.read_text(encoding="utf-8"))
        names = [(group, key) for group in settings for key in settings[group]]
        different = [
            f"{group}.{key}: {found.get(group, {}).get(key)!r} there, {settings[group][key]!r} now"
            for group, key in names
            if found.get(group, {}).get(key) != settings[group][key]
        ]
        if different:
            raise ValueError(
                f"`output_dir`={str(folder)!r} already holds another run ({'; '.join(different[:5])}). "
                "Choose another `output_dir`, or remove the folder if that run is not wanted."
            )
    elif folder.is_dir() and get_last_checkpoint(str(folder)) is not None:
        raise ValueError(
            f"`output_dir`={str(folder)!r} already holds checkpoints of a run that left no {SETTINGS_FILE}. Choose "
            "another `output_dir`, or remove the folder if that run is not wanted."
        )
    if args.process_index == 0:
        write_json(previous, settings)
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def keep_once(args, name, measure):
    """
    `measure()` the first time this run gets here, its result from then on: what was true of the model before training
    cannot be measured again after a resume.

    Args:
        args (`TrainingArguments`): Their `output_dir` keeps the result, in `{name}.json`.
        name (`str`): What is kept.
        measure (`Callable[[], dict]`): Called by every process, or by none.
    """
    file = Path(args.output_dir) / f"{name}.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    measured = measure()
    if args.process_index == 0:
        write_json(file, measured)
    return measured


def shown_command(argv, processes=1):
    """
    A command line as the card shows it: one that works wherever the package is installed, without folders of the
    machine, and without secrets.

    Args:
        argv (`list[str]`): As in `sys.argv`; scripts of `examples/` are the commands of the same name.
        processes (`int`, *optional*, defaults to 1): Processes it ran on.
    """
    script, *arguments = argv
    script = Path(script)
    several = ["--num_processes", processes] if processes > 1 else []
    if script.name == "sensia":
        start = ["sensia", *arguments[:1], *several]
        arguments = arguments[1:]
    elif script.parent.name == "examples":
        start = ["sensia", script.stem, *several]
    else:
        start = ["accelerate", "launch", *several, script.name] if several else ["python", script.name]
    return portable(command_line([*start, *arguments]))


def write_run(args, *, kind, model, state, method=None, **content):
    """
    Write `metrics.json` of a finished run.

    Args:
        args (`TrainingArguments`): Training arguments.
        kind (`str`): `"pretraining"` or `"adaptation"`.
        model (`PreTrainedModel`): The model, for its size.
        state (`TrainerState`): Steps, time and logged history.
        method (`dict`, *optional*): Settings of the method that `args` do not hold.
        content: Everything else: `data`, `before`, `after`, …

    Returns:
        The metrics (`dict`).
    """
    keys = ("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "per_device_train_batch_size")
    keys += ("gradient_accumulation_steps", "max_grad_norm", "fp16", "bf16", "seed", "num_train_epochs")
    keys += tuple(own.name for own in fields(args) if own.name not in TrainingArguments.__dataclass_fields__)
    runtime = next((row for row in reversed(state.log_history) if "train_runtime" in row), {})
    metrics = {
        "kind": kind,
        "model_name": Path(args.output_dir).name,
        **content,
        "config": {key: getattr(args, key) for key in keys} | (method or {}) | {"steps": state.global_step},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "history": state.log_history,
        "seconds": runtime.get("train_runtime"),
        "processes": args.world_size,
        "hardware": f"{os.cpu_count()} CPU cores ({platform.machine()})"
        if args.device.type == "cpu"
        else str(args.device),
        "versions": {package: version(package) for package in PACKAGES} | {"python": platform.python_version()},
        "command": shown_command(sys.argv, args.world_size),
    }
    metrics = portable(metrics)
    write_json(Path(args.output_dir) / METRICS_FILE, metrics)
    return metrics
