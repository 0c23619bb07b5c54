import pytest
import torch
import torch.nn.functional as F

from sensia_trainer.evaluation.retrieval import retrieval_metrics
from tests.reference.evaluation import retrieval


def unit(*shape, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


@pytest.mark.parametrize("chunk_size", [1, 7, 1024])
def test_equals_plain_loops_in_both_directions(chunk_size):
    source = unit(40, 6)
    target = F.normalize(source + 0.6 * torch.randn(40, 6, dtype=torch.float64), dim=-1)
    target[5], source[9] = target[4], source[8]  # duplicated sentences: ties
    metrics = retrieval_metrics(source, target, chunk_size=chunk_size)
    for direction, (a, b) in {"source_to_target": (source, target), "target_to_source": (target, source)}.items():
        hits, margins, ranks = retrieval(a, b)
        assert metrics[f"recall_{direction}"] == pytest.approx(sum(hits) / 40, abs=1e-6)
        assert metrics[f"margin_{direction}"] == pytest.approx(sum(margins) / 40, abs=1e-9)
        assert metrics[f"mean_rank_{direction}"] == pytest.approx(sum(ranks) / 40, abs=1e-5)
    assert 0.1 < metrics["recall_source_to_target"] < 0.95


def test_collapsed_vectors_score_like_a_coin_and_not_like_success():
    same = unit(1, 16, dtype=torch.float32).expand(50, 16)
    metrics = retrieval_metrics(same, same)
    assert metrics["recall_source_to_target"] == pytest.approx(1 / 50)
    assert metrics["mean_rank_target_to_source"] == pytest.approx(25.5)


def test_perfect_retrieval_and_half_precision():
    vectors = torch.eye(8)
    metrics = retrieval_metrics(vectors.bfloat16(), vectors.bfloat16())
    assert metrics["recall_source_to_target"] == metrics["recall_target_to_source"] == 1.0
    assert metrics["mean_rank_source_to_target"] == 1.0
    assert metrics["margin_source_to_target"] == pytest.approx(1.0)


def test_autocast_of_the_model_does_not_round_cosines():
    torch.manual_seed(0)
    source, target = unit(40, 16).float(), unit(40, 16).float()
    expected = retrieval_metrics(source, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert retrieval_metrics(source, target) == expected


def test_directions_differ():
    source = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1]]), dim=-1)
    target = F.normalize(torch.tensor([[1.0, 0.2], [1.0, 0.1]]), dim=-1)
    metrics = retrieval_metrics(source, target)
    assert metrics["recall_source_to_target"] == 0.5
    assert metrics["recall_target_to_source"] == 0.5
    assert metrics["mean_rank_source_to_target"] == 1.5


def test_bootstrap_intervals_hold_what_they_are_of():
    source = unit(60, 8)
    target = F.normalize(source + 0.8 * unit(60, 8), dim=-1)
    metrics = retrieval_metrics(source, target, bootstrap=200, seed=3)
    for name in ("recall", "margin", "mean_rank"):
        for direction in ("source_to_target", "target_to_source"):
            low, high = metrics[f"{name}_{direction}_interval"]
            assert low <= metrics[f"{name}_{direction}"] <= high and low < high
    assert metrics == retrieval_metrics(source, target, bootstrap=200, seed=3)


@pytest.mark.parametrize(
    "source, target, message",
    [
        (torch.eye(3), torch.eye(4), "equal shape"),
        (torch.eye(3)[:1], torch.eye(3)[:1], "at least two pairs"),
        (torch.eye(3) * 2, torch.eye(3), "`source` must hold finite unit vectors; row 0 has norm 2"),
        (torch.eye(3), torch.full((3, 3), float("nan")), "`target`.*row 0 has norm nan"),
    ],
)
def test_bad_input(source, target, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(source, target)
