"""Files that are not what they say, damaged, endless, or full of what no sentence is: counted, or refused by name."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import zipfile

import datasets
import pyarrow as pa
import pytest

from sensia_trainer.bitext import load_bitext, store, streams
from sensia_trainer.bitext.sources import iterate_rows, read_bitext
from sensia_trainer.bitext.streams import Problems


ROWS = [("one", "satu"), ("two", "dua"), ("three", "tiga")]
TSV = "".join(f"{a}\t{b}\n" for a, b in [("en", "id"), *ROWS]).encode()


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


def zipped(files, comment=b""):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def texts(dataset):
    return [(pair["en"], pair["id"]) for pair in dataset["translation"]]


def read(folder, name, data, **options):
    (folder / name).write_bytes(data)
    dataset, problems = read_bitext(folder / name, "en", "id", **options)
    return texts(dataset), problems


PACKED = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstd}


@pytest.mark.parametrize("suffix", PACKED)
def test_compression_is_told_by_the_content(tmp_path, suffix):
    for name in (f"a.tsv.{suffix}", "b.tsv", "c.tsv.zip"):
        assert read(tmp_path, name, PACKED[suffix](TSV)) == (ROWS, {})
    assert read(tmp_path, f"plain.tsv.{suffix}", TSV) == (ROWS, {})
    with pytest.raises(ValueError, match=rf"cut\.tsv\.{suffix} is cut off or damaged"):
        read(tmp_path, f"cut.tsv.{suffix}", PACKED[suffix](TSV * 99)[:-9])


def test_zip_archives(tmp_path):
    left, right = ("\n".join(side) + "\n" for side in zip(*ROWS))
    assert read(tmp_path, "en-id.txt.zip", zipped({"README": "x", "a.en-id.en": left, "a.en-id.id": right})) == (
        ROWS,
        {},
    )
    assert read(tmp_path, "a.zip", zipped({"a.tsv": TSV})) == (ROWS, {})
    with pytest.raises(ValueError, match="0 members ending in .id; its members: ..a.en., .a.fr.."):
        read(tmp_path, "b.zip", zipped({"a.en": left, "a.fr": right}))
    with pytest.raises(ValueError, match="climbs out of its folder"):
        read(tmp_path, "c.zip", zipped({"../a.en": left, "a.id": right}))
    with pytest.raises(ValueError, match="d.zip is cut off or damaged"):
        read(tmp_path, "d.zip", zipped({"a.en": left, "a.id": right})[:-30])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: zipped({"a.tsv": data})])
def test_a_bomb_is_refused(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(streams, "ALWAYS_ALLOWED", 1 << 20)
    for data in (bytes(4 << 20), b"en\tid\n" + b"a\tb\n" * (1 << 20)):
        with pytest.raises(ValueError, match="unpacks to more than 1,048,576 bytes"):
            read(tmp_path, "a.tsv.gz", pack(data))


def test_a_file_in_another_encoding_is_refused_with_the_way_out(tmp_path):
    lines = ["en\tid"] + [f"good day {i}\ttere p\u00e4eva j\u00f5ge {i}" for i in range(20)]
    with pytest.raises(ValueError, match="not in UTF-8 .20 lines are none.*iconv -f CP1252 -t UTF-8 a.tsv"):
        read(tmp_path, "a.tsv", "\n".join(lines).encode("cp1252"))


def test_endless_lines_and_binary_are_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(streams, "MAX_LINE", 100)
    lines = [b"en\tid", b"one\tsatu", b"x" * 1000 + b"\ty", b"two\tdua", b"a\0\tb", b"three\ttiga", b"\xff\t" * 300]
    assert read(tmp_path, "a.tsv", b"\n".join(lines)) == (ROWS, {"malformed_lines": 3})
    assert "malformed lines: 3 left out, the first in line 3" in caplog.text
    with pytest.raises(ValueError, match="'.*b.tsv' has 3 malformed lines beside 1 pairs .*the first in line 3"):
        read(tmp_path, "b.tsv", b"en\tid\none\tsatu\na\nb\tc\td\nonly")


def test_json_lines_of_every_wrong_kind_are_counted(tmp_path):
    good = [json.dumps({"en": a, "id": b, "n": 1, "tag": "x"}) for a, b in ROWS * 9]
    bad = ["{", "[" * 100_000, "1" * 5000, '{"en": ' + "1" * 5000 + "}", '"en"', "[1]", "null", '{"en": 1, "id": "b"}']
    bad += [
        '{"en": "a"}',
        '{"en": ["a"], "id": "b"}',
        '{"translation": {"en": null, "id": "b"}}',
        "nan",
        "\ud800x"[1:],
    ]
    odd = ['{"en": "a", "id": "b", "n": "many", "tag": 7}', '{"en": "a", "id": "b", "n": 1e999, "tag": {"a": [1]}}']
    odd += ['{"en": "a", "id": "b", "n": 99999999999999999999999, "other": 1}']
    lines = "\n".join(good + bad + odd).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    dataset, problems = read_bitext(tmp_path / "a.jsonl", "en", "id")
    assert problems == {"malformed_lines": len(bad)} and len(dataset) == 30
    assert dataset["tag"][-3:] == ["7", '{"a": [1]}', None]
    assert set(dataset.column_names) == {"translation", "n", "tag", "other"}
    with pytest.raises(ValueError, match="holds one JSON array; give one object a line: jq -c '.\\[\\]' b.json"):
        read(tmp_path, "b.json", b'[{"en": "a", "id": "b"}]')


def test_values_of_another_type_than_the_first_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("sensia_trainer.bitext.sources._BATCH", 2)
    values = ["1", "2", "3", '"x"', "99999999999999999999999", "null"]
    lines = "\n".join(f'{{"en": "a{n}", "id": "b", "n": {value}}}' for n, value in enumerate(values))
    (tmp_path / "a.jsonl").write_text(lines)
    dataset, problems = read_bitext(tmp_path / "a.jsonl", "en", "id")
    assert dataset["n"][:] == [1, 2, 3, None, None, None] and problems == {"values_of_another_type_in_n": 2}


def test_csv_as_spreadsheets_write_it(tmp_path):
    data = 'en;id;note\r\none;satu;"a;b"\r\n"two";dua;"x ""y"""\r\nthree;tiga;\r\nfour\r\n'.encode("utf-8-sig")
    (tmp_path / "a.csv").write_bytes(data)
    dataset, problems = read_bitext(tmp_path / "a.csv", "en", "id")
    assert texts(dataset) == ROWS and dataset["note"][:] == ["a;b", 'x "y"', ""]
    assert problems == {"malformed_lines": 1}
    endless = b'en,id\none,satu\n"' + b"x\n" * 100_000
    with pytest.raises(ValueError, match="malformed lines beside 3 pairs .*the first in line 3"):
        read(tmp_path, "b.csv", endless + b"\ntwo,dua\nthree,tiga\n")  # a quote that never closes


def test_all_lines_that_an_open_quote_swallows_are_counted(tmp_path):
    rows = [f"word {n},kata {n}\n" for n in range(40)]
    rows[10] = '"' + rows[10]
    rows[20] = 'quoted,"kutip"\n'  # closes it
    (tmp_path / "a.csv").write_text("en,id\n" + "".join(rows), encoding="utf-8")
    problems = Problems()
    found = list(iterate_rows(tmp_path / "a.csv", "en", "id", problems=problems))
    assert [source for source, *_ in found] == [f"word {n}" for n in (*range(10), *range(21, 40))]
    assert problems["malformed_lines"] == 11 and "the first in line 12" in " ".join(problems.described())


def test_parquet(tmp_path):
    datasets.Dataset.from_dict({"en": ["one"], "id": ["satu"]}).to_parquet(tmp_path / "a.parquet")
    assert texts(load_bitext(tmp_path / "a.parquet", "en", "id")) == ROWS[:1]
    (tmp_path / "b.parquet").write_bytes(b"PAR1" + b"junk" * 9)
    with pytest.raises(ValueError, match="b.parquet': the file is damaged"):
        load_bitext(tmp_path / "b.parquet", "en", "id")


def test_a_table_without_a_header_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(
        ValueError, match="if these are the first pair, put a line with the names of the columns before"
    ):
        read(tmp_path, "a.tsv", TSV.split(b"\n", 1)[1])
    with pytest.raises(ValueError, match="a.tsv is in UTF-16.*iconv -f UTF-16"):
        read(tmp_path, "a.tsv", TSV.decode().encode("utf-16"))
    with pytest.raises(ValueError, match="a.tsv is in UTF-16"):
        read(tmp_path, "a.tsv", TSV.decode().encode("utf-16-le"))
    assert read(tmp_path, "b.tsv", TSV.replace(b"en\tid", b"EN\tId"))[0] == ROWS


@pytest.mark.parametrize("kind", ["tabs", "JSON", "XML"])
def test_tables_are_not_sides_of_aligned_text(tmp_path, kind):
    lines = {"tabs": "a\tb\n" * 3, "JSON": '{"en": "a"}\n' * 3, "XML": '<?xml version="1.0"?>\n<tmx>\n<tu>\n'}[kind]
    (tmp_path / "a.en").write_text(lines)
    (tmp_path / "a.id").write_text("x\ny\nz\n")
    with pytest.raises(ValueError, match=rf"a\.en is given as one side .* of its first 3 lines hold {kind}"):
        load_bitext([tmp_path / "a.en", tmp_path / "a.id"], "en", "id")
    for name in ("a.tsv", "b.tsv"):
        (tmp_path / name).write_bytes(TSV)
    with pytest.raises(ValueError, match="holds both languages is not a side"):
        load_bitext([tmp_path / "a.tsv", tmp_path / "b.tsv"], "en", "id")


def test_lines_that_cannot_be_text_leave_the_others_aligned(tmp_path):
    (tmp_path / "a.en").write_bytes(b"one\ntw\0o\nthree\n")
    (tmp_path / "a.id").write_bytes(b"satu\ndua\ntiga\n")
    dataset, problems = read_bitext([tmp_path / "a.en", tmp_path / "a.id"], "en", "id")
    assert texts(dataset) == [ROWS[0], ROWS[2]] and problems == {"malformed_lines": 1}


UNIT = '<tu><tuv xml:lang="en"><seg>{}</seg></tuv><tuv xml:lang="id"><seg>satu</seg></tuv></tu>'


def test_tmx_with_segments_where_none_belongs(tmp_path, monkeypatch):
    body = f"<seg>stray</seg><tu><seg>stray</seg></tu>{UNIT.format('one')}"
    found = read(tmp_path, "a.tmx", f"<tmx><body>{body}</body></tmx>".encode())
    assert found == (ROWS[:1], {"malformed_segments": 2, "units_without_both_languages": 1})
    monkeypatch.setattr("sensia_trainer.bitext.tmx.MAX_LINE", 1000)
    found = read(tmp_path, "b.tmx", f"<tmx>{UNIT.format('one')}{UNIT.format('x' * 5000)}</tmx>".encode())
    assert found == (ROWS[:1], {"malformed_segments": 1, "units_without_both_languages": 1})
    twice = UNIT.replace("</tuv>", '</tuv><tuv xml:lang="en"><seg>another</seg></tuv>', 1).format("one")
    assert read(tmp_path, "d.tmx", f"<tmx>{twice}</tmx>".encode()) == (ROWS[:1], {})  # the first of a language
    nested = b"<tmx>" + b"<a>" * 100_000 + b"</a>" * 100_000 + UNIT.format("one").encode() + b"</tmx>"
    assert read(tmp_path, "c.tmx", nested)[0] == ROWS[:1]


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "koi8-r"])
def test_tmx_in_any_encoding_that_python_knows(tmp_path, encoding):
    text = {"gb2312": "\u8bcd", "shift_jis": "\u8a9e", "koi8-r": "\u0441"}[encoding]
    data = f'<?xml version="1.0" encoding="{encoding}"?><tmx>{UNIT.format(text)}</tmx>'.encode(encoding)
    assert read(tmp_path, "a.tmx", data)[0] == [(text, "satu")]


def test_tmx_in_an_unknown_encoding(tmp_path):
    with pytest.raises(ValueError, match="a.tmx is in an unknown encoding, 'klingon'; convert it to UTF-8"):
        read(tmp_path, "a.tmx", b'<?xml version="1.0" encoding="klingon"?><tmx/>')


@pytest.mark.parametrize(
    "name, data", [("a.mo", b"\xde\x12\x04\x95" + b"\xff" * 40), ("a.mo", b"x"), ("a.po", b"\0msgid")]
)
def test_damaged_catalogues_are_named(tmp_path, name, data):
    with pytest.raises(ValueError, match=f"{name} cannot be read as a gettext catalogue"):
        read(tmp_path, name, data)


@pytest.mark.parametrize("header", ["charset=klingon", "charset=UTF-8\\nPlural-Forms: nplurals=2; plural=n/0;"])
def test_catalogues_with_a_header_of_nonsense(tmp_path, header):
    body = f'msgid ""\nmsgstr "Content-Type: text/plain; {header}\\n"\n\nmsgid "one"\nmsgstr "satu"\n\n'
    body += 'msgid "two"\nmsgid_plural "twos"\nmsgstr[0] "dua"\nmsgstr[1] "dua-dua"\n'
    assert read(tmp_path, "a.po", body.encode())[0][0] == ROWS[0]


@pytest.mark.parametrize(
    "path", ["file:///etc/passwd", "https://x.org/a.tsv", "hf://datasets/a/b", "s3://a/b", "/no/such"]
)
def test_addresses_are_not_fetched(path):
    with pytest.raises(ValueError, match="addresses are not fetched; download it" if ":" in path else "no such file"):
        load_bitext(path, "en", "id")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b"])
def test_paths_that_cannot_be(path):
    with pytest.raises(ValueError, match="is not a path|there is no such file"):
        load_bitext(path, "en", "id")


def test_packed_binary_kinds_are_to_be_unpacked(tmp_path):
    with pytest.raises(ValueError, match=r"a \.po file is not read while it is packed; unpack it"):
        read(tmp_path, "a.po.gz", gzip.compress(b"x", mtime=0))


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch, caplog):
    assert read(tmp_path, "a.tsv", TSV + b"bad\n") == (ROWS, {"malformed_lines": 1})
    caplog.clear()
    monkeypatch.setattr("sensia_trainer.bitext.sources.read_tsv", None)  # would be called
    dataset, problems = read_bitext(tmp_path / "a.tsv", "en", "id")
    assert (texts(dataset), problems) == (ROWS, {"malformed_lines": 1}) and "malformed lines: 1" in caplog.text
    with pytest.raises(TypeError):
        read(tmp_path, "a.tsv", TSV + b"other\n")


def test_what_was_cut_short_while_it_was_kept_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "a.tsv").write_bytes(TSV)
    rename = os.rename
    monkeypatch.setattr("os.rename", lambda *names: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        load_bitext(tmp_path / "a.tsv", "en", "id")
    monkeypatch.setattr("os.rename", rename)
    assert texts(load_bitext(tmp_path / "a.tsv", "en", "id")) == ROWS


def test_a_process_that_was_faster_keeps_what_it_made(tmp_path, monkeypatch):
    """Of two that start together the later one must not take the files from under the earlier one."""
    (tmp_path / "a.tsv").write_bytes(TSV)
    write, made = store.write_json, []

    def slower(path, content):
        write(path, content)
        theirs = path.parent.with_name(path.parent.name.split(".")[0])
        shutil.copytree(path.parent, theirs)
        made.append((theirs / store.FACTS, (theirs / store.FACTS).stat().st_ino))

    monkeypatch.setattr(store, "write_json", slower)
    assert texts(load_bitext(tmp_path / "a.tsv", "en", "id")) == ROWS
    assert made and all(file.stat().st_ino == number for file, number in made)
