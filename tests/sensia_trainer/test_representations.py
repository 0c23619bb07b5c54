import math
from types import SimpleNamespace

import pytest
import torch

from sensia_trainer import analysis, representations
from sensia_trainer.representations import (
    context_hidden_state,
    context_sentence_vectors,
    sense_entropy,
    sense_probs,
    sense_sentence_vectors,
)
from tests.reference import representations as reference


# One row full, one padded on the right, one on the left.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])


def make(batch=3, length=5, num_senses=4, width=6, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    senses = torch.randn(batch, length, num_senses, width, generator=generator, dtype=torch.float64)
    scores = torch.randn(batch, num_senses, length, length, generator=generator, dtype=torch.float64)
    weights = scores.masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), -math.inf).softmax(-1)
    context = torch.randn(batch, length, width, generator=generator, dtype=torch.float64)
    return senses.to(dtype), weights.to(dtype), context.to(dtype)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("definition", ["magnitude", "contextual", "contextual_share", "predictive"])
def test_sense_probs_equal_the_definition(definition, temperature):
    senses, weights, context = make()
    alpha = weights if definition.startswith("contextual") else None
    probs = sense_probs(senses, definition=definition, temperature=temperature, sense_weights=weights, context=context)
    expected = reference.sense_probs(senses, definition, temperature, alpha, context)
    torch.testing.assert_close(probs, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(probs.sum(-1), torch.ones(3, 5, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["magnitude", "contextual"])
def test_sense_sentence_vectors_equal_the_plain_sums(pooling):
    senses, weights, _ = make()
    vectors, probs = sense_sentence_vectors(senses, MASK, pooling=pooling, temperature=0.7, sense_weights=weights)
    expected_vectors, expected_probs = reference.sense_sentence_vectors(senses, MASK, pooling, 0.7, weights)
    torch.testing.assert_close(vectors, expected_vectors, rtol=0, atol=1e-9)
    torch.testing.assert_close(probs, expected_probs, rtol=0, atol=1e-9)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["magnitude", "contextual"])
def test_several_sentences_in_a_row(pooling):
    """Two sentences that do not see each other, in one row, against a row for each."""
    senses, weights, _ = make(batch=2, length=3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    apart, _ = sense_sentence_vectors(senses, mask, pooling=pooling, temperature=0.7, sense_weights=weights)
    row = torch.cat([senses[0], senses[1]])[None]
    blocks = torch.zeros(1, weights.shape[1], 6, 6, dtype=weights.dtype)
    blocks[0, :, :3, :3], blocks[0, :, 3:, 3:] = weights
    sentences = torch.tensor([[0, 0, 0, 1, 1, -1]])
    options = {"pooling": pooling, "temperature": 0.7, "sense_weights": blocks, "sentences": sentences}
    for number in ({"num_sentences": 2}, {}):
        together, _ = sense_sentence_vectors(row, sentences >= 0, **options, **number)
        torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)
    last = context_sentence_vectors(row[:, :, 0], last=torch.tensor([2, 4]))
    torch.testing.assert_close(last, context_sentence_vectors(senses[:, :, 0], mask), rtol=0, atol=1e-12)


def test_magnitude_literal():
    # Norms 1 and 2 at temperature 1: pi = (1, e) / (1 + e).
    senses = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]], dtype=torch.float64)
    vectors, probs = sense_sentence_vectors(senses, torch.ones(1, 1))
    assert probs[0, 0].tolist() == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e)], abs=1e-12)
    pooled = torch.tensor([1.0, 2 * math.e], dtype=torch.float64)
    torch.testing.assert_close(vectors[0], pooled / pooled.norm(), rtol=0, atol=1e-12)


def test_senses_may_be_permuted():
    senses, weights, _ = make()
    order = torch.tensor([2, 0, 3, 1])
    for pooling in ("magnitude", "contextual"):
        vectors, probs = sense_sentence_vectors(senses, MASK, pooling=pooling, sense_weights=weights)
        permuted, permuted_probs = sense_sentence_vectors(
            senses[:, :, order], MASK, pooling=pooling, sense_weights=weights[:, order]
        )
        torch.testing.assert_close(permuted, vectors, rtol=0, atol=1e-12)
        torch.testing.assert_close(permuted_probs, probs[..., order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["magnitude", "contextual"])
def test_gradients(pooling):
    senses, weights, _ = make(length=3, num_senses=2, width=3)
    senses, weights = senses.requires_grad_(), weights.requires_grad_()
    mask = MASK[:, :3].clone()
    mask[2] = torch.tensor([0, 1, 1])

    def vectors(senses, weights):
        return sense_sentence_vectors(senses, mask, pooling=pooling, temperature=0.7, sense_weights=weights)[0]

    assert torch.autograd.gradcheck(vectors, (senses, weights))


@pytest.mark.parametrize("definition", ["magnitude", "contextual"])
def test_gradients_are_finite_where_a_norm_is_zero(definition):
    senses, weights, _ = make(dtype=torch.float32)
    senses[:, :, 1] = 0
    senses.requires_grad_()
    vectors, probs = sense_sentence_vectors(senses, MASK, pooling=definition, sense_weights=weights)
    (vectors.sum() + (probs**2).sum()).backward()
    assert torch.isfinite(senses.grad).all()


def test_padding_does_not_matter():
    senses, weights, context = make()
    for pooling in ("magnitude", "contextual"):
        vectors, probs = sense_sentence_vectors(senses, MASK, pooling=pooling, sense_weights=weights)
        # The right-padded row without its padding.
        alone, alone_probs = sense_sentence_vectors(
            senses[1:2, :3], MASK[1:2, :3], pooling=pooling, sense_weights=weights[1:2, :, :3, :3]
        )
        torch.testing.assert_close(vectors[1:2], alone, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            sense_entropy(probs[1:2], MASK[1:2]), sense_entropy(alone_probs, MASK[1:2, :3]), rtol=0, atol=1e-12
        )


def test_context_vector_is_the_last_token_on_either_side_of_padding():
    _, _, hidden_states = make()
    vectors = context_sentence_vectors(hidden_states, MASK)
    torch.testing.assert_close(vectors, reference.context_sentence_vectors(hidden_states, MASK), rtol=0, atol=1e-12)
    for row, last in enumerate([4, 2, 4]):
        state = hidden_states[row, last]
        torch.testing.assert_close(vectors[row], state / state.norm(), rtol=0, atol=1e-12)


def test_entropy():
    senses, _, _ = make()
    probs = sense_probs(senses, temperature=0.3)
    expected = reference.sense_entropy(probs, MASK)
    assert sense_entropy(probs, MASK).item() == pytest.approx(expected, abs=1e-12)
    uniform, one_hot = torch.full((1, 2, 16), 1 / 16), torch.eye(16)[None, :2]
    assert sense_entropy(uniform, torch.ones(1, 2)).item() == pytest.approx(math.log(16), abs=1e-6)
    assert sense_entropy(one_hot, torch.ones(1, 2)).item() == 0.0
    assert sense_entropy(one_hot.half(), torch.ones(1, 2)).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pooling", ["magnitude", "contextual"])
def test_half_precision_input_is_computed_in_float32(pooling, dtype):
    senses, weights, context = make(dtype=dtype)
    exact, exact_probs = sense_sentence_vectors(senses.double(), MASK, pooling=pooling, sense_weights=weights.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors, probs = sense_sentence_vectors(senses, MASK, pooling=pooling, sense_weights=weights)
        states = context_sentence_vectors(context, MASK)
        predictive = sense_probs(senses, definition="predictive", context=context)
        entropy = sense_entropy(probs, MASK)
    assert {x.dtype for x in (vectors, probs, states, predictive, entropy)} == {torch.float32}
    torch.testing.assert_close(vectors.double(), exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(probs.double(), exact_probs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["magnitude", "contextual"])
def test_large_float16_values_do_not_overflow(pooling):
    senses, weights, _ = make(dtype=torch.float16)
    senses = (senses.sign() * 60_000).requires_grad_()
    vectors, probs = sense_sentence_vectors(senses, MASK, pooling=pooling, sense_weights=weights)
    vectors.sum().backward()
    assert all(torch.isfinite(x).all() for x in (vectors, probs, senses.grad))


def test_all_padding_gives_zero_not_nan():
    senses, weights, _ = make()
    vectors, _ = sense_sentence_vectors(senses, torch.zeros_like(MASK), pooling="contextual", sense_weights=weights)
    assert torch.equal(vectors, torch.zeros_like(vectors))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"definition": "softmax"}, ["definition", "'softmax'", "'magnitude'"]),
        ({"definition": "contextual"}, ["sense_weights", "None"]),
        ({"definition": "predictive"}, ["context", "None"]),
        ({"temperature": 0.0}, ["temperature", "0.0"]),
    ],
)
def test_errors(arguments, words):
    senses, _, _ = make()
    with pytest.raises(ValueError) as error:
        sense_probs(senses, **arguments)
    assert all(word in str(error.value) for word in words)


def test_unknown_pooling():
    senses, _, _ = make()
    with pytest.raises(ValueError, match="'mean'.*'contextual'"):
        sense_sentence_vectors(senses, MASK, pooling="mean")


def test_the_mean_of_the_mixture():
    senses, _, mixture = make()
    senses.requires_grad_(), mixture.requires_grad_()
    vectors, probs = sense_sentence_vectors(senses, MASK, pooling="mixture", temperature=0.7, mixture=mixture)
    plain = senses.detach(), MASK, "mixture", 0.7
    expected, expected_probs = reference.sense_sentence_vectors(*plain, mixture=mixture)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(probs, expected_probs, rtol=0, atol=1e-12)
    # Several sentences in a row, and no gradient but through the mixture.
    sentences = torch.tensor([[0, 0, 1, 1, -1]])
    packed, _ = sense_sentence_vectors(
        senses[:1], sentences >= 0, pooling="mixture", mixture=mixture[:1], sentences=sentences, num_sentences=2
    )
    means = torch.stack([mixture[0, :2].mean(0), mixture[0, 2:4].mean(0)])
    torch.testing.assert_close(packed, means / means.norm(dim=1, keepdim=True), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="`mixture` is None"):
        sense_sentence_vectors(senses, MASK, pooling="mixture")
    vectors[0, 0].backward()
    assert senses.grad is None and mixture.grad[0].any()


def test_which_state_is_the_context():
    plain = SimpleNamespace(last_hidden_state=1, backbone_last_hidden_state=2, hidden_states=(3, 4, 5))
    gated = SimpleNamespace(last_hidden_state=1, mixture=6, backbone_last_hidden_state=2, hidden_states=(3, 4, 5))
    states = ("mixture", "combined", "backbone")
    assert [context_hidden_state(plain, state) for state in states] == [1, 1, 2]
    assert [context_hidden_state(gated, state) for state in states] == [6, 1, 2]
    assert context_hidden_state(gated, "mixture", 1) == 4
    with pytest.raises(ValueError, match="`context_state` is 'last'"):
        context_hidden_state(plain, "last")


def test_what_an_analysis_may_ask_for_is_what_there_is():
    """Named twice, for `--help` has no time to import torch."""
    assert analysis.DEFINITIONS == representations.DEFINITIONS
