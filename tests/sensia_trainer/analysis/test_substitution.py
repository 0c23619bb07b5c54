import copy
import gzip
import json

import numpy as np
import pytest
import torch

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.analysis.controls import closed_gate
from sensia_trainer.analysis.mixture import sentence_nll
from sensia_trainer.analysis.substitution import (
    Target,
    average_precision,
    average_precision_of_any_order,
    fits_by_embedding,
    fits_by_likelihood,
    fits_by_senses,
    load_swords,
    rank_substitutes,
    recall_of_first,
)
from sensia_trainer.analysis.words import Word
from tests.reference import sense_benchmarks as reference
from tests.reference.evaluation import token_log_probs


CONTEXT = "The cat sleeps on the chair."
TARGET = Target(CONTEXT, Word("sleeps", 8, 14), ["reads", "runs down", "is", "sleeps"], np.array([0.1, 0.6, 0.0, 1.0]))


def test_average_precision_by_its_definition():
    gains = np.array([0.0, 0.4, 1.0, 0.4, 0.0])
    scores = np.array([5.0, 1.0, 4.0, 3.0, 2.0])
    assert average_precision(scores, gains) == pytest.approx(reference.average_precision([0.0, 1.0, 0.4, 0.0, 0.4]))
    assert average_precision(gains, gains) == 1.0
    # By hand: (0 + 1/2 + 1.4/3 + 1.8/5) / (1 + 1.4/2 + 1.8/3).
    assert average_precision(scores, gains) == pytest.approx((1 / 2 + 1.4 / 3 + 1.8 / 5) / (1 + 1.4 / 2 + 1.8 / 3))
    expected = reference.average_precision_of_any_order(gains.tolist())
    assert average_precision_of_any_order(gains) == pytest.approx(expected)
    assert average_precision_of_any_order(np.array([0.3])) == pytest.approx(1.0)


def test_recall_of_the_first():
    gains = np.array([1.0, 0.0, 0.5, 0.49])
    assert recall_of_first(np.array([1, 4, 3, 2]), gains, first=2) == 0.5
    assert recall_of_first(np.array([4, 1, 3, 2]), gains, first=2) == 1.0
    assert recall_of_first(np.array([1, 2]), np.array([0.2, 0.4])) is None


def test_a_file_of_swords(tmp_path):
    content = {
        "contexts": {"c": {"context": CONTEXT}},
        "targets": {"t": {"context_id": "c", "target": "sleeps", "offset": 8}, "u": {"context_id": "c", "target": "on",
                    "offset": 15}},
        "substitutes": {"a": {"target_id": "t", "substitute": "rests"}, "b": {"target_id": "u", "substitute": "x"}},
        "substitute_labels": {"a": ["TRUE", "FALSE", "TRUE_IMPLICIT", "UNSURE"], "b": ["FALSE"]},
    }  # fmt: skip
    with gzip.open(tmp_path / "dev.json.gz", "wt") as file:
        json.dump(content, file)
    (target,) = load_swords(tmp_path / "dev.json.gz")  # nobody accepts a substitute of the other
    assert target.word == ("sleeps", 8, 14) and target.substitutes == ["rests"] and target.accepted.tolist() == [0.5]
    (tmp_path / "bad.json").write_text("{}")
    for name in ("bad.json", "nowhere.json"):
        with pytest.raises(ValueError, match="is no file of SWORDS"):
            load_swords(tmp_path / name)


@pytest.fixture
def model(tiny_model):
    model = tiny_model().double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_likelihood_is_that_of_the_sentence(model, tokenizer):
    found = fits_by_likelihood(model, tokenizer, TARGET, batch_size=2)
    for score, word in zip(found, TARGET.substitutes, strict=True):
        ids = tokenizer(CONTEXT.replace("sleeps", word))["input_ids"]
        assert score == pytest.approx(sum(token_log_probs(model, ids)), rel=1e-4)


def test_a_sentence_begins_as_the_tokenizer_lets_it(model, tokenizer):
    from tokenizers.processors import TemplateProcessing

    starting = copy.deepcopy(tokenizer)
    starting.backend_tokenizer.post_processor = TemplateProcessing(single="<X> $A", special_tokens=[("<X>", 7)])
    before, after = TARGET.context[: TARGET.word.start], TARGET.context[TARGET.word.end :]
    texts = [before + word + after for word in TARGET.substitutes]
    nll, _ = sentence_nll(model, [[7, *tokenizer(text)["input_ids"]] for text in texts])
    assert fits_by_likelihood(model, starting, TARGET) == pytest.approx(-nll, rel=1e-5)


def test_the_word_itself_fits_best_by_senses_and_by_embedding(model, tokenizer):
    ids = tokenizer(CONTEXT[:14])["input_ids"]
    parts = torch.stack([reference.contribution(model, ids, k) for k in range(4)])
    weights = parts.norm(dim=-1) / parts.norm(dim=-1).sum()

    def mixed(word):
        senses = model.get_senses(torch.tensor(tokenizer(" " + word)["input_ids"])).sum(dim=0)
        return sum(weights[k] * senses[k] for k in range(4)).detach()

    expected = [torch.cosine_similarity(mixed("sleeps"), mixed(word), dim=0).item() for word in TARGET.substitutes]
    found = fits_by_senses(model, tokenizer, TARGET)
    assert found == pytest.approx(expected, abs=1e-5) and found.argmax() == 3
    assert found[3] == pytest.approx(1.0) and fits_by_embedding(model, tokenizer, TARGET)[3] == pytest.approx(1.0)


def test_with_and_without_the_sense_path(tiny_gpt2, model, tokenizer):
    gated = BackpackForCausalLM.from_backbone(tiny_gpt2, num_senses=4).eval()
    torch.nn.init.constant_(gated.backpack.residual_gate.weight, 0.7)
    with closed_gate(gated):
        closed = fits_by_likelihood(gated, tokenizer, TARGET)
    assert gated.backpack.residual_gate.weight.item() == pytest.approx(0.7)
    assert closed == pytest.approx(fits_by_likelihood(tiny_gpt2, tokenizer, TARGET), rel=1e-5)
    found = rank_substitutes(gated, tokenizer, [TARGET] * 3, iterations=20)
    assert found["targets"] == 3 and {d["than"] for d in found["likelihood"]["differences"]} == {
        "likelihood_without_senses",
        "any_order",
    }
    assert "likelihood_without_senses" not in rank_substitutes(model, tokenizer, [TARGET], iterations=20)
    with pytest.raises(ValueError, match="predicts from its senses alone"):
        with closed_gate(model):
            pass
