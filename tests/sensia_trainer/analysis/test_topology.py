import numpy as np
import pytest
from scipy import stats

from sensia_trainer.analysis.topology import sense_geometry, standardised_ranks, topology_scores
from tests.reference import analysis as reference


@pytest.fixture
def pairs():
    generator = np.random.default_rng(0)
    source = generator.standard_normal((30, 6, 10))
    return source, source + generator.standard_normal((30, 6, 10))


def sense_topology(source, target, **options):
    return topology_scores(*(standardised_ranks(sense_geometry(side, **options)) for side in (source, target)))


def test_scores_match_the_plain_formula_and_scipy(pairs):
    scores, _ = sense_topology(*pairs, chunk_size=7)
    expected = [reference.topology_score(s, t) for s, t in zip(*pairs)]
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    geometries = [sense_geometry(side) for side in pairs]
    oracle = [stats.spearmanr(s, t).statistic for s, t in zip(*geometries)]
    np.testing.assert_allclose(scores, oracle, atol=1e-9)


def test_ranks_with_many_ties_matches_scipy():
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 4, (2, 50, 12)).astype(float)
    oracle = [stats.spearmanr(a, b).statistic for a, b in zip(first, second)]
    scores, _ = topology_scores(standardised_ranks(first), standardised_ranks(second))
    np.testing.assert_allclose(scores, oracle, atol=1e-9)
    plain = [reference.spearman(a, b) for a, b in zip(first.tolist(), second.tolist())]
    np.testing.assert_allclose(scores, plain, atol=1e-9)


def test_constant_rows_are_undefined_not_zero():
    assert np.isnan(standardised_ranks(np.ones((1, 5)))).all()


def test_scores_ignore_rotation_shift_and_scale(pairs):
    source, _ = pairs
    rotation, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((10, 10)))
    scores, _ = sense_topology(source, 3.0 * source @ rotation + 5.0)
    np.testing.assert_allclose(scores, 1.0, atol=1e-9)


def test_mismatched_baseline_is_the_mean_over_all_other_targets(pairs):
    source, target = (side[:6] for side in pairs)
    _, mismatched = sense_topology(source, target)
    for i in range(6):
        expected = np.mean([reference.topology_score(source[i], target[j]) for j in range(6) if j != i])
        assert mismatched[i] == pytest.approx(expected, abs=1e-9)


def test_a_shared_sense_order_shows_in_the_baseline():
    """Words whose senses all follow one template correlate even when mismatched: that is the sense index's share."""
    generator = np.random.default_rng(3)
    template = generator.standard_normal((1, 8, 16))
    source, target = template + 0.3 * generator.standard_normal((2, 40, 8, 16))
    scores, mismatched = sense_topology(source, target)
    assert mismatched.mean() > 0.5
    assert abs(scores.mean() - mismatched.mean()) < 0.1


def test_pairs_with_repeated_or_central_senses_are_discarded(pairs):
    source, target = (side.copy() for side in pairs)
    source[1, 2] = source[1, 4]  # fewer than K distinct senses
    target[3] -= target[3].mean(axis=0)
    target[3, 0] = 0.0
    target[3, 1:] -= target[3, 1:].mean(axis=0)  # sense 0 equals the mean of all
    source[5] = 0.0
    scores, mismatched = sense_topology(source, target)
    discarded = [1, 3, 5]
    assert np.isnan(scores[discarded]).all() and np.isnan(mismatched[discarded]).all()
    kept = np.setdiff1d(np.arange(30), discarded)
    expected, _ = sense_topology(source[kept], target[kept])
    np.testing.assert_allclose(scores[kept], expected, atol=1e-12)


def test_half_precision_input_is_computed_in_double(pairs):
    halves = [side.astype(np.float16) for side in pairs]
    expected = [reference.topology_score(s.astype(float), t.astype(float)) for s, t in zip(*halves)]
    np.testing.assert_allclose(sense_topology(*halves)[0], expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 2, 8), (4, 8)])
def test_shapes_without_a_pattern_are_refused(shape):
    with pytest.raises(ValueError, match="K >= 3"):
        sense_geometry(np.zeros(shape))
