import pytest
import torch
from torch import nn

from sensia_trainer.losses import info_nce
from sensia_trainer.training.grad_cache import cached_backward
from tests.distributed import run_on_processes


PAIRS, WIDTH = 8, 6


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(PAIRS, 2, WIDTH, generator=generator, dtype=torch.float64)


def make_encoder(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 9), nn.Tanh(), nn.Dropout(dropout), nn.Linear(9, 4)).double()


def contrastive_loss(source, target, gather=False):
    return info_nce(source, target, 0.1, gather=gather)


def make_forward(encoder, pairs):
    """Both sides through the encoder, and a stand-in for the language-modelling loss (a sum over rows / all rows)."""

    def forward(chunk):
        outputs = encoder(chunk)
        return (outputs[:, 0], outputs[:, 1]), lambda: 0.3 * outputs[:, 1].square().sum() / pairs

    return forward


def gradients(encoder):
    return [parameter.grad.clone() for parameter in encoder.parameters()]


@pytest.mark.parametrize("sizes", [[8], [4, 4], [3, 3, 2], [1] * 8])
def test_gradients_equal_the_direct_ones(sizes):
    encoder = make_encoder()
    forward = make_forward(encoder, PAIRS)
    representations, extra_loss = forward(batch())
    direct, extra = contrastive_loss(*representations), extra_loss()
    (direct + extra).backward()
    expected = gradients(encoder)

    encoder.zero_grad()
    cached, cached_extra = cached_backward(forward, batch().split(sizes), contrastive_loss)
    assert cached.item() == pytest.approx(direct.item(), abs=1e-12)
    assert cached_extra.item() == pytest.approx(extra.item(), abs=1e-12)
    for grad, reference in zip(gradients(encoder), expected, strict=True):
        torch.testing.assert_close(grad, reference, rtol=0, atol=1e-12)


def test_dropout_is_replayed():
    encoder = make_encoder(dropout=0.5)
    forward = make_forward(encoder, PAIRS)
    chunks = batch().split(2)
    torch.manual_seed(5)
    parts = [forward(chunk) for chunk in chunks]  # the same draws in the same order, all graphs kept
    source, target = (torch.cat([part[0][side] for part in parts]) for side in (0, 1))
    (contrastive_loss(source, target) + sum(extra_loss() for _, extra_loss in parts)).backward()
    expected, drawn = gradients(encoder), torch.rand(1)

    encoder.zero_grad()
    torch.manual_seed(5)
    cached_backward(forward, chunks, contrastive_loss)
    assert torch.equal(torch.rand(1), drawn)  # and the random numbers go on as if each chunk had run once
    for grad, reference in zip(gradients(encoder), expected, strict=True):
        torch.testing.assert_close(grad, reference, rtol=0, atol=1e-12)


def test_extra_loss_is_computed_in_the_second_pass_only_and_may_be_missing():
    encoder, calls = make_encoder(), []

    def forward(chunk):
        outputs = encoder(chunk)
        calls.append(torch.is_grad_enabled())
        return (outputs[:, 0], outputs[:, 1]), None

    loss, extra = cached_backward(forward, batch().split(4), contrastive_loss)
    assert calls == [False, False, True, True]
    assert (loss > 0, extra.item()) == (True, 0.0)


def test_backward_and_no_sync_are_those_given():
    encoder, events = make_encoder(), []

    class NoSync:
        def __enter__(self):
            events.append("hold")

        def __exit__(self, *_):
            events.append("release")

    def backward(loss):
        events.append("backward")
        (1024 * loss).backward()

    cached_backward(make_forward(encoder, PAIRS), batch().split(4), contrastive_loss)
    expected = gradients(encoder)
    encoder.zero_grad()
    cached_backward(
        make_forward(encoder, PAIRS), batch().split(4), contrastive_loss, backward=backward, no_sync=NoSync
    )
    assert events == ["hold", "backward", "release", "backward"]
    for grad, reference in zip(gradients(encoder), expected, strict=True):
        torch.testing.assert_close(grad, 1024 * reference, rtol=0, atol=1e-9)


def test_no_chunks():
    with pytest.raises(ValueError, match="chunks"):
        cached_backward(lambda chunk: ((), None), [], contrastive_loss)


def on_two_ranks():
    rank = torch.distributed.get_rank()
    encoder = nn.parallel.DistributedDataParallel(make_encoder())
    rows = batch()[rank * PAIRS // 2 : (rank + 1) * PAIRS // 2]
    loss, extra = cached_backward(
        make_forward(encoder, PAIRS // 2),
        rows.split([1, 3]),
        lambda source, target: contrastive_loss(source, target, gather=True),
        no_sync=encoder.no_sync,
    )
    return [loss, extra, *gradients(encoder)]


@pytest.mark.distributed
def test_two_processes_equal_one():
    encoder = make_encoder()
    loss, extra = cached_backward(make_forward(encoder, PAIRS), [batch()], contrastive_loss)
    first, second = run_on_processes(on_two_ranks)
    for one, two, expected in zip(first, second, [loss, extra, *gradients(encoder)], strict=True):
        torch.testing.assert_close((one + two) / 2, expected, rtol=0, atol=1e-12)
