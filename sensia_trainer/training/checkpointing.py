"""Runs that survive being killed at any moment: checkpoints that are whole or absent, and exact resumption.

A checkpoint is written under another name (`writing-checkpoint-N`) and renamed to `checkpoint-N` when everything is on
disk. Its manifest lists every file with size and SHA-256, so that one that was damaged later is told, named, and never
resumed from. Beside what [`~transformers.Trainer`] stores (model, optimizer, scheduler, loss scale, random states,
logged history) it holds the sums that the next log line is made of, so that the history of a resumed run is that of a
run nobody stopped.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import broadcast_object_list
from torch.utils.data import RandomSampler
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK, SCHEDULER_NAME, TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState, PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length, rotate_checkpoints
from transformers.utils import logging

from ..bitext.columns import column
from ..utils.files import read_json, write_json
from ..utils.launching import EXIT_INTERRUPTED, EXIT_PREEMPTED
from .batches import LengthGroupedSampler
from .callbacks import MemoryGuard, TrainingWatch
from .checkpoint_files import (
    CheckpointError,
    check_checkpoint,
    newest_whole_checkpoint,
    write_manifest,
    written_whole,
)
from .estimate import blocks_batch
from .progress import ProgressLines, amount, expected_cost
from .pushing import PublishingTrainer
from .sampling import LanguageSampler
from .sharding import whole_copy
from .trackers import keep_trackers_in


logger = logging.get_logger(__name__)


class Stopped(SystemExit):
    """The process was asked to end (SIGTERM: exit code 75, Ctrl-C: 130) and has written a checkpoint."""

    def __init__(self, signal_number):
        super().__init__(EXIT_INTERRUPTED if signal_number == signal.SIGINT else EXIT_PREEMPTED)


class ResumableTrainer(PublishingTrainer):
    """[`~transformers.Trainer`] whose checkpoints are whole or absent, and which stops cleanly on SIGTERM and Ctrl-C.

    Resuming (`train(resume_from_checkpoint=...)`) is exact on the CPU, in weights and in logged history, as long as
    the dataset, the settings and the number of processes are the same and `ignore_data_skip` is off. `True` takes the
    newest checkpoint that is whole. A run that has trained all its steps takes none more.

    Raises:
        `ValueError`: for a process that sees several GPUs.
        `CheckpointError`: where a checkpoint is damaged, was written by another number of processes, or lacks what
            going on from it needs.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"One process sees {self.args.n_gpu} GPUs and would split packed rows among them. Start with "
                "`accelerate launch`, which makes a process for each, or set CUDA_VISIBLE_DEVICES to one."
            )
        self._model_class = type(self.model)
        keep_trackers_in(self.args.output_dir, self.args.report_to)
        self._sampler = None
        self.watch = TrainingWatch(getattr(self.args, "non_finite_loss", "stop"))
        self.add_callback(self.watch)
        self.add_callback(MemoryGuard())
        self._seconds_before, self._started = 0.0, None
        self._stop = StopOnSignal()
        self.add_callback(self._stop)
        for callback in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):
            self.remove_callback(callback)
        self.add_callback(ProgressLines(self.describe_data, bar=not self.args.disable_tqdm, cost=self.expected_cost))

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        if resume_from_checkpoint:
            resume_from_checkpoint = self._checked(resume_from_checkpoint)
        self._seconds_before, self._started = 0.0, time.monotonic()
        with self._stop.listening():
            output = super().train(resume_from_checkpoint, *args, **kwargs)
            self.watch.weights(self.model, self.state.global_step)  # whether or not the last step was a checkpoint's
        if self._stop.requested:  # after the last step, when nobody listened any more
            signal.raise_signal(self._stop.requested)
        return output

    def describe_data(self) -> str:
        """What is trained on, in a few words: blocks of text here, where the rows are blocks and can be counted."""
        if not hasattr(self.train_dataset, "__len__"):
            return "a stream of examples"
        rows = len(self.train_dataset)
        if not rows or "input_ids" not in self.train_dataset[0]:
            return f"{rows:,} examples"
        return f"{rows:,} blocks ({amount(rows * len(self.train_dataset[0]['input_ids']))} tokens)"

    def expected_cost(self) -> tuple[float, float] | None:
        """Operations of a step and bytes of memory of this process; `None` where they cannot be told beforehand."""
        rows = self.train_dataset
        if not hasattr(rows, "__len__") or not len(rows) or "input_ids" not in rows[0]:
            return None
        return self._expected(lambda number, vocabulary: blocks_batch(number, len(rows[0]["input_ids"]), vocabulary))

    def _expected(self, batch, at_once=None, **kwargs):
        """[`expected_cost`] of batches of so many rows, and of what of a batch is computed `at_once`."""
        number = self.args.train_batch_size
        return expected_cost(
            self.accelerator.unwrap_model(self.model),
            partial(batch, number * self.args.gradient_accumulation_steps),
            partial(at_once or batch, number),
            self.args,
            **kwargs,
        )

    @property
    def seconds(self) -> float:
        """Wall-clock time of training, over all the calls of `train` that led to this state."""
        return self._seconds_before + (time.monotonic() - self._started if self._started else 0.0)

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        columns = getattr(dataset, "column_names", None) or ()
        by_length = self.args.train_sampling_strategy == "group_by_length"
        several = "pair" in columns
        if by_length and has_length(dataset) and self.args.length_column_name not in columns:
            return RandomSampler(dataset)  # blocks of text are of one length
        if not (by_length or several):
            return super()._get_train_sampler(dataset)
        # `Trainer` draws this order from the random state of each process: from the second epoch on, it would differ
        # between processes and after resuming.
        batch_size = self.args.train_batch_size * self.args.world_size
        lengths = dataset[self.args.length_column_name][:] if by_length else [0] * len(dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if several:
            self._sampler = LanguageSampler(
                lengths,
                np.bincount(column(dataset, "pair").to_numpy()).tolist(),
                batch_size,
                temperature=self.args.language_temperature,
                mixed=self.args.batch_languages == "mixed",
                seed=seed,
            )
        else:
            self._sampler = LengthGroupedSampler(lengths, batch_size, seed=seed)
        return self._sampler

    def _run_epoch(self, *, epoch, **kwargs):
        if self.state.global_step >= self.state.max_steps:
            # `Trainer` would take one more step before it looks.
            self.control.should_training_stop = True
            return
        # On several processes, the loader that skips the batches before a checkpoint does not tell the sampler.
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def log(self, logs, start_time=None):
        if "train_runtime" in logs:
            # `Trainer` speaks of this call alone: of one that had nothing left to train, it would say `train_loss` 0.
            if self.state.global_step == self._first_step:
                logs = {name: logs[name] for name in ("train_runtime", "total_flos")}
            logs = logs | {"train_seconds": round(self.seconds, 4)}
        if "loss" in logs:
            logs = logs | {name: count for name, count in self.watch.counts.items() if count}
        super().log(logs, start_time)

    def _get_grad_norm(self, model, grad_norm=None):
        # Called once a step, with or without clipping, before the optimizer's. The loss scaler of fp16 leaves steps
        # with infinite gradients out by itself.
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and self.accelerator.scaler is None:
            self.watch.gradients(norm, model, self.state.global_step + 1)
        return norm

    def save_model(self, output_dir=None, _internal_call=False):
        if not self.is_fsdp_enabled:
            return super().save_model(output_dir, _internal_call)
        model = self.whole_model()
        if self.args.should_save:
            for part in filter(None, (model, self.processing_class)):
                part.save_pretrained(output_dir or self.args.output_dir)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def whole_model(self):
        """The model with all its weights on this process; where it is sharded, all processes must ask for it."""
        return whole_copy(self.model, self._model_class, self.args.device) if self.is_fsdp_enabled else self.model

    def running_state(self) -> dict:
        """What this process has accumulated since the last log line, as JSON holds it; a subclass adds its own."""
        return {
            "loss_sum": self._tr_loss.item(),
            "last_logged_step": self._globalstep_last_logged,
            "seconds": self.seconds,
            "counts": self.watch.counts,
        }

    def restore_running_state(self, state: dict) -> None:
        """The inverse of [`running_state`]."""
        self._tr_loss.fill_(state["loss_sum"])
        self._globalstep_last_logged = state["last_logged_step"]
        self.watch.counts.update(state["counts"])
        self._total_loss_scalar = -state["loss_sum"]  # `train_loss` is the mean over the steps of this call alone

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        # A pickle; `settings.json` and `metrics.json` say the same, and nobody need unpickle what was downloaded.
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model, trial):
        self.watch.weights(model, self.state.global_step)
        run_folder = Path(self._get_output_dir(trial))
        folder = run_folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        writer = self.args.should_save
        self.store_flos()
        self._find_best_checkpoint(run_folder, folder)

        with written_whole(folder, writer=writer, wait=self.accelerator.wait_for_everyone) as temporary:
            self.save_model(str(temporary), _internal_call=True)
            write_json(_running_state_file(temporary, self.args.process_index), self.running_state())
            # Who is stopped in the middle wants to go on.
            if not self.args.save_only_model or self._stop.agreed:
                self._save_optimizer_and_scheduler(str(temporary))
                self._save_scaler(str(temporary))
                self._save_rng_state(str(temporary))
            if writer:
                for stateful in [*self.callback_handler.callbacks, self.control]:
                    if isinstance(stateful, ExportableState):
                        self.state.stateful_callbacks[type(stateful).__name__] = stateful.state()
                write_json(temporary / TRAINER_STATE_NAME, self.state)
            self.accelerator.wait_for_everyone()
            if writer:
                write_manifest(temporary, step=self.state.global_step, processes=self.args.world_size)

        if self.args.push_to_hub and not self._stop.agreed:  # who is to end soon has no time for an upload
            self._push_from_checkpoint(str(folder))
        if writer:
            rotate_checkpoints(str(run_folder), self.args.save_total_limit, self.state.best_model_checkpoint)

    def _checked(self, checkpoint):
        """The checkpoint to resume from: the newest whole one for `True`; all processes get what the first found."""
        found = [None, None]
        if self.is_world_process_zero():
            try:
                if checkpoint is True:
                    found[0] = newest_whole_checkpoint(self.args.output_dir, self.args.world_size)
                else:
                    check_checkpoint(checkpoint, self.args.world_size)
                    found[0] = checkpoint
            except CheckpointError as error:
                found[1] = str(error)
        if self.args.world_size > 1:
            broadcast_object_list(found)
        if found[1]:
            raise CheckpointError(found[1])
        return str(found[0])

    def _init_training_state(self, max_steps, steps_per_epoch, epochs, resume_from_checkpoint, trial):
        trained = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume_from_checkpoint, trial)
        self._first_step = self.state.global_step  # of this call; older releases of `Trainer` do not keep it
        if resume_from_checkpoint is not None:
            self._seconds_before = self._running_state(resume_from_checkpoint)["seconds"]
            self._find_best_checkpoint(Path(self._get_output_dir(trial)))
        return trained

    def _find_best_checkpoint(self, run_folder, being_written=None):
        """`best_model_checkpoint` by its step, because the folder may have been moved since it was noted."""
        if self.state.best_global_step:
            best = run_folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            if best == being_written or best.is_dir():
                self.state.best_model_checkpoint = str(best)

    def _determine_best_metric(self, metrics, trial):
        # With `save_strategy` "best" the library saves what this says alone; who stops wants a checkpoint.
        return super()._determine_best_metric(metrics, trial) or bool(self._stop.agreed)

    def _load_best_model(self):
        check_checkpoint(self.state.best_model_checkpoint)
        super()._load_best_model()

    def _load_optimizer_and_scheduler(self, checkpoint):
        left = self.state.max_steps - self.state.global_step
        if checkpoint is None or left <= 0:
            return
        if not (Path(checkpoint) / SCHEDULER_NAME).is_file() and not self.is_deepspeed_enabled:
            raise CheckpointError(
                f"{checkpoint} holds weights alone, as `save_only_model` wants it, and {left} steps are left: "
                "without the optimizer's state they would lead elsewhere. Train from the beginning in another "
                "`output_dir`, or lower `max_steps` to what is trained."
            )
        super()._load_optimizer_and_scheduler(checkpoint)

    def _issue_warnings_after_load(self, load_result):
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        loaded = {id(value) for name, value in parameters.items() if name not in load_result.missing_keys}
        # A weight that is tied to a stored one is not stored itself.
        missing = [name for name in load_result.missing_keys if id(parameters.get(name)) not in loaded]
        if missing or load_result.unexpected_keys:
            raise CheckpointError(
                f"A checkpoint in {self.args.output_dir} is not one of this model: {len(missing)} weights are missing "
                f"there ({', '.join(missing[:3])}) and {len(load_result.unexpected_keys)} are unknown to the model "
                f"({', '.join(load_result.unexpected_keys[:3])}). Train in another `output_dir`."
            )

    def _load_rng_state(self, checkpoint):
        # Called once on resuming, when every counter of the training loop is in place and before its first step.
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self.restore_running_state(self._running_state(checkpoint))

    def _running_state(self, checkpoint):
        return read_json(_running_state_file(Path(checkpoint), self.args.process_index))


class StopOnSignal(TrainerCallback):
    """On SIGTERM or Ctrl-C, finish the step (and the evaluation due after it), write a checkpoint and exit.

    Clusters send SIGTERM some time before they kill; starting the same command again resumes from that checkpoint. A
    signal to any one process stops all of them after the same step. A second Ctrl-C ends the process at once.
    """

    def __init__(self):
        self.requested = 0  # the number of the signal that this process got,
        self.agreed = 0  # and of the one that all processes stop for after this step

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes the signals over inside the block (in the main thread, the only one that may)."""
        self.requested = self.agreed = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._process = os.getpid()
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def on_step_end(self, args, state, control, **kwargs):
        # `requested` is not written here: a signal that comes while it is exchanged counts one step later.
        agreed = self.requested
        if args.world_size > 1:
            flag = torch.tensor([agreed], device=args.device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            agreed = int(flag.item())
        self.agreed = agreed
        if agreed:
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_save(self, args, state, control, **kwargs):
        if self.agreed:
            stopped = Stopped(self.agreed)
            if state.is_world_process_zero:
                logger.warning(
                    f"{signal.Signals(self.agreed).name}: a checkpoint was written at step {state.global_step} of "
                    f"{state.max_steps} in {args.output_dir}; start the same command again to go on from there. Exit "
                    f"code {stopped.code}."
                )
            raise stopped

    def _on_signal(self, number, frame):
        if os.getpid() != self._process:  # a worker of the data loader, which inherited this
            raise SystemExit(128 + number)
        if number == signal.SIGINT and self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            print("\nStopping after this step; Ctrl-C again stops at once and loses it.", flush=True)
        self.requested = int(number)


def _running_state_file(folder: Path, process_index: int) -> Path:
    return folder / f"running_state_{process_index}.json"
