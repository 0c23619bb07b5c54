import warnings

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from sensia_trainer.analysis.procrustes import (
    aligned_cosines,
    compare_procrustes,
    grouped_halves,
    orthogonal_map,
    procrustes,
)
from tests.reference import analysis as reference


@pytest.fixture
def rotated():
    generator = np.random.default_rng(0)
    source = generator.standard_normal((400, 12))
    rotation, _ = np.linalg.qr(generator.standard_normal((12, 12)))
    return source, source @ rotation.T, rotation


def test_the_rotation_is_recovered_and_agrees_with_scipy(rotated):
    source, target, rotation = rotated
    np.testing.assert_allclose(orthogonal_map(target, source), rotation, atol=1e-10)
    noisy = target + np.random.default_rng(1).standard_normal(target.shape)
    np.testing.assert_allclose(orthogonal_map(noisy, source), orthogonal_procrustes(noisy, source)[0], atol=1e-10)


def test_a_rotated_space_scores_one_everywhere_but_at_random(rotated):
    source, target, _ = rotated
    result = procrustes(source, target, subsamples=2, size=300)
    assert result["in_sample"]["mean"] == pytest.approx(1.0, abs=0.01)
    assert result["held_out"]["mean"] == pytest.approx(1.0, abs=0.01)
    assert result["random_in_sample"]["mean"] < 0.4
    assert abs(result["random_held_out"]["mean"]) < 0.1
    assert result["pairs_used"] == 300 and not result["underdetermined"]


@pytest.mark.parametrize("center", [True, False])
def test_cosines_match_the_plain_restatement(center):
    generator = np.random.default_rng(2)
    source, target = generator.standard_normal((2, 60, 5)) + 1.0
    for fit, score in ((np.arange(60), np.arange(60)), (np.arange(40), np.arange(40, 60))):
        expected = reference.procrustes_cosines(target, source, fit, score, center)
        found = aligned_cosines(target, source, fit, score, center=center)
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_without_centring_a_shared_direction_dominates():
    generator = np.random.default_rng(3)
    source, target = generator.standard_normal((2, 500, 8)) + 5.0
    centred = procrustes(source, target, subsamples=1)["held_out"]["mean"]
    assert procrustes(source, target, subsamples=1, center=False)["held_out"]["mean"] > 0.8
    assert abs(centred) < 0.15


def test_in_sample_fit_of_random_pairs_grows_with_dimension():
    """The reason for the held-out split: noise alone gets a high cosine when dimensions come near the pairs."""
    generator = np.random.default_rng(4)
    scores = []
    for dimensions in (5, 100):
        source, target = generator.standard_normal((2, 220, dimensions))
        scores.append(procrustes(source, target, subsamples=1))
    assert scores[1]["in_sample"]["mean"] > scores[0]["in_sample"]["mean"] + 0.3
    assert abs(scores[1]["held_out"]["mean"]) < 0.1


def test_no_group_is_on_both_sides():
    groups = np.random.default_rng(5).integers(0, 20, 200)
    first, second = grouped_halves(groups, np.random.default_rng(0))
    assert not set(groups[first]) & set(groups[second])
    assert len(first) + len(second) == 200


def test_repeated_words_do_not_leak_into_the_held_out_half():
    generator = np.random.default_rng(6)
    source, target = np.repeat(generator.standard_normal((2, 30, 20)), 10, axis=1)
    words = np.repeat(np.arange(30), 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaking = procrustes(source, target, subsamples=2)["held_out"]["mean"]
        honest = procrustes(source, target, groups=words, subsamples=2)["held_out"]["mean"]
    assert leaking > 0.4 and honest < 0.2


def test_fewer_pairs_than_dimensions_warn():
    source, target = np.random.default_rng(7).standard_normal((2, 10, 16))
    with pytest.warns(UserWarning, match="under-determined"):
        assert procrustes(source, target, subsamples=1)["underdetermined"]


def test_comparison_is_paired_and_needs_the_same_pairs(rotated):
    source, target, _ = rotated
    noisy = target + 2 * np.random.default_rng(8).standard_normal(target.shape)
    model, control = (procrustes(source, side, subsamples=2) for side in (target, noisy))
    compared = compare_procrustes(model, control, iterations=200)
    assert compared["held_out"]["difference"]["interval"][0] > 0
    assert compared["held_out"]["model"]["mean"] == pytest.approx(model["held_out"]["mean"])
    assert compare_procrustes(model, None, iterations=10)["in_sample"]["difference"] is None
    fewer = procrustes(source, target, subsamples=1, size=100)
    with pytest.raises(ValueError, match="same pairs"):
        compare_procrustes(model, fewer, iterations=10)


def test_bad_shapes_and_a_single_word_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        procrustes(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="two different groups"):
        procrustes(np.zeros((3, 4)), np.zeros((3, 4)), groups=["word"] * 3)


def test_a_rotation_is_found_where_the_quick_algorithm_does_not_converge(monkeypatch):
    generator = np.random.default_rng(0)
    source = generator.normal(size=(9, 6))
    target = source @ np.linalg.qr(generator.normal(size=(6, 6)))[0]
    expected = orthogonal_map(target, source)

    def fails(_):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", fails)
    np.testing.assert_allclose(orthogonal_map(target, source), expected, atol=1e-10)
    with pytest.raises(ValueError, match="are not finite"):
        orthogonal_map(target * np.nan, source)
