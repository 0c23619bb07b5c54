"""What `examples/benchmark.py adapt` counts and prints."""

import importlib
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="module")
def benchmark():
    return importlib.import_module("examples.benchmarks.adapt")


def test_useful_operations_are_those_of_every_product(benchmark):
    """Counted position by position: source sentences of 3 and 1 tokens, targets of 2 and 2, three labels."""
    batch = {
        "input_ids": torch.tensor([[5, 6, 7], [5, 8, 9], [8, 6, 0]]),
        "sentences": torch.tensor([[0, 0, 0], [1, 2, 2], [3, 3, -1]]),
        "lengths": torch.tensor([3, 1, 2, 2]),
        "num_labels": torch.tensor([2, 1]),
    }
    d, layers, senses, vocabulary = 64, 2, 16, 50264
    products = 0
    for length in (3, 1, 2, 2):
        for position in range(1, length + 1):
            products += layers * (3 * d * d + d * d + 4 * d * d + 4 * d * d)  # query, key, value; output; MLP
            products += layers * position * (d + d)  # scores and their weighted sum
            products += 2 * d * d + position * (d + senses * d)  # sense weights: queries, keys; scores; mixture
    for _ in {5, 6, 7, 8, 9}:  # each token's senses once
        products += 4 * d * d + 4 * d * d + 4 * d * d + 4 * d * senses * d
    products += 3 * d * vocabulary
    args = SimpleNamespace(hidden_size=d, layers=layers)
    # A multiplication and an addition each; backward costs twice what forward does.
    assert benchmark.useful_operations(args, batch) == 2 * 3 * products


def test_tables_hold_what_was_measured(benchmark):
    row = dict(way="ours", pairs=16, seconds_per_step=2.0, pairs_per_second=8.0, peak_memory_gb=5.04)
    row |= dict(useful_gflop_per_step=300.0, fraction_of_matrix_product_rate=0.714)
    ratios = dict.fromkeys(("speed_to_published_at_equal_batches", "memory_to_published_at_equal_batches"), 0.25)
    ratios |= dict(speed_to_published=11.27, speed_to_plain_at_equal_shapes=1.456, memory_to_plain_at_equal_shapes=0.5)
    batches = [{"pairs": 4096, "chunk": 64, "step_memory_gb": 0.123, "pairs_per_second": 55.4}]
    text = benchmark.tables({"rows": [row], "ratios": ratios, "contrastive_batches": batches})
    assert "| this trainer | 16 | 8.00 | 5.0 | 150 | 71% |" in text
    assert "11.3 times as fast" in text and "1.46 times as fast" in text
    assert "| 4,096 | 64 | 0.12 | 55 |" in text
