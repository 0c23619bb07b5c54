"""What a training says: the plan, short lines of logs, and no library's chatter."""

from types import SimpleNamespace

import pytest

from sensia_trainer.training.checkpointing import ResumableTrainer
from sensia_trainer.training.progress import amount, duration, log_line, plan_line, size
from tests.tiny import tiny_trainer


ARGS = SimpleNamespace(per_device_train_batch_size=32, gradient_accumulation_steps=1, world_size=2)


def test_the_plan():
    line = plan_line("60,000 pairs (2.1 million tokens)", 500, 500, ARGS, (3_000_000, 3_200_000))
    assert line == (
        "Training: 60,000 pairs (2.1 million tokens); 500 steps of 64; 3.2 million parameters, 3.0 million of them "
        "trained, 49 MB with gradients and optimizer"
    )
    assert "500 steps of 64, 100 of them left; 3.2 million parameters, 51 MB" in plan_line(
        "pairs", 500, 100, ARGS, (3_200_000, 3_200_000)
    )


@pytest.mark.parametrize(
    "logs, line",
    [
        (
            {"loss": 2.358, "loss_sense": 0.14, "loss_lm": 3.604, "phase": 2, "tokens_per_second": 8541.3, "epoch": 1},
            "loss 2.36 (sense 0.14, lm 3.60), polish, 8,541 tokens/s",
        ),
        ({"loss": 3.0, "gate": 0.0123, "learning_rate": 1e-3}, "loss 3.00, gate 0.012"),
        (
            {"eval_sense_recall_source_to_target": 0.7, "eval_sense_recall_target_to_source": 0.69,
             "eval_target_bits_per_byte": 2.5, "eval_source_bits_per_byte": 2.99},
            "recall@1 by senses 0.70 → 0.69 ←; bits per byte 2.50 (target), 2.99 (source)",
        ),
        ({"eval_loss": 3.2, "eval_runtime": 1.0}, "held-out loss 3.200"),
        ({"eval_perplexity": 24.5}, "held-out perplexity 24.5"),
        ({"train_runtime": 3.0, "train_loss": 2.0}, None),
    ],
)  # fmt: skip
def test_a_row_of_logs_in_a_few_words(logs, line):
    assert log_line(logs, 500) == line


def test_quantities():
    assert [duration(s) for s in (40, 420, 12_000, 432_000)] == ["40 seconds", "7 minutes", "3 h 20 min", "5 days"]
    assert [amount(n) for n in (850, 61_200, 3_156_864, 1.7e9)] == ["850", "61,200", "3.2 million", "1.7 billion"]
    assert [size(n) for n in (51e6, 1.24e9)] == ["51 MB", "1.2 GB"]


def test_a_training_says_what_it_does_and_nothing_else(tmp_path, capsys):
    trainer = tiny_trainer(tmp_path, max_steps=8, logging_steps=4, disable_tqdm=True)
    trainer.train()
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("Training: ") and " pairs (" in first and "8 steps of" in first
    assert rest[0].startswith("step 4: loss ")
    assert rest[1].startswith("about ") and "left at the rate of the first steps; memory: " in rest[1]
    assert rest[2].startswith("step 8: loss ") and len(rest) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"input_ids": [1] * 500}] * 4, "4 blocks (2,000 tokens)"),
        ([{"x": 1}] * 3, "3 examples"),
        ([], "0 examples"),
        (iter([]), "a stream of examples"),
    ],
)
def test_what_is_trained_on(rows, words):
    assert ResumableTrainer.describe_data(SimpleNamespace(train_dataset=rows)) == words
