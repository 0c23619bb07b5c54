import copy
import math

import numpy as np
import pytest
import torch

from sensia_trainer.evaluation.batching import EncodedText, start_token
from sensia_trainer.evaluation.perplexity import nll_intervals, nll_per_row, nll_per_row_from_logits, perplexity
from sensia_trainer.utils.models import own_start_token
from tests.conftest import SENTENCES
from tests.reference.evaluation import token_log_probs


def test_equals_one_token_at_a_time(tiny_gpt2, tokenizer):
    texts = [*SENTENCES[:5], "a"]
    result = perplexity(tiny_gpt2, tokenizer, texts, batch_size=4)
    log_probs = [token_log_probs(tiny_gpt2, [tokenizer.bos_token_id, *tokenizer(t)["input_ids"]]) for t in texts]
    total, tokens = -sum(map(sum, log_probs)), sum(map(len, log_probs))
    assert result["tokens"] == tokens == sum(len(tokenizer(t)["input_ids"]) for t in texts)
    assert result["nll"] == pytest.approx([-sum(values) for values in log_probs], rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-5)
    assert result["bytes"] == sum(len(t.encode()) for t in texts)
    assert result["nll_per_byte"] == pytest.approx(total / result["bytes"], rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(total / result["bytes"] / math.log(2), rel=1e-5)
    assert result["perplexity_per_word"] == pytest.approx(
        math.exp(total / sum(len(t.split()) for t in texts)), rel=1e-5
    )


def test_intervals_hold_the_perplexity(tiny_gpt2, tokenizer):
    result = perplexity(tiny_gpt2, tokenizer, SENTENCES, bootstrap=200)
    for key in ("perplexity", "perplexity_per_word", "nll_per_byte", "bits_per_byte"):
        low, high = result[f"{key}_interval"]
        assert low < result[key] < high, key
    # The same resamples by hand: sums over the drawn sentences, divided once.
    drawn = np.random.default_rng(0).integers(0, len(SENTENCES), (200, len(SENTENCES)))
    sizes = [len(text.encode()) for text in SENTENCES]
    per_byte = [sum(result["nll"][i] for i in rows) / sum(sizes[i] for i in rows) for rows in drawn]
    assert result["nll_per_byte_interval"] == pytest.approx(np.quantile(per_byte, [0.025, 0.975]), rel=1e-9)


def test_what_the_texts_have_nothing_of_has_no_interval():
    texts = [EncodedText([0, n, n], 4, 0, False) for n in range(3)]  # no word is predicted after the start token
    found = nll_intervals(np.array([1.0, 2.0, 3.0]), texts, samples=20, seed=0)
    assert set(found) == {"perplexity_interval", "nll_per_byte_interval", "bits_per_byte_interval"}
    mixed = [EncodedText([0, 1], 4, 1, False), *texts]  # words in one text of four: some draws have none
    found = nll_intervals(np.array([1.0, 0.0, 0.0, 0.0]), mixed, samples=50, seed=0)
    assert found["perplexity_per_word_interval"] == pytest.approx([np.e, np.e])


def test_does_not_depend_on_batch_size_or_order(tiny_gpt2, tokenizer):
    expected = perplexity(tiny_gpt2, tokenizer, SENTENCES, batch_size=1)
    for batch_size in (3, 32):
        result = perplexity(tiny_gpt2, tokenizer, SENTENCES, batch_size=batch_size)
        assert result["nll"] == pytest.approx(expected["nll"], rel=1e-6)
        assert result["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-6)
    backwards = perplexity(tiny_gpt2, tokenizer, SENTENCES[::-1], batch_size=4)
    assert backwards["nll"][::-1] == pytest.approx(expected["nll"], rel=1e-6)


def test_without_start_token_the_first_token_counts_nowhere(tiny_gpt2, tokenizer):
    text = "The river runs."
    ids = tokenizer(text)["input_ids"]
    result = perplexity(tiny_gpt2, tokenizer, [text], start=None)
    assert result["tokens"] == len(ids) - 1
    assert result["nll"] == pytest.approx([-sum(token_log_probs(tiny_gpt2, ids))], rel=1e-5)
    assert result["bytes"] == len(text.encode()) - len(tokenizer.decode(ids[:1]).encode())


def test_what_is_left_of_a_character_behind_its_first_token_counts(tiny_gpt2, tokenizer):
    text = "“Так,” he said."
    ids = tokenizer(text)["input_ids"]
    assert len(tokenizer(text[:1])["input_ids"]) == 3  # a token for each of its bytes
    result = perplexity(tiny_gpt2, tokenizer, [text], start=None)
    assert (result["tokens"], result["bytes"]) == (len(ids) - 1, len(text.encode()) - 1)


def test_truncation_is_counted_and_scores_what_was_kept(tiny_gpt2, tokenizer):
    text = SENTENCES[0]
    ids = tokenizer(text)["input_ids"]
    result = perplexity(tiny_gpt2, tokenizer, [text, "a"], max_length=6)
    assert (result["truncated"], result["tokens"]) == (1, 6)
    assert result["bytes"] == len(tokenizer.decode(ids[:5]).encode()) + 1
    assert result["nll"][0] == pytest.approx(
        -sum(token_log_probs(tiny_gpt2, [tokenizer.bos_token_id, *ids[:5]])), rel=1e-5
    )


@pytest.mark.parametrize("chunk_size", [1, 5, 2048])
def test_chunked_head_equals_full_logits(tiny_gpt2, chunk_size):
    ids = torch.randint(0, 200, (3, 9))
    mask = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [1] + [0] * 8])
    with torch.no_grad():
        output = tiny_gpt2(ids, attention_mask=mask, output_hidden_states=True)
        chunked = nll_per_row(output.hidden_states[-1], tiny_gpt2.lm_head, ids, mask, chunk_size=chunk_size)
    full = nll_per_row_from_logits(output.logits, ids, mask)
    assert torch.allclose(chunked, full, rtol=1e-5)
    assert chunked[2] == 0


def test_mode_of_every_module_is_restored(tiny_gpt2, tokenizer):
    tiny_gpt2.train()
    tiny_gpt2.transformer.h[0].eval()  # a frozen part
    perplexity(tiny_gpt2, tokenizer, SENTENCES)
    assert tiny_gpt2.training and not tiny_gpt2.transformer.h[0].training and tiny_gpt2.transformer.h[1].training


def test_start_token_of_tokenizers(tokenizer):
    from tokenizers.processors import TemplateProcessing

    assert own_start_token(tokenizer) is None
    assert start_token(tokenizer) == tokenizer.bos_token_id
    assert start_token(tokenizer, "own") is None
    with pytest.raises(ValueError, match="'own', 'auto'"):
        start_token(tokenizer, "bos")
    prepending = copy.deepcopy(tokenizer)
    prepending.backend_tokenizer.post_processor = TemplateProcessing(single="<X> $A <X>", special_tokens=[("<X>", 7)])
    assert own_start_token(prepending) == start_token(prepending, "own") == start_token(prepending) == 7


def test_model_without_pad_or_start_token(tiny_gpt2, tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = bare.eos_token = bare.pad_token = None
    result = perplexity(tiny_gpt2, bare, SENTENCES, batch_size=3)
    expected = perplexity(tiny_gpt2, tokenizer, SENTENCES, start=None)
    assert result["nll"] == pytest.approx(expected["nll"], rel=1e-6)


def test_bad_input(tiny_gpt2, tokenizer):
    with pytest.raises(ValueError, match="Text 1 has no tokens"):
        perplexity(tiny_gpt2, tokenizer, ["a", ""])
    with pytest.raises(ValueError, match="empty"):
        perplexity(tiny_gpt2, tokenizer, [])
    with pytest.raises(ValueError, match="`batch_size`"):
        perplexity(tiny_gpt2, tokenizer, ["a"], batch_size=0)
    with pytest.raises(ValueError, match="No token is predicted"):
        perplexity(tiny_gpt2, tokenizer, ["a"], start=None)
    tiny_gpt2.resize_token_embeddings(100)
    with pytest.raises(ValueError, match="embeds only 100 tokens"):
        perplexity(tiny_gpt2, tokenizer, SENTENCES)


def test_nan_names_the_text(tiny_gpt2, tokenizer):
    tiny_gpt2.transformer.wte.weight.data[tokenizer("zz")["input_ids"][0]] = float("nan")
    # Tied head: NaN weights reach every row through the logits, so every text is affected, the first one named.
    with pytest.raises(ValueError, match="text 0 is not finite"):
        perplexity(tiny_gpt2, tokenizer, ["a b", "zz"])
