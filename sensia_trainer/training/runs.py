"""The folder of one training run: locked while it runs, bound to its settings once it has trained, told when finished.

What a run leaves beside its weights: `settings.json`, everything that decides what it computes, and, written last,
`metrics.json`: the run is finished where that is, and only there.
"""

import hashlib
import json
import os
import platform
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..utils.files import METRICS_FILE, flush, plain, portable, read_json, write_json
from ..utils.recipes import expand_variables
from ..utils.secrets import command_line
from .checkpoint_files import checkpoints


logger = logging.get_logger(__name__)

SETTINGS_FILE = "settings.json"
LOCK_FILE, HOLDER_FILE = ".lock", ".lock-holder"
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers")
# Fields of `TrainingArguments` that decide nothing of what is computed: what is said, kept and sent, where and by what
# means. Dataclasses of this package list theirs as `FREE`.
FREE_PREFIXES = ("log_", "logging_", "save_", "report_", "push_", "hub_", "trackio_", "do_", "ddp_", "skip_memory_")
FREE_NAMES = ("output_dir", "run_name", "project", "disable_tqdm", "local_rank", "resume_from_checkpoint", "debug")
FREE_NAMES += ("use_cpu", "enable_jit_checkpoint", "per_device_eval_batch_size", "eval_accumulation_steps")
FREE_NAMES += ("include_for_metrics", "torch_empty_cache_steps", "dataloader_num_workers", "dataloader_pin_memory")
FREE_NAMES += ("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context")


@contextmanager
def run_folder(args, **groups) -> Iterator["RunFolder"]:
    """
    Makes `args.output_dir` the folder of one run, as long as the block lasts.

    Args:
        args (`TrainingArguments`): Training arguments.
        groups: Further dataclasses of settings, by name.

    Raises:
        `ValueError`: if the folder cannot be written to, another process trains in it, or it holds another run or a
            model that no run made; the settings that differ are named.
    """
    folder, lock = Path(args.output_dir), None
    if args.process_index == 0:
        lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        on_first_process(lambda: _acquire(lock, folder))
        yield RunFolder(args, **groups)
    finally:
        if lock is not None:
            lock.release()


class RunFolder:
    """What [`run_folder`] gives: how far the run in the folder is, and what it leaves there.

    Attributes:
        finished (`bool`): Whether this very run has left its model, card and metrics.
        interrupted (`bool`): Whether it has left checkpoints to go on from.
    """

    def __init__(self, args, **groups):
        self.path = Path(args.output_dir)
        groups = {"training": args, **groups}
        self.settings = {name: args.to_dict() if group is args else plain(group) for name, group in groups.items()}
        self.settings["run"] = {"processes": args.world_size, "devices of each": max(1, args.n_gpu)}
        self._deciding = {
            name: {key: self.settings[name].get(key) for key in deciding_fields(group)}
            for name, group in groups.items()
        } | {"run": self.settings["run"]}
        self._named = {
            name: {key: self.settings[name].get(key) for key in getattr(group, "NAMED", ())}
            for name, group in groups.items()
        }
        self._defaults = {name: defaults_of(group) for name, group in groups.items()}
        self.finished, self.interrupted = on_first_process(self._look)

    def say_finished(self):
        """Prints, once, that there is nothing to do."""
        on_first_process(
            lambda: print(
                f"This run is finished, nothing is left to train: model and {METRICS_FILE} are in {self.path}. "
                "For another run give another `output_dir`; to repeat this one, remove the folder."
            )
        )

    def settle(self, contents: Callable[[], dict]):
        """
        Binds the run to what it reads, before its first step: a run that goes on reads what it read before.

        Args:
            contents (`Callable[[], dict]`): Gives, on the first process, fingerprints (`str`) by name: of the training
                pairs, the base model and the like.

        Raises:
            `ValueError`: if a run that has trained read something else; what differs is named.
        """
        self._deciding["contents"] = self.settings["contents"] = on_first_process(contents)
        on_first_process(self._bind)

    def once(self, name: str, measure: Callable[[], dict]) -> dict:
        """
        `measure()` the first time this run gets here, its result from then on: what was true of the model before
        training cannot be measured again after a resume. Called by every process, after [`settle`].
        """
        file, key = self.path / f"{name}.json", hashlib.sha256(repr(plain(self._deciding)).encode()).hexdigest()

        def kept():
            try:
                content = read_json(file)
                return content["result"] if content["settings"] == key else None
            except (ValueError, KeyError, TypeError):
                return None

        result = on_first_process(kept)
        if result is None:
            result = measure()
            on_first_process(lambda: write_json(file, {"settings": key, "result": result}))
        return result

    def rehearse(self, model, metrics: dict, write_card: Callable):
        """Renders the card with what is known before the first step, so that nothing of it can fail after the last."""

        def render():
            with TemporaryDirectory() as folder:
                model.config.save_pretrained(folder)
                write_card(folder, metrics=metrics)

        on_first_process(render)

    def finish(self, metrics: dict, write_card: Callable):
        """Writes the card and, when everything else in the folder is on the disk, `metrics.json`; by one process."""
        write_card(self.path, metrics=metrics)
        for file in self.path.iterdir():
            if file.is_file():
                flush(file)
        write_json(self.path / METRICS_FILE, metrics)

    def where(self) -> str:
        """Where the model is and, where checkpoints of the training are left beside it, that it needs none of them."""
        left = checkpoints(self.path)
        if not left:
            return f"model folder: {self.path}"
        held = sum(file.stat().st_size for folder in left for file in folder.rglob("*") if file.is_file())
        return (
            f"model folder: {self.path} (its checkpoints, {held / 1e6:,.0f} MB, are needed no more: "
            f"`rm -r {shlex.quote(str(self.path))}/{PREFIX_CHECKPOINT_DIR}-*`)"
        )

    def _look(self):
        noted, trained = self.path / SETTINGS_FILE, bool(checkpoints(self.path))
        weights = [*self.path.glob("*.safetensors"), *self.path.glob("pytorch_model*.bin")]
        finished = bool(weights) and (self.path / METRICS_FILE).is_file()
        others = [name for name in ("README.md", "config.json", METRICS_FILE) if (self.path / name).is_file()]
        if not noted.is_file() and others and not (trained or weights):
            raise ValueError(
                f"`output_dir`={str(self.path)!r} holds {' and '.join(others)}, which no run wrote that began there "
                "and which a run would overwrite. Choose another `output_dir`."
            )
        if not noted.is_file() and (trained or weights):
            raise ValueError(
                f"`output_dir`={str(self.path)!r} holds a model or checkpoints, but no {SETTINGS_FILE} of a run that "
                "made them. Choose another `output_dir`, or remove the folder if they are not wanted."
            )
        if trained or finished:
            self._compare(self._deciding)
        if finished:  # nothing will be read that could be compared itself
            self._compare(self._named)
        return finished, trained

    def _bind(self):
        if self.interrupted:
            self._compare({"contents": self._deciding["contents"]})
        write_json(self.path / SETTINGS_FILE, self.settings)

    def _compare(self, settings):
        try:
            found = read_json(self.path / SETTINGS_FILE)
            different = [
                f"{group}.{key}: {before!r} there, {now!r} now"
                for group, values in plain(settings).items()
                for key, now in values.items()
                # A field that the version which began the run did not have counts as its default.
                if _place(before := found.get(group, {}).get(key, plain(self._defaults.get(group, {}).get(key))))
                != _place(now)
            ]
        except (ValueError, AttributeError) as error:
            raise ValueError(
                f"`output_dir`={str(self.path)!r} holds a run whose settings cannot be read: {error} Choose another "
                "`output_dir`, or remove the folder if that run is not wanted."
            ) from error
        if different:
            raise ValueError(
                f"`output_dir`={str(self.path)!r} already holds another run ({'; '.join(different[:5])}). Give it the "
                "same settings to go on with it, choose another `output_dir`, or remove the folder."
            )


def _place(value):
    """A path that is there in the one way to write it, also in a list; any other value as it is."""
    if isinstance(value, list):
        return [_place(one) for one in value]
    if not isinstance(value, str):
        return value
    try:
        path = Path(expand_variables(value))
        return str(path.resolve()) if path.exists() else value
    except (ValueError, OSError):  # an unset variable, or no path at all
        return value


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


def run_metrics(args, *, kind, model, state, method=None, **content):
    """
    What `metrics.json` of a run holds, from which its card is rendered.

    Args:
        args (`TrainingArguments`): Training arguments.
        kind (`str`): `"pretraining"`, `"induction"`, `"adaptation"` or `"baseline"`.
        model (`PreTrainedModel`): The model, for its size.
        state (`TrainerState`): Steps, time and logged history.
        method (`dict`, *optional*): Settings of the method that `args` do not hold.
        content: Everything else: `data`, `before`, `after`, …

    Returns:
        The metrics (`dict`).
    """
    keys = ["learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "per_device_train_batch_size"]
    keys += ["gradient_accumulation_steps", "max_grad_norm", "fp16", "bf16", "seed", "num_train_epochs"]
    keys += ["train_sampling_strategy"] if kind in ("adaptation", "baseline") else []
    library = {field.name for field in fields(TrainingArguments)} | {"source_language", "target_language"}
    keys += [field.name for field in fields(args) if field.name not in library]
    last = next((row for row in reversed(state.log_history) if "train_runtime" in row), {})
    base = content.get("base_model")
    metrics = {
        "kind": kind,
        "model_name": Path(args.output_dir).name,
        **content,
        **({"base_is_folder": True} if base and Path(base).is_dir() else {}),
        "config": {key: getattr(args, key) for key in keys} | (method or {}) | {"steps": state.global_step},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "history": state.log_history,
        "seconds": last.get("train_seconds", last.get("train_runtime")),
        "processes": args.world_size,
        "hardware": f"{os.cpu_count()} CPU cores ({platform.machine()})"
        if args.device.type == "cpu"
        else str(args.device),
        "versions": {package: version(package) for package in PACKAGES} | {"python": platform.python_version()},
        "command": shown_command(sys.argv, args.world_size),
    }
    return portable(plain(metrics))


def weights_fingerprint(model) -> str:
    """16 hexadecimal digits of the SHA-256 of a model's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def tokenizer_fingerprint(tokenizer) -> str:
    """16 hexadecimal digits of the SHA-256 of what a tokenizer does: its vocabulary, special tokens and rules."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str()) if hasattr(tokenizer, "backend_tokenizer") else {}
    parts = [rules | {"truncation": None, "padding": None}, tokenizer.get_vocab(), tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(plain(parts), sort_keys=True).encode()).hexdigest()[:16]


def on_first_process(function: Callable):
    """What `function()` returns on the first process, or the `ValueError` it raises, on all of them."""
    outcome = [None, None]
    several = dist.is_available() and dist.is_initialized()
    if not several or dist.get_rank() == 0:
        try:
            outcome[0] = function()
        except ValueError as error:
            outcome[1] = str(error)
    if several:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise ValueError(outcome[1])
    return outcome[0]


def warn_of_one_process(args):
    """
    Says so where `accelerate launch --num_processes N` has started one process, as it does on a CPU without a word.

    It sets the address of a main process then, and nobody's rank.
    """
    ranks = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_RANK"} & set(os.environ)
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ and not ranks:
        logger.warning(
            "`accelerate launch` was asked for several processes, but on a CPU it starts one: a batch of this run is "
            f"{args.per_device_train_batch_size} and comes from that process. To start N of them on a CPU: `torchrun "
            "--nproc_per_node N SCRIPT …` with the same arguments."
        )


def _acquire(lock, folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        (folder / HOLDER_FILE).write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    except Timeout:
        note = folder / HOLDER_FILE
        holder = note.read_text(encoding="utf-8").strip() if note.is_file() else "another process"
        raise ValueError(
            f"`output_dir`={str(folder)!r} is in use: {holder} trains in it. Wait until that run ends, or choose "
            f"another `output_dir`. If that process is gone, as on a disk without locks, remove {folder / LOCK_FILE}."
        ) from None
    except OSError as error:
        raise ValueError(
            f"`output_dir`={str(folder)!r} cannot be written to ({error.strerror}). Choose another `output_dir`."
        ) from error


def decides(name: str) -> bool:
    """Whether a field of `TrainingArguments` of that name decides anything of what is computed."""
    return name not in FREE_NAMES and not name.startswith(FREE_PREFIXES)


def deciding_fields(group) -> list[str]:
    """Names of the fields of a dataclass that decide what a run computes."""
    library = {field.name for field in fields(TrainingArguments)} if isinstance(group, TrainingArguments) else set()
    names = [field.name for field in fields(group) if field.name not in getattr(group, "FREE", ())]
    return [name for name in names if name not in library or decides(name)]


def defaults_of(group) -> dict:
    """The default of each field of a dataclass that has one."""
    made = {f.name: f.default_factory() for f in fields(group) if f.default_factory is not MISSING}
    return made | {f.name: f.default for f in fields(group) if f.default is not MISSING}
