import gzip
import hashlib
import json
import sys
import zipfile

import datasets
import polib
import pytest

from sensia_trainer.bitext import cap_per_group, fingerprint, hub_data, keep_rows, load_bitext
from sensia_trainer.bitext.sources import is_hub_id, is_structured, names_in, read_bitext
from sensia_trainer.languages import language


PAIRS = [
    ("Good morning", "Selamat pagi"),
    ("A “cat” sleeps", "Seekor kucing tidur"),
    ("Rain\u2028falls", "Hujan turun"),
]


def texts(dataset, source="en", target="id"):
    return [(pair[source], pair[target]) for pair in dataset["translation"]]


def write_tsv(path, rows, header="en\tid\tcorpus"):
    body = "\n".join([header, *("\t".join(row) for row in rows)]) + "\n"
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "wb") as handle:
        handle.write(body.encode())
    return path


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_tsv_keeps_quotes_line_separators_and_other_columns(tmp_path, name):
    path = write_tsv(tmp_path / name, [(*pair, "toy") for pair in PAIRS])
    dataset = load_bitext(path, "en", "ind_Latn")
    assert texts(dataset) == PAIRS
    assert list(dataset["corpus"]) == ["toy"] * 3


def test_tsv_as_spreadsheets_write_it(tmp_path):
    said = 'He said "a"'
    quoted = '"' + said.replace('"', '""') + '"'
    (tmp_path / "a.tsv").write_text(f'en\tsw\n{quoted}\t"Habari"\n')
    assert texts(load_bitext(tmp_path / "a.tsv", "en", "sw"), "en", "sw") == [(said, '"Habari"')]
    (tmp_path / "b.tsv").write_text(f'"en"\t"sw"\n{quoted}\t"Habari"\n')
    assert names_in(tmp_path / "b.tsv") == ["en", "sw"]
    assert texts(load_bitext(tmp_path / "b.tsv", "en", "sw"), "en", "sw") == [(said, "Habari")]


def test_csv_counts_records_of_several_lines(tmp_path, caplog):
    lines = ["en,sw", '"Hello there,Habari', "Good day,Siku njema", 'Come",Njoo', "Go,Nenda"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert len(load_bitext(tmp_path / "a.csv", "en", "sw")) == 2
    assert "records of several lines: 1 kept" in caplog.text and "the first in line 2" in caplog.text
    (tmp_path / "b.csv").write_text("en\tsw\nGo\tNenda\n")
    assert names_in(tmp_path / "b.csv") == ["en", "sw"]


def test_a_spreadsheet_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    with pytest.raises(ValueError, match="is a spreadsheet or a document; save it as CSV"):
        load_bitext(tmp_path / "a.xlsx", "en", "sw")


def test_a_name_with_brackets_is_no_pattern(tmp_path):
    datasets.Dataset.from_dict({"en": ["a"], "sw": ["b"]}).to_parquet(tmp_path / "my [1].parquet")
    assert len(load_bitext(str(tmp_path / "my [1].parquet"), "en", "sw")) == 1


def test_tsv_counts_what_it_leaves_out(tmp_path, caplog):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"\xef\xbb\xbfen\tid\r\none\tsatu\r\ntwo\r\nthr\xffee\ttiga\r\n")
    assert texts(load_bitext(path, "en", "id")) == [("one", "satu"), ("thr\ufffdee", "tiga")]
    assert "invalid utf8: 1" in caplog.text and "malformed lines: 1" in caplog.text


@pytest.mark.parametrize("nested", [True, False])
def test_jsonl_with_translation_or_with_flat_columns(tmp_path, nested):
    path = tmp_path / "a.jsonl"
    rows = [{"en": left, "id": right} for left, right in PAIRS]
    rows = [{"translation": row, "score": 0.5} if nested else {**row, "score": 0.5} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    dataset = load_bitext(str(path), "en", "id")
    assert texts(dataset) == PAIRS and dataset["score"][0] == 0.5


def test_jsonl_replaces_halves_of_surrogate_pairs_and_counts_them(tmp_path, caplog):
    rows = [r'{"en": "a \ud83d day", "id": "hari", "tag": "x \udc00"}', r'{"en": "a \ud83d\ude00 day", "id": "hari"}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    dataset = load_bitext(tmp_path / "a.jsonl", "en", "id")
    assert [left for left, _ in texts(dataset)] == ["a \ufffd day", "a \U0001f600 day"]
    assert dataset["tag"] == ["x \ufffd", None] and "lone surrogates: 1" in caplog.text


@pytest.mark.parametrize(
    "name", ["zh-Hans", "zh_hans_CN", "sr-Latn", "pt_BR", "sw-KE", "ger", "IND", "zh-Hant-TW", "nb-NO"]
)
def test_a_column_may_be_named_by_any_code_of_its_language(tmp_path, name):
    """Also where the code was made a short one before: what a run is told, and what its files are told by."""
    code = language(name).code
    write_tsv(tmp_path / "a.tsv", [("one", "1", "x")], header=f"en\t{name}\tcorpus")
    (tmp_path / "a.jsonl").write_text(json.dumps({"translation": {"en": "one", name: "1"}}) + "\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.en", "one\n")
        archive.writestr(f"a.{name}", "1\n")
    for file in ("a.tsv", "a.jsonl", "a.zip"):
        assert texts(load_bitext(tmp_path / file, "en", code), target=code) == [("one", "1")]


def test_two_columns_of_one_language_are_refused_by_name(tmp_path):
    write_tsv(tmp_path / "a.tsv", [("one", "um", "uma")], header="en\tpt_BR\tpt-PT")
    with pytest.raises(
        ValueError, match="2 columns for target language 'pt': pt_BR, pt-PT. Name one with target_column"
    ):
        load_bitext(tmp_path / "a.tsv", "en", "pt")
    assert texts(load_bitext(tmp_path / "a.tsv", "en", "pt", target_column="pt-PT"), target="pt") == [("one", "uma")]
    write_tsv(tmp_path / "b.tsv", [("one", "um", "uma")], header="en\tpt_BR\tpt")
    assert texts(load_bitext(tmp_path / "b.tsv", "en", "pt"), target="pt") == [("one", "uma")]


@pytest.mark.parametrize("lost", [1, 2000])
def test_a_gzipped_file_that_is_cut_off_is_named(tmp_path, lost):
    write_tsv(tmp_path / "a.tsv.gz", [(hashlib.sha512(bytes([n])).hexdigest(), "x", "toy") for n in range(99)])
    (tmp_path / "a.tsv.gz").write_bytes((tmp_path / "a.tsv.gz").read_bytes()[:-lost])
    with pytest.raises(ValueError, match=r"a\.tsv\.gz is cut off or damaged"):
        load_bitext(tmp_path / "a.tsv.gz", "en", "id")


def test_two_line_aligned_files_as_list_or_joined_by_a_comma(tmp_path):
    (tmp_path / "a.en").write_bytes("\n".join(left for left, _ in PAIRS).encode())
    (tmp_path / "a.id").write_bytes("\r\n".join(right for _, right in PAIRS).encode() + b"\r\n")
    files = [str(tmp_path / "a.en"), str(tmp_path / "a.id")]
    assert texts(load_bitext(files, "en", "id")) == PAIRS == texts(load_bitext(",".join(files), "en", "id"))


@pytest.mark.parametrize("left, right", [(3, 5), (5, 3)])
def test_files_of_different_lengths_give_both_counts(tmp_path, left, right):
    (tmp_path / "a.en").write_text("x\n" * left)
    (tmp_path / "a.id").write_text("y\n" * right)
    with pytest.raises(ValueError, match=rf"a\.en has {left} lines, .*a\.id has {right}"):
        load_bitext([tmp_path / "a.en", tmp_path / "a.id"], "en", "id")


TMX = """<?xml version="1.0"?><!DOCTYPE tmx SYSTEM "tmx14.dtd"{entities}><tmx version="1.4"><header/><body>
<tu><tuv xml:lang="en-US"><seg>Press <bpt i="1">&lt;b&gt;</bpt>Save<ept i="1">&lt;/b&gt;</ept> &amp; close</seg></tuv>
<tuv xml:lang="ID"><seg>Tekan Simpan &amp; tutup{text}</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Alone</seg></tuv></tu></body></tmx>"""


def test_tmx_takes_text_without_codes(tmp_path, caplog):
    (tmp_path / "a.tmx").write_text(TMX.format(entities="", text=""))
    assert texts(load_bitext(tmp_path / "a.tmx", "en", "id")) == [("Press Save & close", "Tekan Simpan & tutup")]
    assert "units without both languages: 1" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_tmx_of_any_encoding_has_its_invalid_bytes_replaced(tmp_path, caplog, encoding):
    text = TMX.format(entities="", text=" caf\xe9").replace(
        '"1.0"', f'"1.0" encoding="{encoding.removesuffix("-sig")}"'
    )
    for name, body in (("a.tmx", text), ("b.tmx", text.replace("\n", " "))):
        (tmp_path / name).write_bytes(body.encode(encoding))
        assert texts(load_bitext(tmp_path / name, "en", "id"))[0][1] == "Tekan Simpan & tutup caf\xe9"
    if encoding == "utf-8":
        (tmp_path / "a.tmx").write_bytes(text.encode().replace(b"Simpan", b"Simpan\xff"))
        assert texts(load_bitext(tmp_path / "a.tmx", "en", "id"))[0][1] == "Tekan Simpan\ufffd & tutup caf\xe9"
        assert "invalid utf8: 1" in caplog.text


def test_tmx_tells_the_two_kinds_of_chinese_apart(tmp_path):
    sides = {"en-GB": "word", "zh-TW": "\u8a5e", "zh-CN": "\u8bcd", "fr": "mot"}
    unit = "".join(f'<tuv xml:lang="{name}"><seg>{text}</seg></tuv>' for name, text in sides.items())
    (tmp_path / "a.tmx").write_text(f"<tmx><body><tu>{unit}</tu></body></tmx>", encoding="utf-8")
    for code in ("zh", "zh_Hant", "fr_CA"):
        wanted = {"zh": "\u8bcd", "zh_Hant": "\u8a5e", "fr_CA": "mot"}[code]
        dataset = load_bitext(tmp_path / "a.tmx", "en", code)
        assert texts(dataset, target=code.split("_C")[0]) == [("word", wanted)]
    (tmp_path / "b.tmx").write_text((tmp_path / "a.tmx").read_text("utf-8").replace("zh-CN", "de"), "utf-8")
    with pytest.raises(ValueError, match="no en-zh pairs.*units without both languages"):
        load_bitext(tmp_path / "b.tmx", "en", "zh")


def test_names_of_aligned_files_tell_languages_before_another_suffix(tmp_path):
    for name, text in (("train.en.txt", "one\n"), ("train.sw.txt", "moja\n")):
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / "train.en.txt"), str(tmp_path / "train.sw.txt")]
    assert names_in(files) == ["en", "sw"]
    assert load_bitext(files, "en", "sw")["translation"][:] == [{"en": "one", "sw": "moja"}]
    with pytest.raises(ValueError, match="names train.sw.txt as the side in 'en', but its name says 'sw'"):
        load_bitext(files[::-1], "en", "sw")


def test_tmx_of_two_variants_gives_the_first(tmp_path):
    sides = {"en": "bus", "pt-BR": "ônibus", "pt-PT": "autocarro", "pt-br": "buzão"}
    unit = "".join(f'<tuv xml:lang="{name}"><seg>{text}</seg></tuv>' for name, text in sides.items())
    (tmp_path / "a.tmx").write_text(f'<tmx version="1.4"><body><tu>{unit}</tu></body></tmx>', encoding="utf-8")
    assert load_bitext(tmp_path / "a.tmx", "en", "pt")["translation"][:] == [{"en": "bus", "pt": "ônibus"}]


def test_tmx_with_a_document_type_keeps_the_characters_that_have_names(tmp_path):
    text = TMX.format(entities="", text=" caf&eacute;&nbsp;isn&rsquo;t &nosuch;")
    (tmp_path / "a.tmx").write_text(text)
    assert texts(load_bitext(tmp_path / "a.tmx", "en", "id"))[0][1] == "Tekan Simpan & tutup caf\xe9 isn’t &nosuch;"


def test_a_further_column_called_translation_is_not_the_pairs(tmp_path):
    rows = {"en": ["one", "two"], "id": ["satu", "dua"], "translation": ["human", "machine"]}
    lines = [",".join(rows), *(",".join(row) for row in zip(*rows.values()))]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "a.parquet"))
    for name in ("a.csv", "a.parquet"):
        dataset = load_bitext(tmp_path / name, "en", "id")
        assert dataset.column_names == ["translation"] and texts(dataset) == [("one", "satu"), ("two", "dua")]


def test_names_are_not_read_from_another_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes("en,id\none,satu\n".encode("utf-16"))
    with pytest.raises(ValueError, match="is in UTF-16, not in UTF-8; convert it: iconv"):
        names_in(str(tmp_path / "a.csv"))


def test_tmx_refuses_entities_and_broken_xml(tmp_path):
    (tmp_path / "a.tmx").write_text(TMX.format(entities=' [<!ENTITY lol "lol">]', text="&lol;"))
    with pytest.raises(ValueError, match="declares the XML entity 'lol'"):
        load_bitext(tmp_path / "a.tmx", "en", "id")
    (tmp_path / "b.tmx").write_text("<tmx><body><tu>")
    with pytest.raises(ValueError, match="not well-formed"):
        load_bitext(tmp_path / "b.tmx", "en", "id")


def write_catalogue(path, plural="nplurals=2; plural=(n != 1);", compiled=False, language=""):
    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=utf-8", "Plural-Forms": plural, "Language": language}
    forms = {0: "%d berkas (satu)", 1: "%d berkas"} if "nplurals=2" in plural else {0: "%d berkas"}
    catalogue += [
        polib.POEntry(msgid="Open &File…\n", msgstr="Buka &Berkas…\n"),
        polib.POEntry(msgid="Fuzzy", msgstr="Kabur", flags=["fuzzy"]),
        polib.POEntry(msgid="Gone", msgstr="Hilang", obsolete=True),
        polib.POEntry(msgid="Untranslated", msgstr=""),
        polib.POEntry(msgid="%d file", msgid_plural="%d files", msgstr_plural=forms),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    (catalogue.save_as_mofile if compiled else catalogue.save)(str(path))


@pytest.mark.parametrize("compiled", [False, True])
def test_catalogue_has_finished_messages_as_they_are(tmp_path, compiled):
    write_catalogue(tmp_path / "locale/id/LC_MESSAGES" / ("a.mo" if compiled else "a.po"), compiled=compiled)
    plurals = [("%d file", "%d berkas (satu)"), ("%d files", "%d berkas")]
    assert sorted(texts(load_bitext(tmp_path, "en", "id"))) == sorted([("Open &File…\n", "Buka &Berkas…\n"), *plurals])


def test_catalogue_with_one_plural_form_pairs_it_with_the_plural(tmp_path):
    write_catalogue(tmp_path / "id.po", plural="nplurals=1; plural=0;")
    assert texts(load_bitext(tmp_path / "id.po", "en", "id"))[1:] == [("%d files", "%d berkas")]


def test_catalogues_are_joined_each_pair_once_and_po_before_mo(tmp_path):
    for name in ("a/locale/id/LC_MESSAGES/x.po", "b/locale/id/LC_MESSAGES/x.po", "b/locale/sw/LC_MESSAGES/x.po"):
        write_catalogue(tmp_path / name)
    write_catalogue(tmp_path / "a/locale/id/LC_MESSAGES/x.mo", compiled=True)
    assert len(load_bitext(tmp_path, "en", "id")) == 3
    with pytest.raises(ValueError, match="no gettext catalogue for 'tr'.*languages there are: id, sw"):
        load_bitext(tmp_path, "en", "tr")


def test_messages_of_catalogues_are_english(tmp_path):
    write_catalogue(tmp_path / "id.po", language="id")
    pairs = texts(load_bitext(tmp_path / "id.po", "en", "id"))
    assert texts(load_bitext(tmp_path / "id.po", "id", "en"), "id", "en") == [pair[::-1] for pair in pairs]
    assert texts(load_bitext(tmp_path, "id", "en"), "id", "en") == [pair[::-1] for pair in pairs]
    with pytest.raises(ValueError, match=r"are in English, but source='id' and target='tr'\. Make one of them 'en'"):
        load_bitext(tmp_path / "id.po", "id", "tr")
    with pytest.raises(ValueError, match=r"id\.po is not in Turkish \('tr'\): its header says Language: id\. Give"):
        load_bitext(tmp_path / "id.po", "en", "tr")


def test_a_package_that_is_not_installed_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no Python package of that name is installed \(`pip install no_django`\)"):
        load_bitext("no_django", "en", "id")


def test_catalogues_without_their_reader_name_it(tmp_path, monkeypatch):
    write_catalogue(tmp_path / "id.po")
    monkeypatch.setitem(sys.modules, "polib", None)
    with pytest.raises(ValueError, match="needs polib: pip install polib"):
        load_bitext(tmp_path / "id.po", "en", "id")


@pytest.mark.parametrize("language", ["et", "id", "sw", "tr", "zh"])
def test_django_carries_human_translations(language):
    pytest.importorskip("django", reason="the quickstart's bitext comes with the django wheel")
    pairs = texts(load_bitext("django", "en", language), target=language)
    assert len(pairs) == len(set(pairs)) > 500
    assert all(source.strip() and target.strip() for source, target in pairs)


@pytest.mark.parametrize("flat", [True, False])
def test_saved_dataset(tmp_path, flat):
    rows = [{"eng": left, "ind": right} for left, right in PAIRS]
    dataset = datasets.Dataset.from_list(rows if flat else [{"translation": row, "score": 1.0} for row in rows])
    datasets.DatasetDict(train=dataset).save_to_disk(tmp_path / "saved")
    assert texts(load_bitext(tmp_path / "saved", "en", "id")) == PAIRS
    with pytest.raises(ValueError, match="split='dev'.*splits are: train"):
        load_bitext(tmp_path / "saved", "en", "id", split="dev")
    with pytest.raises(ValueError, match="target.*'tr'.*Its columns are: eng, ind.*target_column"):
        load_bitext(tmp_path / "saved", "en", "tr")
    assert texts(load_bitext(tmp_path / "saved", "en", "tr", target_column="ind"), target="tr") == PAIRS


def test_a_data_set_of_translations_joins_others(tmp_path):
    feature = datasets.Features({"translation": datasets.Translation(languages=["en", "id"])})
    rows = [{"translation": dict(zip(("en", "id"), pair))} for pair in PAIRS]
    datasets.Dataset.from_list(rows, features=feature).save_to_disk(tmp_path / "saved")
    (tmp_path / "a.tsv").write_text("en\tid\n" + "\n".join("\t".join(pair) for pair in PAIRS) + "\n")
    parts = [load_bitext(tmp_path / name, "en", "id") for name in ("saved", "a.tsv")]
    assert texts(datasets.concatenate_datasets(parts)) == PAIRS * 2


def test_a_part_of_a_saved_dataset(tmp_path):
    rows = [{"en": f"e{n}", "id": f"i{n}"} for n in range(20)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(dev=datasets.Dataset.from_list(rows)).save_to_disk(tmp_path / "several")
    for folder, split, expected in (
        ("one", "train", rows),
        ("one", "train[:5]", rows[:5]),
        ("one", "train[-5:]", rows[-5:]),
        ("one", "train[:10%]", rows[:2]),
        ("several", "dev[5:8]", rows[5:8]),
    ):
        assert texts(load_bitext(tmp_path / folder, "en", "id", split=split)) == [tuple(r.values()) for r in expected]
    for split, message in (("test", "splits are: train"), ("train[a:]", "give such as")):
        with pytest.raises(ValueError, match=message):
            load_bitext(tmp_path / "one", "en", "id", split=split)


def test_suffixes_in_capitals(tmp_path):
    (tmp_path / "PAIRS.TSV").write_text("en\tid\n" + "\n".join("\t".join(pair) for pair in PAIRS) + "\n")
    assert is_structured(tmp_path / "PAIRS.TSV") and not is_hub_id("PAIRS.TSV")
    assert texts(load_bitext(tmp_path / "PAIRS.TSV", "en", "id")) == PAIRS


def test_a_folder_of_parquet_files_is_a_dataset(tmp_path):
    rows = [{"translation": {"en": left, "id": right, "tr": "-"}} for left, right in PAIRS]
    (tmp_path / "folder").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "folder" / "train.parquet")
    bitext = load_bitext(tmp_path / "folder", "en", "id")
    assert list(bitext["translation"]) == [{"en": left, "id": right} for left, right in PAIRS]


def test_a_hub_dataset_is_found_by_the_language_pair(monkeypatch):
    called = {}

    def load_dataset(path, name=None, split=None, data_files=None):
        if path == "allenai/wmt22_african":
            raise RuntimeError("Dataset scripts are no longer supported, but found wmt22_african.py")
        called.update(path=path, name=name or data_files, split=split)
        return datasets.Dataset.from_list([{"translation": {"en": left, "id": right}} for left, right in PAIRS])

    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda path: ["de-en", "en-id", "eng-swh"])
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert texts(load_bitext("Helsinki-NLP/opus-100", "eng_Latn", "ind", split="validation")) == PAIRS
    assert called == {"path": "Helsinki-NLP/opus-100", "name": "en-id", "split": "validation"}
    monkeypatch.setattr(hub_data, "_exported_files", lambda path: ["eng-swh/train/0000.parquet"])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda path, file, **options: f"/cache/{file}")
    load_bitext("allenai/wmt22_african", "en", "sw", source_column="en", target_column="id")
    copy = {"train": ["/cache/eng-swh/train/0000.parquet"]}
    assert called == {"path": "parquet", "name": copy, "split": "train"}
    with pytest.raises(ValueError, match="no configuration for en-tr; name one of: de-en, en-id"):
        load_bitext("Helsinki-NLP/opus-100", "en", "tr")


def test_errors_say_what_is_there_and_the_way_out(tmp_path):
    (tmp_path / "empty.tsv").write_text("en\tid\n")
    with pytest.raises(ValueError, match="holds no en-id pairs"):
        load_bitext(tmp_path / "empty.tsv", "en", "id")
    with pytest.raises(ValueError, match="no column for target language 'tr'.*Its columns are: en, id.*target_column"):
        load_bitext(tmp_path / "empty.tsv", "en", "tr")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match="unknown format '.docx'; give a Hub dataset id"):
        load_bitext(tmp_path / "a.docx", "en", "id")
    with pytest.raises(ValueError, match="no such file or folder"):
        load_bitext(tmp_path / "absent.tsv", "en", "id")
    with pytest.raises(ValueError, match="nothing readable in this folder"):
        load_bitext(tmp_path, "en", "id")
    with pytest.raises(ValueError, match="same language"):
        load_bitext(tmp_path / "empty.tsv", "en", "eng_Latn")
    with pytest.raises(ValueError, match="has no splits"):
        load_bitext(tmp_path / "empty.tsv", "en", "id", split="dev")


def toy():
    rows = [{"translation": {"en": f"e{n}", "id": f"i{n}"}, "corpus": "big" if n % 4 else "small"} for n in range(40)]
    return datasets.Dataset.from_list(rows)


def test_keep_rows():
    assert len(keep_rows(toy(), {"corpus": "small"})) == 10
    assert len(keep_rows(toy(), {"corpus": ["small", "big"]})) == 40
    assert texts(keep_rows(toy().select(range(8)), {"corpus": "small"})) == [("e0", "i0"), ("e4", "i4")]
    with pytest.raises(ValueError, match=r"'small' \(10\)"):
        keep_rows(toy(), {"corpus": "none"})
    with pytest.raises(ValueError, match="whose columns are translation, corpus"):
        keep_rows(toy(), {"colour": "red"})


def test_cap_per_group_draws_a_seeded_part_of_each_group_in_order():
    capped = cap_per_group(toy(), "corpus", 15, seed=0)
    assert sorted(capped["corpus"]) == ["big"] * 15 + ["small"] * 10
    numbers = [int(source[1:]) for source, _ in texts(capped)]
    assert numbers == sorted(numbers)
    assert texts(capped) == texts(cap_per_group(toy(), "corpus", 15, seed=0))
    assert texts(capped) != texts(cap_per_group(toy(), "corpus", 15, seed=1))


def test_fingerprint_is_of_the_texts_alone():
    plain = hashlib.sha256("".join(f"en\te{n}\nid\ti{n}\n" for n in range(40)).encode()).hexdigest()
    assert fingerprint(toy()) == plain == fingerprint(toy().remove_columns("corpus"))
    assert fingerprint(toy().select(range(39, -1, -1))) != plain


def test_aligned_files_in_the_wrong_order(tmp_path):
    (tmp_path / "x.en").write_text("sun\n", encoding="utf-8")
    (tmp_path / "x.sw").write_text("jua\n", encoding="utf-8")
    files = [str(tmp_path / "x.en"), str(tmp_path / "x.sw")]
    assert load_bitext(files, "en", "sw")[0]["translation"] == {"en": "sun", "sw": "jua"}
    with pytest.raises(ValueError, match="give the file of 'en' first"):
        load_bitext(files[::-1], "en", "sw")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "en\thaw\nhello\taloha\n", "no column for target language 'id', but one for 'haw': say which"),
        ("a.tsv", "en,id\nhello,halo\n", "has one column for source, en,id: its first line has no tab"),
        ("a.tsv", "\n", "is empty, or its first line is"),
        ("a.tsv", "id\ten\tid\n1\thello\thalo\n", "has 2 columns 'id': rename all but the one to use"),
        ("a.tsv", "en\tid\rhello\thalo\r", "ends its lines by carriage returns alone"),
    ],
)
def test_what_is_wrong_with_the_columns_is_told(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_bitext(tmp_path / name, "en", "id")
