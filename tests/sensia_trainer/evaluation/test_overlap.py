import numpy as np
import pytest

from sensia_trainer.evaluation.overlap import overlap_by_query, overlap_vectors, token_idf
from tests.reference.evaluation import overlap_idf, overlap_vector, retrieval


SOURCE = [[1, 2, 2, 3], [4, 5], [6, 6, 7, 1], [8, 9, 10]]
TARGET = [[2, 11, 3], [5, 12, 12], [7, 13, 6], [14, 15]]


def test_idf_of_known_counts():
    idf = token_idf([[0, 0, 1], [1], [1, 2]], vocab_size=4)
    np.testing.assert_allclose(idf, np.log([4 / 2, 4 / 4, 4 / 2, 4 / 1]))
    with pytest.raises(ValueError, match="`sequences` is empty"):
        token_idf([], 4)


def test_equals_the_plain_restatement():
    idf = token_idf(SOURCE + TARGET, vocab_size=16)
    expected_idf = overlap_idf(SOURCE + TARGET, 16)
    np.testing.assert_allclose(idf, expected_idf, rtol=1e-12)
    source, target = ([overlap_vector(ids, expected_idf) for ids in side] for side in (SOURCE, TARGET))
    np.testing.assert_allclose(overlap_vectors(SOURCE, idf).toarray(), source, atol=1e-12)
    found = overlap_by_query(SOURCE, TARGET, idf, chunk_size=3)
    for i, sides in enumerate(((source, target), (target, source))):
        hits, margins, ranks = retrieval(*(np.array(side) for side in sides))
        np.testing.assert_allclose(found["hits"][i], hits)
        np.testing.assert_allclose(found["margins"][i], margins, atol=1e-12)
        np.testing.assert_allclose(found["ranks"][i], ranks)
    assert found["hits"][0].tolist() == [1, 1, 1, 0.25]  # the last shares nothing: as near to all


def test_tokens_in_every_sentence_weigh_nothing():
    idf = token_idf([[0, 1], [0, 2]], vocab_size=3)
    assert idf[0] == 0
    found = overlap_by_query([[0, 1], [0, 2]], [[0], [0, 2]], idf)
    assert found["hits"].tolist() == [[0.5, 1.0], [0.5, 1.0]]
