"""What the tabs compute, against plain restatements; words, models, and input that nobody should type."""

import copy
import json

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from sensia_trainer.explorer import views
from sensia_trainer.explorer.models import load_explored, spelling
from sensia_trainer.explorer.words import known_languages, word_pairs

from .conftest import HOSTILE, PAIRS


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_every_word_of_the_package_is_in_every_language():
    assert set(known_languages()) >= {"en", "id", "et", "sw", "tr", "zh"}
    for target in known_languages()[1:]:
        pairs = word_pairs("en", target)
        assert len(pairs) > 150 and len(set(pairs)) == len(pairs)
    assert ("water", "air") in word_pairs("eng", "ind_Latn")
    assert word_pairs("en", "haw") == []


def test_words_of_ones_own(tmp_path):
    (tmp_path / "words.tsv").write_text("en\thaw\nwater\twai\nsky\tlani\nwater\twai\n")
    assert word_pairs("en", "haw", tmp_path / "words.tsv") == [("water", "wai"), ("sky", "lani")]
    with pytest.raises(ValueError, match="'id'"):
        word_pairs("en", "id", tmp_path / "words.tsv")


def test_a_word_is_spelled_as_inside_a_sentence(tokenizer):
    assert list(spelling(tokenizer, "cat")) == tokenizer(" cat")["input_ids"]
    assert list(spelling(tokenizer, "水")) == tokenizer("水")["input_ids"]


def test_senses_of_a_word_are_those_of_its_tokens(explored):
    found = views.senses_of(explored, "  cat\n", count=2)
    ids = torch.tensor(spelling(explored.tokenizer, "cat"))
    senses = explored.model.get_senses(ids).mean(dim=0).detach().numpy()
    norms = np.exp(np.linalg.norm(senses, axis=1) / 0.7)
    for sense, row in enumerate(found):
        assert row.sense == sense
        assert row.share == pytest.approx(norms[sense] / norms.sum(), rel=1e-4)
        for side, neighbours in enumerate(row.neighbours):
            expected = {}
            for pair in PAIRS:
                if pair[side] != "cat":
                    other = explored.model.get_senses(torch.tensor(spelling(explored.tokenizer, pair[side])))
                    expected[pair[side]] = cosine(senses[sense], other.mean(dim=0)[sense].detach().numpy())
            best = sorted(expected, key=lambda word: -expected[word])[:2]
            assert [word for word, _ in neighbours] == best
            assert [value for _, value in neighbours] == pytest.approx([expected[word] for word in best], abs=1e-5)
        votes = explored.model.lm_head.weight.detach().numpy() @ senses[sense]
        best = explored.tokenizer.decode([int(votes.argmax())]).strip()
        assert best in row.predicted or "\ufffd" in best or not best or best == "<|endoftext|>"


def test_weights_and_logits_add_up(explored):
    text = "The cat sleeps on the"
    found = views.weights_on_next(explored, text)
    ids = explored.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = explored.model(ids).logits[0, -1]
    assert found.alpha.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    # The head reads the sum of all senses of all words, so what they add sums to the logit over the mean.
    assert found.logits.sum() == pytest.approx((logits.max() - logits.mean()).item(), abs=1e-4)
    assert found.following[0][1] == pytest.approx(logits.softmax(-1).max().item(), rel=1e-4)
    assert "".join(found.tokens).replace("␣", "") == text.replace(" ", "")


def test_what_is_read_ends_where_it_is_told(explored):
    whole, part = (
        views.weights_on_next(explored, "The cat sleeps"),
        views.weights_on_next(explored, "The cat sleeps", 1),
    )
    assert part.tokens == whole.tokens and part.alpha.shape == (4, 2)
    assert views.weights_on_next(explored, "The cat sleeps", 10**9).alpha.shape == whole.alpha.shape


def test_behind_a_gate_the_mixture_is_weighed(tiny_model, tokenizer, explored):
    model = tiny_model(residual_gate=True, tie_word_embeddings=True)
    gated = type(explored)("gated", model, tokenizer, ("en", "id"), PAIRS)
    assert np.abs(views.weights_on_next(gated, "The cat").logits).max() == 0  # the gate is closed at first
    with torch.no_grad():
        model.backpack.residual_gate.weight.fill_(0.5)
    assert np.abs(views.weights_on_next(gated, "The cat").logits).max() > 0
    assert views.senses_of(gated, "cat")


def test_parts_of_a_character_are_numbered(tokenizer):
    ids, labels = views.pieces(tokenizer, "水 cat")
    assert len(ids) == len(labels)
    assert labels[0] == "水" and "水·2" in labels and labels.count("水") == 1


def test_what_the_tokenizer_puts_before_a_text_is_shown(tokenizer):
    starting = copy.deepcopy(tokenizer)
    starting.backend_tokenizer.post_processor = TemplateProcessing(single="<X> $A", special_tokens=[("<X>", 7)])
    ids, labels = views.pieces(tokenizer, "a cat")
    assert views.pieces(starting, "a cat") == ([7, *ids], ["start", *labels])


@pytest.mark.parametrize("factor", [0.0, 5.0])
def test_steering_scales_a_sense_and_leaves_nothing_behind(explored, factor):
    text = "The cat sleeps on the"
    found = views.steer(explored, text, "CAT", 1, factor, 5)
    ids = explored.tokenizer(text, return_tensors="pt")["input_ids"]
    changed = explored.tokenizer(" cat")["input_ids"]
    with torch.no_grad():
        before = explored.model(ids).logits[0, -1].log_softmax(-1)
        with explored.model.intervene_on_senses(changed, 1, scale=factor):
            after = explored.model(ids).logits[0, -1].log_softmax(-1)
    assert found.divergence == pytest.approx((before.exp() * (before - after)).sum().item(), abs=1e-5)
    assert found.divergence > 1e-4
    assert [b for _, b, _ in found.following if b == pytest.approx(before.max().exp().item(), rel=1e-4)]
    assert not explored.model.backpack._interventions
    again = views.steer(explored, text, "cat", 1, 1.0, 5)
    assert again.divergence == pytest.approx(0, abs=1e-6) and again.continuations[0] == again.continuations[1]
    assert again.continuations[0] == found.continuations[0]


def test_similarity_is_that_of_the_models_own_sentence_vectors(explored):
    source, target = "The cat sleeps.\n\nThe sea.", "Kucing tidur.\nLaut.\nThe sea."
    found = views.similarity(explored, source, target)
    assert found.source == ["The cat sleeps.", "The sea."] and len(found.target) == 3
    vectors = [
        explored.sentences(explored.sentences.preprocess([text]), vectors="context")["sentence_embedding"][0]
        for text in [*found.source, *found.target]
    ]
    for row in range(2):
        for column in range(3):
            expected = (vectors[row] @ vectors[2 + column]).item()
            assert found.cosines["contexts"][row, column] == pytest.approx(expected, abs=1e-5)
    assert found.cosines["senses"][1, 2] == pytest.approx(1, abs=1e-5)
    assert found.cosines["overlap"][1, 2] == pytest.approx(1) and found.cosines["overlap"].min() >= 0
    assert len(views.similarity(explored, "a\n" * 99, "b").source) == views.MAX_SENTENCES


@pytest.mark.parametrize("sense", [None, 2])
def test_a_map_keeps_what_two_directions_hold(explored, sense):
    found = views.map_of(explored, PAIRS, sense)
    vectors = []
    for word in [pair[side] for side in (0, 1) for pair in PAIRS]:
        senses = explored.model.get_senses(torch.tensor(spelling(explored.tokenizer, word))).mean(0).detach().double()
        pi = torch.softmax(senses.norm(dim=-1) / 0.7, dim=-1)
        vector = pi @ senses if sense is None else senses[sense]
        vectors.append((vector / vector.norm()).numpy())
    vectors = np.array(vectors)
    values = np.linalg.eigvalsh(np.cov(vectors.T, bias=True))[::-1]
    assert found.variance == pytest.approx(values[:2] / values.sum(), abs=1e-4)
    assert found.points.reshape(-1, 2).var(axis=0) == pytest.approx(values[:2], abs=1e-4)
    cosines = vectors[:5] @ vectors[5:].T
    assert found.nearest == sum(int(cosines[i].argmax() == i) for i in range(5))
    assert found.cosine == pytest.approx(cosines.trace() / 5, abs=1e-4)


def test_one_translation_of_two_words_is_that_of_both(explored):
    pairs = [("cat", "kucing"), ("dog", "kucing")]
    assert views.map_of(explored, [(b, b) for _, b in pairs], None).nearest == 2


def test_pairs_are_read_however_they_are_parted():
    assert views.parse_pairs("water = air\nsea\tlaut\n\nsky; langit\nsun,matahari\nwater=air") == [
        ("water", "air"), ("sea", "laut"), ("sky", "langit"), ("sun", "matahari"),
    ]  # fmt: skip
    for text, problem in {
        "water": "water = air",
        "": "at least two",
        "a = b": "at least two",
        "a=b=c\nd=e": "a=b=c",
    }.items():
        with pytest.raises(ValueError, match=problem):
            views.parse_pairs(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_whatever_is_typed_is_answered_or_refused_in_words(explored, text):
    questions = [
        lambda: views.senses_of(explored, text),
        lambda: views.weights_on_next(explored, text),
        lambda: views.steer(explored, text, (views.words_of(text) or [""])[0], 0, 3.0, 2),
        lambda: views.similarity(explored, text, text),
        lambda: views.map_of(explored, views.parse_pairs(f"{text}\ncat = kucing")),
    ]
    for question in questions:
        try:
            assert question() is not None
        except ValueError as error:
            assert len(str(error)) < 300


def test_models_are_loaded_with_their_languages_words_and_base(tmp_path, explored, before, tokenizer):
    for one, folder in ((explored, "adapted"), (before, "base")):
        one.model.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
    facts = {"languages": {"source": "en", "target": "sw"}, "base_model": "/elsewhere/base"}
    (tmp_path / "adapted" / "metrics.json").write_text(json.dumps(facts))
    (one,), base = load_explored([str(tmp_path / "adapted")])
    assert one.languages == ("en", "sw") and one.language_name(1) == "Swahili"
    assert ("water", "maji") in one.pairs and one.name == "adapted"
    assert base.name == "base" and base.languages == one.languages
    several = {"languages": {"source": "en", "targets": ["tr", "et"]}}
    (tmp_path / "base" / "metrics.json").write_text(json.dumps(several))
    assert load_explored([str(tmp_path / "base")])[0][0].languages == ("en", "tr")
    assert load_explored([str(tmp_path / "base")], target_language="et")[0][0].languages == ("en", "et")
    (tmp_path / "base" / "metrics.json").unlink()
    both, base = load_explored([str(tmp_path / "base"), str(tmp_path / "adapted")])
    assert base is both[0] and [one.languages for one in both] == [("en", "sw")] * 2
    (alone,), none = load_explored([str(tmp_path / "base")])
    assert none is None and alone.languages == ("en",)
    assert len(views.senses_of(alone, "cat")[0].neighbours) == 1


def test_a_base_that_cannot_be_shown_is_not_at_hand(tmp_path, explored, before, tiny_gpt2, tokenizer):
    """What a model was induced from has no senses; and a model is not what it was before, whatever it is called."""
    explored.model.save_pretrained(tmp_path / "new" / "model")
    before.model.save_pretrained(tmp_path / "old" / "model")
    tiny_gpt2.save_pretrained(tmp_path / "new" / "dense")
    for folder in ("new/model", "old/model"):
        tokenizer.save_pretrained(tmp_path / folder)
    facts = {"languages": {"source": "en", "target": "sw"}}
    for base, expected in ((tmp_path / "new" / "dense", None), (tmp_path / "old" / "model", before)):
        (tmp_path / "new" / "model" / "metrics.json").write_text(json.dumps(facts | {"base_model": str(base)}))
        (one,), found = load_explored([str(tmp_path / "new" / "model")])
        assert found is not one and (found is None) == (expected is None)
    senses, found = (each.model.get_input_embeddings().weight for each in (before, found))
    assert torch.equal(senses, found)


def test_a_model_without_senses_is_refused(tmp_path, tiny_gpt2, tokenizer):
    tiny_gpt2.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no senses. `sensia induce`"):
        load_explored([str(tmp_path)])
