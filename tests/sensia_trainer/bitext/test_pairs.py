"""Pairs of one source or of several: which are taken, which held out, and what the card says of them."""

import json
import random
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from sensia_trainer.bitext import fingerprint, langid
from sensia_trainer.bitext.langid import identified_code, identifier
from sensia_trainer.bitext.pairs import batches, held_out_name, load_pairs, parse_sources
from sensia_trainer.bitext.splits import hold_out
from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.settings import AdaptationData
from tests.reference import bitext as reference


def bitext(pairs):
    return Dataset.from_dict({"translation": [{"en": a, "id": b} for a, b in pairs]})


def config(folder, **fields):
    return SensiaConfig(output_dir=str(folder), use_cpu=True, **{"target_language": "id"} | fields)


def test_held_out_sentences_are_never_trained_on():
    pairs = [(f"e{i}", f"i{i}") for i in range(20)] + [("e0", "other"), ("same", "i1"), ("same", "x")]
    train, held_out = hold_out(bitext(pairs), 8, seed=0)
    seen = {text for pair in train["translation"] for text in pair.values()}
    assert len(train) == 15 and len(held_out) == 8
    assert not seen & {text for pair in held_out["translation"] for text in pair.values()}
    assert hold_out(bitext(pairs), 8, seed=0)[1]["translation"] == held_out["translation"]


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


def test_a_column_of_numbers_is_no_language(tmp_path):
    """`id`, which is Indonesian, is what many tables call the number of a row."""
    rows = [f"{i}\tsome words {i}\tmanu {i}" for i in range(12)]
    (tmp_path / "a.tsv").write_text("id\ten\thaw\n" + "\n".join(rows) + "\n")
    data = AdaptationData(model="m", bitext=str(tmp_path / "a.tsv"), held_out_pairs=2)
    with pytest.raises(ValueError, match=r"\(id\) side of the bitext mostly has no words \(.\d+.\): is its"):
        load_pairs(data, config(tmp_path / "run", target_language="id"))
    pytest.importorskip("langcodes")
    with pytest.raises(ValueError, match="is in haw, id. Set it"):
        load_pairs(data, config(tmp_path / "run", target_language=None))


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


def test_pairs_that_hold_a_sentence_of_flores_are_not_trained_on(tmp_path):
    rows = [f"word{i}\tkata{i}" for i in range(9)]
    (tmp_path / "a.tsv").write_text("en\tid\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for split, numbers in {"dev": (1, 2), "devtest": (7, 8)}.items():
        (tmp_path / split).mkdir()
        for code, word in {"eng_Latn": "word", "ind_Latn": "lain"}.items():
            lines = "".join(f"{word}{n}\n" for n in numbers)
            (tmp_path / split / f"{code}.{split}").write_text(lines, encoding="utf-8")
    data = AdaptationData(model="m", bitext=str(tmp_path / "a.tsv"), eval_flores=str(tmp_path))
    pairs, held_out, facts = load_pairs(data, config(tmp_path / "run"))
    assert [pair["en"] for pair in pairs["translation"]] == [f"word{n}" for n in (0, 3, 4, 5, 6)]
    assert len(held_out) == 2 and facts["counts"]["share no sentence with held-out pairs"] == 5


def test_held_out_pairs_are_those_that_their_source_keeps(tmp_path):
    """One file may hold both, told apart by a column."""
    rows = [f"word{i}\tkata{i}\t{'dev' if i < 6 else 'train'}" for i in range(20)]
    file = tmp_path / "a.tsv"
    file.write_text("en\tid\tpart\n" + "\n".join(rows) + "\n", encoding="utf-8")
    parts = {part: [{"path": str(file), "keep": {"part": part}}] for part in ("train", "dev")}
    data = AdaptationData(model="m", bitext=parts["train"], eval_bitext=parts["dev"])
    train, held_out, _ = load_pairs(data, config(tmp_path / "run"))
    assert (len(train), len(held_out)) == (14, 6)
    data.eval_bitext = [parts["dev"][0] | {"max_pairs": 4}]
    train, held_out, _ = load_pairs(data, config(tmp_path / "run"))
    assert (len(train), len(held_out)) == (14, 4)


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


def write(path, header, rows):
    path.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def numbered(first, count, *others):
    return [(f"word{n}", f"kata{n}", *others) for n in range(first, first + count)]


def english(dataset):
    return [pair["en"] for pair in dataset["translation"]]


def test_the_choice_is_that_of_the_plain_walk(tmp_path):
    draw = random.Random(0)
    rows = [(f"e{draw.randrange(400)}", draw.choice(["", f"i{n}"]), draw.choice("ab")) for n in range(500)]
    file = write(tmp_path / "a.tsv", ("en", "id", "domain"), rows)
    data = AdaptationData(model="m", bitext=file, bitext_keep={"domain": "a"}, held_out_pairs=20, max_pairs=50)
    train, held_out, facts = load_pairs(data, config(tmp_path / "run", seed=5))
    pairs = [{"en": a, "id": b} for a, b, domain in rows if domain == "a"]
    pairs = [pairs[n] for n in reference.without_blanks(pairs)]
    rest, held = ([pairs[n] for n in part] for part in reference.hold_out(pairs, 20, seed=5))
    rest = Dataset.from_dict({"translation": rest}).shuffle(seed=5).select(range(50))["translation"]
    assert list(train["translation"]) == list(rest) and list(held_out["translation"]) == held
    assert facts["fingerprint"] == reference.fingerprint(list(rest)) == fingerprint(train)


@pytest.fixture
def several(tmp_path):
    """A TSV with its own corpora, a JSONL, a saved dataset keyed by other codes, two line-aligned files."""
    write(
        tmp_path / "a.tsv", ("en", "id", "corpus", "ok"), [*numbered(0, 10, "news", "yes"), ("no", "bukan", "x", "no")]
    )
    rows = [{"translation": {"id": b, "en": a}, "score": 0.5, "tags": [1]} for a, b in numbered(10, 10)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    saved = [{"src": a, "tgt": b, "domain": "ui" if n % 2 else "web"} for n, (a, b) in enumerate(numbered(20, 10))]
    Dataset.from_list(saved).save_to_disk(tmp_path / "saved")
    for side, name in ((0, "c.en"), (1, "c.id")):
        (tmp_path / name).write_text("".join(row[side] + "\n" for row in numbered(30, 10)))
    return tmp_path


def test_several_sources_each_with_its_own_options(several, monkeypatch):
    monkeypatch.setenv("PLACE", str(several))
    columns = {"source_column": "src", "target_column": "tgt"}
    sources = [
        {"path": "${PLACE}/a.tsv", "keep": {"ok": "yes"}, "licence": "CC0"},
        str(several / "b.jsonl"),
        json.dumps({"path": "${PLACE}/saved", "name": "menus", "cap": {"domain": 3}, "licence": "MIT"} | columns),
        str(several / "c.en"),
        str(several / "c.id"),
    ]
    data = AdaptationData(model="m", bitext=sources, held_out_pairs=4, licence="CC BY 4.0")
    train, held_out, facts = load_pairs(data, config(several / "run"))
    assert facts["counts"] == {"pairs read": 41, "chosen of each source": 36, "held out": 4}
    assert facts["name"] == f"${{PLACE}}/a.tsv, {several}/b.jsonl, menus, {several}/c.en, {several}/c.id"
    assert facts["licence"] == "CC0; CC BY 4.0; MIT" and facts["licences"]["b"] == "CC BY 4.0"
    assert facts["met while reading"] == {"malformed lines": 1}
    both = [*zip(english(train), train["corpus"]), *zip(english(held_out), held_out["corpus"])]
    places = {"news": range(10), "b": range(10, 20), "menus": range(20, 30), "c": range(30, 40)}
    assert all(int(text[4:]) in places[corpus] for text, corpus in both) and len(both) == 36
    assert sum(facts["corpora"].values()) == 32 and facts["corpora"].keys() == places.keys()
    assert {"score", "domain", "ok"} < set(train.column_names)
    assert set(train["score"]) == {None, "0.5"} and set(train["tags"]) == {None, "[1]"}
    unknown = AdaptationData(model="m", bitext=sources[:2], held_out_pairs=4)
    facts = load_pairs(unknown, config(several / "run"))[2]
    assert facts["licence"] is None and facts["licences"] == {"a": "CC0", "b": "not stated"}


def test_a_split_is_of_a_data_set(several, caplog):
    columns = {"source_column": "src", "target_column": "tgt"}
    sources = [str(several / "a.tsv"), {"path": str(several / "saved"), "split": "train"} | columns]
    data = AdaptationData(model="m", bitext=sources, held_out_pairs=2, bitext_split="train[:5]")
    assert len(load_pairs(data, config(several / "run"))[0]) == 19
    assert f"`bitext_split` is of data sets: {several}/a.tsv have no splits and are read whole." in caplog.text
    data = AdaptationData(model="m", bitext={"path": str(several / "a.tsv"), "split": "nonsense"}, held_out_pairs=2)
    with pytest.raises(ValueError, match="split='nonsense': .* is a file and has no splits"):
        load_pairs(data, config(several / "run"))


def test_structured_files_given_as_two_paths_are_concatenated(several):
    write(several / "d.tsv", ("en", "id"), numbered(50, 10))
    data = AdaptationData(model="m", bitext=[str(several / "a.tsv"), str(several / "d.tsv")], held_out_pairs=2)
    train, held_out, facts = load_pairs(data, config(several / "run"))
    assert len(train) + len(held_out) == 21 and facts["corpora"].keys() >= {"news", "d"}
    assert not any("\t" in text for text in english(train))


def test_one_side_of_aligned_text_alone_is_refused(several):
    with pytest.raises(ValueError, match="unknown format '.en'"):
        parse_sources([str(several / "a.tsv"), str(several / "c.en")])
    assert [one.path for one in parse_sources([f"{several}/c.en,{several}/c.id", f"{several}/a.tsv"])] == [
        f"{several}/c.en,{several}/c.id",
        f"{several}/a.tsv",
    ]


@pytest.mark.parametrize("source", ["a.tsv", "b.jsonl", "saved2", "c.en", "d.tmx", "e.csv", "f.zip"])
def test_the_target_language_is_the_other_one_of_the_bitext(several, source):
    Dataset.from_list([{"eng": a, "ind": b} for a, b in numbered(0, 9)]).save_to_disk(several / "saved2")
    unit = '<tu><tuv xml:lang="en-US"><seg>{}</seg></tuv><tuv xml:lang="id"><seg>{}</seg></tuv></tu>'
    (several / "d.tmx").write_text(f"<tmx>{''.join(unit.format(*row) for row in numbered(0, 9))}</tmx>")
    (several / "e.csv").write_text("en,id,url\n" + "".join(f"{a},{b},x\n" for a, b in numbered(0, 9)))
    with zipfile.ZipFile(several / "f.zip", "w") as archive:
        for side, name in ((0, "x.en-id.en"), (1, "x.en-id.id")):
            archive.writestr(name, "".join(row[side] + "\n" for row in numbered(0, 9)))
    paths = [str(several / source)] + [str(several / "c.id")] * (source == "c.en")
    args = config(several / "run", target_language=None)
    load_pairs(AdaptationData(model="m", bitext=paths, held_out_pairs=2), args)
    assert args.target_language == "id"


def test_a_target_language_that_cannot_be_told(several):
    pytest.importorskip("django")
    with pytest.raises(ValueError, match=r"cannot be told: beside 'en', `bitext` \(django\) is in .*id, .*Set it"):
        load_pairs(AdaptationData(model="m", bitext="django"), config(several / "run", target_language=None))
    with pytest.raises(ValueError, match=r"`bitext` \(saved\) names none \(src, tgt, domain\)"):
        load_pairs(
            AdaptationData(model="m", bitext=str(several / "saved")), config(several / "run", target_language=None)
        )


def test_chosen_once_for_all_processes_and_a_resumed_run(several, monkeypatch):
    data = AdaptationData(model="m", bitext=str(several / "a.tsv"), held_out_pairs=2)
    train, held_out, facts = load_pairs(data, config(several / "run"))
    monkeypatch.setattr("sensia_trainer.bitext.pairs.hold_out", None)  # would be called
    again = load_pairs(data, config(several / "run"))
    assert again[0].cache_files == train.cache_files != [] and again[0]._fingerprint == train._fingerprint
    assert (list(again[0]), list(again[1]), again[2]) == (list(train), list(held_out), facts)
    for change in ({"held_out_pairs": 3}, {"bitext_keep": {"ok": "yes"}}, {"licence": "CC0"}):
        with pytest.raises(TypeError):
            load_pairs(
                AdaptationData(**{"model": "m", "bitext": data.bitext, "held_out_pairs": 2} | change), config(several)
            )
    with pytest.raises(TypeError):
        load_pairs(data, config(several / "run", seed=7))


ENGLISH = [f"The woman opened door number {n} and went out into the garden." for n in range(20)]
TURKISH = [f"Kadın {n} numaralı kapıyı açtı ve bahçeye çıktı." for n in range(20)]


@pytest.mark.parametrize("target", ["tr", "id"])
def test_swapped_columns_and_other_languages_are_noticed(tmp_path, caplog, target):
    pytest.importorskip("py3langid")
    right = write(tmp_path / "right.tsv", ("en", target), zip(ENGLISH, TURKISH))
    args = config(tmp_path / "run", target_language=target)
    facts = load_pairs(AdaptationData(model="m", bitext=right, held_out_pairs=4), args)[2]
    shares = facts["in the language of its side"]
    if target == "id":
        assert shares == {"en": 1.0, "id": 0.0}
        assert (
            "Only 0 % of the Indonesian side of the bitext look like it; the others mostly like Turkish" in caplog.text
        )
    else:
        assert shares == {"en": 1.0, "tr": 1.0}
        swapped = write(tmp_path / "swapped.tsv", ("en", "tr"), zip(TURKISH, ENGLISH))
        with pytest.raises(ValueError, match="sides of the bitext are swapped: what should be English looks"):
            load_pairs(AdaptationData(model="m", bitext=swapped, held_out_pairs=4), args)
        alone = write(tmp_path / "alone.tsv", ("en", "tr"), zip(ENGLISH, ENGLISH[::-1]))
        load_pairs(AdaptationData(model="m", bitext=alone, held_out_pairs=4), args)
        assert "Only 0 % of the Turkish side of the bitext look like it; the others mostly like English" in caplog.text
        rows = [
            (f"{english} {number}", f"{turkish} {number}") for number, english, turkish in zip("ab", ENGLISH, TURKISH)
        ]
        others = write(tmp_path / "others.tsv", ("tr", "en"), rows)  # held-out pairs whose columns are swapped
        with pytest.raises(ValueError, match="sides of the bitext are swapped"):
            load_pairs(AdaptationData(model="m", bitext=right, eval_bitext=others), args)
        caplog.clear()
        load_pairs(AdaptationData(model="m", bitext=alone, held_out_pairs=4), args)
        assert "Only 0% of the Turkish side of the bitext look like it" in caplog.text  # the next time, too


def test_without_the_identifier_it_is_said_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    for cached in (langid._model, langid.identifier, langid._say_unchecked):
        cached.cache_clear()
    file = write(tmp_path / "a.tsv", ("en", "tr"), zip(ENGLISH, TURKISH))
    for seed in (1, 2):
        args = config(tmp_path / "run", target_language="tr", seed=seed)
        facts = load_pairs(AdaptationData(model="m", bitext=file, held_out_pairs=4), args)[2]
        assert "in the language of its side" not in facts
    assert caplog.text.count("The language of the Turkish side of the bitext is not checked: py3langid is not") == 1
    langid._say_unchecked.cache_clear()


@pytest.mark.data
@pytest.mark.parametrize("code", ["et", "id", "sw", "tr", "zh"])
def test_real_bitexts_are_in_their_languages(sensia_data, code):
    pytest.importorskip("py3langid")
    data = AdaptationData(model="m", bitext=f"{sensia_data}/train/en-{code}.tsv.gz")
    _, _, facts = load_pairs(data, config("run", target_language=code))
    assert min(facts["in the language of its side"].values()) > 0.96


def test_labels_of_rows_may_be_lists_or_many(tmp_path):
    rows = [{"en": f"word{i}", "id": f"kata{i}", "corpus": [str(i)], "domain": f"site{i % 30}"} for i in range(90)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    _, _, facts = load_pairs(
        AdaptationData(model="m", bitext=str(tmp_path / "saved"), held_out_pairs=4), config(tmp_path / "run")
    )
    assert "corpora" not in facts
    assert len(facts["domains"]) == 21 and sum(facts["domains"].values()) == facts["pairs"]


@pytest.mark.parametrize("order", ["as it is", "ascending", "drawn"])
def test_batches_of_a_selection_are_its_rows(order):
    whole = bitext([(f"e{i}", f"i{i}") for i in range(50)])
    rows = {"as it is": range(50), "ascending": range(3, 40, 2), "drawn": random.Random(0).sample(range(50), 21)}[
        order
    ]
    part = whole if order == "as it is" else whole.select(list(rows))
    found = [pair for table in batches(part, size=7) for pair in table["translation"].to_pylist()]
    assert found == [whole[i]["translation"] for i in rows]


@pytest.mark.parametrize("entries", [["typo/c.en", "typo/c.yo"], ["typo/c.en", "c.yo"]])
def test_of_two_aligned_files_the_one_that_is_not_there_is_named(tmp_path, monkeypatch, entries):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yo").write_text("kan\n", encoding="utf-8")
    with pytest.raises(ValueError, match="`bitext`: there is no file 'typo/c.en'; check the path"):
        parse_sources(entries)


def test_fula_is_known_by_the_name_that_the_identifier_gives_it():
    pytest.importorskip("py3langid")
    assert {identified_code(code) for code in ("ff", "ki", "kik")} <= set(identifier().codes)
