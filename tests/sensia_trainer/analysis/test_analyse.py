import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from sensia_trainer.analysis import corpus as corpus_module
from sensia_trainer.analysis.analyse import DEFINITIONS, analyse
from sensia_trainer.analysis.corpus import AlignedCorpus, check_same_vocabulary, told_pairs
from sensia_trainer.analysis.drawings import neighbours, save_figures
from sensia_trainer.analysis.summary import render_report
from tests.reference import analysis as reference


SOURCE = ["The cat sleeps on Java.", "A cat sleeps near the river.", "Java is a river island.", "The river runs."]
TARGET = ["Kucing tidur di Java.", "Kucing tidur dekat sungai.", "Java ialah pulau sungai.", "Sungai mengalir."]
LINKS = [[(1, 0), (2, 1), (4, 3)], [(1, 0), (2, 1), (5, 3)], [(0, 0), (3, 3), (4, 2)], [(1, 0), (2, 1)]]


@pytest.fixture
def corpus(tokenizer, monkeypatch):
    """Four sentence pairs whose links are known."""
    monkeypatch.setattr(corpus_module, "align_words", lambda *sides, **_: LINKS)
    return AlignedCorpus(tokenizer, SOURCE, TARGET, "en", "id", "none", minimum_count=1, max_length=60)


@pytest.fixture
def models(tiny_model):
    """Model, control and base of one shape with different weights."""

    def build(seed):
        torch.manual_seed(seed)
        model = tiny_model(num_senses=4)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    return dict(zip(("model", "control", "base"), map(build, range(3))))


@pytest.fixture
def result(models, corpus):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*under-determined")
        return analyse(models.pop("model"), corpus, **models, iterations=100)


def test_corpus_keeps_words_spellings_and_positions_together(corpus, tokenizer):
    assert corpus.words["source"][:3] == ["cat", "sleeps", "java"]
    for side, sentences in (("source", SOURCE), ("target", TARGET)):
        flat = [(sentence, positions) for sentence, group in enumerate(corpus.positions[side]) for positions in group]
        assert len(flat) == len(corpus.words[side]) == corpus.statistics["pairs"]
        for (sentence, positions), word, spelling in zip(flat, corpus.words[side], corpus.spellings[side]):
            assert tuple(corpus.ids[side][sentence][t] for t in positions) == spelling
            assert word in tokenizer.decode(spelling).casefold()
            assert word in sentences[sentence].casefold()


def test_corpus_tells_names_from_translations(corpus):
    names = [word == other for word, other in zip(corpus.words["source"], corpus.words["target"])]
    assert names.count(True) == 2
    assert not corpus.different[names].any()
    for index in np.flatnonzero(corpus.disjoint):
        assert not set(corpus.spellings["source"][index]) & set(corpus.spellings["target"][index])
    pairs = {(corpus.spellings["source"][i], corpus.spellings["target"][i]) for i in np.flatnonzero(corpus.disjoint)}
    assert len(corpus.types) == len(pairs)


def test_corpus_refuses_what_cannot_be_aligned(tokenizer, monkeypatch):
    arguments = ("en", "id", "none")
    with pytest.raises(ValueError, match="line by line"):
        AlignedCorpus(tokenizer, SOURCE, TARGET[:2], *arguments)
    with pytest.raises(ValueError, match="Sentence 1 of the target side is empty"):
        AlignedCorpus(tokenizer, SOURCE[:2], ["Kucing.", " "], *arguments)
    monkeypatch.setattr(corpus_module, "align_words", lambda *sides, **_: [[] for _ in SOURCE])
    with pytest.raises(ValueError, match="No aligned content words"):
        AlignedCorpus(tokenizer, SOURCE, TARGET, *arguments, minimum_count=1)
    monkeypatch.setattr(corpus_module, "align_words", lambda *sides, **_: LINKS)
    with pytest.raises(ValueError, match="`max_length` 1"):
        AlignedCorpus(tokenizer, SOURCE, TARGET, *arguments, minimum_count=1, max_length=1)


def test_topology_is_the_mean_of_the_plain_scores(models, corpus, result):
    scores = []
    model = models.get("model") or models["control"]  # `result` took the model away
    for source, target in zip(corpus.spellings["source"], corpus.spellings["target"]):
        with torch.no_grad():
            senses = [model.get_senses(torch.tensor(s)).mean(dim=0).numpy() for s in (source, target)]
        scores.append(reference.topology_score(*senses))
    assert result["topology"]["all"]["control"]["mean"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert np.asarray(scores)[~corpus.different] == pytest.approx(1.0)


def test_what_the_sense_index_explains_is_taken_off(result):
    entries = list(filter(None, result["topology"].values()))
    assert entries
    for entry in entries:
        for name in ("model", "control", "difference"):
            above, shuffled = entry["above_shuffled"][name]["mean"], entry["shuffled"][name]["mean"]
            assert above == pytest.approx(entry[name]["mean"] - shuffled)
            low, high = entry["above_shuffled"][name]["interval"]
            assert low <= above <= high


def test_result_is_complete_and_survives_json(result):
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again == result
    assert list(result["procrustes"])[: len(DEFINITIONS)] == list(DEFINITIONS)
    assert result["corpus"]["pairs_of_different_words"] == result["corpus"]["pairs"] - 2
    assert set(result["senses"]["drift"]) == {"model", "control"}
    information = result["senses"]["mutual_information"]
    gap = result["senses"]["mutual_information_gap"]["model"]["target"]["magnitude"]
    assert gap == pytest.approx(
        information["model"]["target"]["magnitude"] - information["base"]["target"]["magnitude"]
    )
    assert sum(result["topology"]["all"]["histogram"]["model"]) == result["topology"]["all"]["items"]


def test_pairs_that_new_words_were_told_of(tokenizer):
    """The last three tokens are new: one is made of " cat", one of " river", one of nothing."""
    first = len(tokenizer) - 3
    (cat,) = tokenizer(" cat", add_special_tokens=False)["input_ids"][-1:]
    (river,) = tokenizer(" river", add_special_tokens=False)["input_ids"][-1:]
    rows = sparse.csr_array(([1.0, 1.0], ([0, 1], [cat, river])), shape=(3, first))
    spelled = {"source": [(cat,), (cat,), (river,), (cat,), (cat,)], "target": [(first,), (first + 1,), (first + 1,)]}
    spelled["target"] += [(first + 2,), (river, first)]
    corpus = SimpleNamespace(spellings=spelled)
    assert told_pairs(corpus, tokenizer, rows).tolist() == [True, False, True, False, True]


def test_what_was_told_is_measured_apart(models, corpus):
    told = np.arange(len(corpus.disjoint)) % 2 == 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*under-determined")
        result = analyse(models.pop("model"), corpus, **models, told=told, definitions=("magnitude",), iterations=20)
    counts = [(result["topology"][name] or {"items": 0, "discarded": 0}) for name in ("told", "not_told")]
    assert sum(count["items"] + count["discarded"] for count in counts) <= len(corpus.types)
    assert {"magnitude, told", "magnitude, not told"} <= set(result["procrustes"])
    words = [result["senses"][f"translation_precision_{name}"]["words"] for name in ("told", "not_told")]
    names = set(corpus.spellings["target"])
    assert sum(words) == len({spelling for spelling in corpus.spellings["source"] if spelling not in names})
    assert min(words) > 0
    result |= _names() | {"models": {"model": "adapted", "control": "lm-only", "base": "english"}}
    report = render_report([json.loads(json.dumps(result, allow_nan=False))])
    assert "## Beyond the dictionary" in report and f"| not told | {words[1]} |" in report


def test_missing_control_warns_and_leaves_its_columns_empty(models, corpus, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*under-determined")
        with pytest.warns(UserWarning, match="no control"):
            result = analyse(models["model"], corpus, definitions=("magnitude",), iterations=20)
    assert result["topology"]["all"]["difference"] is None and result["mixture"]["control"] is None
    assert "drift" not in result["senses"]
    result |= _names() | {"models": {"model": "adapted", "control": None, "base": None}}
    report = render_report([result])
    assert "control `none`" in report and "not tested (no control" in report
    assert len(save_figures([result], tmp_path)) == 14  # no drift without a base


def test_models_of_other_vocabularies_or_senses_are_refused(models, tiny_model, corpus):
    with pytest.raises(ValueError, match="share vocabulary"):
        analyse(models["model"], corpus, control=tiny_model(num_senses=3))
    small = tiny_model(num_senses=4)
    small.resize_token_embeddings(10)
    with pytest.raises(ValueError, match="`control` embeds only 10 tokens"):
        analyse(models["model"], corpus, control=small)


def test_tokenizers_that_number_tokens_differently_are_refused(tokenizer):
    check_same_vocabulary({"model": tokenizer, "base": tokenizer})
    words = list(tokenizer.get_vocab())[:5]
    mine, other = (
        SimpleNamespace(get_vocab=lambda order=order: dict(zip(words, order))) for order in ("01234", "01243")
    )
    with pytest.raises(ValueError, match="`model` and `base` have different vocabularies.*is [34] in one"):
        check_same_vocabulary({"model": mine, "control": mine, "base": other})
    smaller = SimpleNamespace(get_vocab=lambda: dict(zip(words[:4], "0123")))
    with pytest.raises(ValueError, match="is 4 in one and None in the other"):
        check_same_vocabulary({"model": mine, "base": smaller})


def test_intervals_count_repeated_words_once(result, corpus):
    """Occurrences are resampled as published; distinct pairs and rotations by source word."""
    words = len(set(corpus.words["source"]))
    assert result["topology"]["all"]["groups"] == result["topology"]["all"]["items"]
    distinct = {corpus.words["source"][index] for index in corpus.types}
    assert result["topology"]["distinct_pairs"]["groups"] == len(distinct)
    assert {entry["compared"]["held_out"]["groups"] for entry in result["procrustes"].values() if entry} <= {
        words,
        len({word for word, apart in zip(corpus.words["source"], corpus.disjoint) if apart}),
    }


def test_neighbours_are_asked_for_the_most_frequent_translated_words(corpus, result):
    asked = [entry["word"] for entry in result["senses"]["neighbours"]]
    apart = [word for word, other in zip(corpus.words["source"], corpus.disjoint) if other]
    assert "java" not in asked and len(asked) == len(set(asked))
    for entry in result["senses"]["neighbours"]:
        pairs = zip(corpus.words["source"], corpus.words["target"])
        assert set(entry["translations"]) == {target for source, target in pairs if source == entry["word"]}
        assert np.shape(entry["cosines"]) == np.shape(entry["by_sense"])
    counts = [apart.count(word) for word in asked]
    assert counts == sorted(counts, reverse=True) and set(asked) == set(apart)


def _names():
    return {"source_language": "en", "target_language": "id"}


def test_report_shows_the_numbers_and_the_papers(result, tmp_path, real_pictures):
    result |= _names() | {"models": {"model": "adapted", "control": "lm-only", "base": "english"}}
    report = render_report([result, result | {"target_language": "sv"}])
    entry = result["topology"]["all"]["model"]
    assert f"{entry['mean']:.3f} [{entry['interval'][0]:.3f}" in report
    assert "0.30 / 0.21" in report and "| sv | paper (model / control) |  | – |" in report
    assert f"| id | model | {result['mixture']['model']['full']['mean']:.2f}" in report
    assert "exactly the full mixture divided by K" in report
    for block in report.split("\n\n"):
        rows = [line.count("|") for line in block.splitlines() if line.startswith("|")]
        assert len(set(rows)) <= 1, block
    files = save_figures([result], tmp_path)
    assert all(file.stat().st_size > 1000 for file in files) and len(files) == 16
    assert {f"figures/{file.name}" for file in files if file.suffix == ".png"} == {
        part.split(")")[0] for part in report.split("](")[1:]
    }


def test_the_paper_has_no_numbers_from_other_languages(result):
    result |= {"target_language": "id", "models": {"model": "adapted", "control": "lm-only", "base": "english"}}
    report = render_report([result | {"source_language": "en"}, result | {"source_language": "es"}])
    assert "| en–id | paper (model / control) |  | 0.30 / 0.21 |" in report
    assert "| es–id | paper (model / control) |  | – |" in report


def test_an_analysis_of_next_to_nothing_draws_what_it_has(result, tmp_path):
    empty = result | _names() | {"models": {"model": "a", "control": "b", "base": "c"}}
    empty |= {"topology": {"all": None, "no_shared_subword": None}}
    empty |= {"procrustes": dict.fromkeys(result["procrustes"])}
    names = {file.stem for file in save_figures([empty], tmp_path)}
    assert "mixture" in names and not names & {"topology", "procrustes"}


def test_words_that_the_font_cannot_write_are_not_drawn_beside_others(result):
    results = [result | _names() | {"shown": shown} for shown in ("id", "zh")]
    entry = result["senses"]["neighbours"][0] | {"word": "水"}
    results[1] |= {"senses": result["senses"] | {"neighbours": [entry]}}
    assert len(neighbours(results).axes) == 2 and len(neighbours(results[1:]).axes) == 2  # a panel and its bar


def test_verdicts_follow_the_intervals(result):
    from sensia_trainer.analysis.summary import _verdict

    assert "**holds**" in _verdict({"mean": 0.1, "interval": [0.05, 0.2]})
    assert "**the opposite holds**" in _verdict({"mean": -0.1, "interval": [-0.2, -0.05]})
    assert "**not decided**" in _verdict({"mean": 0.1, "interval": [-0.05, 0.2]})


def test_spearman_of_scipy_agrees_on_model_senses(models, corpus):
    """The oracle once more, end to end, on senses of a model rather than random numbers."""
    from sensia_trainer.analysis.topology import sense_geometry, standardised_ranks, topology_scores
    from sensia_trainer.analysis.words import word_senses

    sides = [word_senses(models["model"], corpus.spellings[side]) for side in ("source", "target")]
    geometries = [sense_geometry(side) for side in sides]
    scores, _ = topology_scores(*map(standardised_ranks, geometries))
    oracle = [stats.spearmanr(a, b).statistic for a, b in zip(*geometries)]
    np.testing.assert_allclose(scores, oracle, atol=1e-9)


def test_two_models_of_one_language_are_told_apart(result):
    results = [
        result | {"source_language": "en", "target_language": code}
        | {"models": {"model": model, "control": "lm-only", "base": "english"}}
        for code, model in (("id", "all"), ("id", "half"), ("sw", "all"))
    ]  # fmt: skip
    report = render_report(results)
    assert "| id, half | all pairs" in report and "| id, all | all pairs" in report and "| sw | all pairs" in report
    assert "\n| id | all pairs" not in report
