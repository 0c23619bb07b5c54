"""Files of a run: written whole or not at all, JSON without NaN, without the folders of the machine."""

import json
import math
import os
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path


def plain(value):
    """
    `value` as JSON holds it: dataclasses and mappings as dicts, enumerations by value, numbers of NumPy and torch as
    Python's, the rest as text. NaN and the infinities, which JSON does not know, become `None`: not measured.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set):
        return sorted(map(plain, value), key=str)
    if isinstance(value, Enum):
        return plain(value.value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def write_text(path, text):
    """Write `text`, whole or not at all: the file and its name are on the disk when this returns."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)


def write_json(path, content):
    """Write `content`, see [`plain`], as JSON, whole or not at all."""
    write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path):
    """
    What a JSON file holds.

    Raises:
        `ValueError`: if there is no such file, or it is not whole; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a whole JSON file ({error}).") from error


def flush(path):
    """A file or folder reaches the disk, or a power cut could leave its name without its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def portable(content):
    """`content`, any JSON value, without the folders of a machine: the data folder by its variable, files by name."""
    data, here = os.environ.get("SENSIA_DATA"), os.getcwd()

    def shorten(value):
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shorten(item) for item in value]
        if not isinstance(value, str):
            return value
        if data:
            value = value.replace(str(Path(data)), "${SENSIA_DATA}")
        value = value.replace(here + os.sep, "")
        return " ".join(Path(word).name if os.path.isabs(word) else word for word in value.split(" "))

    return shorten(content)
