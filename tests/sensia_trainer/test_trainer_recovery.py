"""An adaptation killed at any moment and resumed ends with the same weights, frozen senses and logged history."""

import json
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from sensia_trainer.trainer import SensiaTrainer
from sensia_trainer.utils.launching import EXIT_PREEMPTED
from tests.distributed import run_in_process, run_on_processes
from tests.tiny import tiny_texts, tiny_trainer


# 12 steps, 6 an epoch; polish begins at step 6. Logged every fifth step, saved every second: sums are carried over.
SETTINGS = dict(save_strategy="steps", save_steps=2, save_total_limit=2, logging_steps=5, eval_rows=6, eval_steps=4)
SETTINGS |= dict(metric_for_best_model="target_perplexity", greater_is_better=False)


class Signal(TrainerCallback):
    def __init__(self, signal_number, step):
        self.signal_number, self.step = signal_number, step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and args.process_index == 0:
            os.kill(os.getpid(), self.signal_number)


class KilledWhileSaving(SensiaTrainer):
    """Dies in the checkpoint of step 10, when its weights are written and the rest is not."""

    def _save_rng_state(self, output_dir):
        if self.state.global_step == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_rng_state(output_dir)


def adapt(folder, settings, signal_number=None, step=None, trainer_class=SensiaTrainer):
    """Starts or resumes the adaptation in `folder`, the way a training script does; what it logged at the end."""
    callbacks = [Signal(signal_number, step)]
    trainer = tiny_trainer(folder, trainer_class=trainer_class, callbacks=callbacks, **SETTINGS | settings)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if Path(folder).is_dir() else None)
    trainer.save_model(folder)
    rows = [{k: v for k, v in row.items() if "per_second" not in k} for row in trainer.state.log_history]
    frozen = {id(parameter) for parameter in trainer.phase_callback.frozen}  # until the end
    result = {
        "history": [row for row in rows if "train_loss" not in row],
        "best": [trainer.state.best_global_step, trainer.state.best_metric],
        "frozen": [
            name
            for name, weight in trainer.model.named_parameters()
            if id(weight) in frozen or not weight.requires_grad
        ],
    }
    if trainer.is_world_process_zero():
        Path(folder, "result.json").write_text(json.dumps(result))


def assert_same_run(folder, expected):
    assert json.loads((folder / "result.json").read_text()) == json.loads((expected / "result.json").read_text())
    weights, expected_weights = (load_file(path / "model.safetensors") for path in (folder, expected))
    assert weights.keys() == expected_weights.keys()
    assert [name for name in weights if not torch.equal(weights[name], expected_weights[name])] == []


@pytest.mark.parametrize(
    "settings",
    [
        {"polish_freeze": "vectors"},
        {"polish_freeze": "modules", "sense_pooling": "contextual", "gradient_accumulation_steps": 2, "rows": 120}
        | {"source_lm_weight": 0.5, "texts": {"source": tiny_texts("en"), "target": tiny_texts("id")}},
    ],
    ids=["vectors", "modules"],
)
def test_killed_five_times(tmp_path, settings):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_in_process(adapt, str(whole), settings) == 0
    assert json.loads((whole / "result.json").read_text())["frozen"] != []
    for step in sorted(random.Random(1).sample(range(3, 10), 4)):
        assert run_in_process(adapt, str(killed), settings, signal.SIGKILL, step) == -signal.SIGKILL
    assert run_in_process(adapt, str(killed), settings, None, None, KilledWhileSaving) == -signal.SIGKILL
    assert (killed / "writing-checkpoint-10").is_dir()
    assert get_last_checkpoint(str(killed)) == str(killed / "checkpoint-8")
    assert run_in_process(adapt, str(killed), settings) == 0
    assert_same_run(killed, whole)


def adapt_on_ranks(folder, settings, signal_number=None, step=None):
    try:
        adapt(folder, settings, signal_number, step)
    except SystemExit as exit:
        return exit.code
    return 0


@pytest.mark.distributed
def test_sigterm_to_one_of_two_processes_stops_both_and_resumes_exactly(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = {"per_device_train_batch_size": 4}
    assert run_on_processes(adapt_on_ranks, str(whole), settings) == [0, 0]
    assert run_on_processes(adapt_on_ranks, str(stopped), settings, signal.SIGTERM, 7) == [EXIT_PREEMPTED] * 2
    assert get_last_checkpoint(str(stopped)) == str(stopped / "checkpoint-7")
    assert run_on_processes(adapt_on_ranks, str(stopped), settings) == [0, 0]
    assert_same_run(stopped, whole)


class StoppedLater(TrainerCallback):
    """Asks to stop at a step, as SIGTERM does, where nothing else would be saved."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 9:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_is_a_checkpoint_where_only_the_best_are_saved(tmp_path):
    fields = dict(SETTINGS, save_strategy="best", eval_steps=3, learning_rate=0.2, save_total_limit=None)
    fields |= dict(metric_for_best_model="overlap_recall_source_to_target", greater_is_better=True)  # never a new best
    trainer = tiny_trainer(tmp_path, callbacks=[StoppedLater()], **fields)
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == EXIT_PREEMPTED
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-9")
