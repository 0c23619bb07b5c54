"""Senses as an interface: vectors, nearest words, mixtures of a part, interventions."""

from types import SimpleNamespace

import pytest
import torch

from modeling_backpack import BackpackForCausalLM
from modeling_backpack.senses_backpack import ablated_mixture
from tests.modeling_backpack.tiny import VOCAB_SIZE, random_ids, tiny_backpack


@pytest.fixture
def model():
    return tiny_backpack(dtype=torch.float64)


def contributions(outputs):
    """c_k = alpha_k S_k, `(B, K, T, d)`, one sense at a time."""
    senses, weights = outputs.senses, outputs.sense_weights
    return torch.stack([weights[:, k] @ senses[:, :, k] for k in range(senses.shape[2])], dim=1)


def test_senses_of_words(model):
    senses = model.get_senses(torch.arange(VOCAB_SIZE).view(1, -1))
    assert senses.shape == (1, VOCAB_SIZE, 4, 32)
    assert model.get_senses(7).shape == (4, 32)
    assert model.get_senses([[7, 8], [9, 7]]).shape == (2, 2, 4, 32)
    in_context = model(torch.tensor([[3, 9, 7]]), output_senses=True).senses
    torch.testing.assert_close(in_context[0, 2], senses[0, 7])


def test_gradients_of_frequent_words_are_summed_in_float32():
    """In bfloat16 a word that stands hundreds of times would lose most of what its later places add."""
    model = tiny_backpack("llama")
    ids = torch.where(torch.rand(8, 90) < 0.9, 5, random_ids(8, 90))
    grads = {}
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            senses = model.backpack.compute_senses(ids)
        assert senses.dtype == dtype
        model.zero_grad()
        (senses.float() * torch.linspace(0.9, 1.1, senses.numel()).view(senses.shape)).sum().backward()
        grads[dtype] = model.get_input_embeddings().weight.grad.clone()
    exact = grads[torch.float32]
    assert (grads[torch.bfloat16] - exact).norm() < 0.01 * exact.norm()


def test_nearest_words(model):
    senses = model.get_senses([7, 8])
    scores, words = model.nearest_words(senses, top_k=5)
    assert scores.shape == words.shape == (2, 4, 5)
    votes = senses @ model.get_input_embeddings().weight.T
    assert torch.equal(words, votes.argsort(dim=-1, descending=True)[..., :5])
    torch.testing.assert_close(scores, votes.sort(dim=-1, descending=True).values[..., :5])
    named = model.nearest_words(senses, top_k=5, tokenizer=SimpleNamespace(decode=lambda ids: f" word{ids[0]}"))
    assert named == [[[f"word{i}" for i in of_sense] for of_sense in of_token] for of_token in words.tolist()]


def test_logits_are_sums_of_votes(model):
    """The defining property: each sense adds its vote, weighed, to the logits."""
    outputs = model(random_ids(2, 6), output_senses=True, output_sense_weights=True)
    votes = model.lm_head(outputs.senses)  # (B, S, K, V)
    torch.testing.assert_close(torch.einsum("bkts,bskv->btv", outputs.sense_weights, votes), outputs.logits)


@pytest.mark.parametrize("norm_matched", [False, True])
@pytest.mark.parametrize("mode", ["top_k", "uniform"])
@pytest.mark.parametrize("top_k", [1, 3])
def test_mixture_modes(model, mode, norm_matched, top_k):
    input_ids = random_ids(2, 6)
    full = model(input_ids, output_senses=True, output_sense_weights=True)
    parts = contributions(full)
    model.config.mixture_mode, model.config.mixture_top_k = mode, top_k
    model.config.mixture_norm_matched = norm_matched
    mixture = model(input_ids).last_hidden_state
    for b in range(2):
        for t in range(6):
            vectors = parts[b, :, t]
            if mode == "uniform":
                expected = vectors.mean(0)
            else:
                order = sorted(range(4), key=lambda k: -vectors[k].norm())
                expected = vectors[order[:top_k]].sum(0)
            if norm_matched:
                expected = expected / expected.norm() * vectors.sum(0).norm()
            torch.testing.assert_close(mixture[b, t], expected)
    # A cache holds senses, not mixtures: generation follows the mode too.
    settings = dict(max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert torch.equal(model.generate(input_ids, **settings), model.generate(input_ids, use_cache=False, **settings))


def test_top_k_of_all_senses_is_the_full_mixture(model):
    input_ids = random_ids(2, 6)
    full = model(input_ids).logits
    model.config.mixture_mode, model.config.mixture_top_k = "top_k", 4
    torch.testing.assert_close(model(input_ids).logits, full)


def test_mixture_mode_of_a_saved_model(tmp_path):
    model, input_ids = tiny_backpack(mixture_mode="top_k", mixture_norm_matched=True), random_ids(1, 5)
    model.save_pretrained(tmp_path)
    again = BackpackForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(input_ids).logits, model(input_ids).logits)
    assert not torch.equal(
        BackpackForCausalLM.from_pretrained(tmp_path, mixture_mode="full")(input_ids).logits, model(input_ids).logits
    )


def test_unknown_mixture_mode(model):
    model.config.mixture_mode = "mean"
    with pytest.raises(ValueError, match="`mixture_mode` must be one of.*got 'mean'"):
        model(random_ids(1, 3))


def test_ablated_mixture_of_nothing_is_nothing():
    """A zero mixture cannot be given a norm: it stays zero, without NaN."""
    config = tiny_backpack(mixture_mode="uniform", mixture_norm_matched=True).config
    mixture = ablated_mixture(torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1, 8), config)
    assert torch.equal(mixture, torch.zeros(1, 1, 8))


@pytest.mark.parametrize("change", [{"scale": 0.0}, {"scale": -3.0}, {"vector": torch.full((32,), 0.5)}])
def test_intervention_in_the_forward(model, change):
    input_ids = torch.tensor([[5, 9, 5, 3, 11, 2]])
    before = model(input_ids, output_senses=True, output_sense_weights=True)
    with model.intervene_on_senses([5, 11], 2, **change):
        during = model(input_ids, output_senses=True)
        senses = model.get_senses([5, 9])
    expected = before.senses.clone()
    for position in (0, 2, 4):
        old = before.senses[0, position, 2]
        expected[0, position, 2] = old * change["scale"] if "scale" in change else change["vector"].double()
    torch.testing.assert_close(during.senses, expected)
    torch.testing.assert_close(senses, expected[0, :2])
    mixture = torch.einsum("bkts,bskd->btd", before.sense_weights, expected)
    torch.testing.assert_close(during.last_hidden_state, mixture)
    assert torch.equal(model(input_ids).logits, before.logits)


def test_intervention_in_generate(model):
    input_ids = random_ids(2, 5)
    settings = dict(max_new_tokens=8, do_sample=False, eos_token_id=-1)
    before = model.generate(input_ids, **settings)
    with model.intervene_on_senses(range(VOCAB_SIZE), 1, scale=-4.0):
        during = model.generate(input_ids, **settings)
        assert torch.equal(during, model.generate(input_ids, use_cache=False, **settings))
    assert not torch.equal(during, before)
    assert torch.equal(model.generate(input_ids, **settings), before)


def test_interventions_nest_and_leave_no_trace(model):
    names = set(model.state_dict())
    senses = model.get_senses([5])
    with model.intervene_on_senses([5], 0, scale=2.0):
        with model.intervene_on_senses([5], 0, scale=3.0):
            torch.testing.assert_close(model.get_senses([5])[0, 0], 6 * senses[0, 0])
        torch.testing.assert_close(model.get_senses([5])[0, 0], 2 * senses[0, 0])
    with pytest.raises(RuntimeError), model.intervene_on_senses([5], 0, scale=2.0):
        raise RuntimeError
    assert torch.equal(model.get_senses([5]), senses)
    assert set(model.state_dict()) == names and not model.backpack._interventions


def test_interventions_without_sense(model):
    for arguments in ({}, {"scale": 1.0, "vector": torch.zeros(32)}):
        with pytest.raises(ValueError, match="exactly one of `scale`"), model.intervene_on_senses([5], 0, **arguments):
            pass
    with pytest.raises(ValueError, match=r"`vector` must have the shape \(32,\).*got \(16,\)"):
        with model.intervene_on_senses([5], 0, vector=torch.zeros(16)):
            pass
    with pytest.raises(ValueError, match=rf"`token_ids` must lie in \[0, {VOCAB_SIZE}\)"):
        with model.intervene_on_senses([5, VOCAB_SIZE], 0, scale=1.0):
            pass
    for sense in (4, -1, 0.5):
        with pytest.raises(ValueError, match=rf"`sense` must be a whole number in \[0, 4\), got {sense}"):
            with model.intervene_on_senses([5], sense, scale=1.0):
                pass
    with pytest.raises(ValueError, match="`token_ids` must be whole numbers, got torch.float32"):
        with model.intervene_on_senses([3.5], 0, scale=1.0):
            pass


def test_lists_and_other_precisions_are_taken(model):
    assert model.get_senses([]).shape == (0, 4, 32)
    vector = torch.arange(32.0).tolist()
    with model.intervene_on_senses([5], 1, vector=vector), model.intervene_on_senses([], 1, scale=0.0):
        assert model.get_senses([5])[0, 1].tolist() == vector
    senses = model.get_senses([5])[0]
    assert torch.equal(model.nearest_words(senses.float(), top_k=3)[1], model.nearest_words(senses, top_k=3)[1])
    assert model.bfloat16().nearest_words(senses.float(), top_k=3)[1].shape == (4, 3)


def test_interventions_do_not_pass_over_embeddings(model):
    """Embeddings have no token ids: refused rather than left as they are."""
    embeddings = model.get_input_embeddings()(random_ids(1, 4))
    with model.intervene_on_senses([5], 0, scale=2.0), pytest.raises(ValueError, match="`inputs_embeds` cannot"):
        model(inputs_embeds=embeddings)


def test_an_error_in_generate_leaves_no_trace(model):
    def fail(input_ids, scores):
        raise RuntimeError

    input_ids = random_ids(1, 4)
    before = model(input_ids).logits
    with pytest.raises(RuntimeError), model.intervene_on_senses([5], 0, scale=2.0):
        model.generate(input_ids, max_new_tokens=3, logits_processor=[fail])
    assert torch.equal(model(input_ids).logits, before) and not model.backpack._interventions


def test_more_senses_than_there_are_cannot_be_kept(tmp_path, model):
    model.save_pretrained(tmp_path)
    loaded = BackpackForCausalLM.from_pretrained(tmp_path, mixture_mode="top_k", mixture_top_k=9)
    with pytest.raises(ValueError, match="`mixture_top_k` is 9, but must be between 1 and `num_senses`, 4"):
        loaded(random_ids(1, 4))
