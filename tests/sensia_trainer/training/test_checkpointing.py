"""Processes are killed at seeded random steps and resumed: weights and logged history must come out bit for bit."""

import errno
import json
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from sensia_trainer.training.checkpointing import EXIT_PREEMPTED, CheckpointError, ResumableTrainer, written_whole
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
    """Does something to the process at a step: `kill` or `terminate`."""

    def __init__(self, action, step):
        self.action, self.step = action, step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step != self.step:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)


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


def train(folder, action=None, step=None, trainer_class=ResumableTrainer):
    """Starts or resumes the run in `folder`, the way a training script does."""
    trainer = trainer_class(
        Net(),
        TrainingArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=4,
            learning_rate=0.01,
            save_steps=SAVE_EVERY,
            logging_steps=LOG_EVERY,
            disable_tqdm=True,
            use_cpu=True,
            save_total_limit=2,
        ),
        train_dataset=Points(),
        callbacks=[Disturb(action, step)],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if Path(folder).is_dir() else None)
    trainer.save_model(folder)
    history = [{k: v for k, v in row.items() if "train_" not in k} for row in trainer.state.log_history]
    Path(folder, "history.json").write_text(json.dumps(history))


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
        assert run_in_process(train, str(tmp_path), "kill", step) == -signal.SIGKILL
    assert run_in_process(train, str(tmp_path), None, None, KilledWhileSaving) == -signal.SIGKILL
    # What was being written is there, but not under the name of a checkpoint.
    assert (tmp_path / "writing-checkpoint-20" / "model.safetensors").is_file()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-15")
    assert run_in_process(train, str(tmp_path)) == 0
    assert_same_result(tmp_path, uninterrupted)
    assert not list(tmp_path.glob("writing-*"))


def test_sigterm_writes_a_checkpoint_and_exits_with_the_documented_code(tmp_path, uninterrupted):
    assert run_in_process(train, str(tmp_path), "terminate", 8) == EXIT_PREEMPTED == 75
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-8")
    assert run_in_process(train, str(tmp_path)) == 0
    assert_same_result(tmp_path, uninterrupted)


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
