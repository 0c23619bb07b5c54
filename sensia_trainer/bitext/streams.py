"""Lines of a file, whatever its content says it is compressed with, in bounded memory; what is wrong is counted."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pyarrow as pa


MAX_LINE = 1 << 20  # bytes; a longer line is not a sentence
# Text is packed to a third or a fifth of its size, a table of one word to a hundredth; a bomb to a thousandth or less.
MAX_RATIO, ALWAYS_ALLOWED = 200, 1 << 28
COMPRESSED = (".gz", ".xz", ".bz2", ".zst", ".zip")
_SIGNATURES = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\0": lzma.open,
    b"BZh": bz2.open,
    b"\x28\xb5\x2f\xfd": lambda path: pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"),
}
# What becomes of lines of each kind of problem; values of another type than the first ones are left empty.
_BECOMES = dict.fromkeys(("invalid_utf8", "lone_surrogates"), "kept with U+FFFD in place of what cannot be read") | (
    dict.fromkeys(
        ("malformed_lines", "malformed_segments", "units_without_both_languages", "untranslated_messages"), "left out"
    )
    | {"records_of_several_lines": "kept, each as one pair (a quote that nothing closes makes some, too)"}
)
_DAMAGED = (EOFError, OSError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


class Problems(Counter):
    """What was wrong with the lines of a file: how often, and where first."""

    def __init__(self, *arguments, **counts):
        super().__init__(*arguments, **counts)
        self.first: dict[str, int] = {}

    def add(self, what: str, line: int | None = None) -> None:
        """Count one problem of a kind, such as `malformed_lines`, in a line (from 1)."""
        self[what] += 1
        if line is not None:
            self.first.setdefault(what, line)

    def described(self) -> list[str]:
        """One sentence a kind: `malformed lines: 3 left out, the first in line 17`."""
        return [
            f"{what.replace('_', ' ')}: {count:,} {_BECOMES.get(what, 'left empty')}"
            + (f", the first in line {self.first[what]:,}" if what in self.first else "")
            for what, count in self.items()
        ]


class _Unpacked(io.RawIOBase):
    """The bytes of an open file, refused when there are too many for what they were packed in, or none can be had."""

    def __init__(self, file, name: str, packed: int):
        self.file, self.name, self.count = file, name, 0
        self.limit = max(ALWAYS_ALLOWED, MAX_RATIO * packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = self.file.read(len(buffer))
        except _DAMAGED as error:
            raise ValueError(f"{self.name} is cut off or damaged ({error}); fetch or compress it again") from error
        self.count += len(data)
        if self.count > self.limit:
            raise ValueError(
                f"{self.name} unpacks to more than {self.limit:,} bytes, {MAX_RATIO} times its own size or more, as "
                "no text does; if it is one, unpack it yourself and give the unpacked file"
            )
        buffer[: len(data)] = data
        return len(data)


def is_zip(path) -> bool:
    """Whether a file is a zip archive, by its content."""
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


@contextmanager
def open_binary(path):
    """
    The bytes of a file, as an `io.BufferedReader`; through gzip, xz, bzip2, zstd or zip (of one member) where the
    content, not the name, says so.

    Raises:
        `ValueError`: while it is read, when the file is damaged or unpacks to much more than text does.
    """
    if is_zip(path):
        with open_zip(path) as archive:
            names = zip_names(archive, path)
            if len(names) != 1:
                raise ValueError(f"{path} holds {len(names)} files ({', '.join(names[:9])}); unpack it and give one")
            with open_member(archive, names[0], path) as handle:
                yield handle
        return
    with open(path, "rb") as file:
        start = file.read(8)
    opener = next((opener for signature, opener in _SIGNATURES.items() if start.startswith(signature)), None)
    if opener is None:
        with open(path, "rb") as handle:
            yield handle
        return
    with opener(path) as file:
        yield io.BufferedReader(_Unpacked(file, str(path), Path(path).stat().st_size), 1 << 18)


@contextmanager
def open_zip(path):
    """A zip archive; `ValueError` where it is damaged."""
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise ValueError(f"{path} is cut off or damaged ({error}); fetch or compress it again") from error
    with archive:
        yield archive


@contextmanager
def open_member(archive: zipfile.ZipFile, name: str, path):
    """The bytes of one member, as [`open_binary`] gives those of a file."""
    try:
        member = archive.open(name)
    except _DAMAGED as error:  # RuntimeError: encrypted
        raise ValueError(f"{path}: its member {name!r} cannot be read ({error}); unpack it yourself") from error
    with member:
        yield io.BufferedReader(_Unpacked(member, f"{path}, {name!r}", archive.getinfo(name).compress_size), 1 << 18)


def zip_names(archive: zipfile.ZipFile, path) -> list[str]:
    """
    The files of an archive. Nothing is ever extracted, but a name that would climb out of a folder makes the whole
    archive suspect.

    Raises:
        `ValueError`: for such a name.
    """
    names = [name for name in archive.namelist() if not name.endswith("/")]
    for name in names:
        place = PurePosixPath(name.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in name:
            raise ValueError(f"{path} has a member {name!r} that climbs out of its folder; it is not used")
    return names


def plain_name(path) -> str:
    """The name of a file without the suffix of what it is compressed with: `a.tsv` of `a.tsv.gz`."""
    name = Path(path).name
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in COMPRESSED else name


def read_lines(handle, problems: Problems) -> Iterator[str | None]:
    """
    The lines of an open binary file as text, without their ends.

    Only a line feed ends a line (so that U+2028 or a form feed inside a sentence does not shift two files against each
    other); a byte order mark and carriage returns are dropped; bytes that are not UTF-8 become U+FFFD and are counted
    (`invalid_utf8`). `None` stands for a line that cannot be text, being longer than `MAX_LINE` or holding a NUL;
    it is counted (`malformed_lines`).
    """
    number = 0
    while line := handle.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and line[-1] != 10:
            while (rest := handle.readline(MAX_LINE)) and rest[-1] != 10:
                pass
            line = b"\0"
        if b"\0" in line:
            problems.add("malformed_lines", number)
            yield None
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            text = line.decode()
        except UnicodeDecodeError:
            problems.add("invalid_utf8", number)
            text = line.decode("utf-8", "replace")
        yield text.rstrip("\r\n")


def refuse_other_bytes(problems, count: int, path) -> None:
    """`ValueError` where most of a file's lines, of `count`, are no UTF-8; fewer than ten may be damaged."""
    if 2 * problems["invalid_utf8"] > count and problems["invalid_utf8"] >= 10:
        raise ValueError(
            f"{path} is not in UTF-8 ({problems['invalid_utf8']:,} lines are none); convert it; if it is in "
            f"Windows-1252 (as Excel writes) or Latin-1: iconv -f CP1252 -t UTF-8 {Path(path).name}"
        )


def refuse_other_encodings(path) -> None:
    """`ValueError` where a text file begins as UTF-16 or UTF-32 does."""
    with open_binary(path) as handle:
        start = handle.read(4)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or re.match(rb"[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", start):
        raise ValueError(f"{path} is in UTF-16, not in UTF-8; convert it: iconv -f UTF-16 -t UTF-8 {Path(path).name}")
