import math

import pytest
import torch

from sensia_trainer.evaluation.metrics import BitextRetrieval, ChoiceAccuracy, TokenPerplexity
from sensia_trainer.evaluation.retrieval import retrieval_metrics


def test_bitext_retrieval():
    vectors = torch.nn.functional.normalize(torch.randn(2, 20, 8), dim=-1)
    result = BitextRetrieval().compute(predictions=vectors[0].tolist(), references=vectors[1].tolist(), bootstrap=20)
    expected = retrieval_metrics(*vectors, bootstrap=20)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value), name


def test_choice_accuracy_in_two_batches():
    metric = ChoiceAccuracy()
    metric.add_batch(predictions=[[-1.0, -2.0], [-3.0, -1.0]], references=[0, 0])
    metric.add_batch(predictions=[[-1.0, -1.0]], references=[0])
    result = metric.compute()
    assert (result["correct"], result["total"], result["ties"]) == (2, 3, 1)


def test_token_perplexity():
    result = TokenPerplexity().compute(predictions=[2.0, 4.0], references=["aé b", "c"], tokens=4)
    assert result["perplexity"] == pytest.approx(math.exp(1.5))
    assert result["nll_per_byte"] == pytest.approx(1.0)  # 5 bytes and 1 byte
    assert result["perplexity_per_word"] == pytest.approx(math.exp(2.0))
