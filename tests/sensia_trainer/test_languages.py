import sys

import pytest

from sensia_trainer.config import SensiaConfig
from sensia_trainer.languages import LANGUAGES, codes_of, find_language, language, named, other_language


def test_every_code_of_a_language_gives_its_row():
    for code in ("id", "ind", "ind_Latn", "IND_LATN", "ind-Latn"):
        assert language(code).name == "Indonesian"
    codes = ("swh", "swa", "ekk", "zh-CN", "cmn", "zho_Hans", "quy", "kur", "grn", "yue", "mai")
    assert [language(c).code for c in codes] == "sw sw et zh zh zh qu ku gn yue mai".split()


def test_a_region_is_left_out_and_another_script_is_a_language_of_its_own():
    regions = ("pt_BR", "en-US", "es_419", "nb_NO", "zh_SG", "sr_Cyrl_RS")
    assert [language(c).code for c in regions] == "pt en es nb zh sr".split()
    scripts = ("zho_Hant", "zh_TW", "zh-HK", "cmn_Hant", "sr_Latn", "pa_PK", "ace_Arab")
    assert [language(c).code for c in scripts] == "zh_Hant zh_Hant zh_Hant zh_Hant sr_Latn pa_Arab ace_Arab".split()
    assert language("zh_TW")[::2] == ("zho_Hant", "Chinese (Hant)") and not language("zh_TW").has_spaces
    assert {"zh_TW", "zht"} <= set(codes_of("zh_Hant")) and not {"zh", "zho", "cmn", "zh_CN"} & set(codes_of("zh_TW"))
    assert language(language("zh_TW").code) == language("zh_TW")


def test_the_table_has_flores_200():
    others = "ace_Arab arb_Latn bjn_Arab kas_Deva knc_Arab min_Arab taq_Tfng zho_Hant".split()
    assert all(language(code).flores == code for code in others)
    assert len(LANGUAGES) + len(others) == 204


# FLORES code, code, name, whether it runs from right to left
BEYOND_THE_TABLE = {
    "haw": ("haw_Latn", "haw", "Hawaiian", False),
    "pcm": ("pcm_Latn", "pcm", "Nigerian Pidgin", False),
    "sah": ("sah_Cyrl", "sah", "Yakut", False),
    "quc": ("quc_Latn", "quc", "Kʼicheʼ", False),
    "TET": ("tet_Latn", "tet", "Tetum", False),
    "dv-MV": ("div_Thaa", "dv", "Divehi", True),
    "la": ("lat_Latn", "la", "Latin", False),
    "ger": ("deu_Latn", "de", "German", False),
    "de-CH-1996": ("deu_Latn", "de", "German", False),
    "mni_Mtei": ("mni_Mtei", "mni_Mtei", "Meitei (Mtei)", False),
    "crk_Cans": ("crk_Cans", "crk", "Plains Cree", False),
    "qab": ("qab_Latn", "qab", "qab", False),  # for private use
    "qab_Arab": ("qab_Arab", "qab_Arab", "qab (Arab)", True),
}


@pytest.mark.parametrize("code", BEYOND_THE_TABLE)
def test_any_code_of_the_registry(code):
    pytest.importorskip("langcodes")
    found = language(code)
    assert (*found, found.is_right_to_left) == BEYOND_THE_TABLE[code]
    assert language(found.code) == language(found.flores) == found


def test_every_code_of_the_registry_names_one_language():
    langcodes = pytest.importorskip("langcodes")
    letters = "abcdefghijklmnopqrstuvwxyz"
    found = {}
    for code in (a + b + c for a in letters for b in letters for c in ["", *letters]):
        if (row := language(code) if langcodes.tag_is_valid(code) and code not in NO_LANGUAGE else None) is not None:
            found.setdefault(row.code, set()).add(row)
    assert len(found) > 7000 and all(len(rows) == 1 for rows in found.values())
    assert all(language(row.code) == row == language(row.flores) for rows in found.values() for row in rows)


NO_LANGUAGE = ("und", "mul", "mis", "zxx")


def test_without_the_library_the_table_is_left(monkeypatch):
    monkeypatch.setitem(sys.modules, "langcodes", None)
    find_language.cache_clear()
    assert language("id").name == "Indonesian" and find_language("haw") is None
    find_language.cache_clear()


def test_direction():
    assert language("ar").is_right_to_left and language("ks").is_right_to_left and language("he").is_right_to_left
    assert not any(language(code).is_right_to_left for code in ("en", "zh", "kas_Deva"))


def test_no_code_is_given_twice():
    codes = [code for row in LANGUAGES for code in {row.flores, row.code, row.iso3}]
    assert len(codes) == len(set(codes)) and len({row.name for row in LANGUAGES}) == len(LANGUAGES)
    assert all(len(row.code) in (2, 3) and len(row.iso3) == 3 and len(row.script) == 4 for row in LANGUAGES)


def test_lengths_are_counted_in_characters_only_where_there_are_no_spaces():
    assert not language("zh").has_spaces
    assert all(language(code).has_spaces for code in ("en", "et", "id", "sw", "tr"))


def test_unknown_code_suggests_near_ones():
    with pytest.raises(ValueError, match="'indd'.*did you mean 'ind'"):
        language("indd")
    with pytest.raises(ValueError, match="did you mean 'sw'"):
        language("swahli")
    for code, near in (
        ("xx", ""),
        ("", ""),
        ("zho_Xxxx", "did you mean 'zho'. "),
        ("english-", "did you mean 'en'. "),
    ):
        with pytest.raises(ValueError, match=f"unknown language code {code!r}; {near}Give an ISO"):
            language(code)
    with pytest.raises(ValueError, match="quote it: 'no'"):
        language(False)


def test_codes_of_starts_with_what_was_asked():
    assert codes_of("ind_Latn")[:2] == ["ind_Latn", "id"]
    assert {"swa", "swh"} <= set(codes_of("sw"))


def test_the_other_language_of_some_names():
    assert other_language(["corpus", "en", "swh_Latn", "url"], "eng_Latn", "the file") == "sw"
    assert other_language(["en", "zh-CN", "score"], "en", "the file") == "zh"
    with pytest.raises(ValueError, match="beside 'en', the file is in id, sw. Set it"):
        other_language(["id", "en", "sw"], "en", "the file")
    with pytest.raises(ValueError, match=r"beside 'en', the file names none \(en, text\)"):
        other_language(["en", "text"], "en", "the file")
    for name in ("tgt", "txt"):  # of Central Tagbanwa and of Citak as well
        with pytest.raises(ValueError, match="names none"):
            other_language(["en", name], "en", "the file")
    pytest.importorskip("langcodes")
    assert other_language(["en", "haw"], "en", "the file") == "haw"
    assert other_language(["id", "en"], "en", "the file") == "id"
    with pytest.raises(ValueError, match="the file is in dv, id. Set it"):  # numbers of rows, or Indonesian
        other_language(["id", "en", "dv"], "en", "the file")
    with pytest.raises(ValueError, match="names none"):
        other_language(["en", "text", "url"], "en", "the file")


@pytest.mark.parametrize("code", ["swh", "swh_Latn", "SW", "sw-KE", "swa"])
def test_codes_of_any_form_are_normalised_once(tmp_path, code):
    args = SensiaConfig(output_dir=str(tmp_path), use_cpu=True, target_language=code, source_language="eng_Latn")
    assert args.languages == {"source": "en", "target": "sw"}


def test_languages_that_make_no_sense(tmp_path):
    for fields, error in (
        ({"target_language": "eng_Latn"}, "`target_language` is 'en', which is `source_language` too"),
        ({"target_language": "indd"}, "`target_language`: unknown language code 'indd'; did you mean 'ind'"),
        ({"source_language": "", "target_language": "id"}, "`source_language`: unknown language code ''"),
    ):
        with pytest.raises(ValueError, match=error):
            SensiaConfig(output_dir=str(tmp_path), use_cpu=True, **fields)


def test_a_name_of_ones_own(tmp_path):
    fields = {"target_language": "id", "target_language_name": "Betawi"}
    languages = SensiaConfig(output_dir=str(tmp_path), use_cpu=True, **fields).languages
    assert named(languages["target"], languages["target_name"]).name == "Betawi" and named("id").name == "Indonesian"
