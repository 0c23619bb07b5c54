import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from sensia_trainer.evaluation import likelihood
from sensia_trainer.evaluation.likelihood import EncodedItem, _score_rows, _takes_trees
from sensia_trainer.evaluation.trees import best_width, fill_rows, make_tree, score_trees, visible_tokens


def test_choices_branch_where_they_differ():
    tree = make_tree([7, 8], [[1, 2, 3], [1, 2], [4], []])
    assert tree.ids == [7, 8, 1, 2] and tree.parents == [-1, 0, 1, 2] and tree.depths == [0, 1, 2, 3]
    assert tree.reads == [[(1, 1), (2, 2), (3, 3)], [(1, 1), (2, 2)], [(1, 4)], []]
    apart = make_tree([7], [[1, 2], [3, 4]])
    assert apart.ids == [7, 1, 3] and apart.depths == [0, 1, 1]
    assert visible_tokens(apart).tolist() == [[True, False, False], [True, True, False], [True, False, True]]


def test_rows_are_filled():
    lengths = [3, 9, 5, 2, 12, 5, 1]
    rows = fill_rows(lengths, 10)
    assert sorted(i for row in rows for i in row) == list(range(7))
    assert [sum(lengths[i] for i in row) for row in rows] == [12, 10, 10, 5]


def test_rows_are_as_wide_as_costs_least():
    # Of 40 tokens each: a row of one (40 cells an item) or of three (40 as well, but more attention).
    assert best_width([40] * 6, [64, 96, 128], 256) == 64
    # One long item makes all rows as long: three of 30 fill it up.
    assert best_width([90] + [30] * 9, [64, 96], 256) == 96


def models(tiny_model, tiny_gpt2, vocab_size):
    sizes = {"vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 64}
    yield tiny_gpt2
    yield LlamaForCausalLM(LlamaConfig(**sizes))
    yield GPTNeoXForCausalLM(GPTNeoXConfig(**sizes))
    capped = {"num_key_value_heads": 2, "head_dim": 16, "final_logit_softcapping": 1.0, "sliding_window": 64}
    yield Gemma2ForCausalLM(Gemma2Config(**sizes | capped))
    backpack = tiny_model()
    for parameter in backpack.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    yield backpack


def test_in_one_row_choices_score_as_in_rows_of_their_own(tiny_model, tiny_gpt2, tokenizer):
    generator = np.random.default_rng(0)

    def draw(size):
        return generator.integers(1, len(tokenizer), size).tolist()

    items = [EncodedItem(draw(3 + 5 * i), [draw(4), draw(1), draw(2 + i)]) for i in range(6)]
    items[2].continuations[1][:] = items[2].continuations[0][:3]  # a shared beginning
    items[3].continuations[0][:] = []
    for model in models(tiny_model, tiny_gpt2, len(tokenizer)):
        model = model.double().eval()
        with torch.no_grad():
            assert _takes_trees(model, items), type(model)
            expected = _score_rows(model, items, max_tokens=200)
            for width, max_tokens in ((64, 1000), (20, 40)):
                trees = [make_tree(item.context, item.continuations) for item in items]
                found = score_trees(model, trees, width=width, max_tokens=max_tokens)
                assert found == pytest.approx(expected, abs=1e-6), type(model)
        assert not model.get_output_embeddings()._forward_pre_hooks


def test_a_model_is_tried_again_for_longer_items_only(tiny_gpt2, monkeypatch):
    tried = []
    scored = likelihood.score_trees
    monkeypatch.setattr(likelihood, "score_trees", lambda *args, **kwargs: tried.append(1) or scored(*args, **kwargs))
    model = tiny_gpt2.eval()
    with torch.no_grad():
        for length, times in ((6, 1), (4, 1), (6, 1), (7, 2)):
            assert _takes_trees(model, [EncodedItem([1] * length, [[2, 3], [4]])])
            assert len(tried) == times
