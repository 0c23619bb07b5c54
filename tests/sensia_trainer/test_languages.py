import pytest

from sensia_trainer.languages import LANGUAGES, codes_of, language


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
    # What ISO 639-1 adds stands at the end, from Abkhazian on.
    assert [row.code for row in LANGUAGES].index("ab") + len(others) == 204


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
