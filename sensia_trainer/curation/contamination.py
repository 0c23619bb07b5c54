"""The texts of evaluation sets, as keys that a training pair must not share."""

import csv
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..bitext.hub_data import load_hub
from ..bitext.near import SENTENCE_END, near_form, text_keys
from ..bitext.readers import csv_reader
from ..bitext.sources import is_hub_id
from ..bitext.streams import Problems, is_zip, open_binary, open_zip, plain_name, read_lines, zip_names
from ..bitext.tmx import read_units


# A shorter text ("Yes", "Two days") is not evidence that a pair was taken from an evaluation set. An ideograph, a kana
# or a syllable of Hangul says as much as two or three letters.
MIN_LETTERS, LETTERS_OF_A_SYLLABLE = 10, 2.5
# Their lines are not their texts: read as plain text, they would protect nothing.
CONTAINERS = (".xml", ".sgm", ".sgml", ".xlf", ".xliff", ".html", ".htm", ".po", ".mo", ".xlsx", ".xls", ".ods")
CONTAINERS += (".docx", ".doc", ".odt", ".pdf", ".rtf", ".yaml", ".yml", ".vtt", ".srt", ".arrow")
CONTAINERS += (".zip", ".tar", ".tgz", ".7z")
WAY_OUT = "give its texts a line each, or a .tsv, .csv, .json, .jsonl, .ndjson, .tmx or .parquet file"


def evaluation_keys(entries: tuple[str, ...]) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """Near keys of every text, and of every sentence of a longer text, of some evaluation sets.

    Args:
        entries: files (plain text a line, .tsv, .csv, .json, .jsonl, .ndjson, .tmx, also compressed; .parquet),
            folders of them, or Hub ids, with a configuration after a colon ("facebook/belebele:est_Latn").

    Returns:
        (keys, counts): sorted distinct keys, (n,) uint64, and of each entry how many distinct `texts` have one, and
        how many are `exempt`, having less than ten letters (four ideographs). All up to case, punctuation and numbers.

    Raises ValueError for an entry that cannot be read or holds no text.
    """
    keys, counts = set(), {}
    for entry, name in zip(entries, entry_names(entries)):
        texts = set(_texts(entry))
        forms = _forms(texts)
        if not forms:
            raise ValueError(f"contamination: {entry!r} holds no text of ten letters or more; check the path")
        keys.update(text_keys(sorted(forms)).tolist())
        short = {near_form(text) for text in texts if text.strip()} - forms
        counts[name] = {"texts": len(forms), "exempt": len(short)}
    return np.array(sorted(keys), dtype=np.uint64), counts


def keys_of_texts(texts) -> np.ndarray:
    """What [`evaluation_keys`] gives for texts that are at hand: sorted distinct near keys, (n,) uint64."""
    return np.unique(text_keys(sorted(_forms(texts))))


def _forms(texts) -> set[str]:
    """Near forms of texts and of their sentences, of those that are evidence."""
    forms = {near_form(part) for text in texts for part in (text, *SENTENCE_END.split(text))}
    return {form for form in forms if is_evidence(form)}


def is_evidence(form: str) -> bool:
    """Whether a near form holds enough letters for a pair that has it to be from an evaluation set."""
    characters = form.replace(" ", "")
    syllables = sum(unicodedata.east_asian_width(character) == "W" for character in characters)
    return len(characters) + (LETTERS_OF_A_SYLLABLE - 1) * syllables >= MIN_LETTERS


def entry_names(entries: tuple[str, ...]) -> list[str]:
    """The entries without the folders of this machine: paths from the folder that holds them all."""
    paths = [Path(entry).expanduser().absolute() if Path(entry).expanduser().exists() else None for entry in entries]
    parents = [path.parent for path in paths if path]
    common = os.path.commonpath(parents) if parents else ""
    return [entry if path is None else path.relative_to(common).as_posix() for entry, path in zip(entries, paths)]


def evaluation_files(entry: str) -> list[Path]:
    """The files of this machine that an entry names, sorted; none of a Hub id."""
    path = Path(entry).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    notes = ("LICENSE", "README", "METADATA")
    hidden = {file for file in files if any(part.startswith(".") for part in file.relative_to(path).parts)}
    return [
        file
        for file in files
        if file.is_file() and (file == path or not (file in hidden or file.name.upper().startswith(notes)))
    ]


def _texts(entry: str) -> Iterator[str]:
    if Path(entry).expanduser().exists():
        for file in evaluation_files(entry):
            yield from _file_texts(file)
    elif not is_hub_id(entry.partition(":")[0]):
        raise ValueError(f"contamination: there is no file or folder {entry!r}")
    else:
        yield from _hub_texts(entry)


def _file_texts(path: Path) -> Iterator[str]:
    kind, problems = _kind(path), Problems()
    if kind in CONTAINERS:
        raise ValueError(f"contamination: {path.name} is a {kind} file; {WAY_OUT}")
    try:
        if kind == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches():
                yield from _strings(batch.to_pylist())
        elif kind == ".tmx":
            yield from (text for unit in read_units(path, problems) for _, text in unit)
        else:
            with open_binary(path) as handle:
                yield from _handle_texts(handle, kind, problems)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, csv.Error, pa.ArrowInvalid) as error:
        raise ValueError(f"contamination: {path.name} is not {kind}: {error}; repair it, or {WAY_OUT}") from error
    if problems["invalid_utf8"]:
        raise ValueError(f"contamination: {path.name} is not in UTF-8; convert it, for example by `iconv -t utf-8`")
    if problems["malformed_lines"] or problems["malformed_segments"]:
        raise ValueError(f"contamination: {path.name} is not a text; {WAY_OUT}")


def _kind(path: Path) -> str:
    """The suffix that tells how a file is read, in lower case; of a zip archive with one file, that file's."""
    kind = Path(plain_name(path)).suffix.lower()
    if kind in CONTAINERS or not is_zip(path):
        return kind
    with open_zip(path) as archive:
        names = zip_names(archive, path)
    return Path(names[0]).suffix.lower() if len(names) == 1 else ".zip"


def _handle_texts(handle, kind: str, problems: Problems) -> Iterator[str]:
    if kind == ".json":  # not by lines: the whole may be one line of any length
        yield from _strings(_json_items(handle.read().decode("utf-8-sig")))
        return
    lines = (line for line in read_lines(handle, problems) if line is not None)
    if kind in (".jsonl", ".ndjson"):
        yield from (text for line in lines if line.strip() for text in _strings(json.loads(line)))
    elif kind in (".tsv", ".tab"):
        yield from (text for line in lines for text in line.split("\t"))
    elif kind == ".csv":
        yield from (text for row in csv_reader(lines, strict=True) for text in row)
    else:
        yield from lines


def _json_items(text: str):
    """What a JSON file holds, be it one value or a value a line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # of a value a line, the first alone is whole
            raise
    return [json.loads(line) for line in text.split("\n") if line.strip()]


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
        splits = load_hub(path, config or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"contamination: the evaluation set {entry!r} is not a file or folder here, and as a Hub dataset it "
            f"failed ({error}); give its texts as a folder, or leave it out"
        ) from error
    for split in splits.values():
        for row in split:
            yield from _strings(row)
