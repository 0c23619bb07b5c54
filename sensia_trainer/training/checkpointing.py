"""Runs that survive being killed at any moment: checkpoints that are whole or absent, and exact resumption.

A checkpoint is written under another name (`writing-checkpoint-N`) and renamed to `checkpoint-N` when everything is on
disk, so whatever looks like a checkpoint is one. Beside what [`~transformers.Trainer`] stores (model, optimizer,
scheduler, loss scale, random states, logged history) it holds the sums that the next log line is made of, so that the
history of a resumed run is that of a run nobody stopped.
"""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, rotate_checkpoints
from transformers.utils import logging

from .sampling import LengthGroupedSampler


logger = logging.get_logger(__name__)

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start the same command again


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; the ones before it are untouched."""


class Preempted(SystemExit):
    """The process was asked to end (SIGTERM) and has written a checkpoint; its exit code is 75."""

    def __init__(self):
        super().__init__(EXIT_PREEMPTED)


class ResumableTrainer(Trainer):
    """[`~transformers.Trainer`] whose checkpoints are whole or absent, and which stops cleanly on SIGTERM.

    Resuming (`train(resume_from_checkpoint=...)`) is exact on the CPU, in weights and in logged history, as long as
    the dataset, the settings and the number of processes are the same and `ignore_data_skip` is off.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._length_grouped = None
        self._stop = StopOnSigterm()
        self.add_callback(self._stop)

    def train(self, *args, **kwargs):
        with self._stop.listening():
            return super().train(*args, **kwargs)

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(dataset)
        # `Trainer` draws this order from the random state of each process: from the second epoch on, it would differ
        # between processes and after resuming.
        self._length_grouped = LengthGroupedSampler(
            dataset[self.args.length_column_name][:],
            self.args.train_batch_size * self.args.world_size,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )
        return self._length_grouped

    def _run_epoch(self, *, epoch, **kwargs):
        # On several processes, the loader that skips the batches before a checkpoint does not tell the sampler.
        if self._length_grouped is not None:
            self._length_grouped.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def running_state(self) -> dict:
        """What this process has accumulated since the last log line, as JSON holds it; a subclass adds its own."""
        return {"loss_sum": self._tr_loss.item(), "last_logged_step": self._globalstep_last_logged}

    def restore_running_state(self, state: dict) -> None:
        """The inverse of [`running_state`]."""
        self._tr_loss.fill_(state["loss_sum"])
        self._globalstep_last_logged = state["last_logged_step"]
        self._total_loss_scalar = -state["loss_sum"]  # `train_loss` is the mean over the steps of this call alone

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        # A pickle; `settings.json` and `metrics.json` say the same, and nobody need unpickle what was downloaded.
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model, trial):
        run_folder = Path(self._get_output_dir(trial))
        folder = run_folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        writer = self.args.should_save
        self.store_flos()
        if self.state.best_global_step:
            best = run_folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            if best == folder or best.is_dir():
                self.state.best_model_checkpoint = str(best)

        with written_whole(folder, writer=writer, wait=self.accelerator.wait_for_everyone) as temporary:
            self.save_model(str(temporary), _internal_call=True)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(temporary))
                self._save_scaler(str(temporary))
                self._save_rng_state(str(temporary))
                running_state = json.dumps(self.running_state())
                _running_state_file(temporary, self.args.process_index).write_text(running_state, encoding="utf-8")
            if writer:
                for stateful in [*self.callback_handler.callbacks, self.control]:
                    if isinstance(stateful, ExportableState):
                        self.state.stateful_callbacks[type(stateful).__name__] = stateful.state()
                self.state.save_to_json(str(temporary / TRAINER_STATE_NAME))

        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        if writer:
            rotate_checkpoints(str(run_folder), self.args.save_total_limit, self.state.best_model_checkpoint)

    def _load_rng_state(self, checkpoint):
        # Called once on resuming, when every counter of the training loop is in place and before its first step.
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            file = _running_state_file(Path(checkpoint), self.args.process_index)
            if file.is_file():
                self.restore_running_state(json.loads(file.read_text(encoding="utf-8")))


class StopOnSigterm(TrainerCallback):
    """On SIGTERM, finish the step (and the evaluation due after it), write a checkpoint and exit with code 75.

    Clusters send SIGTERM some time before they kill; starting the same command again resumes from that checkpoint. A
    signal to any one process stops all of them after the same step.
    """

    def __init__(self):
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGTERM over inside the block (in the main thread, the only one that may)."""
        self.requested = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:
            flag = torch.tensor([int(self.requested)], device=args.device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            self.requested = bool(flag.item())
        if self.requested:
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_save(self, args, state, control, **kwargs):
        if self.requested:
            logger.warning(
                f"SIGTERM: a checkpoint was written at step {state.global_step} of {state.max_steps} in "
                f"{args.output_dir}; start the same command again to go on from there. Exit code {EXIT_PREEMPTED}."
            )
            raise Preempted

    def _on_signal(self, signum, frame):
        self.requested = True


@contextmanager
def written_whole(folder: Path, *, writer: bool = True, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Gives a temporary folder to write into, which becomes `folder` when the block ends without an error.

    Args:
        folder (`Path`): The folder to appear, whole; one of that name is replaced.
        writer (`bool`, *optional*, defaults to `True`): Whether this process makes, renames and removes folders.
        wait (`Callable`, *optional*): Waits for all processes.

    Raises:
        CheckpointError: when the block or the file system fails; then nothing is left of the temporary folder.
    """
    temporary = folder.with_name(f"writing-{folder.name}")
    if writer:
        for stale in folder.parent.glob("writing-*"):  # of a run that was killed while writing
            shutil.rmtree(stale, ignore_errors=True)
    try:
        if writer:
            temporary.mkdir(parents=True)
        wait()
        yield temporary
        wait()
        if writer:
            _flush(temporary)
            _replace(folder, temporary)
        wait()
    except Exception as error:
        if writer:
            shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_failure(folder, error)) from error


def _flush(folder: Path) -> None:
    """Everything in `folder` reaches the disk before its name does, or a power cut could leave an empty checkpoint."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(folder: Path, temporary: Path) -> None:
    if folder.exists():
        replaced = folder.with_name(f"writing-replaced-{folder.name}")
        folder.rename(replaced)
        temporary.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        temporary.rename(folder)


def _failure(folder: Path, error: Exception) -> str:
    last = get_last_checkpoint(str(folder.parent)) if folder.parent.is_dir() else None
    free = shutil.disk_usage(folder.parent).free / 1e6 if folder.parent.is_dir() else 0.0
    return (
        f"{folder} could not be written ({type(error).__name__}: {error}); {free:,.0f} MB are free there. What was "
        f"written of it is removed; the last complete checkpoint is {last}. Free space or lower `save_total_limit`, "
        "then start the same command again: it resumes from that checkpoint."
    )


def _running_state_file(folder: Path, process_index: int) -> Path:
    return folder / f"running_state_{process_index}.json"
