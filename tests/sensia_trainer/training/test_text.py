"""Text of each kind, its tokenizer, its blocks; made once, by one process, while others wait."""

import gzip
import json
import multiprocessing
import time

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import DataCollatorForLanguageModeling

from sensia_trainer.bitext.streams import Problems
from sensia_trainer.training import text as text_module
from sensia_trainer.training.adaptation import _files
from sensia_trainer.training.settings import TextData
from sensia_trainer.training.text import frequent_tokens, pack, read_documents, text_blocks, train_tokenizer
from tests.tiny import tiny_tokenizer


LINES = [f"The {animal} has {number} books about the sea." for animal in ("cat", "dog") for number in range(40)]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    return str(tmp_path / "text.txt")


def data(*files, **fields):
    return TextData(text_files=list(files), **{"block_size": 16, "held_out_blocks": 2} | fields)


def test_frequent_tokens():
    blocks = Dataset.from_dict({"input_ids": [[7, 2, 2], [7, 7, 0]] + [[2, 2, 2]] * 1200 + [[9, 1, 9]]})
    assert frequent_tokens(blocks, 3).tolist() == [2, 7, 9]
    assert frequent_tokens(blocks, 100).tolist() == [2, 7, 9, 0, 1]


def test_kinds_of_files(tmp_path):
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("one\ntwo\n\nthree\none\n")
    (tmp_path / "b.jsonl").write_text('{"text": "four"}\n')
    (tmp_path / "c.tsv").write_text('en\tid\tkind\n"five" it\tx\ta\nsix\ty\tb\n')
    (tmp_path / "d.txt").write_bytes(gzip.compress(b"seven\n", mtime=0))  # by content, not by name
    files = [str(tmp_path / name) for name in ("a.txt.gz", "b.jsonl", "c.tsv", "d.txt")]
    some = data(*files, tsv_keep={"kind": "a"})
    problems = Problems()
    documents = list(text_module.distinct_documents(some, files, problems))
    assert documents == ["one", "two", "three", "four", '"five" it', "seven"] and not problems


def test_quotes_of_spreadsheets_are_those_of_a_bitext(tmp_path):
    (tmp_path / "a.tsv").write_text('en\tid\n"He said ""hello"" to me."\tx\n')
    assert list(text_module.read_documents(tmp_path / "a.tsv")) == ['He said "hello" to me.']
    (tmp_path / "b.tsv").write_text('"en"\t"id"\n"Good day."\t"x"\n')
    assert list(text_module.read_documents(tmp_path / "b.tsv")) == ["Good day."]


@pytest.mark.parametrize(
    ("name", "content", "fields", "message"),
    [
        ("a.tsv", b"en\tid\nx\ty\n", {"tsv_column": "et"}, "`tsv_column`='et' is not a column"),
        ("a.tsv", b"en\tid\nx\ty\n", {"tsv_keep": {"kind": "a"}}, "`tsv_keep`='kind' is not a column"),
        ("a.pdf", b"x", {}, "unknown kind"),
        ("a.txt", "x\n".encode("utf-16"), {}, "is in UTF-16"),
        ("a.txt.gz", gzip.compress(b"some text\n" * 99, mtime=0)[:-9], {}, "cut off or damaged"),
        ("a.txt", b"\n \n", {}, "hold no text"),
        ("a.jsonl", b"{}\n", {}, r"hold no text \(malformed lines: 1"),
        ("a.txt", b"caf\xe9 num\xe9ro\n" * 20, {}, "is not in UTF-8 .*iconv"),
        ("a.txt", b"short\n", {}, "shorter than one block of `block_size`=16"),
        ("a.txt", b"a b c d e f g h i j k l m n o p q r s t\n", {}, "nothing is left to train on"),
    ],
)
def test_files_without_text_are_refused(tmp_path, name, content, fields, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        text_blocks(data(str(tmp_path / name), **fields), tmp_path / "run", tokenizer=tiny_tokenizer())


def test_malformed_lines_are_counted(tmp_path):
    lines = ['{"text": "one"}', "{", "[1]", '{"text": 3}', '{"other": "x"}', "[" * 5000, '{"text": "two"}', ""]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.tsv").write_text("id\ten\nx\tone\nno tab\ny\ttwo\n")
    for name, count in (("a.jsonl", 5), ("a.tsv", 1)):
        problems = Problems()
        documents = read_documents(tmp_path / name, problems=problems)
        assert [d for d in documents if d] == ["one", "two"] and problems == {"malformed_lines": count}
    cells = ["a\rb", "long " * 40_000, '"three']
    (tmp_path / "b.tsv").write_bytes(("id\ten\n" + "".join(f"x\t{cell}\n" for cell in cells)).encode())
    assert [document.strip() for document in read_documents(tmp_path / "b.tsv")] == [cell.strip() for cell in cells]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of"),
        ({"dataset": "a", "text_files": ["b"]}, "exactly one of"),
        ({"text_files": "b", "block_size": 1}, "`block_size` is 1"),
        ({"text_files": "b", "held_out_blocks": 0}, "`held_out_blocks` is 0"),
        ({"text_files": "b", "num_proc": 0}, "`num_proc` is 0"),
    ],
)
def test_settings_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        TextData(**fields)


def test_packing_joins_documents_by_the_end_of_text(tmp_path):
    documents = Dataset.from_dict({"text": ["a quick fox", "jumps over", "the dog again and again"]})
    tokenizer = train_tokenizer(documents, 270, 8)
    assert tokenizer("a quick fox")["input_ids"][0] == tokenizer.bos_token_id == tokenizer.eos_token_id
    tokenizer.save_pretrained(tmp_path)
    assert type(tokenizer).from_pretrained(tmp_path)("a")["input_ids"][0] == tokenizer.bos_token_id
    blocks = pack(documents, tokenizer, 8)
    stream = [token for row in blocks["input_ids"] for token in row]
    whole = [i for text in documents["text"] for i in tokenizer(text)["input_ids"]]
    assert stream == whole[: len(stream)] and len(whole) - len(stream) < 8


def test_what_a_tokenizer_begins_with_begins_documents_and_blocks():
    tokenizer = tiny_tokenizer()
    start, end = tokenizer.convert_tokens_to_ids(["q", "z"])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="q $A", special_tokens=[("q", start)])
    tokenizer.eos_token = "z"
    assert tokenizer("the cat")["input_ids"][0] == start != tokenizer.eos_token_id == end
    blocks = pack(Dataset.from_dict({"text": ["the cat", "the dog and the sea"] * 3}), tokenizer, 8)["input_ids"]
    assert all(len(block) == 8 and block[0] == start for block in blocks)
    stream = [token for block in blocks for token in block[1:]]
    whole = [i for text in ["the cat", "the dog and the sea"] * 3 for i in [end, *tokenizer(text)["input_ids"]]]
    assert stream == whole[: len(stream)] and len(whole) - len(stream) < 7


@pytest.mark.parametrize("column", ["text", "content"])
def test_a_dataset_is_read_by_its_column(tmp_path, column):
    (tmp_path / "texts").mkdir()
    rows = [json.dumps({column: line, "other": 1}) for line in LINES]
    (tmp_path / "texts" / "train.jsonl").write_text("\n".join(rows))
    settings = {"block_size": 16, "held_out_blocks": 2}
    some = TextData(dataset=str(tmp_path / "texts"), text_column=column, **settings)
    blocks, _, facts = text_blocks(some, tmp_path / "run", tokenizer=tiny_tokenizer())
    assert facts["documents"] == len(LINES) and len(blocks) > 2
    few = TextData(dataset=str(tmp_path / "texts"), text_column=column, max_documents=9, **settings)
    first, _, facts = text_blocks(few, tmp_path / "few", tokenizer=tiny_tokenizer())
    assert facts["documents"] == 9 and first["input_ids"] == blocks["input_ids"][: len(first)]
    wrong = TextData(dataset=str(tmp_path / "texts"), text_column="nosuch", max_documents=9, **settings)
    with pytest.raises(ValueError, match="`text_column` is 'nosuch', but .* has the columns"):
        text_blocks(wrong, tmp_path / "wrong", tokenizer=tiny_tokenizer())


def test_a_dataset_without_rows_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "load_dataset", lambda *_, **__: Dataset.from_dict({"text": []}))
    for rows in (None, 9):
        with pytest.raises(ValueError, match="`dataset`='a/b' holds no text"):
            text_blocks(TextData(dataset="a/b", max_documents=rows), tmp_path, tokenizer=tiny_tokenizer())


def test_the_first_documents_of_files(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(LINES))
    data = TextData(text_files=[str(tmp_path / "a.txt")], max_documents=7, block_size=16, held_out_blocks=2)
    assert text_blocks(data, tmp_path / "run", tokenizer=tiny_tokenizer())[2]["documents"] == 7


def test_blocks_do_not_depend_on_the_number_of_processes(monkeypatch):
    monkeypatch.setattr(text_module, "PACKED_TOGETHER", 7)
    documents, tokenizer = Dataset.from_dict({"text": LINES}), tiny_tokenizer()
    one, three = (pack(documents, tokenizer, 16, num_proc=n)["input_ids"] for n in (1, 3))
    assert one[:] == three[:]


def test_padding_is_not_the_end_of_a_text(tmp_path):
    """A collator that masks padding leaves the end to be learned."""
    tokenizer = train_tokenizer(Dataset.from_dict({"text": LINES}), 280, 64)
    assert len(tokenizer) == 280 and tokenizer.pad_token_id != tokenizer.eos_token_id
    tokenizer.save_pretrained(tmp_path)
    tokenizer = type(tokenizer).from_pretrained(tmp_path)
    assert tokenizer.pad_token == "<|pad|>"
    rows = [{"input_ids": [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]} for text in ("a cat", "the sea")]
    labels = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)["labels"]
    assert ((labels == tokenizer.eos_token_id).sum(1) == 2).all() and (labels == -100).any()


def test_blocks_are_made_once(tmp_path, file, monkeypatch):
    blocks, tokenizer, facts = text_blocks(data(file), tmp_path, vocab_size=280)
    assert facts["documents"] == 80 and not (tmp_path / ".text" / "documents.arrow").exists()
    rows = blocks["input_ids"][:]
    with monkeypatch.context() as patch:
        patch.setattr(text_module, "_make_blocks", None)
        again, same, told = text_blocks(data(file, licence="CC0", num_proc=2), tmp_path, vocab_size=280)
    assert again["input_ids"][:] == rows and told == facts and same.get_vocab() == tokenizer.get_vocab()
    changed, _, told = text_blocks(data(file, block_size=8), tmp_path, vocab_size=280)
    assert len(changed["input_ids"][0]) == 8 and told["fingerprint"] != facts["fingerprint"]
    (tmp_path / ".text" / "blocks.arrow").unlink()  # not cut in place: it is mapped here
    (tmp_path / ".text" / "blocks.arrow").write_bytes(b"ARROW")
    assert (
        text_blocks(data(file, block_size=8), tmp_path, vocab_size=280)[0]["input_ids"][:] == changed["input_ids"][:]
    )
    (tmp_path / "text.txt").write_text("\n".join(LINES[::-1]))
    assert text_blocks(data(file), tmp_path, vocab_size=280)[2]["fingerprint"] != facts["fingerprint"]


def wait_for_blocks(file, folder, queue):
    blocks, tokenizer, _ = text_blocks(data(file), folder, vocab_size=280, makes=False)
    queue.put((blocks["input_ids"][:], len(tokenizer)))


def test_the_other_processes_wait(tmp_path, file):
    context = multiprocessing.get_context("forkserver")
    queue = context.Queue()
    other = context.Process(target=wait_for_blocks, args=(file, tmp_path, queue))
    other.start()
    time.sleep(1)
    blocks, tokenizer, _ = text_blocks(data(file), tmp_path, vocab_size=280)
    assert queue.get(timeout=60) == (blocks["input_ids"][:], len(tokenizer))
    other.join()


def test_a_damaged_note_is_not_trusted(tmp_path, file):
    text_blocks(data(file), tmp_path, vocab_size=280)
    for content in ("", "{", "[]", "{}", json.dumps({"sizes": 3})):
        (tmp_path / ".text" / "blocks.json").write_text(content)
        assert text_blocks(data(file), tmp_path, vocab_size=280)[2]["documents"] == 80


def test_text_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("\n".join(LINES))
    assert _files(["~/a.txt"]) == [tmp_path / "a.txt"]
    assert len(text_blocks(data("~/a.txt"), tmp_path / "run", vocab_size=280)[0])
