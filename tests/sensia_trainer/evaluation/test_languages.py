"""Retrieval between all languages against the plain restatement and against the evaluation of one pair."""

import pytest

from sensia_trainer.evaluation import languages
from sensia_trainer.evaluation.batching import encode_texts
from sensia_trainer.evaluation.intrinsic import encode_side, evaluate_bitext, random_weights_recall
from sensia_trainer.evaluation.languages import language_matrix, matrix_figure, random_weights_matrix
from sensia_trainer.evaluation.report_tables import matrix_tables
from tests.reference import languages as reference
from tests.tiny import tiny_languages, tiny_model, tiny_tokenizer


OPTIONS = {
    "batch_size": 4,
    "pooling": "magnitude",
    "temperature": 0.7,
    "context_state": "mixture",
    "context_layer": None,
}


@pytest.fixture(scope="module")
def measured():
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer).eval()
    pairs = tiny_languages(12, 12, 0)
    sentences = {"en": [pair["en"] for pair in pairs["en-id"]["translation"]]}
    sentences |= {code: [pair[code] for pair in pairs[f"en-{code}"]["translation"]] for code in ("id", "sw")}
    assert len(set(sentences["en"])) == 12
    matrix = language_matrix(model, tokenizer, sentences, "en", bootstrap=50, progress=False, **OPTIONS)
    return model, tokenizer, sentences, matrix


def test_every_cell_is_the_evaluation_of_that_pair(measured):
    model, tokenizer, sentences, matrix = measured
    for one, other in (("en", "id"), ("id", "sw"), ("sw", "en")):
        pair = evaluate_bitext(model, tokenizer, sentences[one], sentences[other], **OPTIONS)
        for kind in ("sense", "context"):
            assert matrix[kind][f"{one}-{other}"] == pytest.approx(pair[f"{kind}_recall_source_to_target"])
            assert matrix[kind][f"{other}-{one}"] == pytest.approx(pair[f"{kind}_recall_target_to_source"])
        assert matrix["bits_per_byte"][one] == pytest.approx(pair["source_bits_per_byte"])
        assert matrix["sense_entropy"][other] == pytest.approx(pair["sense_entropy_target"])
    assert matrix["languages"] == ["en", "id", "sw"] and matrix["sentences"] == 12


def test_what_is_not_asked_for_is_as_in_the_paper(measured):
    model, tokenizer, sentences, matrix = measured
    assert language_matrix(model, tokenizer, sentences, "en", bootstrap=50, batch_size=4) == matrix


def test_means_are_those_of_the_plain_restatement(measured):
    model, tokenizer, sentences, matrix = measured
    vectors = {}
    for code, texts in sentences.items():
        encoded = encode_texts(tokenizer, texts, start=None, max_length=40)
        vectors[code] = encode_side(model, encoded, code, progress=False, accelerator=None, **OPTIONS)[
            "context"
        ].tolist()
    assert matrix["context"]["zero_shot"] == pytest.approx(reference.zero_shot(vectors, "en"))
    expected = [reference.recall(vectors["en"], vectors[code]) for code in ("id", "sw")]
    assert matrix["context"]["from_source"] == pytest.approx(sum(expected) / 2)
    low, high = matrix["context"]["zero_shot_interval"]
    assert low <= matrix["context"]["zero_shot"] <= high


def test_random_weights_are_those_of_the_evaluation_of_a_pair(measured):
    model, tokenizer, sentences, matrix = measured
    found = random_weights_matrix(model, tokenizer, sentences, "en", seed=3, progress=False, **OPTIONS)
    pair = random_weights_recall(model, tokenizer, sentences["id"], sentences["sw"], seed=3, **OPTIONS)
    assert set(found) == {"random_sense", "random_context"}
    for kind in found:
        assert found[kind]["id-sw"] == pytest.approx(pair[f"{kind}_recall_source_to_target"])
        assert set(found[kind]) == {key for key in matrix["sense"] if not key.endswith("_interval")}


def test_beyond_overlap_by_hand():
    import torch

    hits = {"en-id": [1, 0, 1], "id-en": [1, 1, 1], "en-sw": [0, 0, 1], "sw-en": [1, 1, 0], "id-sw": [1, 0, 1]}
    hits |= {"sw-id": [0, 1, 1]}
    overlap = {name: [1, 0, 1] for name in hits} | {"id-sw": [1, 1, 0.5]}
    tensors = [{name: torch.tensor(values).double() for name, values in part.items()} for part in (hits, overlap)]
    found = languages._beyond(*tensors, "en", 0, 0)
    means = {"from_source": 0.0, "to_source": 1.0, "zero_shot": 1.0}
    assert found == means | {"en-id": 0.0, "id-en": 1.0, "en-sw": 0.0, "sw-en": 1.0, "id-sw": 1.0, "sw-id": 1.0}


def test_languages_of_unequal_length_or_without_the_source_are_refused(measured):
    model, tokenizer, sentences, _ = measured
    for wrong in ({"en": ["a", "b"], "id": ["a"]}, {"id": ["a", "b"], "sw": ["a", "b"]}, {"en": ["a", "b"]}):
        with pytest.raises(ValueError, match="matrix of languages needs two languages or more"):
            language_matrix(model, tokenizer, wrong, "en", **OPTIONS)


def test_the_report_has_a_row_for_each_direction_and_language(measured):
    matrix = measured[3]
    text = "\n".join(matrix_tables([{"name": "a", "matrix": matrix}, {"name": "b"}]))
    assert "| FLORES-200 | a |" in text and text.count("sense vectors |") == 6 + 3
    assert f"| recall@1 Indonesian → Swahili, context vectors | {matrix['context']['id-sw']:.3f} [" in text
    assert f"| bits per byte, Swahili | {matrix['bits_per_byte']['sw']:.3f} [" in text
    assert "random weights" not in text and text.count(", context vectors where overlap fails |") > 0
    random = matrix | {"random_sense": matrix["sense"]}
    text = "\n".join(matrix_tables([{"name": "a", "matrix": random}]))
    assert text.count("sense vectors, random weights |") == 6 + 3
    assert matrix_tables([{"name": "b"}]) == []


def test_means_over_other_languages_do_not_stand_beside_each_other(measured):
    matrix = measured[3] | {"split": "devtest"}
    same = "\n".join(
        matrix_tables([{"name": "a", "matrix": matrix}, {"name": "b", "matrix": matrix | {"split": "dev"}}])
    )
    number = matrix["sentences"]
    assert f"| sentences of | devtest: {number} | dev: {number} |" in same and "zero-shot" in same
    other = {"name": "b", "matrix": matrix | {"languages": ["en", "id", "tr"]}}
    mixed = "\n".join(matrix_tables([{"name": "a", "matrix": matrix}, other]))
    assert "zero-shot" not in mixed and "into the source" not in mixed and "Indonesian → English" in mixed
    assert "| languages, the source first | en, id, sw | en, id, tr |" in mixed


def test_the_figure(measured, tmp_path):
    files = matrix_figure(measured[3], tmp_path / "languages")
    assert [file.name for file in files] == ["languages.png", "languages.svg"]
    assert "queries" in files[1].read_text(encoding="utf-8")  # a comment of the SVG names each text
