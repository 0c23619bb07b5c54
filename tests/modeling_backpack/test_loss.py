"""The language-modelling loss with and without logits, against `cross_entropy` and its gradient on full logits."""

import pytest
import torch
from torch.nn import functional as F

import modeling_backpack.modeling_backpack as implementation
from modeling_backpack.modeling_backpack import next_token_loss
from tests.modeling_backpack.tiny import VOCAB_SIZE, random_ids, tiny_backpack


def plain_loss(logits, labels, label_smoothing, divisor=None):
    total = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=label_smoothing, reduction="sum"
    )
    return total / (divisor or (labels[:, 1:] != -100).sum())


@pytest.fixture
def problem():
    hidden = torch.randn(3, 7, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 12, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 31, (3, 7))
    labels[0, 4:] = -100
    labels[2, :] = -100
    return hidden, weight, labels


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("divisor", [None, 5])
def test_blocked_loss_and_gradient(monkeypatch, problem, label_smoothing, rows, divisor):
    monkeypatch.setattr(implementation, "LOGITS_BUDGET", 4 * 31 * rows)
    hidden, weight, labels = problem
    expected = plain_loss(hidden @ weight.T, labels, label_smoothing, divisor)
    gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    loss = next_token_loss(hidden, weight, labels, label_smoothing, divisor)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(3 * loss, (hidden, weight)), gradients):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradient_of_one_input_only(problem):
    hidden, weight, labels = problem
    expected = torch.autograd.grad(plain_loss(hidden @ weight.T, labels, 0.1), hidden)[0]
    loss = next_token_loss(hidden, weight.detach(), labels, 0.1)
    torch.testing.assert_close(torch.autograd.grad(loss, hidden)[0], expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert not next_token_loss(hidden, weight, labels).requires_grad


def test_no_labels_at_all(problem):
    hidden, weight, _ = problem
    loss = next_token_loss(hidden, weight, torch.full((3, 7), -100))
    assert loss == 0
    assert not torch.autograd.grad(loss, hidden)[0].any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.05])
def test_model_loss(label_smoothing):
    input_ids = random_ids(2, 9)
    labels = input_ids.clone()
    labels[1, 5:] = -100
    results = []
    for skip_logits in (False, True):
        model = tiny_backpack(dtype=torch.float64)
        outputs = model(input_ids, labels=labels, skip_logits=skip_logits, label_smoothing=label_smoothing)
        outputs.loss.backward()
        assert (outputs.logits is None) == skip_logits
        results.append((outputs.loss, {name: p.grad for name, p in model.named_parameters()}))
    with torch.no_grad():
        logits = model(input_ids).logits
    # transformers' own loss computes in float32
    torch.testing.assert_close(results[0][0].double(), plain_loss(logits, labels, label_smoothing), rtol=0, atol=1e-5)
    torch.testing.assert_close(results[1][0], plain_loss(logits, labels, label_smoothing), rtol=0, atol=1e-12)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-4, atol=1e-5)


def test_loss_is_divided_by_the_items_of_the_whole_batch():
    model, input_ids = tiny_backpack(), random_ids(2, 9)
    for skip_logits in (False, True):
        mean = model(input_ids, labels=input_ids, skip_logits=skip_logits).loss
        scaled = model(input_ids, labels=input_ids, skip_logits=skip_logits, num_items_in_batch=torch.tensor(32)).loss
        torch.testing.assert_close(scaled, mean * 16 / 32)


def test_loss_under_autocast_is_float32():
    model, input_ids = tiny_backpack(), random_ids(2, 9)
    exact = model(input_ids, labels=input_ids, skip_logits=True).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids, labels=input_ids, skip_logits=True).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_no_block_of_logits_exceeds_the_budget(monkeypatch):
    monkeypatch.setattr(implementation, "LOGITS_BUDGET", 4 * VOCAB_SIZE * 4)
    sizes = []
    log_softmax = torch.log_softmax

    def watched(logits, **kwargs):
        sizes.append(len(logits))
        return log_softmax(logits, **kwargs)

    monkeypatch.setattr(torch, "log_softmax", watched)
    input_ids = random_ids(2, 8)
    tiny_backpack()(input_ids, labels=input_ids, skip_logits=True)
    assert sizes == [4, 4, 4, 2]


@pytest.mark.parametrize("skip_logits", [False, True])
def test_labels_shifted_already(skip_logits):
    """`shift_labels`, as sequence parallelism and padding-free collators give: position t predicts label t."""
    model, input_ids = tiny_backpack(), random_ids(2, 9)
    shifted = random_ids(2, 9, seed=1)
    shifted[1, 6:] = -100
    logits = model(input_ids).logits
    loss = model(input_ids, labels=input_ids, shift_labels=shifted, skip_logits=skip_logits).loss
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), shifted.flatten()))
