"""Held-out pairs, the facts about a bitext, and what a run's folder says when it holds another run."""

from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.adaptation import (
    AdaptationData,
    evaluations,
    held_out_name,
    hold_out,
    load_pairs,
    load_texts,
    read_control,
    summary,
)


def bitext(pairs):
    return Dataset.from_dict({"translation": [{"en": a, "id": b} for a, b in pairs]})


def config(folder, **fields):
    return SensiaConfig(output_dir=str(folder), use_cpu=True, target_language="id", **fields)


def test_held_out_sentences_are_never_trained_on():
    pairs = [(f"e{i}", f"i{i}") for i in range(20)] + [("e0", "other"), ("same", "i1"), ("same", "x")]
    train, held_out = hold_out(bitext(pairs), 8, seed=0)
    seen = {text for pair in train["translation"] for text in pair.values()}
    assert len(train) == 15 and len(held_out) == 8
    assert not seen & {text for pair in held_out["translation"] for text in pair.values()}
    assert hold_out(bitext(pairs), 8, seed=0)[1]["translation"] == held_out["translation"]


def test_too_few_pairs_to_hold_out():
    with pytest.raises(ValueError, match="`held_out_pairs` is 5"):
        hold_out(bitext([("a", "b"), ("c", "d")]), 5, seed=0)


def test_rows_are_kept_capped_and_counted(tmp_path):
    rows = [f"word{i}\tkata{i}\t{'ui' if i % 2 else 'news'}\topen" for i in range(30)]
    rows += [f"closed{i}\ttutup{i}\tnews\tnc" for i in range(5)]
    file = tmp_path / "a.tsv"
    file.write_text("en\tid\tdomain\tlicence_class\n" + "\n".join(rows) + "\n", encoding="utf-8")
    data = AdaptationData(
        model="m",
        bitext=str(file),
        bitext_keep='{"licence_class": "open"}',
        bitext_cap={"domain": 10},
        held_out_pairs=4,
        max_pairs=9,
    )
    train, held_out, facts = load_pairs(data, config(tmp_path / "run"))
    assert (len(train), len(held_out), facts["pairs"]) == (9, 4, 9)
    assert list(facts["counts"].values()) == [35, 30, 20, 4, 9]
    assert set(facts["domains"]) == {"ui", "news"} and sum(facts["domains"].values()) == 9


def test_pairs_that_share_a_sentence_with_held_out_ones_are_not_trained_on(tmp_path):
    rows = [f"word{i}\tkata{i}" for i in range(9)]
    files = {"train": rows, "dev": ["word1\tlain", "other\tkata2", "new\tbaru"]}
    for name, lines in files.items():
        (tmp_path / f"{name}.tsv").write_text("en\tid\n" + "\n".join(lines) + "\n", encoding="utf-8")
    train, dev = (str(tmp_path / f"{name}.tsv") for name in files)
    data = AdaptationData(model="m", bitext=train, eval_bitext=dev)
    pairs, held_out, facts = load_pairs(data, config(tmp_path / "run"))
    assert [pair["en"] for pair in pairs["translation"]] == ["word0", *(f"word{i}" for i in range(3, 9))]
    assert len(held_out) == 3 and facts["counts"] == {"pairs read": 9, "share no sentence with held-out pairs": 7}
    assert held_out_name(data) == {"name": dev}
    assert held_out_name(AdaptationData(model="m", bitext=train)) == {}
    with pytest.raises(ValueError, match="Every pair of `bitext` shares a sentence"):
        load_pairs(AdaptationData(model="m", bitext=train, eval_bitext=train), config(tmp_path / "run"))


def test_blank_sides_are_left_out_and_counted(tmp_path):
    rows = [f"word{i}\tkata{i}" for i in range(9)] + ["lonely\t", " \tsepi"]
    (tmp_path / "a.tsv").write_text("en\tid\n" + "\n".join(rows) + "\n", encoding="utf-8")
    data = AdaptationData(model="m", bitext=str(tmp_path / "a.tsv"), held_out_pairs=2)
    pairs, _, facts = load_pairs(data, config(tmp_path / "run"))
    assert len(pairs) == 7 and facts["counts"] == {"pairs read": 11, "with text on both sides": 9, "held out": 2}
    (tmp_path / "b.tsv").write_text("en\tid\n\tsepi\n", encoding="utf-8")
    with pytest.raises(ValueError, match="No pair of the bitext has text on both sides"):
        load_pairs(AdaptationData(model="m", bitext=str(tmp_path / "b.tsv")), config(tmp_path / "run"))


def test_the_licence_of_the_text_is_never_another_one(tmp_path):
    (tmp_path / "a.tsv").write_text("en\tid\n" + "".join(f"word{i}\tkata{i}\n" for i in range(9)), encoding="utf-8")

    def licence(**fields):
        data = AdaptationData(model="m", held_out_pairs=2, **fields)
        return load_pairs(data, config(tmp_path / "run"))[2]["licence"]

    assert licence(bitext=str(tmp_path / "a.tsv")) is None
    assert licence(bitext=str(tmp_path / "a.tsv"), licence="CC0") == "CC0"
    pytest.importorskip("django")
    assert licence(bitext="django") == "BSD-3-Clause"
    quickstart = yaml.safe_load((Path(__file__).parents[3] / "sensia_trainer/recipes/quickstart.yaml").read_text())
    assert "licence" not in quickstart  # README overrides its bitext


def test_files_of_different_lengths(tmp_path):
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.id").write_text("satu\n")
    data = AdaptationData(model="m", bitext=[str(tmp_path / "a.en"), str(tmp_path / "a.id")])
    with pytest.raises(ValueError, match="2.*1"):
        load_pairs(data, config(tmp_path / "run"))


def test_evaluations_and_summary():
    history = [{"loss": 1.0, "step": 1}, {"eval_pairs": 4, "eval_target_perplexity": 8.0, "step": 2}]
    assert evaluations(history) == [{"step": 2, "pairs": 4, "target_perplexity": 8.0}]
    text = summary({"target_perplexity": 9.0}, {"pairs": 4, "target_perplexity": 8.0}, "English", "Indonesian")
    assert text.splitlines()[1].split() == ["perplexity,", "Indonesian", "9.000", "8.000"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"before": {}}', '{"after": 3}'])
def test_a_control_that_cannot_be_shown_is_refused(tmp_path, content):
    file = tmp_path / "metrics.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match="metrics.json"):
        read_control(str(file))
    assert read_control(None) is None


def test_text_beside_the_pairs(tmp_path):
    sentences = ["The cat sleeps on the old chair in the kitchen.", "We will meet again tomorrow morning at the sea."]
    (tmp_path / "a.txt").write_text("\n".join([*sentences, "", "held out"] * 30), encoding="utf-8")
    (tmp_path / "b.tsv").write_text("en\tid\nA good book is worth reading twice.\tx\n", encoding="utf-8")
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.tsv")]
    held_out = bitext([("held out", "x")])
    loaded, facts = load_texts(AdaptationData(model="m", bitext="b", replay_source=files), config(tmp_path), held_out)
    assert set(loaded) == {"source"} and facts["replay source"]["texts"] == len(loaded["source"]) == 61
    assert set(loaded["source"]["text"]) == {*sentences, "A good book is worth reading twice."}
    assert load_texts(AdaptationData(model="m", bitext="b"), config(tmp_path), held_out) == ({}, {})
    with pytest.raises(ValueError, match="`monolingual_target` should be in Indonesian .* look like English"):
        load_texts(AdaptationData(model="m", bitext="b", monolingual_target=files[:1]), config(tmp_path), held_out)
    missing = AdaptationData(model="m", bitext="b", replay_source=[files[0], "nowhere.txt"])
    with pytest.raises(ValueError, match="`replay_source` holds 'nowhere.txt'"):
        load_texts(missing, config(tmp_path), held_out)
