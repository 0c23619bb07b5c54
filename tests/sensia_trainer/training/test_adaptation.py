"""What `sensia adapt` is given, and what it says in the end."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config

from modeling_backpack import BackpackConfig
from sensia_trainer.bitext.columns import texts
from sensia_trainer.config import SensiaConfig
from sensia_trainer.evaluation.intrinsic import evaluate_bitext
from sensia_trainer.training import adaptation
from sensia_trainer.training.adaptation import (
    base_model,
    check_control,
    evaluations,
    load_bitext,
    load_texts,
    read_control,
    source_fluency,
    summary,
    texts_fingerprint,
)
from sensia_trainer.training.settings import AdaptationData
from sensia_trainer.utils.files import fingerprint


def config(folder, **fields):
    return SensiaConfig(**{"output_dir": str(folder), "use_cpu": True, "target_language": "id"} | fields)


@pytest.mark.parametrize(
    "fields, error",
    [
        ({"bitext": []}, "`bitext` is empty; give at least one source"),
        ({"bitext": {"pth": "a.tsv"}}, "`bitext`: a source has an unknown field 'pth'. Did you mean 'path'"),
        ({"bitext": ['{"path": "a.tsv"']}, "`bitext`: .* cannot be read as JSON"),
        ({"bitext": {"path": ""}}, "`bitext`: a source needs a `path`, got ''"),
        ({"bitext": {"path": "a.tsv", "keep": ["x"]}}, "'keep' of a source is \\['x'\\], but must be"),
        ({"bitext": {"path": "a.tsv", "cap": {"domain": 0}}}, "at most 0 rows of each 'domain'; give a number of 1"),
        ({"bitext": {"path": "a.tsv", "name": "<b>\nx"}}, "is not a name; give one of plain text"),
        ({"bitext": ["x/a.tsv", "y/a.tsv"]}, "`bitext` has two sources called a; give each a `name`"),
        ({"bitext_keep": "{"}, "`bitext_keep`: '{' cannot be read as JSON"),
        ({"bitext_keep": '["x"]'}, "`bitext`: `keep` is \\['x'\\], but must be a mapping"),
        ({"bitext_cap": {"domain": True}}, "at most True rows of each 'domain'"),
        ({"held_out_pairs": -1}, "`held_out_pairs` is -1, but retrieval is measured among 2 or more"),
        ({"max_pairs": -5}, "`max_pairs` is -5, but must be 2 or more"),
        ({"eval_bitext": ["a"], "eval_flores": "b"}, "one of `eval_bitext` and `eval_flores`"),
        ({"method": "magic"}, "`method` is 'magic', but must be one of"),
    ],
)
def test_values_that_make_no_sense_are_refused(fields, error):
    with pytest.raises(ValueError, match=error):
        AdaptationData(**{"model": "m", "bitext": "django"} | fields)


def test_evaluations_and_summary():
    history = [{"loss": 1.0, "step": 1}, {"eval_pairs": 4, "eval_target_perplexity": 8.0, "step": 2}]
    assert evaluations(history) == [{"step": 2, "pairs": 4, "target_perplexity": 8.0}]
    text = summary({"target_perplexity": 9.0}, {"pairs": 4, "target_perplexity": 8.0}, "English", "Indonesian")
    assert text.splitlines()[1].split() == ["perplexity,", "Indonesian", "9.000", "8.000"]
    random = {"random_sense_recall_source_to_target": 0.2}  # measured once, in the end or before
    for before in ({}, random):
        _, line = summary(before, {"pairs": 4} | random, "English", "Indonesian").splitlines()
        assert line.split()[-5:] == ["of", "random", "weights", "0.200", "0.200"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"before": {}}', '{"after": 3}'])
def test_a_control_that_cannot_be_shown_is_refused(tmp_path, content):
    file = tmp_path / "metrics.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match="metrics.json"):
        read_control(str(file))
    assert read_control(None) is None


def test_a_control_of_other_held_out_pairs_is_refused(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text('{"after": {"pairs": 3}, "data": {"held_out_fingerprint": "of Swahili"}}')
    with pytest.raises(ValueError, match="`control` is .*metrics.json', which was measured on other held-out pairs"):
        check_control(str(file), {"held_out_fingerprint": "of Indonesian"})
    check_control(str(file), {"held_out_fingerprint": "of Swahili"})
    check_control(None, {"held_out_fingerprint": "of Indonesian"})


def test_text_beside_the_pairs(tmp_path):
    pytest.importorskip("py3langid", reason="py3langid is not installed")
    sentences = ["The cat sleeps on the old chair in the kitchen.", "We will meet again tomorrow morning at the sea."]
    (tmp_path / "a.txt").write_text("\n".join([*sentences, "", "held out"] * 30), encoding="utf-8")
    (tmp_path / "b.tsv").write_text("en\tid\nA good book is worth reading twice.\tx\n", encoding="utf-8")
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.tsv")]
    held_out = Dataset.from_dict({"translation": [{"en": "held out", "id": "x"}]})
    loaded, facts = load_texts(AdaptationData(model="m", bitext="b", replay_source=files), config(tmp_path), held_out)
    assert set(loaded) == {"source"} and facts["replay source"]["texts"] == len(loaded["source"]) == 61
    assert set(loaded["source"]["text"]) == {*sentences, "A good book is worth reading twice."}
    assert "licence" not in facts["replay source"]
    stated = AdaptationData(model="m", bitext="b", replay_source=files, text_licence="CC BY-SA")
    assert load_texts(stated, config(tmp_path), held_out)[1]["replay source"]["licence"] == "CC BY-SA"
    assert load_texts(AdaptationData(model="m", bitext="b"), config(tmp_path), held_out) == ({}, {})
    with pytest.raises(ValueError, match="`monolingual_target` should be in Indonesian, but 100% .* mostly English"):
        load_texts(AdaptationData(model="m", bitext="b", monolingual_target=files[:1]), config(tmp_path), held_out)
    missing = AdaptationData(model="m", bitext="b", replay_source=[files[0], "nowhere.txt"])
    with pytest.raises(ValueError, match="`replay_source`: 'nowhere.txt' is not a file"):
        load_texts(missing, config(tmp_path), held_out)
    for name in ("nowhere.txt", "nowhere.jsonl.gz", "no/such/folder/text"):
        alone = AdaptationData(model="m", bitext="b", replay_source=name)
        with pytest.raises(ValueError, match=f"`replay_source`: '{name}' is not .* data set of the Hub"):
            load_texts(alone, config(tmp_path), held_out)


CAT = "The cat sleeps on the old chair in the kitchen."


def texts_of(tmp_path, held_out="held out", **fields):
    """What is loaded of replayed text, and its facts."""
    pairs = Dataset.from_dict({"translation": [{"en": held_out, "id": "x"}]})
    loaded, facts = load_texts(AdaptationData(model="m", bitext="b", **fields), config(tmp_path), pairs)
    return loaded["source"]["text"][:], facts["replay source"]


@pytest.mark.parametrize(
    "name, content, error",
    [
        ("a.txt", "", "a.txt holds no text"),
        ("a.tsv", "", "a.tsv holds no text"),
        ("a.jsonl", "", "a.jsonl holds no text"),
        ("a.txt", " \n\n", "a.txt holds no text"),
        (
            "a.jsonl",
            '{"content": "x"}',
            "columns content, of which none name English \\(en\\): rename the one to use to `text`",
        ),
        ("a.jsonl", '{"text": null}\n', "give a text a line, in JSONL and TSV in a column `text`; pairs"),
        ("a.jsonl", "no JSON\n", "a.jsonl holds no text \\(malformed lines: 1 left out, the first in line 1\\)"),
        ("a.tsv", "sw\tid\nx\ty\n", "a.tsv has the columns sw, id, of which none name"),
        ("a.tsv", "EN\teng_Latn\nx\ty\n", "a.tsv has the columns EN, eng_Latn, of which 2 name"),
        ("a.csv", "text\nx\n", "unknown kind of text file; known are .txt, .jsonl and .tsv"),
        ("a.txt", CAT.encode("utf-16"), "is in UTF-16, not in UTF-8; convert it"),
    ],
)
def test_text_files_that_cannot_be_read_are_refused_with_a_way_out(tmp_path, name, content, error):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "good.txt").write_text(CAT, encoding="utf-8")
    for files in ([name], ["good.txt", name]):
        with pytest.raises(ValueError, match=f"^`replay_source`: .*{error}"):
            texts_of(tmp_path, replay_source=[str(tmp_path / file) for file in files])


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.tsv", f"id\ttext\n7\t{CAT}\n"),
        ("a.tsv", f"en-GB\tid\ten\nx\ty\t{CAT}\n"),
        ("a.tsv", f"eng_Latn\tind_Latn\n{CAT}\ty\n"),
        ("a.jsonl", f'{{"id": 7, "text": "{CAT}"}}\n'),
        ("a.jsonl", f'{{"EN": "{CAT}"}}\n'),
    ],
)
def test_columns_of_text_are_found(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert texts_of(tmp_path, replay_source=str(tmp_path / name))[0] == [CAT]


def test_what_is_wrong_with_text_is_told_and_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(adaptation.logger, "propagate", True)
    (tmp_path / "a.txt").write_bytes(f"{CAT}\nIn the café they sell old books.".encode("latin-1"))
    lines = [f'{{"text": "{CAT}"}}', "{", '{"text": "An emoji, cut: \\ud83d"}']
    (tmp_path / "b.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for _ in range(2):  # read, and taken from what was kept
        caplog.clear()
        found, facts = texts_of(tmp_path, replay_source=[str(tmp_path / name) for name in ("a.txt", "b.jsonl")])
        assert found == [CAT, "In the caf\ufffd they sell old books.", CAT, "An emoji, cut: \ufffd"]
        assert {"invalid utf8": 1, "malformed lines": 1, "lone surrogates": 1}.items() <= facts.items()
        assert "`replay_source`: a.txt: invalid utf8: 1 kept with U+FFFD" in caplog.text
        assert "`replay_source`: b.jsonl: malformed lines: 1 left out, the first in line 2" in caplog.text


def test_text_of_the_hub(tmp_path, monkeypatch):
    sets = {("some/wiki", "20231101.en"): {"id": [1, 2], "text": [CAT, ""]}, ("some/wiki", "bad"): {"body": ["x"]}}

    def load(path, config, split):
        if (path, config) not in sets:
            raise ValueError("Config name is missing. Pick one of 20231101.en, bad.")
        return Dataset.from_dict(sets[path, config])

    monkeypatch.setattr(adaptation, "load_hub", load)
    found, facts = texts_of(tmp_path, replay_source="some/wiki:20231101.en")
    assert found == [CAT] and facts["name"] == "some/wiki:20231101.en"
    for place, error in (
        ("some/wiki", "Pick one of 20231101.en"),
        ("some/wiki:bad", "has the columns body, of which none"),
    ):
        with pytest.raises(ValueError, match=f"^`replay_source`: .*some/wiki.* {error}"):
            texts_of(tmp_path, replay_source=place)


def test_texts_are_told_by_the_fingerprint_of_their_list():
    texts = ["a", 'quotes " and \\', "é", ""] * 600
    dataset = Dataset.from_dict({"text": texts})
    assert texts_fingerprint(dataset) == fingerprint(texts)[:16]
    assert texts_fingerprint(dataset.select([1, 0])) == fingerprint([texts[1], texts[0]])[:16]


def test_much_text_is_judged_some_at_a_time(tmp_path, monkeypatch):
    pytest.importorskip("py3langid", reason="py3langid is not installed")
    seen = []
    monkeypatch.setattr(adaptation, "elsewhere", lambda texts, *_: seen.append(len(texts)) or [""] * len(texts))
    (tmp_path / "a.txt").write_text("".join(f"{CAT} {n}\n" for n in range(2500)), encoding="utf-8")
    for _ in range(2):
        assert len(texts_of(tmp_path, replay_source=str(tmp_path / "a.txt"))[0]) == 2500
    assert seen == [1000, 1000, 500]  # and once for all processes


def test_text_that_is_not_compared_with_evaluation_sets_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(adaptation.logger, "propagate", True)
    (tmp_path / "a.txt").write_text("The cat sleeps on the old chair in the kitchen.\n" * 3, encoding="utf-8")
    held_out = Dataset.from_dict({"translation": [{"en": "held out", "id": "x"}]})
    data = {"model": "m", "bitext": "b", "replay_source": str(tmp_path / "a.txt")}
    (tmp_path / "set.txt").write_text("She smiled, and went away.\n", encoding="utf-8")
    load_texts(AdaptationData(**data, evaluation_sets=str(tmp_path / "set.txt")), config(tmp_path), held_out)
    assert not caplog.records
    load_texts(AdaptationData(**data), config(tmp_path), held_out)
    assert "`replay_source` is compared with the held-out pairs only" in caplog.text


def test_text_beside_the_pairs_without_evaluation_sets_and_other_languages(tmp_path):
    pytest.importorskip("py3langid", reason="py3langid is not installed")
    clean = ["The cat sleeps on the old chair in the kitchen.", "We will meet again tomorrow morning at the sea."]
    tested = ["The harbour was closed for eleven days in March.", "A later split of the same collection of texts."]
    german = "Der Hafen war im Winter elf Tage lang geschlossen, und niemand wusste warum."
    (tmp_path / "flores" / "devtest").mkdir(parents=True)
    for code in ("eng_Latn", "ind_Latn"):
        (tmp_path / "flores" / "devtest" / f"{code}.devtest").write_text(tested[1] + "\n", encoding="utf-8")
    lines = [*clean, f"He said so. {tested[0].upper()}", tested[1], german]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    held_out = Dataset.from_dict({"translation": [{"en": tested[0], "id": "Pelabuhan ditutup selama sebelas hari."}]})
    data = {"model": "m", "bitext": "b", "replay_source": str(tmp_path / "a.txt")}
    loaded, facts = load_texts(
        AdaptationData(**data, eval_flores=str(tmp_path / "flores")), config(tmp_path), held_out
    )
    assert set(loaded["source"]["text"]) == set(clean)
    counts = {"texts": 2, "in other languages": 1, "in evaluation sets": 2}
    assert facts["replay source"] == {"name": "a.txt", **counts}
    alone = load_texts(AdaptationData(**data), config(tmp_path), held_out)[1]["replay source"]
    assert alone["in held-out pairs"] == 1 and "in evaluation sets" not in alone  # none were compared
    (tmp_path / "mine.txt").write_text(clean[0], encoding="utf-8")
    own = AdaptationData(**data, evaluation_sets=str(tmp_path / "mine.txt"))
    assert set(load_texts(own, config(tmp_path), held_out)[0]["source"]["text"]) == {clean[1], tested[1]}
    (tmp_path / "b.txt").write_text("\n".join([german] * 3 + clean), encoding="utf-8")
    with pytest.raises(ValueError, match="`replay_source` should be in English, but 60% .* mostly German"):
        load_texts(AdaptationData(**data | {"replay_source": str(tmp_path / "b.txt")}), config(tmp_path), held_out)


def test_text_is_told_from_other_languages_where_the_target_cannot_be(tmp_path):
    pytest.importorskip("py3langid", reason="py3langid is not installed")
    german = "Der Hafen war im Winter elf Tage lang geschlossen, und niemand wusste warum."
    (tmp_path / "a.txt").write_text("\n".join([CAT, german, CAT]), encoding="utf-8")
    (tmp_path / "b.txt").write_text(german, encoding="utf-8")
    held_out = Dataset.from_dict({"translation": [{"en": "held out", "haw": "x"}]})
    args = config(tmp_path, target_language="haw")
    data = {"model": "m", "bitext": "b"}
    loaded, facts = load_texts(AdaptationData(**data, replay_source=str(tmp_path / "a.txt")), args, held_out)
    assert loaded["source"]["text"][:] == [CAT, CAT] and facts["replay source"]["in other languages"] == 1
    with pytest.raises(ValueError, match="`replay_source` should be in English, but 100% .* mostly German"):
        load_texts(AdaptationData(**data, replay_source=str(tmp_path / "b.txt")), args, held_out)
    _, facts = load_texts(AdaptationData(**data, monolingual_target=str(tmp_path / "a.txt")), args, held_out)
    assert "in other languages" not in facts["monolingual target"]  # nothing was judged


def test_text_too_short_to_be_judged_is_told(tmp_path, caplog):
    pytest.importorskip("py3langid", reason="py3langid is not installed")
    (tmp_path / "a.txt").write_text("\n".join(["Guten Tag", "Danke sehr", "Bitte", CAT]), encoding="utf-8")
    held_out = Dataset.from_dict({"translation": [{"en": "held out", "id": "x"}]})
    data = AdaptationData(model="m", bitext="b", replay_source=str(tmp_path / "a.txt"))
    assert len(load_texts(data, config(tmp_path), held_out)[0]["source"]) == 4
    assert "`replay_source`: 3 of 4 texts are of less than 20 bytes" in caplog.text


def test_pairs_of_evaluation_sets_are_not_trained_on(tmp_path):
    rows = [
        (f"The {word} was closed in March.", f"{word} ditutup")
        for word in ("harbour", "bridge", "school", "road", "mill")
    ]
    longer = (
        "It rained all day. The bridge was closed in March. People took the ferry.",
        "Hujan. Jembatan ditutup. Feri.",
    )
    lines = [*rows, longer]
    (tmp_path / "a.tsv").write_text("en\tid\n" + "".join(f"{a}\t{b}\n" for a, b in lines), encoding="utf-8")
    (tmp_path / "mine.txt").write_text("THE BRIDGE was closed in March!\n", encoding="utf-8")
    data = AdaptationData(model="m", bitext=str(tmp_path / "a.tsv"), held_out_pairs=2)
    for sets, number in ((None, 4), (str(tmp_path / "mine.txt"), 2)):
        given = replace(data, evaluation_sets=sets or [])
        train, held_out, facts = load_bitext(given, config(tmp_path))
        assert len(train) == number and facts["counts"].get("share no sentence with evaluation sets") == (sets and 4)
        assert bool(sets) == (longer[0] not in [*texts(train, "en").to_pylist(), *texts(held_out, "en").to_pylist()])
        assert bool(sets) == (rows[1][0] not in [*texts(train, "en").to_pylist(), *texts(held_out, "en").to_pylist()])


def test_text_of_flores_devtest_is_left_out_where_flores_is_on_the_hub(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("sensia_trainer.bitext.flores.logger.propagate", True)
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda path: ["eng_Latn", "ind_Latn"])
    sentences = {"dev": ["The first split of a collection."], "devtest": ["A later split of the same collection."]}
    monkeypatch.setattr(
        "datasets.load_dataset", lambda _, config, split: Dataset.from_dict({"text": sentences[split]})
    )
    clean = "The cat sleeps on the old chair in the kitchen."
    (tmp_path / "a.txt").write_text("\n".join([clean, *sentences["devtest"]]), encoding="utf-8")
    data = AdaptationData(model="m", bitext="b", replay_source=str(tmp_path / "a.txt"), eval_flores="some/flores")
    held_out = Dataset.from_dict({"translation": [{"en": sentences["dev"][0], "id": "Bagian pertama."}]})
    loaded, facts = load_texts(data, config(tmp_path), held_out)
    assert loaded["source"]["text"][:] == [clean] and facts["replay source"]["in evaluation sets"] == 1
    assert not caplog.records
    del sentences["devtest"]
    monkeypatch.setattr("sensia_trainer.bitext.flores.load_hub", lambda *_: (_ for _ in ()).throw(OSError("gated")))
    assert len(load_texts(data, config(tmp_path), held_out)[0]["source"]) == 2
    assert "devtest cannot be read (gated)" in caplog.text


def test_what_is_missing_is_told_with_the_ways_on(tmp_path):
    with pytest.raises(ValueError, match="quickstart.*induce_steps.*sensia induce"):
        AdaptationData()
    with pytest.raises(ValueError, match="`bitext` is not set.*pairs.tsv"):
        AdaptationData(model="backpack-micro-en")
    GPT2Config(n_embd=8, n_layer=1, n_head=1).save_pretrained(tmp_path)
    dense = {"model": str(tmp_path), "bitext": ["django"]}
    with pytest.raises(ValueError, match="without senses.*--induce_steps"):  # before anything is read or loaded
        base_model(AdaptationData(**dense))
    assert base_model(AdaptationData(**dense, induce_steps=5)) == str(tmp_path)
    BackpackConfig(num_senses=4).save_pretrained(tmp_path)
    assert base_model(AdaptationData(**dense)) == str(tmp_path)
    with pytest.raises(ValueError, match="`induce_steps` is 5, but `model` is .* has senses already"):
        base_model(AdaptationData(**dense, induce_steps=5))
    assert base_model(AdaptationData(method="mcl", bitext=["django"], dense_model="x")) == "x"


def test_the_fluency_of_the_source_is_that_of_the_model_as_it_was_given(tmp_path, tiny_model, tokenizer):
    model = tiny_model()
    pairs = [{"en": f"the {word} is here", "id": f"{word} ada"} for word in ("house", "river", "child")]
    held_out = Dataset.from_dict({"translation": pairs})
    found = source_fluency(model, tokenizer, held_out, config(tmp_path), bootstrap=100)
    sides = ([pair[code] for pair in pairs] for code in ("en", "id"))
    expected = evaluate_bitext(model, tokenizer, *sides, bootstrap=100)
    names = ("bits_per_byte", "perplexity", "bits_per_byte_interval")
    for name in names:
        assert found[f"before_source_{name}"] == pytest.approx(expected[f"source_{name}"], rel=1e-5)
    of_pairs = source_fluency(model, tokenizer, {"en-id": held_out, "id-en": held_out}, config(tmp_path))
    assert of_pairs["before_en-id_source_bits_per_byte"] == pytest.approx(found["before_source_bits_per_byte"])
    assert of_pairs["before_id-en_source_bits_per_byte"] != of_pairs["before_en-id_source_bits_per_byte"]


def test_the_fluency_of_the_source_has_the_precision_of_training(tmp_path, tiny_model, tokenizer):
    model, sides = tiny_model(), (["the house is here", "a child"], ["rumah ada", "anak"])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # so that rounding shows
    held_out = Dataset.from_dict({"translation": [dict(zip(("en", "id"), pair)) for pair in zip(*sides)]})
    found = source_fluency(model, tokenizer, held_out, config(tmp_path, bf16=True), bootstrap=10)
    with torch.autocast("cpu", torch.bfloat16):
        expected = evaluate_bitext(model, tokenizer, *sides, bootstrap=10)
    assert found["before_source_bits_per_byte"] == pytest.approx(expected["source_bits_per_byte"], rel=1e-6)
    whole = source_fluency(model, tokenizer, held_out, config(tmp_path), bootstrap=10)
    assert whole["before_source_bits_per_byte"] != pytest.approx(expected["source_bits_per_byte"], rel=1e-6)
