"""The texts of evaluation sets, as keys that a training pair must not share."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq

from .filters import near_form, text_keys
from .readers import open_binary, read_lines
from .sources import load_from_hub


# A shorter text ("Yes", "Two days") is no evidence that a pair was taken from an evaluation set.
MIN_WORDS, MIN_CHARACTERS = 3, 8
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


def evaluation_keys(entries: tuple[str, ...]) -> tuple[np.ndarray, dict[str, int]]:
    """Near keys of every text, and of every sentence of a longer text, of some evaluation sets.

    Args:
        entries: files (plain text a line, .tsv, .csv, .jsonl, also gzipped; .parquet), folders of them, or Hub ids,
            with a configuration after a colon ("facebook/belebele:est_Latn").

    Returns:
        (keys, counts): sorted distinct keys, (n,) uint64, and the number of texts taken from each entry.

    Raises ValueError for an entry that cannot be read or holds no text.
    """
    keys, counts = set(), {}
    for entry, name in zip(entries, _names(entries)):
        forms = {form for text in _texts(entry) for form in _forms(text)}
        if not forms:
            raise ValueError(f"contamination: {entry!r} holds no text; check the path")
        keys.update(text_keys(sorted(forms)).tolist())
        counts[name] = len(forms)
    return np.array(sorted(keys), dtype=np.uint64), counts


def _names(entries: tuple[str, ...]) -> list[str]:
    """The entries without the folders of this machine: paths from the folder that holds them all."""
    paths = [Path(entry).expanduser().absolute() if Path(entry).expanduser().exists() else None for entry in entries]
    parents = [path.parent for path in paths if path]
    common = os.path.commonpath(parents) if parents else ""
    return [entry if path is None else path.relative_to(common).as_posix() for entry, path in zip(entries, paths)]


def _forms(text: str) -> Iterator[str]:
    for part in {text, *_SENTENCE_END.split(text)}:
        form = near_form(part)
        words = form.split()
        is_unspaced = len(words) < MIN_WORDS and not form.isascii() and len(form) >= MIN_CHARACTERS
        if len(words) >= MIN_WORDS or is_unspaced and max(map(len, words)) >= MIN_CHARACTERS and _has_ideographs(form):
            yield form


def _has_ideographs(form: str) -> bool:
    return any(
        "\u0e00" <= character <= "\u0fff" or "\u1000" <= character <= "\u109f" or "\u3040" <= character <= "\u9fff"
        for character in form
    )


def _texts(entry: str) -> Iterator[str]:
    path = Path(entry).expanduser()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not file.name.upper().startswith(("LICENSE", "README", "METADATA")):
                yield from _file_texts(file)
    elif path.is_file():
        yield from _file_texts(path)
    elif entry.startswith((".", "/", "~")) or entry.count("/") > 1:
        raise ValueError(f"contamination: there is no file or folder {entry!r}")
    else:
        yield from _hub_texts(entry)


def _file_texts(path: Path) -> Iterator[str]:
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches():
            yield from _strings(batch.to_pylist())
        return
    with open_binary(path) as handle:
        lines = read_lines(handle, Counter())
        if kind == ".jsonl":
            yield from _strings([json.loads(line) for line in lines if line.strip()])
        elif kind == ".tsv":
            yield from (text for line in lines for text in line.split("\t"))
        elif kind == ".csv":
            yield from (text for row in csv.reader(lines) for text in row)
        else:
            for line in lines:
                if "\0" in line:
                    raise ValueError(
                        f"contamination: {path.name} is no text; give text a line, .tsv, .csv, .jsonl or .parquet"
                    )
                yield line


def _strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _hub_texts(entry: str) -> Iterator[str]:
    path, _, config = entry.partition(":")
    try:
        splits = load_from_hub(path, config or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"contamination: {entry!r} is no file or folder here, and reading it as a Hub dataset failed ({error}); "
            "give its texts as a folder, or drop it from the recipe"
        ) from error
    for split in splits.values():
        for row in split:
            yield from _strings(row)
