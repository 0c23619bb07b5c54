import math

import pytest
import torch

from sensia_trainer.losses import duplicate_mask, info_nce, sentence_keys
from tests.reference import losses as reference


def pair(rows=5, width=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, width, generator=generator, dtype=dtype) for _ in range(2))


def test_literal_value():
    # Orthogonal pairs at temperature 1: p_11 = e / (e + 1) in every row and direction.
    vectors = torch.eye(2, dtype=torch.float64)
    assert info_nce(vectors, vectors, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-12)
    # One direction differs from the other: scores [[1, 1], [0, 0]].
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert info_nce(vectors, target, 1.0, symmetric=False).item() == pytest.approx(math.log(2), abs=1e-12)
    backward = (math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2
    assert info_nce(vectors, target, 1.0).item() == pytest.approx((math.log(2) + backward) / 2, abs=1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("temperature", [0.05, 0.07, 1.0])
def test_equals_equations_1_to_3_written_out(symmetric, temperature):
    source, target = pair()
    expected = reference.info_nce(source.tolist(), target.tolist(), temperature, symmetric)
    assert info_nce(source, target, temperature, symmetric=symmetric).item() == pytest.approx(expected, abs=1e-12)


def test_permuting_the_pairs_together_changes_nothing_and_one_side_does():
    source, target = pair()
    order = torch.tensor([3, 1, 4, 0, 2])
    loss = info_nce(source, target, 0.07)
    assert info_nce(source[order], target[order], 0.07).item() == pytest.approx(loss.item(), abs=1e-12)
    assert abs(info_nce(source, target[order], 0.07).item() - loss.item()) > 1e-3


def test_sides_may_be_swapped_only_in_the_symmetric_form():
    source, target = pair()
    swapped = info_nce(target, source, 0.07).item()
    assert info_nce(source, target, 0.07).item() == pytest.approx(swapped, abs=1e-12)
    one_way = [info_nce(a, b, 0.07, symmetric=False).item() for a, b in [(source, target), (target, source)]]
    assert sum(one_way) / 2 == pytest.approx(swapped, abs=1e-12)
    assert abs(one_way[0] - one_way[1]) > 1e-3


def test_gradients():
    source, target = (vectors.requires_grad_() for vectors in pair(rows=4, width=3))
    assert torch.autograd.gradcheck(lambda u, v: info_nce(u, v, 0.5), (source, target))
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 2] = mask[2, 0] = True
    assert torch.autograd.gradcheck(lambda u, v: info_nce(u, v, 0.5, duplicates=mask), (source, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_float32_under_autocast(dtype):
    source, target = (vectors.to(dtype) for vectors in pair(rows=32, width=16, dtype=torch.float32))
    exact = info_nce(source.double(), target.double(), 0.05)
    assert exact.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(source, target, 0.05)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_half_precision_does_not_overflow():
    source = torch.full((2, 8), 60_000.0, dtype=torch.float16)
    assert torch.isfinite(info_nce(source, source, 0.05))


def test_duplicates_are_no_negatives():
    source, target = pair()
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[1, 3] = mask[3, 1] = True
    expected = reference.info_nce(source.tolist(), target.tolist(), 0.1, excluded=lambda i, j: {i, j} == {1, 3})
    assert info_nce(source, target, 0.1, duplicates=mask).item() == pytest.approx(expected, abs=1e-12)
    assert expected < info_nce(source, target, 0.1).item()


def test_duplicate_mask_finds_equal_sources_and_equal_targets():
    mask = duplicate_mask(torch.tensor([1, 2, 1, 4]), torch.tensor([5, 6, 7, 6]))
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = expected[1, 3] = expected[3, 1] = True
    assert torch.equal(mask, expected)


def test_sentence_keys_see_tokens_and_order_but_not_padding():
    right = torch.tensor([[5, 6, 7, 0, 0], [7, 6, 5, 0, 0], [5, 6, 0, 0, 0], [5, 6, 7, 9, 9]])
    right_mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    keys = sentence_keys(right, right_mask)
    assert keys[0] == keys[3]
    assert len(set(keys[:3].tolist())) == 3
    left = torch.tensor([[0, 5, 6, 7]])
    assert sentence_keys(left, torch.tensor([[0, 1, 1, 1]])) == keys[0]
    many = torch.randint(0, 9, (3000, 6), generator=torch.Generator().manual_seed(0)).unique(dim=0)
    assert len(sentence_keys(many, torch.ones_like(many)).unique()) == len(many)


@pytest.mark.parametrize("temperature", [0.0, -0.05, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        info_nce(*pair(), temperature)


def test_one_pair_has_no_negatives():
    with pytest.raises(ValueError, match="per_device_train_batch_size"):
        info_nce(*pair(rows=1), 0.05)


def test_shapes_must_match():
    source, target = pair()
    with pytest.raises(ValueError, match=r"\(5, 7\) and \(4, 7\)"):
        info_nce(source, target[:4], 0.05)
