"""Files of the project: written whole or not at all, told by a fingerprint, without the folders of the machine."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

from .secrets import REDACTED, is_secret_name, redact


METRICS_FILE = "metrics.json"  # of a model's folder: what its training measured
DELTA_FILE = "delta.json"  # in a folder that holds what distinguishes a model from its base
DELTA_WEIGHTS = "delta.safetensors"
# An absolute path up to its last part: of a Unix, of Windows, or under a variable. Not part of an address or a name.
_FOLDERS = re.compile(
    r"(?:\bfile://|(?<![\w.:/$}~-])|(?<=[\w]:)(?!//))(?:/|~/)(?:[\w.+@-]+/)*(?=[\w.+@-])|\b[A-Za-z]:\\(?:[^\\\s\"']+\\)*"
)


def plain(value):
    """
    `value` as JSON holds it: dataclasses and mappings as `dict`, enumerations by value, numbers and arrays of NumPy
    and torch as those of Python, the rest as text. NaN and the infinities, which JSON does not know, become `None`.
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
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def flush(path) -> None:
    """A file or folder reaches the disk, or a power cut could leave its name without its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def written_atomically(path) -> Iterator[Path]:
    """
    A temporary path to write a file to, which becomes `path` at the end: the file and its name are on the disk then.
    Its folder is made. Whatever happens before, `path` is what it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path) -> None:
    """
    Makes the folder of a file that is to be written in the end, and refuses one that cannot be.

    Raises:
        `ValueError`: names the file, and what stands in its way.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(0, "it is write-protected")
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be written: {error.strerror}. Give another file.") from None


def check_new(folder) -> None:
    """`ValueError` where a folder that is to be written exists already."""
    if Path(folder).exists():
        raise ValueError(f"{str(folder)!r} exists already: name a new folder.")


@contextmanager
def written_folder(folder) -> Iterator[Path]:
    """
    A folder beside `folder` that becomes it when the block ends without an error, and else leaves nothing.

    Raises:
        `ValueError`: where `folder` exists already.
    """
    folder = Path(folder)
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix="writing-") as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        yield made
        made.rename(folder)


def write_text(path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with written_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path, content, indent=2) -> None:
    """Write `content` as [`plain`] JSON, whole or not at all; `indent=None` puts it on one line."""
    write_text(path, json.dumps(plain(content), indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def text_lines(path) -> list[str]:
    """
    The lines of a text file in UTF-8, without their ends and a byte order mark. Only a line feed ends a line: U+2028,
    U+0085 or a form feed within a sentence would shift two files against each other.

    Raises:
        `ValueError`: if it is in another encoding.
    """
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not in UTF-8 ({error}); convert it with iconv.") from error
    return [line.rstrip("\r") for line in (lines if lines[-1] else lines[:-1])]


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


def with_note(report: str, folder) -> str:
    """A report with what `note.txt` in the folder of its results says, below its title."""
    note = Path(folder) / "note.txt"
    if not note.is_file():
        return report
    title, separator, rest = report.partition("\n\n")
    return f"{title}\n\n{note.read_text(encoding='utf-8').strip()}{separator}{rest}"


def fingerprint(content) -> str:
    """SHA-256 (64 hex digits) of anything JSON can write, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def file_fingerprint(path) -> str:
    """SHA-256 (64 hex digits) of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_folders(text: str) -> str:
    """Absolute paths by their last part: where files lay on one machine is no news. Addresses (https://…) stay."""
    return _FOLDERS.sub("", text)


def portable(content):
    """
    `content`, any JSON value, as others may see it: without the folders of a machine (the data folder by its variable,
    files by name) and without secrets.
    """
    data, here = os.environ.get("SENSIA_DATA"), os.getcwd()

    def shorten(value):
        if isinstance(value, dict):
            return {
                key: REDACTED if item and isinstance(item, str) and is_secret_name(str(key)) else shorten(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [shorten(item) for item in value]
        if not isinstance(value, str):
            return value
        if data:
            value = _whole_path(str(Path(data))).sub("${SENSIA_DATA}", value)
        return redact(without_folders(value.replace(here + os.sep, "")))

    return shorten(content)


def _whole_path(folder: str) -> re.Pattern:
    """A folder where a text names it as a path and not by chance: a relative one at the beginning only."""
    begins = r"(?<![\w.~/:-])" if os.path.isabs(folder) else r"\A(?:\./)?"
    return re.compile(begins + re.escape(folder) + ("(?=/)" if not os.path.isabs(folder) else r"(?=/|\Z|[^\w.-])"))
