"""Processes are killed at seeded random steps and resumed: weights and logged history must come out bit for bit."""

import errno
import json
import os
import random
import shutil
import signal
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from sensia_trainer.training.checkpoint_files import (
    CheckpointError,
    check_checkpoint,
    checkpoints,
    newest_whole_checkpoint,
    write_manifest,
    written_whole,
)
from sensia_trainer.training.checkpointing import ResumableTrainer, StopOnSignal
from sensia_trainer.utils.launching import EXIT_INTERRUPTED, EXIT_PREEMPTED
from tests.distributed import run_in_process


STEPS, SAVE_EVERY, LOG_EVERY = 24, 5, 3


class Points(Dataset):
    def __init__(self, rows=40):
        self.x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return {"x": self.x[row], "labels": self.x[row].sum()}


class Net(nn.Module):
    """Dropout, so that the random state matters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, x, labels):
        return {"loss": (self.layers(x).squeeze(-1) - labels).square().mean()}


class Disturb(TrainerCallback):
    """Sends the process a signal at the end of a step, or when its checkpoint is written (`at="on_save"`)."""

    def __init__(self, signal_number, step, at="on_step_end"):
        self.signal_number, self.step = signal_number, step
        setattr(self, at, self.disturb)

    def disturb(self, args, state, control, **kwargs):
        if self.signal_number and state.global_step == self.step:
            os.kill(os.getpid(), self.signal_number)


class KilledWhileSaving(ResumableTrainer):
    """Dies when the weights of the checkpoint of step 20 are written, and the rest is not."""

    def _save_rng_state(self, output_dir):
        if self.state.global_step == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_rng_state(output_dir)


class FullDisk(ResumableTrainer):
    """Runs out of space in the checkpoint of step 10, after its weights."""

    def _save_optimizer_and_scheduler(self, output_dir):
        if self.state.global_step == 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        super()._save_optimizer_and_scheduler(output_dir)


def train(folder, signal_number=None, step=None, trainer_class=ResumableTrainer, at="on_step_end", **fields):
    """Starts or resumes the run in `folder`, the way a training script does."""
    settings = dict(
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        save_steps=SAVE_EVERY,
        logging_steps=LOG_EVERY,
        disable_tqdm=True,
        use_cpu=True,
        save_total_limit=2,
    )
    trainer = trainer_class(
        Net(),
        TrainingArguments(folder, **settings | fields),
        train_dataset=Points(),
        callbacks=[Disturb(signal_number, step, at)],
    )
    trainer.train(resume_from_checkpoint=bool(checkpoints(folder)))
    trainer.save_model(folder)
    history = [{k: v for k, v in row.items() if "train_" not in k} for row in trainer.state.log_history]
    Path(folder, "history.json").write_text(json.dumps(history))
    return trainer


def result(folder):
    return json.loads(Path(folder, "history.json").read_text()), load_file(Path(folder, "model.safetensors"))


def assert_same_result(folder, expected):
    (history, weights), (expected_history, expected_weights) = result(folder), expected
    assert history == expected_history
    assert all(torch.equal(weights[name], expected_weights[name]) for name in expected_weights)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("uninterrupted"))
    assert run_in_process(train, folder) == 0
    return result(folder)


def test_history_is_complete(uninterrupted):
    history, _ = uninterrupted
    assert [row["step"] for row in history] == [*range(LOG_EVERY, STEPS + 1, LOG_EVERY), STEPS]
    assert history[0]["loss"] > history[-2]["loss"]


def test_killed_five_times_gives_the_same_weights_and_history(tmp_path, uninterrupted):
    for step in sorted(random.Random(0).sample(range(2, 20), 4)):
        assert run_in_process(train, str(tmp_path), signal.SIGKILL, step) == -signal.SIGKILL
    assert run_in_process(train, str(tmp_path), None, None, KilledWhileSaving) == -signal.SIGKILL
    # What was being written is there, but not under the name of a checkpoint.
    assert (tmp_path / "writing-checkpoint-20" / "model.safetensors").is_file()
    assert checkpoints(tmp_path)[-1].name == "checkpoint-15"
    assert run_in_process(train, str(tmp_path)) == 0
    assert_same_result(tmp_path, uninterrupted)
    assert not list(tmp_path.glob("writing-*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, EXIT_PREEMPTED), (signal.SIGINT, EXIT_INTERRUPTED)])
def test_a_signal_writes_a_checkpoint_and_exits_with_the_documented_code(tmp_path, uninterrupted, number, code):
    assert run_in_process(train, str(tmp_path), number, 8) == code == {15: 75, 2: 130}[number]
    assert checkpoints(tmp_path)[-1].name == "checkpoint-8"
    assert run_in_process(train, str(tmp_path)) == 0
    assert_same_result(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("number", "at", "code"),
    [(signal.SIGKILL, "on_save", -9), (signal.SIGKILL, "on_train_end", -9), (signal.SIGTERM, "on_step_end", 75)],
)
def test_stopped_in_the_last_step_no_step_is_added(tmp_path, uninterrupted, number, at, code):
    assert run_in_process(train, str(tmp_path), number, STEPS, ResumableTrainer, at) == code
    assert not (tmp_path / "model.safetensors").exists()
    for _ in range(2):
        assert train(str(tmp_path)).state.global_step == STEPS
        assert_same_result(tmp_path, uninterrupted)
    assert checkpoints(tmp_path)[-1].name == f"checkpoint-{STEPS}"


def test_a_run_without_steps_left_says_nothing_of_its_loss(tmp_path):
    first, second = (train(str(tmp_path)).state.log_history[-1] for _ in range(2))
    assert first["train_loss"] > 0 and "train_loss" not in second
    assert 0 < first["train_seconds"] <= second["train_seconds"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run with checkpoints at 15 and 20 of 24 steps."""
    folder = tmp_path_factory.mktemp("stopped")
    assert run_in_process(train, str(folder), signal.SIGKILL, 22) == -signal.SIGKILL
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-15", "checkpoint-20"]
    return folder


def damage(file, how):
    if how == "removed":
        file.unlink()
    else:
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(
            content[:middle] + (b"" if how == "cut" else bytes([content[middle] ^ 1]) + content[middle + 1 :])
        )


CHECKPOINT_FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
CHECKPOINT_FILES += ["running_state_0.json", "manifest.json"]


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
@pytest.mark.parametrize("how", ["removed", "cut", "garbled"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, stopped, uninterrupted, caplog, name, how):
    assert {path.name for path in (stopped / "checkpoint-20").iterdir()} == set(CHECKPOINT_FILES)
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    damage(folder / "checkpoint-20" / name, how)
    logging.get_logger("sensia_trainer.training.checkpoint_files").addHandler(caplog.handler)
    train(str(folder))
    # A manifest with a wrong bit may still be one, of other files.
    assert (
        f"checkpoint-20: {'' if name == 'manifest.json' else name}" in caplog.text
        and "going on from checkpoint-15" in caplog.text
    )
    assert_same_result(folder, uninterrupted)
    assert (folder / "damaged-checkpoint-20").is_dir()
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-20", "checkpoint-24"]


def test_without_a_whole_checkpoint_nothing_is_trained(tmp_path, stopped):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    for checkpoint in checkpoints(folder):
        damage(checkpoint / "optimizer.pt", "cut")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint that is whole \(checkpoint-20: optimizer.pt has [\d,]+ of"
    ):
        train(str(folder))
    assert len(checkpoints(folder)) == 2 and not (folder / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match="checkpoint-15 is not whole: optimizer.pt"):
        check_checkpoint(folder / "checkpoint-15")


def test_another_number_of_processes_is_refused(stopped):
    with pytest.raises(CheckpointError, match=r"checkpoint-20 was written by 1 process\(es\); 2 would"):
        newest_whole_checkpoint(stopped, processes=2)


def test_weights_alone_are_not_resumed_from(tmp_path):
    assert run_in_process(partial(train, str(tmp_path), signal.SIGKILL, 8, save_only_model=True)) == -signal.SIGKILL
    with pytest.raises(CheckpointError, match="checkpoint-5 holds weights alone.* 19 steps are left"):
        train(str(tmp_path), save_only_model=True)
    assert train(str(tmp_path), save_only_model=True, max_steps=5).state.global_step == 5  # nothing left to train


def test_a_stop_leaves_what_it_takes_to_go_on_beside_weights_alone(tmp_path):
    stopped = partial(train, str(tmp_path), signal.SIGTERM, 8, save_only_model=True)
    assert run_in_process(stopped) == EXIT_PREEMPTED
    assert train(str(tmp_path), save_only_model=True).state.global_step == STEPS


def test_a_checkpoint_of_another_model_is_refused(tmp_path, stopped):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    weights = load_file(folder / "checkpoint-20" / "model.safetensors")
    weights["layers.9.bias"] = weights.pop("layers.3.bias")
    save_file(weights, folder / "checkpoint-20" / "model.safetensors")
    write_manifest(folder / "checkpoint-20", processes=1)
    with pytest.raises(CheckpointError, match=r"1 weights are missing there \(layers.3.bias\) and 1 are unknown"):
        train(str(folder))


def test_full_disk_names_the_reason_and_keeps_the_last_checkpoint(tmp_path, uninterrupted):
    with pytest.raises(CheckpointError) as error:
        train(str(tmp_path), trainer_class=FullDisk)
    words = ("checkpoint-10", "No space left", "MB are free", "last complete", "checkpoint-5", "save_total_limit")
    assert all(word in str(error.value) for word in words)
    assert sorted(path.name for path in tmp_path.glob("*checkpoint-*")) == ["checkpoint-5"]
    assert run_in_process(train, str(tmp_path)) == 0
    assert_same_result(tmp_path, uninterrupted)


def test_retention_keeps_the_last_checkpoints(tmp_path):
    train(str(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-20", "checkpoint-24"]


def test_written_whole_replaces_a_folder_or_leaves_it(tmp_path):
    folder = tmp_path / "checkpoint-1"
    with written_whole(folder) as temporary:
        (temporary / "a").write_text("old")
        assert not folder.exists()
    with (
        pytest.raises(CheckpointError, match="checkpoint-1 could not be written.*OSError"),
        written_whole(folder) as t,
    ):
        (t / "a").write_text("half")
        raise OSError(28, "No space left on device")
    assert (folder / "a").read_text() == "old"
    with written_whole(folder) as temporary:
        (temporary / "a").write_text("new")
    assert (folder / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


@pytest.mark.parametrize("moment", ["sent", "read"])
def test_a_signal_that_comes_while_processes_ask_each_other_counts_at_the_next_step(tmp_path, monkeypatch, moment):
    def signalled(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    class Flag(list):
        def item(self):
            if moment == "read" and not self[0]:
                signalled()
            return self[0]

    def all_reduce(flag, op):
        if moment == "sent" and not flag[0]:
            signalled()

    monkeypatch.setattr("sensia_trainer.training.checkpointing.dist.all_reduce", all_reduce)
    monkeypatch.setattr("sensia_trainer.training.checkpointing.torch.tensor", lambda values, device: Flag(values))
    args, state, stop = Mock(world_size=2), TrainerState(), StopOnSignal()
    with stop.listening():
        for agreed in (0, signal.SIGTERM):  # nobody knows of it yet at the first step, everybody at the second
            control = stop.on_step_end(args, state, TrainerControl())
            assert (stop.agreed, control.should_save, control.should_training_stop) == (agreed, *[bool(agreed)] * 2)
            if not agreed:
                stop.on_save(args, state, control)  # a checkpoint that is due anyway ends no process alone
        with pytest.raises(SystemExit) as stopped:
            stop.on_save(args, state, control)
    assert stopped.value.code == EXIT_PREEMPTED
