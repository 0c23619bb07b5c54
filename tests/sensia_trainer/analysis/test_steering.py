import numpy as np
import pytest
import torch

from sensia_trainer.analysis.disambiguation import AmbiguousWord, Occurrences
from sensia_trainer.analysis.steering import boosted, meaning_scores, prompts_up_to, steering
from sensia_trainer.analysis.words import Word


def occurrences(word):
    texts = [f"the cat sleeps near the {word} of the river", f"a good book about a {word}"] * 2
    words = [Word(word, text.index(word), text.index(word) + len(word)) for text in texts]
    return Occurrences(texts, words, np.array([0, 1, 0, 1]))


WORDS = [AmbiguousWord(word, ["a", "b"], occurrences(word), occurrences(word)) for word in ("bank", "chair")]


def test_scores_are_log_ratios_of_rates(tokenizer, monkeypatch):
    monkeypatch.setattr("sensia_trainer.analysis.steering.COMMON", 0)
    found = meaning_scores(tokenizer, occurrences("bank"), 2, len(tokenizer))
    counts = np.ones((2, len(tokenizer)))
    for text, label in zip(occurrences("bank").sentences, [0, 1, 0, 1], strict=True):
        for token in tokenizer(text)["input_ids"]:
            counts[label, token] += 1
    expected = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
    own = tokenizer("bank")["input_ids"] + tokenizer(" bank")["input_ids"]
    expected[own] = 0.0
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    np.testing.assert_allclose(found[1], -expected, atol=1e-12)


def test_prompts_end_with_the_word(tokenizer):
    sequences, token = prompts_up_to(tokenizer, occurrences("chair"), 3, None)
    assert len(sequences) == 3 and {ids[-1] for ids in sequences} == {token}
    assert tokenizer.decode(sequences[0]) == "the cat sleeps near the chair"
    assert all(len(ids) == 4 for ids in prompts_up_to(tokenizer, occurrences("chair"), 3, 4)[0])


@pytest.mark.parametrize("gate", [False, True])
def test_a_boost_is_measured_by_the_expected_score(tiny_model, tokenizer, gate):
    """One pass for all senses against a pass for each, with the sense replaced wherever the word stands."""
    model = tiny_model(residual_gate=gate)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    sequences, token = prompts_up_to(tokenizer, occurrences("chair"), 4, 64)
    sequences.append([token, *sequences[0]])
    boosts, scores = (
        torch.randn(4, 32),
        np.random.default_rng(0).normal(size=(2, len(model.get_input_embeddings().weight))),
    )
    found = boosted(model, sequences, token, boosts, scores, batch_size=3)
    with torch.no_grad():
        expected = np.zeros((4, 2))
        for ids in sequences:
            before = model(torch.tensor([ids])).logits[0, -1].softmax(-1).double().numpy()
            for k in range(4):
                with model.intervene_on_senses(
                    [token], k, vector=model.get_senses(torch.tensor([token]))[0, k] + boosts[k]
                ):
                    after = model(torch.tensor([ids])).logits[0, -1].softmax(-1).double().numpy()
                expected[k] += (after - before) @ scores.T / len(sequences)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_own_and_other_senses_for_every_meaning(tiny_model, tokenizer):
    found = steering(tiny_model(), tokenizer, WORDS, prompts=2, iterations=20)
    assert found["meanings"] == 4 and set(found["words"]) == {"bank", "chair"}
    assert 0 <= found["own"]["towards"] <= 1 and 0 <= found["words"]["bank"]["a"]["own"]["sense"] < 4
    gap = found["own"]["shift"]["mean"] - found["other"]["shift"]["mean"]
    assert found["difference"]["mean"] == pytest.approx(gap)
    with pytest.raises(ValueError, match="another ambiguous word"):
        steering(tiny_model(), tokenizer, WORDS[:1])
