"""Plain text in blocks of tokens: read, tokenized and packed once, for all processes of a run and for its resumes."""

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets, load_dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GPT2Tokenizer
from transformers.utils import logging

from ..bitext.readers import tsv_fields, without_surrogates
from ..bitext.splits import as_written
from ..bitext.streams import (
    Problems,
    open_binary,
    plain_name,
    read_lines,
    refuse_other_bytes,
    refuse_other_encodings,
)
from ..utils.files import fingerprint, read_json, write_json
from ..utils.recipes import expand_variables
from .runs import tokenizer_fingerprint
from .settings import TextData


logger = logging.get_logger(__name__)

END_OF_TEXT, PADDING = "<|endoftext|>", "<|pad|>"
PACKED_TOGETHER = 10_000  # documents
TEXT_FOLDER = ".text"
TEXT_SUFFIXES = (".txt", ".jsonl", ".tsv")


class TooLittleText(ValueError):
    """A text that does not fill the blocks that are to be made of it."""


def check_block_size(config, block_size: int) -> None:
    """`ValueError` where a model of this configuration has fewer positions than a block of text has tokens."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and block_size > positions:
        raise ValueError(
            f"`block_size` is {block_size}, but the model has {positions} positions; lower it to {positions} or less."
        )


def check_batches(split, args) -> None:
    """`ValueError` where no batch of training or (where `split` has a `test`) of held-out blocks is full and only full
    ones are taken."""
    sizes = {"train": args.train_batch_size, "test": args.eval_batch_size}
    for part, size in sizes.items() if args.dataloader_drop_last else ():
        if part in split and len(split[part]) < size * args.world_size:
            kind, field = ("training", "train") if part == "train" else ("held-out", "eval")
            raise ValueError(
                f"There are {len(split[part])} {kind} blocks, less than one batch of {size * args.world_size}, and "
                f"`dataloader_drop_last` leaves out what does not fill one. Lower `per_device_{field}_batch_size`, "
                "give more text, or leave `dataloader_drop_last` out."
            )


def text_blocks(data: TextData, folder, *, tokenizer=None, vocab_size: int = 0, makes: bool = True):
    """
    The text of `data` as blocks of tokens. One process makes them in `folder`, while the others wait for its files,
    however long that takes; a run that goes on finds them there.

    Args:
        data ([`TextData`]): The text.
        folder (`str` or `Path`): The run's folder; the blocks are in `.text` in it.
        tokenizer (*optional*): What cuts the text; without one, a byte-level BPE is trained on it.
        vocab_size (`int`, *optional*): Size of a tokenizer trained here.
        makes (`bool`, *optional*, defaults to `True`): Whether this is the process that makes them.

    Returns:
        Blocks (`Dataset` with a column `input_ids`, every row `block_size` long), the tokenizer, and facts (`dict`):
        number of `documents`, `fingerprint` of the tokens, `problems` with lines (`{kind: count}`).

    Raises:
        `ValueError`: for files that are missing, damaged or hold no text ([`TooLittleText`]: too few blocks).
    """
    folder = Path(folder) / TEXT_FOLDER
    files = [Path(expand_variables(path)).expanduser() for path in data.text_files]
    for file in files:
        if not file.is_file():
            raise ValueError(f"`text_files` holds {str(file)!r}, which is not a file.")
    cut_by = vocab_size if tokenizer is None else tokenizer_fingerprint(tokenizer)
    untold = ("licence", "language", "num_proc", "held_out_blocks")
    settings = {one.name: getattr(data, one.name) for one in fields(TextData) if one.name not in untold}
    key = fingerprint([settings, [(file.stat().st_size, file.stat().st_mtime_ns) for file in files], cut_by])
    if makes and _finished(folder, key) is None:
        shutil.rmtree(folder, ignore_errors=True)
        _make_blocks(data, files, folder, tokenizer, vocab_size, key)
    since = time.monotonic()
    while (facts := _finished(folder, key)) is None:
        if time.monotonic() - since > 60:
            logger.warning(f"Waiting for the first process, which tokenizes the text into {folder}.")
            since = time.monotonic() + 3600  # once is enough
        time.sleep(0.5)
    blocks = concatenate_datasets([Dataset.from_file(str(folder / name)) for name in facts.pop("files")])
    if len(blocks) <= data.held_out_blocks:
        raise TooLittleText(
            f"The text fills {len(blocks)} blocks of `block_size`={data.block_size} tokens, and `held_out_blocks`="
            f"{data.held_out_blocks} of them are held out: nothing is left to train on. Give more text, or lower them."
        )
    from ..utils.models import load_tokenizer  # imports models, which `--help` has no time for

    return blocks, tokenizer or load_tokenizer(str(folder / "tokenizer")), facts


def _finished(folder: Path, key: str) -> dict | None:
    """Facts about the blocks in `folder`, if they are all there and those of `key`."""
    try:
        facts = read_json(folder / "blocks.json")
        sizes = facts.pop("sizes")
        whole = facts.pop("key") == key and all((folder / n).stat().st_size == size for n, size in sizes.items())
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return None
    return facts | {"files": list(sizes)} if whole else None


def _make_blocks(data, files, folder, tokenizer, vocab_size, key):
    problems = Problems()
    if data.dataset:
        documents = _documents_of_dataset(data, folder)
    else:
        found = itertools.islice(distinct_documents(data, files, problems), data.max_documents)
        documents = _on_disk(found, folder / "documents.arrow")
    for sentence in problems.described():
        logger.warning(f"In {', '.join(data.text_files)}: {sentence}")
    if not len(documents):
        named = f"`dataset`={data.dataset!r} holds" if data.dataset else f"`text_files`={data.text_files} hold"
        raise ValueError(f"{named} no text{''.join(f' ({one})' for one in problems.described())}.")
    if tokenizer is None:
        tokenizer = train_tokenizer(documents, vocab_size, data.block_size)
        tokenizer.save_pretrained(folder / "tokenizer")
    blocks = pack(documents, tokenizer, data.block_size, num_proc=data.num_proc, file=str(folder / "blocks.arrow"))
    sizes = {Path(part["filename"]).name: Path(part["filename"]).stat().st_size for part in blocks.cache_files}
    facts = {"documents": len(documents), "fingerprint": blocks_fingerprint(blocks), "problems": dict(problems)}
    write_json(folder / "blocks.json", facts | {"key": key, "sizes": sizes})
    (folder / "documents.arrow").unlink(missing_ok=True)


def _documents_of_dataset(data, folder) -> Dataset:
    """The documents of a Hub data set, in a column `text`: all of them, or the first ones, as a stream."""
    streaming = data.max_documents is not None
    documents = load_dataset(data.dataset, data.dataset_config, split=data.dataset_split, streaming=streaming)
    columns = documents.column_names or list(next(iter(documents), {}))  # a stream may not know them before
    if columns and data.text_column not in columns:
        raise ValueError(f"`text_column` is {data.text_column!r}, but {data.dataset} has the columns {columns}.")
    if streaming:
        first = tqdm(documents.take(data.max_documents), desc="reading", unit="document", total=data.max_documents)
        return _on_disk((row[data.text_column] or "" for row in first), folder / "documents.arrow")
    documents = documents.select_columns([data.text_column])
    return documents if data.text_column == "text" else documents.rename_column(data.text_column, "text")


def _on_disk(documents: Iterator[str], file: Path) -> Dataset:
    file.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("text", pa.string())])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while part := list(itertools.islice(documents, 1000)):
            writer.write_batch(pa.record_batch([pa.array(part, pa.string())], schema=schema))
    return Dataset.from_file(str(file))


def distinct_documents(data: TextData, files: list[Path], problems: Problems) -> Iterator[str]:
    """The documents of some files in reading order, without empty ones and copies."""
    seen = set()
    for file in tqdm(files, desc="reading", unit="file"):
        before, count = problems["invalid_utf8"], 0
        for document in read_documents(file, data.text_column, data.tsv_column, data.tsv_keep, problems):
            count += 1
            if document and hash(document) not in seen:
                seen.add(hash(document))
                yield document
        refuse_other_bytes({"invalid_utf8": problems["invalid_utf8"] - before}, count, file)


def read_documents(path, text_column="text", tsv_column="en", tsv_keep=None, problems=None) -> Iterator[str]:
    """
    The documents of one file: lines of `.txt`, a column of `.jsonl` or `.tsv`; what it is compressed with is read
    through. What is not a document is left out and counted in `problems`.

    Raises:
        `ValueError`: for another kind of file, a damaged one, another encoding or a missing column.
    """
    path, problems = Path(path), Problems() if problems is None else problems
    suffix = Path(plain_name(path)).suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        raise ValueError(f"{path}: unknown kind of text file; known are .txt, .jsonl and .tsv, compressed or not.")
    refuse_other_encodings(path)
    with open_binary(path) as handle:
        lines = ((n, line) for n, line in enumerate(read_lines(handle, problems), 1) if line is not None)
        if suffix == ".txt":
            yield from (line.strip() for _, line in lines)
        elif suffix == ".jsonl":
            for number, line in lines:
                try:
                    record = json.loads(line) if line.strip() else {text_column: ""}
                    text = without_surrogates(record, line, number, problems)[text_column]
                except (ValueError, TypeError, KeyError, RecursionError):
                    text = None
                if isinstance(text, str):
                    yield text
                else:
                    problems.add("malformed_lines", number)
        else:
            _, first = next(lines, (0, None))
            if first is None:
                return
            names, fields_of = tsv_fields(first)
            missing = [name for name in (tsv_column, *(tsv_keep or {})) if name not in names]
            if missing:
                argument = "tsv_column" if tsv_column in missing else "tsv_keep"
                raise ValueError(f"`{argument}`={missing[0]!r} is not a column of {path}: it has {names}.")
            for number, line in lines:
                row = dict(zip(names, fields_of(line))) if line else {}
                if tsv_column not in row:
                    problems.add("malformed_lines", number)
                elif all(row.get(name) == as_written(value) for name, value in (tsv_keep or {}).items()):
                    yield row[tsv_column]


def train_tokenizer(documents, vocab_size: int, model_max_length: int):
    """
    A byte-level BPE of `vocab_size` ids, among them the end-of-text token, which also starts texts, and one for
    padding.

    It puts the end-of-text token before every text, as every document begins in pretraining. Padding is a token of its
    own, so that a collator that masks padding leaves the end of a text to be learned.
    """
    texts = (documents[i : i + 1000]["text"] for i in range(0, len(documents), 1000))
    tokenizer = GPT2Tokenizer().train_new_from_iterator(
        ([text or "" for text in part] for part in texts), vocab_size=vocab_size, new_special_tokens=[PADDING]
    )
    tokenizer.add_special_tokens(
        {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT, "pad_token": PADDING}
    )
    tokenizer.model_max_length = model_max_length
    tokenizer.add_bos_token = True
    tokenizer.update_post_processor()
    return tokenizer


def pack(documents, tokenizer, block_size: int, num_proc: int = 1, file: str | None = None) -> Dataset:
    """
    Tokenize and cut into blocks: documents, each behind an end-of-text token, joined; nothing padded. Of every
    `PACKED_TOGETHER` documents, the rest that fills no block is dropped. A token of its own that the tokenizer puts
    before a text (BOS of Llama and Gemma, which predicts badly without) also begins each document and each block.

    Args:
        documents (`Dataset`): With a column `text`.
        tokenizer: What cuts them.
        block_size (`int`): Tokens of a block.
        num_proc (`int`, *optional*, defaults to 1): Processes at work; the blocks do not depend on it.
        file (`str`, *optional*): Where the blocks are kept.

    Returns:
        `Dataset` with a column `input_ids`, every row `block_size` long.

    Raises:
        `ValueError`: for a tokenizer without an end-of-text token.
        `TooLittleText`: for text shorter than one block.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{tokenizer.name_or_path or 'The tokenizer'} has no end-of-text token, which parts documents. "
            "Give it one (`tokenizer.eos_token`, one of its tokens) and save it, or name another by `tokenizer`."
        )
    from ..utils.models import own_start_token  # likewise

    start = own_start_token(tokenizer)
    begin = [] if start in (None, tokenizer.eos_token_id) else [start]
    length = block_size - len(begin)

    def cut(batch):
        texts = documents[batch["start"][0] : batch["start"][0] + PACKED_TOGETHER]["text"]
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        ids = tokenizer([text or "" for text in texts], **options)["input_ids"]
        stream = [token for text in ids for token in (tokenizer.eos_token_id, *begin, *text)]
        stop = len(stream) - len(stream) % length
        return {"input_ids": [begin + stream[i : i + length] for i in range(0, stop, length)]}

    # Each row stands for the documents that are packed together, so that no process parts them.
    parts = Dataset.from_dict({"start": list(range(0, len(documents), PACKED_TOGETHER))})
    blocks = parts.map(
        cut,
        batched=True,
        batch_size=1,
        remove_columns=["start"],
        features=Features({"input_ids": List(Value("int32"))}),
        num_proc=min(num_proc, len(parts)) if min(num_proc, len(parts)) > 1 else None,
        cache_file_name=file,
        load_from_cache_file=False,
        desc="tokenizing",
    )
    if not len(blocks):
        raise TooLittleText(
            f"The text is shorter than one block of `block_size`={block_size} tokens; give more text, or lower it."
        )
    return blocks


def frequent_tokens(blocks, number: int) -> Tensor:
    """The `number` most frequent tokens of a packed text, or as many as it has, most frequent first: `(N,)`."""
    counts = np.zeros(0, dtype=np.int64)
    for table in blocks.with_format("arrow").iter(1000):
        found = np.bincount(table["input_ids"].combine_chunks().flatten().to_numpy(), minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    order = np.argsort(-counts, kind="stable")[:number]
    return torch.from_numpy(order[counts[order] > 0])


def blocks_fingerprint(blocks) -> str:
    """16 hexadecimal digits of the SHA-256 of the tokens of a packed text."""
    digest = hashlib.sha256()
    for table in blocks.with_format("arrow").iter(1000):
        rows = table["input_ids"].combine_chunks()
        digest.update(f"{len(rows)} {len(rows[0])}".encode())
        digest.update(rows.flatten().to_numpy())
    return digest.hexdigest()[:16]
