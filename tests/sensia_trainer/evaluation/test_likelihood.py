import copy

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from sensia_trainer.evaluation.likelihood import _takes_trees, choice_likelihoods, encode_items
from sensia_trainer.evaluation.tasks import Item, TaskData, make_items
from tests.conftest import SENTENCES
from tests.reference.evaluation import choice_log_likelihood, token_log_probs


ITEMS = [
    Item("a", "The cat sleeps", (" on the chair.", " twice."), 0),
    Item("b", "Buku yang bagus\n", ("Sungai", "layak dibaca dua kali."), 1),
    Item("c", SENTENCES[4] + " " + SENTENCES[5], (" to the sea.", " Kita"), 0),
    Item("d", "We", (" will", " wi"), 1),
    Item("e", "Di mana", (" stasiun terdekat?", " on the chair."), 0),
]


@pytest.fixture(params=["gpt2", "llama", "backpack"])
def model(request, tokenizer, tiny_model, tiny_gpt2):
    if request.param == "gpt2":
        return tiny_gpt2
    if request.param == "llama":
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=64, initializer_range=0.3,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()
    model = tiny_model()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_equals_one_token_at_a_time(model, tokenizer):
    found = choice_likelihoods(model, tokenizer, ITEMS, batch_size=3)
    start = [tokenizer.bos_token_id]
    for i, item in enumerate(ITEMS):
        context = tokenizer(item.context)["input_ids"]
        for c, continuation in enumerate(item.continuations):
            ids = tokenizer(item.context + continuation)["input_ids"][len(context) :]
            assert found.lengths[i, c] == len(ids)
            expected = choice_log_likelihood(model, context, ids)
            assert found.conditional[i, c] == pytest.approx(expected, abs=2e-4)
            assert found.unconditional[i, c] == pytest.approx(choice_log_likelihood(model, start, ids), abs=2e-4)
    assert found.labels.tolist() == [0, 1, 0, 1, 0] and found.ids == list("abcde")
    assert np.ptp(found.conditional) > 1  # the model tells the choices apart


def test_does_not_depend_on_batches(model, tokenizer):
    expected = choice_likelihoods(model, tokenizer, ITEMS, batch_size=1)
    for batch_size in (2, 32):
        found = choice_likelihoods(model, tokenizer, ITEMS, batch_size=batch_size)
        assert found.conditional == pytest.approx(expected.conditional, abs=2e-4), batch_size
        assert found.unconditional == pytest.approx(expected.unconditional, abs=2e-4), batch_size
    backwards = choice_likelihoods(model, tokenizer, ITEMS[::-1], batch_size=2)
    assert backwards.conditional[::-1] == pytest.approx(expected.conditional, abs=2e-4)


def test_long_context_and_long_answer_in_one_batch_stay_within_the_positions(model, tokenizer):
    text = " ".join(SENTENCES)
    short, long = (
        tokenizer.decode(tokenizer(text)["input_ids"][:5]),
        tokenizer.decode(tokenizer(text)["input_ids"][:58]),
    )
    items = [Item("long context", long, (" a", " b"), 0), Item("long answer", short, (" " + long, " x"), 0)]
    together, alone = (choice_likelihoods(model, tokenizer, items, batch_size=size) for size in (2, 1))
    assert together.cut == ["", ""]
    assert together.conditional == pytest.approx(alone.conditional, abs=5e-4)


def test_a_context_that_does_not_fit_loses_its_beginning_for_all_choices_alike(tiny_gpt2, tokenizer):
    items = [Item("x", " ".join(SENTENCES), (" on the chair.", " a"), 0), Item("y", "a", (" b", " c"), 0)]
    encoded = encode_items(tokenizer, items, prefix=None, max_length=16)
    full = tokenizer(items[0].context)["input_ids"]
    longest = len(encoded[0].continuations[0])
    assert encoded[0].cut == "context" and encoded[0].context == full[-(17 - longest) :]
    found = choice_likelihoods(tiny_gpt2, tokenizer, items, max_length=16)
    assert found.cut == ["context", ""]
    for c in (0, 1):
        expected = choice_log_likelihood(tiny_gpt2, encoded[0].context, encoded[0].continuations[c])
        assert found.conditional[0, c] == pytest.approx(expected, abs=2e-4)
    kept = encode_items(tokenizer, items, prefix=7, max_length=16)[0].context
    assert kept[0] == 7 and len(kept) == 17 - longest and kept[1:] == full[-(16 - longest) :]


def test_an_answer_longer_than_the_model_is_cut_and_counted(tiny_gpt2, tokenizer):
    items = [Item("x", "The cat", (" " + " ".join(SENTENCES), " a"), 0)]
    found = choice_likelihoods(tiny_gpt2, tokenizer, items, max_length=8)
    assert found.cut == ["answer"] and found.lengths[0, 0] == 8 > found.lengths[0, 1]
    assert np.isfinite(found.conditional).all()


def test_tail_truncation_keeps_the_first_tokens(tiny_gpt2, tokenizer):
    items = [
        Item("x", " ".join(SENTENCES), (" on the chair.", " a"), 1),
        Item("y", "The cat", (" sleeps twice", " a"), 0),
    ]
    found = choice_likelihoods(tiny_gpt2, tokenizer, items, max_length=8, truncation="tail")
    assert found.cut == ["answer", "answer"]
    assert found.lengths[0].tolist() == [0, 0] and found.conditional[0].tolist() == [0, 0]  # nothing of them is left
    with pytest.raises(ValueError, match="`truncation`"):
        choice_likelihoods(tiny_gpt2, tokenizer, items, truncation="left")


def test_goldfish_template_ranks_by_the_sum_over_the_whole_text(tiny_gpt2, tokenizer):
    row = {"id": "0", "passage": "Cats sleep. ", "question": "Who? ", "choices": ["a cat", "the sea", "x", "We"]}
    (item,) = make_items(TaskData("belebele", "en", "test", [row | {"label": 0}], "here", "0"), "goldfish")
    found = choice_likelihoods(tiny_gpt2, tokenizer, [item], context_start="auto", truncation="tail")
    texts = [f"Cats sleep. Who? {choice}" for choice in row["choices"]]
    whole = [sum(token_log_probs(tiny_gpt2, [tokenizer.bos_token_id, *tokenizer(t)["input_ids"]])) for t in texts]
    differences = [total - whole[0] for total in whole]
    assert found.conditional[0] - found.conditional[0, 0] == pytest.approx(np.array(differences), abs=5e-4)


def test_no_prior_without_a_start_token(tiny_gpt2, tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = bare.eos_token = bare.pad_token = None
    found = choice_likelihoods(tiny_gpt2, bare, ITEMS)
    assert found.unconditional is None
    given = choice_likelihoods(tiny_gpt2, bare, ITEMS, start=tokenizer.bos_token_id)
    assert given.unconditional is not None


def test_a_model_without_a_usable_cache_is_scored_row_by_row(tiny_gpt2, tokenizer):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.config = tiny_gpt2, tiny_gpt2.config

        def get_input_embeddings(self):
            return self.model.get_input_embeddings()

        def forward(self, input_ids, attention_mask=None, use_cache=None):
            return self.model(input_ids=input_ids, attention_mask=attention_mask)

    found = choice_likelihoods(Plain(), tokenizer, ITEMS)
    assert found.conditional == pytest.approx(choice_likelihoods(tiny_gpt2, tokenizer, ITEMS).conditional, abs=2e-4)


def test_bad_input(tiny_gpt2, tokenizer):
    with pytest.raises(ValueError, match="Item q: choice 1 is empty"):
        choice_likelihoods(tiny_gpt2, tokenizer, [Item("q", "a", (" b", " "), 0)])
    with pytest.raises(ValueError, match="same number of choices, but item q has 1 and item"):
        choice_likelihoods(tiny_gpt2, tokenizer, [*ITEMS, Item("q", "a", (" b",), 0)])
    with pytest.raises(ValueError, match="no items"):
        choice_likelihoods(tiny_gpt2, tokenizer, [])
    with pytest.raises(ValueError, match="Item q: an empty context"):
        choice_likelihoods(tiny_gpt2, tokenizer, [Item("q", "", (" b", " c"), 0)])


def test_nan_names_the_item(tiny_gpt2, tokenizer):
    bad = tokenizer("Buku")["input_ids"][0]

    def poison(module, args, output):
        output[args[0] == bad] = float("nan")

    tiny_gpt2.transformer.wte.register_forward_hook(poison)
    with pytest.raises(ValueError, match=r"conditional log-likelihood of item b, choice 0, is nan \(1 of 5"):
        choice_likelihoods(tiny_gpt2, tokenizer, ITEMS)


def test_a_model_that_cannot_take_trees_is_scored_row_by_row(tokenizer):
    """BLOOM makes its positions of the mask; a window hides the beginning of the longest item only."""
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=2, initializer_range=0.3)
    windowed = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.3, sliding_window=12,
    )  # fmt: skip
    for model in (BloomForCausalLM(config).eval(), MistralForCausalLM(windowed).eval()):
        encoded = encode_items(tokenizer, ITEMS, prefix=None, max_length=64)
        with torch.no_grad():
            assert not _takes_trees(model, encoded)
        found = choice_likelihoods(model, tokenizer, ITEMS)
        for i, item in enumerate(encoded):
            for c, continuation in enumerate(item.continuations):
                expected = choice_log_likelihood(model, item.context, continuation)
                assert found.conditional[i, c] == pytest.approx(expected, abs=2e-4)
