import json

import numpy as np
import pytest
import torch

from sensia_trainer.analysis.controls import random_sense_path
from sensia_trainer.analysis.disambiguation import (
    Occurrences,
    disambiguate,
    load_coarsewsd,
    nearest_centroid,
    occurrence_vectors,
    one_shot,
)
from sensia_trainer.analysis.words import Word
from tests.reference import sense_benchmarks as reference


LINES = {
    0: ["the cat sleeps near the {} of the river", "a river runs past the {}", "sea and {}"],
    1: ["the {} is worth a good book", "we meet at the {} tomorrow", "good {}"],
}


@pytest.fixture
def folder(tmp_path):
    for word in ("bank", "chair"):
        (tmp_path / word).mkdir()
        (tmp_path / word / "classes_map.txt").write_text(json.dumps({"0": f"{word}_a", "1": f"{word}_b"}))
        for split in ("train", "test"):
            rows = [(label, line.format(word)) for label, lines in LINES.items() for line in lines]
            texts = [f"{text.split(' ').index(word)}\t{text}" for _, text in rows]
            (tmp_path / word / f"{split}.data.txt").write_text("\n".join(texts) + "\n")
            (tmp_path / word / f"{split}.gold.txt").write_text("\n".join(str(label) for label, _ in rows) + "\n")
    return tmp_path


def test_the_published_layout_is_read(folder):
    words = load_coarsewsd(folder)
    assert [word.word for word in words] == ["bank", "chair"] and words[0].classes == ["bank_a", "bank_b"]
    train = words[0].train
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert all(text[word.start : word.end] == "bank" for text, word in zip(train.sentences, train.words, strict=True))
    assert load_coarsewsd(folder, max_items=2)[0].test.labels.tolist() == [0, 1]  # evenly spread


def test_damaged_files_are_named(folder, tmp_path):
    (folder / "bank" / "train.data.txt").write_text("9\tthe bank\n" * 6)
    with pytest.raises(ValueError, match="bank/train, line 1"):
        load_coarsewsd(folder)
    (folder / "bank" / "train.data.txt").write_text("1\tthe bank\n")
    with pytest.raises(ValueError, match="1 sentences and 6 labels"):
        load_coarsewsd(folder)
    with pytest.raises(ValueError, match="no words of CoarseWSD-20"):
        load_coarsewsd(tmp_path / "bank")


def test_vectors_are_the_contributions_at_the_word(tiny_model, tokenizer):
    model = tiny_model().double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    texts = ["the cat sleeps near the bank of the river", "bank", "a good bank"]
    words = [Word("bank", text.index("bank"), text.index("bank") + 4) for text in texts]
    found = occurrence_vectors(model, tokenizer, Occurrences(texts, words, np.zeros(3, dtype=int)), batch_size=2)
    for row, (text, word) in enumerate(zip(texts, words, strict=True)):
        ids = tokenizer(text[: word.end])["input_ids"]
        expected = torch.stack([reference.contribution(model, ids, k) for k in range(4)]).flatten()
        np.testing.assert_allclose(found["contributions"][row], expected, rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            state = model.backpack(input_ids=torch.tensor([ids])).backbone_last_hidden_state[0, -1]
        np.testing.assert_allclose(found["dense"][row], state, rtol=1e-4, atol=1e-6)


def test_nearest_centroids_equal_the_plain_restatement():
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(12, 5)) + 2, generator.normal(size=(20, 5)) + 2
    labels = np.array([0, 2, 2, 0, 3, 3, 0, 2, 3, 0, 2, 3])
    assert nearest_centroid(train, labels, test).tolist() == reference.nearest_centroid(train, labels, test)
    single = one_shot(train, labels, test, draws=3, seed=1)
    assert single.shape == (3, 20) and set(np.unique(single)) <= {0, 2, 3}
    assert (single == one_shot(train, labels, test, draws=3, seed=1)).all()


def test_a_random_sense_path_keeps_everything_else(tiny_model):
    model = tiny_model()
    state = torch.random.get_rng_state()
    control = random_sense_path(model, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = dict(control.named_parameters())
    for name, parameter in model.named_parameters():
        path = "sense_network" in name or "sense_weight_net" in name
        constant = parameter.unique().numel() == 1  # biases and norms start alike
        assert torch.equal(parameter, other[name]) != (path and not constant), name


def test_every_word_and_their_average(folder, tiny_model, tokenizer):
    model = tiny_model()
    found = disambiguate(model, tokenizer, load_coarsewsd(folder), iterations=50, draws=2)
    assert found["words"]["bank"]["test"] == 6 and found["words"]["bank"]["all"]["most_frequent"]["accuracy"] == 0.5
    for regime in ("all", "one_shot"):
        for kind in ("contributions", "random_contributions", "dense", "most_frequent"):
            words = [found["words"][word][regime][kind]["accuracy"] for word in ("bank", "chair")]
            assert found["average"][regime][kind]["mean"] == pytest.approx(np.mean(words))
    assert found["average"]["all"]["contributions"]["mean"] == 1.0  # the test sentences are the training ones
