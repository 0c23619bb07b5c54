"""Pairs of several languages: what a mapping names, what is refused, and that nothing held out is trained on."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sensia_trainer.bitext.columns import texts
from sensia_trainer.bitext.pairs import names_languages
from sensia_trainer.bitext.several import facts_of_all, language_pairs, languages_of, load_several, sentences_of
from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.adaptation import load_bitext
from sensia_trainer.training.settings import AdaptationData
from tests.tiny import tiny_languages


def write(folder, name, rows, header):
    file = folder / name
    file.write_text("\n".join(["\t".join(header), *("\t".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return str(file)


@pytest.fixture
def files(tmp_path):
    """Three files; English sentences are shared between the first two."""
    number = range(60)
    rows = {
        "id": [(f"Sentence {n} in English here.", f"Kalimat {n} dalam bahasa Indonesia.") for n in number],
        "sw": [(f"Sentence {n} in English here.", f"Sentensi {n} kwa lugha ya Kiswahili.") for n in range(50)],
        "id-sw": [
            (f"Kalimat {n} dalam bahasa Indonesia.", f"Sentensi {n} kwa lugha ya Kiswahili.") for n in range(40)
        ],
    }
    headers = {"id": ("en", "id"), "sw": ("en", "sw"), "id-sw": ("id", "sw")}
    return {name: write(tmp_path, f"{name}.tsv", rows[name], headers[name]) for name in rows}


def with_kinds(files):
    """With a class of licence for each pair."""
    for file in map(Path, files.values()):
        header, *rows = file.read_text(encoding="utf-8").splitlines()
        rows = [f"{row}\t{'open' if n % 3 else 'nc'}" for n, row in enumerate(rows)]
        file.write_text("\n".join([f"{header}\tlicence_class", *rows]) + "\n", encoding="utf-8")
    return files


def data(bitext, **fields):
    return AdaptationData(**{"model": "m", "bitext": bitext, "held_out_pairs": 5, "licence": "CC0"} | fields)


LEFT = "share no sentence with what other pairs hold out"
ARGS = SimpleNamespace(source_language="en", target_language=None, seed=1)


def test_what_names_languages():
    assert names_languages([{"id": "a.tsv", "sw": {"path": "b.tsv"}}]) and names_languages([{"en-swh_Latn": "a"}])
    assert names_languages([{"haw": "a.tsv", "gil": "b.tsv"}]) and names_languages([{False: "a.tsv"}])
    assert names_languages([{"cak": "a.tsv"}]) and not names_languages([{"src": "a.en", "tgt": "a.id"}])
    assert names_languages([{"pt-BR": "a.tsv"}]) and names_languages([{"zh_Hant": "a.tsv"}])
    assert not any(map(names_languages, ([{"path": "a.tsv"}], ["a.tsv"], [{"pth": "a"}], None, [], ["a", "b"])))
    names = list(language_pairs([{"pt-BR": "a.tsv", "zh-CN": "b.tsv", "haw-sw": "c.tsv"}], "en"))
    assert names[1:] == ["en-zh", "haw-sw"] and names[0].startswith("en-pt")
    pairs = language_pairs([{"ind": "a.tsv", "id-sw": ["b.tsv", "c.tsv"]}], "en")
    assert list(pairs) == ["en-id", "id-sw"] and pairs["id-sw"].entries == ["b.tsv", "c.tsv"]
    assert languages_of(list(pairs), "en") == {"source": "en", "targets": ["id", "sw"], "pairs": ["en-id", "id-sw"]}


@pytest.mark.parametrize(
    "bitext, error",
    [
        (
            {"id": "a.tsv", "en-ind": "b.tsv"},
            "names the pair en-id twice .* 'en-ind'\\); give its sources as one list",
        ),
        ({"id": "a.tsv", "id-en": "b.tsv"}, "names the pair en-id twice"),
        ({"id": "a.tsv", "en": "b.tsv"}, "pairs 'en' with itself"),
        ({"id": "a.tsv", "xq": "b.tsv"}, "names 'xq': unknown language code"),
        ({"id": "a.tsv", False: "b.tsv"}, "YAML reads no, on and yes without quotes"),
        ({"id": "a.tsv", "en-id-sw": "b.tsv"}, "neither a language \\(id\\) nor a pair"),
        (
            {"id": "a.tsv", "tr-sw": "b.tsv"},
            "ties sw, tr to `source_language` 'en' by no chain of pairs .* such as en-sw",
        ),
        ({"id-sw": "a.tsv"}, "ties id, sw to `source_language` 'en' by no chain"),
        (
            {"id": {"path": "a.tsv", "target_column": "x"}, "sw": {"path": "a.tsv", "target_column": "x"}},
            "id and sw share a column \\(x of a.tsv\\); give each language its own",
        ),
        ({"id": {"path": "a.tsv", "source_column": "x", "target_column": "x"}}, "en and id share a column"),
        (
            {"id": {"path": ["a.en.txt", "a.txt"]}, "sw": {"path": ["b.en.txt", "a.txt"]}},
            "id and sw share a column \\(the whole file of a.txt",
        ),
        ({"id": {"path": "a.tsv", "max_pairs": 0}}, "`max_pairs` of a source is 0"),
        (
            {"id": {"path": "a.tsv", "nam": "x"}},
            "`bitext.id`: a source has an unknown field 'nam'. Did you mean 'name'",
        ),
    ],
)
def test_mappings_that_make_no_sense_are_refused(bitext, error):
    with pytest.raises(ValueError, match=error):
        load_several(data(bitext), ARGS)


def test_a_pair_with_the_wrong_columns_is_named(files):
    with pytest.raises(ValueError, match="`bitext`, pair en-tr: .*tr"):
        load_several(data({"id": files["id"], "tr": files["sw"]}), ARGS)


def test_a_target_language_beside_the_mapping_must_be_in_it(files):
    args = SensiaConfig(use_cpu=True, target_language="tr")
    with pytest.raises(
        ValueError, match="`target_language` is 'tr', but `bitext` names its languages itself \\(id\\)"
    ):
        load_bitext(data({"id": files["id"]}), args)


def test_monolingual_text_needs_one_language(files):
    from sensia_trainer.training.adaptation import load_texts

    given = data({"id": files["id"], "sw": files["sw"]}, monolingual_target=[files["id"]])
    _, held_out, _ = load_several(given, ARGS)
    with pytest.raises(ValueError, match="`monolingual_target` is text of one language"):
        load_texts(given, ARGS, held_out)


def test_nothing_held_out_in_one_pair_is_trained_on_in_another(files):
    train, held_out, facts = load_several(data(with_kinds(files)), ARGS)
    assert list(train) == ["en-id", "en-sw", "id-sw"]
    held = {code: set() for code in ("en", "id", "sw")}
    for name, part in held_out.items():
        assert len(part) == 5
        for code in name.split("-"):
            held[code] |= set(texts(part, code).to_pylist())
    for name, part in train.items():
        for code in name.split("-"):
            assert not held[code] & set(texts(part, code).to_pylist())
        assert len(part) == facts[name]["pairs"] == facts[name]["counts"][LEFT]
        assert sum(facts[name]["licence_classes"].values()) == len(part)
    assert [len(part) for part in train.values()] != [55, 45, 35]  # the draws differ, or nothing would be tested


def test_sources_of_a_pair_and_its_own_limits(files, tmp_path):
    more = write(
        tmp_path,
        "more.tsv",
        [(f"More {n} of this text.", f"Lagi {n} dari teks ini.") for n in range(40)],
        ("en", "id"),
    )
    bitext = {"id": [files["id"], {"path": more, "max_pairs": 10}], "sw": {"path": files["sw"], "licence": "GPL-3.0"}}
    train, _, facts = load_several(data(bitext, held_out_pairs=2), ARGS)
    assert facts["en-id"]["corpora"]["more"] <= 10 and len(train["en-id"]) > 55
    joined = facts_of_all(facts)
    assert joined["licence"] == "CC0; GPL-3.0" and joined["licences"] == {"en-id": "CC0", "en-sw": "GPL-3.0"}
    assert joined["pairs"] == sum(map(len, train.values()))
    facts["en-sw"]["licence"] = None
    assert facts_of_all(facts)["licence"] is None  # one that nobody stated makes the whole unknown


def test_sentences_of_a_language_are_those_of_all_pairs_that_have_it():
    parts = tiny_languages(en_id=3, en_sw=2, id_sw=4)
    english = [pair["en"] for name in ("en-id", "en-sw") for pair in parts[name]["translation"]]
    assert list(sentences_of({"id-sw": parts["id-sw"]} | parts, "en")) == english
    assert list(sentences_of(parts["en-id"], "en")) == english[:3]
