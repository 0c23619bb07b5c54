"""The language-modelling loss of the head, against `cross_entropy`."""

import pytest
import torch
from torch.nn import functional as F

from tests.modeling_backpack.tiny import random_ids, tiny_backpack


def plain_loss(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def test_loss_is_over_labels():
    model, input_ids = tiny_backpack(), random_ids(2, 9)
    labels = input_ids.clone()
    labels[1, 5:] = -100
    outputs = model(input_ids, labels=labels)
    torch.testing.assert_close(outputs.loss, plain_loss(outputs.logits, labels))


def test_loss_is_divided_by_the_items_of_the_whole_batch():
    model, input_ids = tiny_backpack(), random_ids(2, 9)
    mean = model(input_ids, labels=input_ids).loss
    scaled = model(input_ids, labels=input_ids, num_items_in_batch=torch.tensor(32)).loss
    torch.testing.assert_close(scaled, mean * 16 / 32)


def test_loss_under_autocast_is_float32():
    model, input_ids = tiny_backpack(), random_ids(2, 9)
    exact = model(input_ids, labels=input_ids).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids, labels=input_ids).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_labels_shifted_already():
    """`shift_labels`, as sequence parallelism and padding-free collators give: position t predicts label t."""
    model, input_ids = tiny_backpack(), random_ids(2, 9)
    shifted = random_ids(2, 9, seed=1)
    shifted[1, 6:] = -100
    logits = model(input_ids).logits
    loss = model(input_ids, labels=input_ids, shift_labels=shifted).loss
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), shifted.flatten()))
