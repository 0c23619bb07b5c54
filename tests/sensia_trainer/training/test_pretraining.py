"""Reading text of each kind, the tokenizer, and packing."""

import gzip

import pytest
from datasets import Dataset

from sensia_trainer.training.pretraining import (
    PretrainingData,
    collate_blocks,
    load_documents,
    pack,
    read_documents,
    train_tokenizer,
)


def test_kinds_of_files(tmp_path):
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n')
    (tmp_path / "c.tsv").write_text('en\tid\tkind\n"four" it\tx\ta\nfive\ty\tb\n')
    files = [str(tmp_path / name) for name in ("a.txt.gz", "b.jsonl", "c.tsv")]
    documents = load_documents(PretrainingData(text_files=files, tsv_keep='{"kind": "a"}'))
    assert documents["text"] == ["one", "two", "three", '"four" it']
    with pytest.raises(ValueError, match="`tsv_column`='et'"):
        list(read_documents(files[2], tsv_column="et"))
    with pytest.raises(ValueError, match="unknown kind"):
        list(read_documents(__file__))


def test_documents_are_distinct(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\none\ntwo\n")
    assert load_documents(PretrainingData(text_files=[str(tmp_path / "a.txt")]))["text"] == ["one", "two"]
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(ValueError, match="hold no text"):
        load_documents(PretrainingData(text_files=[str(tmp_path / "a.txt")]))


def test_exactly_one_source():
    with pytest.raises(ValueError, match="exactly one of"):
        PretrainingData()
    with pytest.raises(ValueError, match="exactly one of"):
        PretrainingData(dataset="a", text_files=["b"])


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
    batch = collate_blocks([blocks[0], blocks[1]])
    assert batch["input_ids"].tolist() == batch["labels"].tolist() == blocks["input_ids"][:2]


def test_less_text_than_a_block():
    documents = Dataset.from_dict({"text": ["a"]})
    with pytest.raises(ValueError, match="`block_size`=512"):
        pack(documents, train_tokenizer(documents, 260, 512), 512)
