import math

import pytest
import torch

from sensia_trainer.losses import Head
from sensia_trainer.training.distillation import distilled_loss, sense_diversity
from tests.reference import induction as reference


VOCABULARY = 24


def test_diversity_is_the_reference():
    senses = torch.randn(3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(sense_diversity(senses), reference.sense_diversity(senses))


def test_diversity_of_known_senses():
    assert sense_diversity(torch.eye(4)) == 0
    assert sense_diversity(torch.ones(2, 3, 4)) == pytest.approx(1)
    # Two senses at 60 degrees: cos^2 = 1/4.
    assert sense_diversity(torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="`senses` has 1 sense"):
        sense_diversity(torch.ones(1, 4))


@pytest.mark.parametrize("budget", [2**26, 4 * VOCABULARY * 2], ids=["one block", "blocks of two"])
@pytest.mark.parametrize(
    "head", [{}, {"bias": True, "scale": 0.5, "softcap": 3.0}], ids=["plain head", "bias, scale and soft cap"]
)
def test_distillation_is_the_reference(monkeypatch, head, budget):
    monkeypatch.setattr("sensia_trainer.training.distillation.LOGITS_BUDGET", budget)
    monkeypatch.setattr("sensia_trainer.training.distillation.CACHED_ROWS", 3)
    states, base = (torch.randn(2, 4, 6, dtype=torch.float64) for _ in range(2))
    weight, bias = torch.randn(VOCABULARY, 6, dtype=torch.float64), torch.randn(VOCABULARY, dtype=torch.float64)
    labels = torch.randint(0, VOCABULARY, (2, 4))
    labels[0, 1] = -100
    bias = bias if head.get("bias") else None
    settings = {"scale": head.get("scale", 1.0), "softcap": head.get("softcap")}
    leaves = [tensor.requires_grad_() for tensor in (states, weight, bias) if tensor is not None]
    got = distilled_loss(states, base, Head(weight, bias, **settings), labels, share=0.3, temperature=1.7)
    flat = states.flatten(0, 1), base.flatten(0, 1), weight, bias, labels.flatten()
    expected = reference.distilled_loss(*flat, 0.3, 1.7, **settings)
    for ours, plain in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, plain)
    # The base is a teacher: no gradient reaches the head by its logits.
    torch.testing.assert_close(torch.autograd.grad(got.loss, leaves)[0], torch.autograd.grad(expected[0], leaves)[0])
    if bias is None:
        teacher = torch.nn.functional.linear(base, weight).detach()
        student = torch.nn.functional.linear(states, weight)[labels != -100]
        soft = torch.log_softmax(student / 1.7, -1)
        target = torch.softmax(teacher[labels != -100] / 1.7, -1)
        loss = 0.7 * torch.nn.functional.cross_entropy(student, labels[labels != -100])
        loss += 0.3 * 1.7**2 * torch.nn.functional.kl_div(soft, target, reduction="batchmean")
        again = distilled_loss(states, base, Head(weight), labels, share=0.3, temperature=1.7)
        ours, plain = (torch.autograd.grad(value, leaves) for value in (again.loss, loss))
        torch.testing.assert_close(ours, plain)


def test_the_divergence_in_bfloat16_is_not_of_its_rounding():
    torch.manual_seed(0)
    base, weight = torch.randn(64, 128), torch.randn(512, 128)
    states, labels = base + 1e-3 * torch.randn(64, 128), torch.randint(0, 512, (64,))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = distilled_loss(states, base, Head(weight), labels)
    exact = distilled_loss(states.double(), base.double(), Head(weight.double()), labels)
    assert rounded.divergence.item() == pytest.approx(exact.divergence.item(), rel=0.05)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0, 10.0, 20.0])
def test_temperatures_in_float32_with_many_words(temperature):
    """A softmax among 50,000 words, to the power of the temperature, is too small for a float32."""
    torch.manual_seed(0)
    words, share = 50_000, 0.3
    base, weight, labels = torch.randn(3, 8), torch.randn(words, 8), torch.randint(0, words, (3,))
    states = (base + 0.1 * torch.randn(3, 8)).requires_grad_()
    got = distilled_loss(states, base, Head(weight), labels, share=share, temperature=temperature)
    exact = states.detach().double().requires_grad_()
    student, teacher = exact @ weight.double().T, base.double() @ weight.double().T
    soft, target = (torch.log_softmax(logits / temperature, -1) for logits in (student, teacher))
    loss = (1 - share) * torch.nn.functional.cross_entropy(student, labels)
    loss += share * temperature**2 * (target.exp() * (target - soft)).sum(-1).mean()
    torch.testing.assert_close(got.loss.double(), loss, rtol=1e-4, atol=0)
    ours, plain = torch.autograd.grad(got.loss, states)[0], torch.autograd.grad(loss, exact)[0]
    torch.testing.assert_close(ours.double(), plain, rtol=1e-3, atol=1e-4)
