"""What a training says: the plan, short lines of logs, and no library's chatter."""

import re
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from sensia_trainer.training.checkpointing import ResumableTrainer
from sensia_trainer.training.estimate import (
    Batch,
    Trained,
    average_batch,
    sizes_of,
    training_memory,
    training_operations,
)
from sensia_trainer.training.progress import (
    amount,
    cost_line,
    duration,
    expected_cost,
    log_line,
    plan_line,
    size,
    trained_of,
)
from tests.tiny import tiny_model, tiny_texts, tiny_tokenizer, tiny_trainer


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


def test_time_and_memory_before_the_first_step():
    cpu = torch.device("cpu")
    line = cost_line((7e9, 1.5e9), 600, cpu, rate=1e10)  # a second at 70% of the rate
    assert line == "; about 10 minutes on this machine and 2.4 GB of memory"
    assert cost_line((7e9, 1.5e9), 600, torch.device("meta")) == "; about 2.4 GB of memory"
    learned_words = cost_line((7e9, 1.5e9), 600, cpu, rate=1e10, used=4e9)  # the process had more in use before
    assert learned_words.endswith("and 4.0 GB of memory")
    assert cost_line(None, 600, cpu) == cost_line((1, 1), 0, cpu) == ""


@pytest.mark.parametrize("kind", ["pairs", "text", "blocks"])
def test_the_cost_is_that_of_the_formulas(tmp_path, kind):
    if kind != "blocks":
        texts = {"target": tiny_texts("id")} if kind == "text" else None
        trainer = tiny_trainer(tmp_path, texts=texts, per_device_train_batch_size=6, gradient_accumulation_steps=2)
        rows = trainer.train_dataset
        tokens = [[len(ids) for ids in rows[f"{side}_ids"]] for side in ("source", "target")]
        pieces = trainer.data_collator.texts["target"].dataset["ids"] if texts else []
        beside = [(0.25, sum(map(len, pieces)) / len(pieces))] if texts else []
        mean = [sum(side) / len(rows) for side in tokens]
        step = average_batch(12, *mean, 280, texts=beside)
        longest = max(range(len(rows)), key=lambda row: tokens[0][row] + tokens[1][row])  # fewer than 100 rows
        at_once = average_batch(6, *(side[longest] for side in tokens), 280, texts=beside)
        share = sum(number * n / (number * n + sum(mean)) for number, n in beside)
        told = f" and text of the target language ({share:.0%} of all tokens)" if texts else ""
        assert trainer.describe_data().endswith(f" tokens){told}")
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=8))
        args = TrainingArguments(tmp_path, use_cpu=True, per_device_train_batch_size=3, report_to="none")
        trainer = ResumableTrainer(model, args, train_dataset=[{"input_ids": [1] * 8}] * 4)
        step = at_once = Batch(24, 3 * 36, 24, 21)
    sizes = sizes_of(trainer.model.config)
    expected = training_operations(sizes, step), training_memory(sizes, at_once).total
    assert trainer.expected_cost() == pytest.approx(expected)


def test_an_unknown_configuration_has_no_cost():
    model = tiny_model(tiny_tokenizer())
    model.config = SimpleNamespace()
    args = SimpleNamespace(world_size=1, fsdp="", bf16=False, fp16=False)
    assert expected_cost(model, None, None, args) is None


def test_what_learns_is_read_off_the_model():
    model = tiny_model(tiny_tokenizer())
    assert trained_of(model) == Trained()
    model.requires_grad_(False)
    assert trained_of(model) == Trained(backbone=False, words=False, senses=False)
    model.backpack.sense_network.requires_grad_(True)
    assert trained_of(model) == Trained(backbone=False, words=False)
    model.get_input_embeddings().requires_grad_(True)
    assert trained_of(model) == Trained(backbone=False)


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
    assert log_line(logs) == line


def test_quantities():
    assert [duration(s) for s in (40, 420, 12_000, 432_000)] == ["40 seconds", "7 minutes", "3 h 20 min", "5 days"]
    assert [amount(n) for n in (850, 61_200, 3_156_864, 1.7e9)] == ["850", "61,200", "3.2 million", "1.7 billion"]
    assert [size(n) for n in (51e6, 1.24e9)] == ["51 MB", "1.2 GB"]


def test_a_training_says_what_it_does_and_nothing_else(tmp_path, capsys):
    trainer = tiny_trainer(tmp_path, max_steps=8, logging_steps=4, disable_tqdm=True)
    trainer.train()
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("Training: ") and " pairs (" in first and "8 steps of" in first
    said = re.search(r"; about \d+ seconds on this machine and ([\d.]+) GB of memory$", first)
    assert said and float(said[1]) >= 1.2, first  # more where the tests before it took more
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
