"""English pretraining data: text files or a Hub dataset, packed to blocks of the model's length."""

import csv
import gzip
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from datasets import Dataset, load_dataset
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Tokenizer

from modeling_backpack import BackpackConfig, BackpackForCausalLM

from ..losses import check_head, head_of, last_state, next_token_loss
from ..utils.recipes import expand_variables
from .checkpointing import ResumableTrainer


END_OF_TEXT = "<|endoftext|>"
PACKED_TOGETHER = 10_000  # documents


@dataclass
class PretrainingData:
    """What `examples/pretrain.py` reads, and the model it makes. `FREE` fields do not tell runs apart."""

    FREE: ClassVar = ("dataset", "text_files", "tokenizer", "licence", "language")

    dataset: str | None = field(default=None, metadata={"help": "Hub dataset id, e.g. Skylion007/openwebtext."})
    dataset_split: str = field(default="train", metadata={"help": "Split of `dataset`."})
    text_files: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Text (a document a line), JSONL or TSV files, each possibly gzipped. Paths may hold "
            "environment variables."
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column of `dataset` and of JSONL files."})
    tsv_column: str = field(default="en", metadata={"help": "Column of TSV files."})
    tsv_keep: dict | str | None = field(
        default_factory=dict, metadata={"help": 'Rows of TSV files kept, e.g. {"licence_class": "open"}.'}
    )
    licence: str | None = field(default=None, metadata={"help": "Licence of the text, for the model card."})
    language: str = field(default="en", metadata={"help": "Language of the text, for the model card."})
    tokenizer: str | None = field(
        default=None, metadata={"help": "Tokenizer to use (Hub id or folder). Default: train a byte-level BPE."}
    )
    vocab_size: int = field(default=8192, metadata={"help": "Size of a tokenizer trained here."})
    block_size: int = field(default=512, metadata={"help": "Tokens of a training example."})
    held_out_blocks: int = field(default=200, metadata={"help": "Blocks kept for measuring perplexity."})
    senses: bool = field(
        default=True, metadata={"help": "A Backpack; false: its backbone alone, for baselines without senses."}
    )
    backbone_config: dict | str | None = field(
        default_factory=dict, metadata={"help": "Fields of the backbone's configuration (GPT-2 by default)."}
    )
    backpack_config: dict | str | None = field(
        default_factory=dict, metadata={"help": "Fields of BackpackConfig, e.g. num_senses."}
    )

    def __post_init__(self):
        for name in ("tsv_keep", "backbone_config", "backpack_config"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, json.loads(getattr(self, name)))
        if bool(self.dataset) == bool(self.text_files):
            raise ValueError(
                "Give exactly one of `dataset` (a Hub id) and `text_files` (local files); got "
                f"dataset={self.dataset!r} and {len(self.text_files)} text files."
            )


def read_documents(path, text_column="text", tsv_column="en", tsv_keep=None):
    """
    Yield the documents of one file: lines of `.txt`, a column of `.jsonl` or `.tsv`; `.gz` is read through.

    Raises:
        `ValueError`: for another kind of file or a missing column.
    """
    path = Path(path)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace", newline="") as file:
        if suffix == ".txt":
            yield from (line.strip() for line in file)
        elif suffix == ".jsonl":
            yield from (json.loads(line)[text_column] for line in file)
        elif suffix == ".tsv":
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if tsv_column not in (rows.fieldnames or ()):
                raise ValueError(f"`tsv_column`={tsv_column!r} is no column of {path}: it has {rows.fieldnames}.")
            keep = tsv_keep or {}
            yield from (row[tsv_column] for row in rows if all(row.get(k) == v for k, v in keep.items()))
        else:
            raise ValueError(f"{path}: unknown kind of text file; known are .txt, .jsonl and .tsv, also with .gz.")


def load_documents(data):
    """
    A `Dataset` with a column `text`, documents in reading order: those of `dataset` as they are, those of
    `text_files` without empty ones and copies.

    Raises:
        `ValueError`: for text files that hold no text, and as [`read_documents`].
    """
    if data.dataset:
        dataset = load_dataset(data.dataset, split=data.dataset_split)
        return dataset.select_columns([data.text_column]).rename_column(data.text_column, "text")
    seen, documents = set(), []
    for path in tqdm(data.text_files, desc="reading", unit="file"):
        path = expand_variables(path)
        for document in read_documents(path, data.text_column, data.tsv_column, data.tsv_keep):
            if document and hash(document) not in seen:
                seen.add(hash(document))
                documents.append(document)
    if not documents:
        raise ValueError(f"`text_files`={data.text_files} hold no text.")
    return Dataset.from_dict({"text": documents})


def train_tokenizer(documents, vocab_size, model_max_length):
    """
    A byte-level BPE of `vocab_size` ids, the end-of-text token among them as start, end and padding token.

    It puts the end-of-text token before every text, as every document begins in pretraining.
    """
    texts = (documents[i : i + 1000]["text"] for i in range(0, len(documents), 1000))
    tokenizer = GPT2Tokenizer().train_new_from_iterator(texts, vocab_size=vocab_size)
    tokenizer.add_special_tokens(
        {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    )
    tokenizer.model_max_length = model_max_length
    tokenizer.add_bos_token = True
    tokenizer.update_post_processor()
    return tokenizer


def pack(documents, tokenizer, block_size):
    """
    Tokenize and cut into blocks: documents, each behind an end-of-text token, joined; nothing padded. Of every
    `PACKED_TOGETHER` documents, the rest that fills no block is dropped.

    Returns:
        `Dataset` with a column `input_ids`, every row `block_size` long.

    Raises:
        `ValueError`: for text shorter than one block.
    """

    def tokenize(batch):
        texts = tokenizer(batch["text"], add_special_tokens=False, verbose=False)
        return {"input_ids": [[tokenizer.eos_token_id, *ids] for ids in texts["input_ids"]]}

    def cut(batch):
        stream = [token for ids in batch["input_ids"] for token in ids]
        stop = len(stream) - len(stream) % block_size
        return {"input_ids": [stream[i : i + block_size] for i in range(0, stop, block_size)]}

    tokens = documents.map(tokenize, batched=True, remove_columns=documents.column_names, desc="tokenizing")
    blocks = tokens.map(cut, batched=True, batch_size=PACKED_TOGETHER, desc="packing")
    if not len(blocks):
        raise ValueError(f"The text is shorter than one block of `block_size`={block_size} tokens.")
    return blocks


def blocks_fingerprint(blocks) -> str:
    """16 hexadecimal digits of the SHA-256 of the tokens of a packed text."""
    digest = hashlib.sha256()
    for table in blocks.with_format("arrow").iter(1000):
        digest.update(table["input_ids"].combine_chunks().flatten().to_numpy())
    return digest.hexdigest()[:16]


def build_model(data, tokenizer):
    """A freshly initialised [`BackpackForCausalLM`], or with `senses=False` the causal model of its backbone alone."""
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    fields = {"vocab_size": data.vocab_size, "n_positions": data.block_size} | special | data.backbone_config
    backbone_config = AutoConfig.for_model(fields.pop("model_type", "gpt2"), **fields)
    if data.senses:
        return BackpackForCausalLM(BackpackConfig(backbone_config=backbone_config, **data.backpack_config))
    return AutoModelForCausalLM.from_config(backbone_config)


def collate_blocks(rows, senses=True):
    """Blocks as a training batch, for which no logits are wanted: [`PretrainingTrainer`] computes the loss."""
    input_ids = torch.tensor([row["input_ids"] for row in rows])
    batch = {"input_ids": input_ids, "labels": input_ids, "logits_to_keep": input_ids.new_empty(0)}
    return batch if senses else batch | {"output_hidden_states": True}


class PretrainingTrainer(ResumableTrainer):
    """[`ResumableTrainer`] on blocks of text, whose logits are never held at once (see [`next_token_loss`])."""

    def __init__(self, model, args, **kwargs):
        check_head(model)
        super().__init__(model, args, compute_loss_func=self._next_token_loss, **kwargs)

    def _get_num_items_in_batch(self, batch_samples, device):
        # Some releases of the library count, for some models, the first label of each block, which nothing predicts.
        labels = sum(batch["labels"][:, 1:].numel() for batch in batch_samples)
        return labels * (self.args.world_size if self.args.average_tokens_across_devices else 1)

    def _next_token_loss(self, outputs, labels, num_items_in_batch=None):
        shift_labels = F.pad(labels[:, 1:], (0, 1), value=-100)
        with self.accelerator.autocast():
            return next_token_loss(last_state(outputs), head_of(self.model), shift_labels, divisor=num_items_in_batch)
