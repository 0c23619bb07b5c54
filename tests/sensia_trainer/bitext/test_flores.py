import pytest
from datasets import Dataset

from sensia_trainer.bitext.flores import load_flores


@pytest.fixture
def folder(tmp_path):
    for split in ("dev", "devtest"):
        (tmp_path / split).mkdir()
        for code in ("eng_Latn", "ind_Latn"):
            (tmp_path / split / f"{code}.{split}").write_text(f"{split} {code}\nsecond\n", encoding="utf-8")
    return tmp_path


def test_reads_the_published_layout(folder):
    assert load_flores(folder, "dev", ["eng_Latn", "id"], purpose="selection") == {
        "eng_Latn": ["dev eng_Latn", "second"],
        "id": ["dev ind_Latn", "second"],
    }
    assert load_flores(folder, "devtest", ["eng_Latn"], purpose="reporting")["eng_Latn"][0] == "devtest eng_Latn"


def test_only_a_line_feed_ends_a_sentence(folder):
    text = "\ufeffone\u2028and a half\r\ntwo\u0085\x0cthree\n\nfour"
    (folder / "dev/ind_Latn.dev").write_text(text, encoding="utf-8", newline="")
    sentences = load_flores(folder, "dev", ["id"], purpose="selection")["id"]
    assert sentences == ["one\u2028and a half", "two\u0085\x0cthree", "", "four"]
    (folder / "dev/ind_Latn.dev").write_bytes("satu\n".encode("utf-16"))
    with pytest.raises(ValueError, match="ind_Latn.dev' is not in UTF-8"):
        load_flores(folder, "dev", ["id"], purpose="selection")


@pytest.mark.parametrize("split, purpose", [("devtest", "selection"), ("dev", "reporting")])
def test_selection_and_reporting_are_not_mixed(folder, split, purpose):
    with pytest.raises(ValueError, match=f"{split} must not be used for {purpose}"):
        load_flores(folder, split, ["eng_Latn"], purpose=purpose)


def test_what_is_missing_is_named_with_what_exists(folder):
    with pytest.raises(ValueError, match="lacks .*swh_Latn.*it has .*eng_Latn.*ind_Latn"):
        load_flores(folder, "dev", ["eng_Latn", "swh_Latn"], purpose="selection")
    (folder / "dev" / "eng_Latn.dev").unlink()
    (folder / "dev" / "ind_Latn.dev").unlink()
    with pytest.raises(ValueError, match=r"no FLORES split 'dev'.*\['dev', 'devtest'\]"):
        load_flores(folder, "dev", ["eng_Latn"], purpose="selection")
    with pytest.raises(ValueError, match="`purpose` must be one of"):
        load_flores(folder, "dev", ["eng_Latn"], purpose="fun")


def test_a_folder_of_ones_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    found = [load_flores(name, "dev", ["en"], purpose="selection") for name in (folder, f"~/{folder.name}")]
    assert found[0] == found[1]


def test_a_folder_that_is_not_there_is_named_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="FLORES is not at '.*florse': it is no folder here.* Give the folder"):
        load_flores(tmp_path / "florse", "dev", ["en"], purpose="selection")


def test_unequal_lengths_are_refused(folder):
    (folder / "dev" / "ind_Latn.dev").write_text("one\n", encoding="utf-8")
    with pytest.raises(ValueError, match="not aligned.*'ind_Latn': 1"):
        load_flores(folder, "dev", ["eng_Latn", "ind_Latn"], purpose="selection")


@pytest.mark.data
def test_real_files(sensia_data):
    flores = load_flores(
        sensia_data / "eval/flores200", "dev", ["en", "id", "sw", "et", "tr", "zh"], purpose="selection"
    )
    assert {len(lines) for lines in flores.values()} == {997}


@pytest.mark.parametrize("column", ["sentence", "text", "words"])
def test_hub(monkeypatch, column):
    data = Dataset.from_dict({"id": [1, 2], column: ["a", "b"]})
    monkeypatch.setattr("datasets.load_dataset", lambda path, config, split: data)
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda path: ["eng_Latn", "ind_Latn"])
    if column == "words":
        with pytest.raises(ValueError, match=r"no column `sentence` or `text`; it has \['id', 'words'\]"):
            load_flores("some/flores", "dev", ["en"], purpose="selection")
    else:
        assert load_flores("some/flores", "dev", ["en"], purpose="selection") == {"en": ["a", "b"]}
    with pytest.raises(ValueError, match="lacks .'swh_Latn'.; it has .'eng_Latn', 'ind_Latn'"):
        load_flores("some/flores", "dev", ["sw"], purpose="selection")


def test_languages_that_the_hub_renamed(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda path, config, split: Dataset.from_dict({"text": [config]}))
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda path: ["cmn_Hans", "est_Latn", "fil_Latn"])
    found = load_flores("some/flores", "dev", ["zh", "et"], purpose="selection")
    assert found == {"zh": ["cmn_Hans"], "et": ["est_Latn"]}  # whichever name the data set has
    assert load_flores("some/flores", "dev", ["tl"], purpose="selection") == {"tl": ["fil_Latn"]}
