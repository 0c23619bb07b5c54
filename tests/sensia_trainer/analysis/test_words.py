import copy

import numpy as np
import pytest
import torch

from sensia_trainer.analysis.words import (
    Word,
    padded_batches,
    pool,
    segment_words,
    sentence_senses,
    word_positions,
    word_senses,
)
from sensia_trainer.representations import sense_probs
from tests.reference import analysis as reference


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"We don\'t," he said.', ['"', "We", "don't", ",", '"', "he", "said", "."]),
        ("anak-anak di Jakarta", ["anak-anak", "di", "Jakarta"]),
        ("1,012.5 km, 3rd", ["1,012.5", "km", ",", "3rd"]),
        ("Türkiye'nin başkenti", ["Türkiye'nin", "başkenti"]),
        ("我们在3月", ["我", "们", "在", "3", "月"]),
        ("नमस्ते!", ["नमस्ते", "!"]),
        ("او می\u200cخواهد", ["او", "می\u200cخواهد"]),
        ("  ", []),
    ],
)
def test_segmentation(text, words):
    found = segment_words(text)
    assert [word.text for word in found] == words
    assert all(text[word.start : word.end] == word.text for word in found)


def test_positions_cover_each_word(tokenizer):
    text = 'Kucing "tidur" di atas kursi — çok güzel.'
    words = segment_words(text)
    ids, positions = word_positions(tokenizer, text, words)
    assert ids == tokenizer(text)["input_ids"]
    for word, spelled in zip(words, positions):
        assert word.text in tokenizer.decode([ids[t] for t in spelled])
    covered = {t for spelled in positions for t in spelled}
    assert {t for t in range(len(ids)) if tokenizer.decode([ids[t]]).strip()} <= covered | {0}


def test_what_the_tokenizer_puts_before_a_text_is_read_before_it(tokenizer):
    from tokenizers.processors import TemplateProcessing

    text = "The cat sleeps."
    words = segment_words(text)
    ids, positions = word_positions(tokenizer, text, words)
    starting = copy.deepcopy(tokenizer)
    starting.backend_tokenizer.post_processor = TemplateProcessing(single="<X> $A <X>", special_tokens=[("<X>", 7)])
    behind, later = word_positions(starting, text, words)
    assert behind == [7, *ids] and later == [[place + 1 for place in spelled] for spelled in positions]
    assert word_positions(starting, "", []) == ([], [])


def test_words_beyond_the_cut_have_no_positions(tokenizer):
    text = "The cat sleeps on the chair."
    words = segment_words(text)
    _, whole = word_positions(tokenizer, text, words)
    cut = next(spelled[-1] for spelled in whole if len(spelled) > 1)  # in the middle of a word
    ids, positions = word_positions(tokenizer, text, words, max_length=cut)
    assert len(ids) == cut
    assert positions == [spelled if max(spelled) < cut else [] for spelled in whole]
    assert [] in positions and positions[0]


class _Slow:
    is_fast = False


class _WithoutOffsets:
    is_fast = True

    def __call__(self, text, **_):
        return {"input_ids": [1, 2], "offset_mapping": [(0, 0), (0, 0)]}


@pytest.mark.parametrize("bad", [_Slow(), _WithoutOffsets()])
def test_tokenizers_without_offsets_are_refused(bad):
    with pytest.raises(ValueError, match="character offsets"):
        word_positions(bad, "a b", [Word("a", 0, 1)])


def test_pool_is_the_mean_over_positions():
    rows = torch.arange(12.0).view(3, 4)
    expected = torch.stack([rows[1], (rows[0] + rows[2]) / 2])
    torch.testing.assert_close(pool(rows, [[1], [0, 2]]), expected)
    with pytest.raises(ValueError, match="without subword positions"):
        pool(rows, [[0], []])


def test_word_senses_do_not_depend_on_batches(tiny_model):
    model = tiny_model()
    spellings = [(1, 2), (3,), (2, 2, 5)]
    senses = word_senses(model, spellings, batch_size=2)
    for spelling, found in zip(spellings, senses):
        expected = model.get_senses(torch.tensor(spelling)).mean(dim=0).detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_batches_hold_every_sentence_once():
    sequences = [[1], [2, 3, 4], [5, 6]]
    seen = {}
    for indices, ids, mask in padded_batches(sequences, 2):
        for row, index in enumerate(indices):
            seen[index] = ids[row][mask[row].bool()].tolist()
    assert [seen[i] for i in range(3)] == sequences


@pytest.mark.parametrize("definition", ["magnitude", "contextual", "contextual_share", "predictive"])
def test_word_vectors_match_the_plain_formula(tiny_model, tokenizer, definition):
    model = tiny_model()
    texts = ["The cat sleeps on the chair.", "Where is the nearest station?"]
    sequences = [tokenizer(text)["input_ids"] for text in texts]
    positions = [[[0, 1], [3]], [[2]]]
    found = sentence_senses(model, sequences, positions, definitions=(definition,), temperature=0.7, batch_size=2)
    expected = []
    for ids, words in zip(sequences, positions):
        with torch.no_grad():
            output = model(torch.tensor([ids]), output_senses=True, output_sense_weights=True)
        context = output.backbone_last_hidden_state
        probs = sense_probs(
            output.senses,
            definition=definition,
            temperature=0.7,
            sense_weights=output.sense_weights,
            context=context,
        )
        expected += [reference.word_mixture(output.senses[0].numpy(), probs[0].numpy(), word) for word in words]
    np.testing.assert_allclose(found.word_vectors[definition], expected, atol=1e-5)
    np.testing.assert_allclose(found.word_probs[definition].sum(axis=1), 1.0, atol=1e-5)


def test_contributions_sum_to_the_sentence_vector(tiny_model, tokenizer):
    from sensia_trainer.representations import sense_sentence_vectors

    model = tiny_model()
    sequences = [tokenizer(text)["input_ids"] for text in ("Buku yang bagus.", "The river runs down to the sea.")]
    found = sentence_senses(model, sequences, [[], []], temperature=0.7)
    for ids, contributions in zip(sequences, found.contributions):
        with torch.no_grad():
            output = model(torch.tensor([ids]), output_senses=True)
        vector, _ = sense_sentence_vectors(output.senses, torch.ones(1, len(ids)), temperature=0.7)
        total = contributions.sum(axis=0)
        np.testing.assert_allclose(total / np.linalg.norm(total), vector[0].numpy(), atol=1e-5)


def test_empty_sentences_are_refused(tiny_model):
    with pytest.raises(ValueError, match="no tokens"):
        sentence_senses(tiny_model(), [[1], []], [[], []])
