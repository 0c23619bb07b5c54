import math
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from sensia_trainer.training.callbacks import TrainingWatch, collapse_alarms, non_finite_message, non_finite_terms
from tests.distributed import run_on_processes


def test_non_finite_terms_are_named():
    terms = {"sense": torch.tensor(1.0), "context": torch.tensor(math.nan), "lm": torch.tensor(math.inf)}
    assert non_finite_terms(terms) == ["context", "lm"]
    assert non_finite_terms({"sense": torch.tensor(1.0)}) == []
    message = non_finite_message(["lm"], terms, 12, torch.tensor([5, 9]))
    assert message == "Non-finite loss at step 12: lm = inf; rows of the batch on this process: [5, 9]."
    assert "`rows`" in non_finite_message(["lm"], terms, 12, None)


def one_rank_has_a_nan():
    rank = torch.distributed.get_rank()
    return non_finite_terms({"sense": torch.tensor(0.0), "lm": torch.tensor(math.nan if rank else 0.0)})


@pytest.mark.distributed
def test_all_processes_agree_on_non_finite_terms():
    assert run_on_processes(one_rank_has_a_nan) == [["lm"], ["lm"]]


@pytest.mark.parametrize(
    ("entropy", "words"), [(0.01, "one sense"), (2.76, "nearly alike"), (1.4, None), (0.2, None), (2.6, None)]
)
def test_entropy_alarm(entropy, words):
    alarms = collapse_alarms([{"step": 1, "sense_entropy_target": entropy}], num_senses=16)
    assert len(alarms) == (words is not None)
    assert all(words in alarm for alarm in alarms)


def test_an_alarm_is_raised_when_it_begins_and_not_repeated():
    history = [{"sense_entropy": value} for value in (1.0, 0.01, 0.01, 1.0, 2.77, 0.01)]
    raised = [bool(collapse_alarms(history[: i + 1], 16)) for i in range(len(history))]
    assert raised == [False, True, False, False, True, True]


def test_falling_recall():
    values = (0.2, 0.7, 0.6, 0.5, 0.4, 0.7, 0.1)
    history = [row for value in values for row in ({"loss": 1.0}, {"eval_sense_recall_source_to_target": value})]
    alarms = [collapse_alarms(history[: i + 1], 16) for i in range(1, len(history), 2)]
    assert [bool(alarm) for alarm in alarms] == [False, False, False, True, False, False, True]
    assert alarms[3] == ["eval_sense_recall_source_to_target fell to 0.500, its best was 0.700"]


def test_monitor_counts_skipped_steps_and_writes_alarms_into_the_history(tmp_path):
    monitor, state = TrainingWatch(num_senses=16), TrainerState(log_history=[{"sense_entropy": 0.0, "step": 3}])
    # The scaler halves its scale after infinite gradients, and raises it after a while without.
    scales = [8.0, 4.0, 4.0, 8.0, 4.0]
    for before, after in zip(scales, scales[1:], strict=False):
        for event, scale in ((monitor.on_pre_optimizer_step, before), (monitor.on_optimizer_step, after)):
            optimizer = SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda scale=scale: scale))
            event(None, state, TrainerControl(), optimizer=optimizer)
    assert monitor.counts == {"skipped_batches": 0, "skipped_steps": 2}
    for event in (monitor.on_pre_optimizer_step, monitor.on_optimizer_step):
        event(None, state, TrainerControl(), optimizer=SimpleNamespace(scaler=None))
    assert monitor.counts["skipped_steps"] == 2
    monitor.on_log(TrainingArguments(str(tmp_path), use_cpu=True), state, TrainerControl(), logs={})
    assert state.log_history[-1]["alarm"].startswith("sense_entropy is 0.000 nats: one sense")
