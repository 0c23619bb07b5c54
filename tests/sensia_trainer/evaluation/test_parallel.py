import json

import pytest

from sensia_trainer.evaluation.parallel import check_pairs, flores_pairs, own_pairs, tatoeba_pairs
from tests.conftest import SENTENCES


ENGLISH, INDONESIAN = SENTENCES[::2], SENTENCES[1::2]


def write(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_flores_counts_frequencies_on_the_other_split(tmp_path):
    for split, part in (("dev", slice(0, 2)), ("devtest", slice(2, 5))):
        write(tmp_path / f"flores200/{split}/eng_Latn.{split}", ENGLISH[part])
        write(tmp_path / f"flores200/{split}/ind_Latn.{split}", INDONESIAN[part])
    pairs = flores_pairs("en", "id", data_dir=tmp_path, max_items=2)
    assert (pairs.name, pairs.languages, pairs.facts["split"]) == ("flores", ("en", "id"), "devtest")
    assert pairs.source == ENGLISH[2:4] and pairs.target == INDONESIAN[2:4]
    assert pairs.counted == [ENGLISH[:2], INDONESIAN[:2]]
    assert flores_pairs("en", "id", data_dir=tmp_path, purpose="selection").source == ENGLISH[:2]


def test_tatoeba_in_either_direction(tmp_path):
    write(tmp_path / "tatoeba/tatoeba.ind-eng.eng", ENGLISH)
    write(tmp_path / "tatoeba/tatoeba.ind-eng.ind", INDONESIAN)
    pairs = tatoeba_pairs("en", "ind_Latn", data_dir=tmp_path)
    assert (pairs.source, pairs.target) == (ENGLISH, INDONESIAN)
    assert tatoeba_pairs("id", "en", data_dir=tmp_path, max_items=2).source == INDONESIAN[:2]
    with pytest.raises(ValueError, match=r"tatoeba.cmn-eng.cmn and|tatoeba.cmn-eng.eng and"):
        tatoeba_pairs("en", "zh", data_dir=tmp_path)
    with pytest.raises(ValueError, match="with English on one side"):
        tatoeba_pairs("id", "tr", data_dir=tmp_path)
    write(tmp_path / "tatoeba/tatoeba.ind-eng.eng", [*ENGLISH, ""])
    with pytest.raises(ValueError, match=f"but tatoeba.ind-eng.ind has {len(ENGLISH)} and tatoeba.ind-eng.eng has "):
        tatoeba_pairs("id", "en", data_dir=tmp_path)


def test_your_own_bitext_from_two_files_or_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("OWN", str(tmp_path))
    write(tmp_path / "a.en", [*ENGLISH, "left alone"])
    write(tmp_path / "a.id", [*INDONESIAN, " "])
    write(tmp_path / "a.tsv", ["en\tid", *(f"{s}\t{t}" for s, t in zip(ENGLISH, INDONESIAN, strict=True))])
    for paths in (["${OWN}/a.en", "${OWN}/a.id"], [str(tmp_path / "a.tsv")]):
        pairs = own_pairs(paths, "eng_Latn", "ind_Latn", name="mine")
        assert (pairs.name, pairs.source, pairs.target) == ("mine", ENGLISH, INDONESIAN)
    swapped = own_pairs([str(tmp_path / "a.tsv")], "id", "en", name="mine", max_items=3)
    assert (swapped.source, swapped.target) == (INDONESIAN[:3], ENGLISH[:3])


def test_your_own_bitext_with_columns_of_other_names(tmp_path):
    pairs = [f"{s}\tb\t{t}" for s, t in zip(ENGLISH, INDONESIAN, strict=True)]
    write(tmp_path / "a.tsv", ["left\tkind\tright", *pairs, "x\tc\ty"])
    fields = {"path": str(tmp_path / "a.tsv"), "source_column": "left", "target_column": "right", "name": "ours"}
    pairs = own_pairs([json.dumps(fields | {"keep": {"kind": "b"}})], "en", "id", name="mine")
    assert (pairs.source, pairs.target, pairs.facts["data"]) == (ENGLISH, INDONESIAN, "ours")


def test_a_side_in_another_language_is_refused(tmp_path):
    pytest.importorskip("py3langid")
    write(tmp_path / "a.tsv", ["id\ten", *(f"{s}\t{t}" for s, t in zip(ENGLISH, INDONESIAN, strict=True))])
    with pytest.raises(ValueError, match="mine en should be in English.* If it is, `check_languages: false`"):
        check_pairs(own_pairs([str(tmp_path / "a.tsv")], "en", "id", name="mine"))


def test_words_of_an_interface_are_too_short_to_be_judged(tmp_path):
    pytest.importorskip("py3langid")
    words = ["Save", "Metadata", "24 bits", "Log in", "Username", "Delete?"]
    write(tmp_path / "a.tsv", ["en\tid", *(f"{word}\t{word}" for word in words), f"{ENGLISH[0]}\t{INDONESIAN[0]}"])
    check_pairs(own_pairs([str(tmp_path / "a.tsv")], "en", "id", name="mine"))
