"""Weights get no licence that their text does not allow."""

import pytest

from sensia_trainer.hub.card_prose import data_text
from sensia_trainer.hub.licences import keep_licence, licence_of_model, weights_licence


BY_CORPUS = {"license": "other", "license_name": "see-the-training-data", "license_link": "README.md#training-data"}


@pytest.mark.parametrize(
    "licence, expected",
    [
        (None, "unknown"),
        ("", "unknown"),
        ("as agreed with the author", "unknown"),
        ("CC0 and whatever else", "unknown"),
        ("CC BY-ND 4.0", "unknown"),
        ("CC-BY-NC-ND 4.0", "unknown"),
        ("not open", "unknown"),
        ("no open licence", "unknown"),
        ("Open by agreement", "unknown"),
        ("open", "apache-2.0"),
        ("CC BY 4.0 (non-commercial use only)", "cc-by-nc-4.0"),
        ("CC BY Non Commercial", "cc-by-nc-4.0"),
        ("CC BY (no derivatives)", "unknown"),
        ("CC BY 4.0 (Wikipedia part: CC BY-SA 4.0)", "cc-by-sa-4.0"),
        ("CC BY 4.0 (code: GPL-3.0)", "gpl"),
        ("MIT (one file LGPL-2.1)", "lgpl"),
        ("Apache 2.0 (research use only)", "unknown"),
        ("BSD (no commercial use)", "unknown"),
        ("CC BY–SA 4.0", "cc-by-sa-4.0"),
        ("CC BY 4.0 Share Alike", "cc-by-sa-4.0"),
        ("BSD-3-Clause", "apache-2.0"),
        ("CC0, CC BY 4.0, public domain (books, some bitext)", "apache-2.0"),
        ("MIT OR Apache-2.0", "apache-2.0"),
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("cc-by-sa-3.0", "cc-by-sa-4.0"),
        ("Creative Commons Attribution ShareAlike", "cc-by-sa-4.0"),
        ("CC BY-NC 4.0 (in part)", "cc-by-nc-4.0"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
        ("CC BY-NC 4.0, CC BY-SA 4.0", "cc-by-nc-sa-4.0"),
        ("non-commercial use only", "cc-by-nc-4.0"),
        ("GPL-3.0-only", "gpl-3.0"),
        ("GPL", "gpl"),
        ("gpl-2.0-or-later", "gpl-2.0"),
        ("LGPL-2.1", "lgpl-2.1"),
        ("LGPL-2", "lgpl"),
        ("GPL-1.0", "gpl"),
        ("AGPL-3.0", "agpl-3.0"),
    ],
)
def test_what_the_text_allows(licence, expected):
    assert weights_licence({"licence": licence}) == {"license": expected}


def test_terms_that_bind_in_several_ways_are_named_by_corpus():
    for licence in ("CC BY-SA, free-software licences, by corpus", "GPL-3.0 and CC BY-SA 4.0", "GPL, MPL-2.0, AGPL"):
        assert weights_licence({"licence": licence}) == BY_CORPUS, licence


def test_classes_of_rows_and_the_base_model_add_their_terms():
    assert (
        weights_licence({"licence": "by corpus", "licence_classes": {"open": 9, "nc": 1}})["license"] == "cc-by-nc-4.0"
    )
    assert weights_licence({"licence": "CC0", "licence_classes": {"open": 10}})["license"] == "apache-2.0"
    assert weights_licence({"licence_classes": {"open": 10}})["license"] == "unknown"
    assert weights_licence({"licence": "CC0", "licence_classes": {"unclear": 1}})["license"] == "unknown"
    cc0 = {"licence": "CC0"}
    assert weights_licence(cc0, {"license": "cc-by-sa-4.0"})["license"] == "cc-by-sa-4.0"
    assert weights_licence(cc0, {"license": "cc-by-nc-sa-4.0"})["license"] == "cc-by-nc-sa-4.0"
    assert weights_licence(cc0, BY_CORPUS) == BY_CORPUS
    for own in (
        {"license": "llama3"},
        {"license": "other", "license_name": "qwen-research"},
    ):
        assert weights_licence(cc0, own) == own  # the text asks for nothing
        assert weights_licence({"licence": "CC BY-SA"}, own)["license"] == "unknown"
    for nothing in ({"license": "unknown"}, {"license": "other"}, {"license": "other", "license_name": "proprietary"}):
        assert weights_licence(cc0, nothing)["license"] == "unknown"
    linked = {"license": "other", "license_name": "mine", "license_link": "LICENSE"}  # a file of another repository
    assert "license_link" not in weights_licence(cc0, linked)
    linked["license_link"] = "https://example.org/licence"
    assert weights_licence(cc0, linked) == linked
    said = str(data_text(cc0, linked, linked))
    assert "Licence of the weights: mine." in said and "bind" not in said
    assert weights_licence(cc0, {"license": "apache-2.0"})["license"] == "apache-2.0"


@pytest.mark.parametrize(
    "licence", ["Open Database License 1.0", "Open Software License 3.0", "Open Data Commons Open Database License"]
)
def test_open_licences_that_bind_are_not_permissive(licence):
    assert weights_licence({"licence": licence}) == BY_CORPUS


def test_non_commercial_and_copyleft_terms_are_both_told():
    assert weights_licence({"licence": "CC BY-NC 4.0, GPL"}) == BY_CORPUS


def test_a_licence_that_cannot_be_read_is_unknown(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("sensia_trainer.hub.licences.logger.propagate", True)
    assert licence_of_model(str(tmp_path)) is None  # a folder of one's own, without a card
    assert licence_of_model("somebody/model") == {"license": "unknown"}  # no network
    assert "The licence of 'somebody/model' cannot be read" in caplog.text


def test_what_is_made_of_a_model_is_bound_by_its_licence(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\nlanguage: en\n---\n")
    (tmp_path / "made").mkdir()
    keep_licence(str(tmp_path), tmp_path / "made")
    assert licence_of_model(str(tmp_path / "made")) == {"license": "cc-by-nc-4.0"}


@pytest.mark.parametrize("side", ["replay source", "monolingual target"])
def test_text_beside_the_pairs_adds_its_terms(side):
    for licence, expected in (
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("CC BY-SA", "cc-by-sa-4.0"),
        ("GPL", "gpl"),
        ("CC0", "apache-2.0"),
        ("who knows", "unknown"),
        (None, "unknown"),
    ):
        assert weights_licence({"licence": "CC0", side: {"licence": licence}})["license"] == expected
    assert weights_licence({side: {"licence": "CC0"}})["license"] == "unknown"
    assert weights_licence({"licence": "CC BY-SA", side: {"licence": "GPL"}}) == BY_CORPUS


def test_the_licence_of_a_model_stands_on_its_card(tmp_path):
    assert licence_of_model("backpack-micro-en")["license"] == "other"  # the packaged model, by its name
    assert licence_of_model(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n")
    assert licence_of_model(tmp_path) == {"license": "mit"}


def test_a_card_that_grants_nothing_gives_no_licence(tmp_path):
    (tmp_path / "README.md").write_text("---\nlanguage: en\n---\n\n# A model\n")
    base = licence_of_model(tmp_path)
    assert base == {"license": "unknown"}
    assert weights_licence({"licence": "CC0"}, base)["license"] == "unknown"


def test_a_base_model_under_several_licences():
    data = {"licence": "CC0"}
    assert weights_licence(data, {"license": ["mit", "apache-2.0"]}) == {"license": "apache-2.0"}
    assert weights_licence(data, {"license": ["mit", "cc-by-sa-4.0"]}) == {"license": "cc-by-sa-4.0"}
