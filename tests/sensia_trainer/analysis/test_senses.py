import numpy as np
import pytest

from sensia_trainer.analysis.procrustes import normalise_rows
from sensia_trainer.analysis.senses import (
    mutual_information,
    recall_at_1,
    recall_by_sense,
    sense_drift,
    sense_neighbours,
    translation_precision,
)
from tests.reference import analysis as reference


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_copies_of_a_sentence_find_each_other(generator):
    vectors = np.repeat(generator.normal(size=(5, 8)), 2, axis=0)
    assert recall_at_1(vectors, vectors) == pytest.approx(0.5)
    order = [0, 2, 1, 3, 4, 5, 6, 7, 8, 9]  # by nearness, not by place
    assert recall_at_1(vectors[order], vectors[order]) == pytest.approx(0.5)
    vectors[1:2] = vectors[:1]
    assert recall_at_1(vectors[:3], np.roll(vectors[:3], 1, axis=0)) == pytest.approx(0.5 / 3)


def test_mutual_information(generator):
    probs = generator.dirichlet(np.ones(5), size=30)
    assert mutual_information(probs) == pytest.approx(reference.mutual_information(probs))
    assert mutual_information(np.tile(probs[:1], (7, 1))) == pytest.approx(0.0, abs=1e-12)
    assert mutual_information(np.eye(4)) == pytest.approx(np.log(4))
    with pytest.raises(ValueError, match="sum to one"):
        mutual_information(2 * probs)


def test_drift(generator):
    base = generator.standard_normal((6, 3, 5))
    adapted = base.copy()
    adapted[:, 1] *= -2.0
    drift = sense_drift(base, adapted)
    np.testing.assert_allclose(drift["cosine_by_sense"], [1.0, -1.0, 1.0])
    np.testing.assert_allclose(drift["norm_ratio_by_sense"], [1.0, 2.0, 1.0])
    assert drift["cosine"] == pytest.approx(1 / 3)
    moved = generator.standard_normal((6, 3, 5))
    expected = [reference.sense_cosine(base, moved, sense) for sense in range(3)]
    np.testing.assert_allclose(sense_drift(base, moved)["cosine_by_sense"], expected)
    with pytest.raises(ValueError, match="same words"):
        sense_drift(base, adapted[:, :2])


def test_neighbours_are_those_of_the_same_sense(generator):
    candidates = generator.standard_normal((4, 2, 6))
    queries = np.stack([candidates[2, 0], candidates[1, 1]])[None] * 3.0
    (by_sense,), cosines = sense_neighbours(queries, candidates, list("abcd"), count=2)
    assert by_sense[0][0] == "c" and by_sense[1][0] == "b"
    assert [len(names) for names in by_sense] == [2, 2]
    assert cosines.shape == (1, 2, 2)
    np.testing.assert_allclose(cosines[0, :, 0], 1.0)
    for sense in range(2):
        every = normalise_rows(candidates[:, sense]) @ normalise_rows(queries[:, sense])[0]
        np.testing.assert_allclose(cosines[0, sense], sorted(every, reverse=True)[:2])
    with pytest.raises(ValueError, match="names"):
        sense_neighbours(queries, candidates, ["a"])


def test_translation_precision(generator):
    target = generator.standard_normal((5, 2, 8))
    source = target[[3, 0, 1]].copy()
    source[:, 1] = -source[:, 1]  # by sense 1 every word is furthest from its translation
    gold = np.zeros((3, 5), dtype=bool)
    gold[[0, 1, 2], [3, 0, 1]] = True
    precision = translation_precision(source, target, gold)
    assert precision["by_sense"] == [1.0, 0.0]
    assert precision["chance"] == pytest.approx(0.2)
    source = target[[3, 0, 1]] + generator.standard_normal((3, 2, 8))
    expected = [reference.translation_precision(source, target, gold, sense) for sense in range(2)]
    assert translation_precision(source, target, gold)["by_sense"] == pytest.approx(expected)


def test_recall_by_sense_matches_the_plain_restatement(generator):
    source = generator.standard_normal((20, 4, 6))
    target = source + 0.8 * generator.standard_normal((20, 4, 6))
    result = recall_by_sense(source, target)
    for removed in range(4):
        forward = reference.recall_without(source, target, removed)
        assert result["source_to_target"]["without"][removed] == forward
        assert result["target_to_source"]["without"][removed] == reference.recall_without(target, source, removed)
    assert result["source_to_target"]["all"] == reference.recall_without(source, target, None)
    assert 0 < result["source_to_target"]["all"] < 1


def test_the_sense_that_carries_the_alignment_is_found(generator):
    source, target = generator.standard_normal((2, 30, 3, 16))
    source[:, 1] = target[:, 1] = 3 * generator.standard_normal((30, 16))
    forward = recall_by_sense(source, target)["source_to_target"]
    assert forward["alone"][1] == 1.0 and forward["without"][1] < 0.3
    assert min(forward["without"][0], forward["without"][2]) > 0.9
    with pytest.raises(ValueError, match="one shape"):
        recall_by_sense(source, target[:5])
