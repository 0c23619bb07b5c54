import pytest

from sensia_trainer.bitext.languages import LANGUAGES, codes_of, language


def test_every_code_of_a_language_gives_its_row():
    for code in ("id", "ind", "ind_Latn", "IND_LATN", "ind-Latn"):
        assert language(code).name == "Indonesian"
    assert [language(c).code for c in ("swh", "swa", "ekk", "zh-CN", "cmn", "zho_Hans")] == ["sw", "sw", "et"] + [
        "zh"
    ] * 3


def test_no_code_is_given_twice():
    codes = [code for row in LANGUAGES for code in {row.flores, row.iso1, row.iso3} if code]
    assert len(codes) == len(set(codes))
    assert all(len(row.iso1) in (0, 2) and len(row.iso3) == 3 and len(row.script) == 4 for row in LANGUAGES)


def test_lengths_are_counted_in_characters_only_where_there_are_no_spaces():
    assert not language("zh").has_spaces
    assert all(language(code).has_spaces for code in ("en", "et", "id", "sw", "tr"))


def test_unknown_code_suggests_near_ones():
    with pytest.raises(ValueError, match="'indd'.*did you mean.*'ind'"):
        language("indd")
    with pytest.raises(ValueError, match="did you mean 'sw'"):
        language("swahli")


def test_codes_of_starts_with_what_was_asked():
    assert codes_of("ind_Latn")[:2] == ["ind_Latn", "id"]
    assert {"swa", "swh"} <= set(codes_of("sw"))
