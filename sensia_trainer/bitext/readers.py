"""Readers of parallel text: each yields the pairs of one file format, streaming, in the order of the file.

Every reader gives rows `(source, target, extras)`, with `extras` a dict of the other columns. A file is read as bytes
and decoded a line at a time: only a line feed ends a line (so that U+2028 or a form feed inside a sentence does not
shift the two sides against each other), a byte order mark and carriage returns are dropped, and bytes that are not
UTF-8 become U+FFFD and are counted in `problems["invalid_utf8"]`.
"""

import codecs
import gettext
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.parsers import expat

from ..languages import codes_of, find_language, language


Row = tuple[str, str, dict]


@contextmanager
def open_binary(path: Path):
    """The bytes of a file, through gzip when its name ends in `.gz`; raises ValueError when that is damaged."""
    with gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb") as handle:
        try:
            yield handle
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is cut off or damaged ({error}); fetch or compress it again") from error


def decode(line: bytes, problems: Counter) -> str:
    """One line as text, without its line end; undecodable bytes are replaced and the line counted."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        problems["invalid_utf8"] += 1
        text = line.decode("utf-8", "replace")
    return text.rstrip("\r\n")


def read_lines(handle, problems: Counter) -> Iterator[str]:
    """The lines of an open binary file."""
    for number, line in enumerate(handle):
        yield decode(line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line, problems)


def find_column(columns: list[str], code: str, given: str | None, argument: str, where: str) -> str:
    """The column of one language: the one given, else the first of the language's codes that is there."""
    for name in [given] if given else codes_of(code):
        if name in columns:
            return name
    wanted = repr(given) if given else f"language {code!r} (tried {', '.join(codes_of(code))})"
    raise ValueError(
        f"{where} has no column for {argument} {wanted}; its columns are: {', '.join(map(str, columns))}. "
        f"Rename the column to {code!r}, or name it with {argument}_column=... where that can be given."
    )


def read_tsv(path: Path, source: str, target: str, source_column, target_column, problems: Counter) -> Iterator[Row]:
    """Tab-separated values with a header line and no quoting.

    Lines with another number of fields than the header are left out and counted (`malformed_lines`).
    """
    with open_binary(path) as handle:
        lines = read_lines(handle, problems)
        header = next(lines, "").split("\t")
        names = (
            find_column(header, source, source_column, "source", str(path)),
            find_column(header, target, target_column, "target", str(path)),
        )
        left, right = map(header.index, names)
        others = [(index, name) for index, name in enumerate(header) if name not in names]
        for line in lines:
            fields = line.split("\t")
            if len(fields) != len(header):
                if line:
                    problems["malformed_lines"] += 1
                continue
            yield fields[left], fields[right], {name: fields[index] for index, name in others}


def read_jsonl(path: Path, source: str, target: str, source_column, target_column, problems: Counter) -> Iterator[Row]:
    """JSON lines, each `{"translation": {"en": ..., "id": ...}, ...}` or with the two sides as fields of their own.

    Every row has the other columns of the first one, None where its line lacks them. Halves of surrogate pairs become
    U+FFFD, and their lines are counted in `problems["lone_surrogates"]`.
    """
    names = None
    with open_binary(path) as handle:
        for line in read_lines(handle, problems):
            if not line.strip():
                continue
            try:
                record = _without_surrogates(json.loads(line), line, problems)
                sides = record["translation"] if isinstance(record.get("translation"), dict) else record
            except (json.JSONDecodeError, AttributeError):
                problems["malformed_lines"] += 1
                continue
            if names is None:
                names = (
                    find_column(list(sides), source, source_column, "source", str(path)),
                    find_column(list(sides), target, target_column, "target", str(path)),
                )
                others = {name: None for name in record if name not in (*names, "translation")}
            left, right = sides.get(names[0]), sides.get(names[1])
            if not isinstance(left, str) or not isinstance(right, str):
                problems["malformed_lines"] += 1
                continue
            mine = {name: value for name, value in record.items() if name not in (*names, "translation")}
            yield left, right, others | mine


def _without_surrogates(record, line: str, problems: Counter):
    """What a line of JSON holds, as valid Unicode: an escape such as `\\ud83d` may stand alone."""
    if not re.search(r"\\u[dD][89a-fA-F]", line):
        return record
    text, count = re.subn("[\ud800-\udfff]", "\ufffd", json.dumps(record, ensure_ascii=False))
    if count:
        problems["lone_surrogates"] += 1
    return json.loads(text)


def read_aligned(paths: tuple[Path, Path], problems: Counter) -> Iterator[Row]:
    """Two files whose n-th lines translate each other (Moses format).

    Raises ValueError with both line counts when the files differ in length; the check comes after the last common
    line, so nothing read before it may be trusted.
    """
    with open_binary(paths[0]) as left_handle, open_binary(paths[1]) as right_handle:
        yield from aligned_rows(left_handle, right_handle, tuple(map(str, paths)), problems)


def aligned_rows(left_handle, right_handle, names: tuple[str, str], problems: Counter) -> Iterator[Row]:
    """`read_aligned` on two open binary files (which may be members of an archive)."""
    left, right = read_lines(left_handle, problems), read_lines(right_handle, problems)
    count = 0
    for source_text in left:
        target_text = next(right, None)
        if target_text is None:
            break
        count += 1
        yield source_text, target_text, {}
    else:
        extra = sum(1 for _ in right)
        if not extra:
            return
        raise ValueError(_unequal(names, count, count + extra))
    raise ValueError(_unequal(names, count + 1 + sum(1 for _ in left), count))


def _unequal(names, left: int, right: int) -> str:
    return (
        f"line-aligned files of different lengths: {names[0]} has {left:,} lines, {names[1]} has {right:,}. "
        "Line n of one must translate line n of the other: align them again, or give a TSV"
    )


# Elements of a <seg> that hold codes of the original document, not text (TMX 1.4, section "Inline elements").
_TMX_CODES = {"bpt", "ept", "ph", "it", "ut"}


def read_tmx(path: Path, source: str, target: str, problems: Counter) -> Iterator[Row]:
    """The translation units of a TMX file that have both languages (`en-US` counts as `en`).

    Entity declarations are refused: they have no use in a translation memory, and expanding them can fill any memory.
    A file in another encoding than UTF-8 must say so in its XML declaration or begin with a byte order mark.
    Raises ValueError on XML that is not well formed.
    """
    unit, state = {}, {"language": None, "text": None, "skip": 0}
    finished: list[dict] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(name, attributes):
        if name == "tu":
            unit.clear()
        elif name == "tuv":
            state["language"] = attributes.get("xml:lang") or attributes.get("lang") or ""
        elif name == "seg":
            state["text"], state["skip"] = [], 0
        elif name in _TMX_CODES:
            state["skip"] += 1

    def end(name):
        if name == "seg" and state["text"] is not None:
            unit.setdefault(state["language"].lower().replace("-", "_"), " ".join("".join(state["text"]).split()))
            state["text"] = None
        elif name == "tu":
            finished.append(dict(unit))
        elif name in _TMX_CODES:
            state["skip"] -= 1

    def characters(text):
        if state["text"] is not None and not state["skip"]:
            state["text"].append(text)

    def refuse(name, *_):
        raise ValueError(f"{path} declares the XML entity {name!r}; remove the declaration, entities are not expanded")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    parser.EntityDeclHandler = refuse
    with open_binary(path) as handle:
        try:
            for chunk in _xml_chunks(handle, problems):
                parser.Parse(chunk, False)
                yield from _tmx_rows(finished, source, target, problems)
                finished.clear()
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise ValueError(f"{path} is not well-formed XML: {error}; repair the file or export it again") from error
    yield from _tmx_rows(finished, source, target, problems)


def _xml_chunks(handle, problems: Counter) -> Iterator[str | bytes]:
    """The lines of UTF-8, decoded as everywhere; the bytes of any other encoding, which the parser finds out."""
    head = handle.peek(200)[:200]
    declared = re.match(rb"[^>]*encoding\s*=\s*[\"']([^\"']+)", head)
    if (
        head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        or declared
        and declared[1].lower() not in (b"utf-8", b"utf8")
    ):
        yield from iter(lambda: handle.read(1 << 20), b"")
        return
    rest = b""
    while line := handle.readline(1 << 20):  # a file may be one line, of which a character may be cut in two
        line = rest + line
        try:
            text, used = codecs.utf_8_decode(line, "strict")
        except UnicodeDecodeError:
            text, used = codecs.utf_8_decode(line, "replace")
            problems["invalid_utf8"] += 1
        rest = line[used:]
        yield text


def _tmx_rows(units: list[dict], source: str, target: str, problems: Counter) -> Iterator[Row]:
    for unit in units:
        left, right = _tmx_side(unit, source), _tmx_side(unit, target)
        if left is None or right is None:
            problems["units_without_both_languages"] += 1
        else:
            yield left, right, {}


def _tmx_side(unit: dict, code: str) -> str | None:
    for name in codes_of(code):
        if (text := unit.get(name.lower().replace("-", "_"))) is not None:
            return text
    return next((text for name, text in unit.items() if find_language(name) == language(code)), None)


def find_catalogues(folder: Path, target: str) -> list[Path]:
    """The gettext catalogues of one language under a folder: `id/LC_MESSAGES/*.po`, `id/*.po` or `id.po`, sorted.

    The first of the language's codes that has any catalogue is taken (`zh_Hans` before `zh_CN`); where a message
    catalogue is there both as `.po` and compiled as `.mo`, the `.po` is.
    """
    catalogues = sorted(path for suffix in (".po", ".mo") for path in folder.rglob(f"*{suffix}"))
    for code in codes_of(target):
        mine = [path for path in catalogues if code in path.relative_to(folder).parts[:-1] or path.stem == code]
        if mine:
            return [path for path in mine if path.suffix == ".po" or path.with_suffix(".po") not in mine]
    return []


def read_catalogue(path: Path, code: str | None, problems: Counter) -> Iterator[Row]:
    """The finished translations of a gettext catalogue: source = msgid, target = msgstr, texts as they are.

    Args:
        code: language that the catalogue's header must name, where it names one; None for any.

    Fuzzy, obsolete, empty and untranslated messages are left out. Of a plural message, msgid goes with the form that
    the catalogue's Plural-Forms rule gives for n = 1 and msgid_plural with that for n = 5, unless both are the same
    form (languages with one form only), which then goes with msgid_plural alone.
    """
    try:
        import polib  # an extra: only catalogues need it
    except ImportError as error:
        raise ValueError(f"{path} is a gettext catalogue, which needs polib: pip install polib") from error
    try:
        catalogue = (polib.mofile if path.suffix == ".mo" else polib.pofile)(str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a gettext catalogue: {error}") from error
    named = catalogue.metadata.get("Language", "").strip()
    if code and named and find_language(re.split("[@.]", named)[0]) != language(code):
        raise ValueError(
            f"{path} is not in {language(code).name} ({code!r}): its header says Language: {named}. Give another "
            "catalogue or language, or correct the header"
        )
    for entry in catalogue:
        if not entry.msgid.strip() or entry.obsolete or "fuzzy" in getattr(entry, "flags", ()):
            continue
        if not entry.msgid_plural:
            pairs = [(entry.msgid, entry.msgstr)]
        else:
            one, many = _plural_indices(catalogue.metadata.get("Plural-Forms", ""))
            forms = {int(index): text for index, text in entry.msgstr_plural.items()}
            pairs = [(entry.msgid_plural, forms.get(many, ""))]
            if one != many:
                pairs.insert(0, (entry.msgid, forms.get(one, "")))
        for msgid, msgstr in pairs:
            if msgstr.strip():
                yield msgid, msgstr, {}
            else:
                problems["untranslated_messages"] += 1


def _plural_indices(rule: str) -> tuple[int, int]:
    """The form's index for n = 1 and for n = 5 under a Plural-Forms header; the Germanic rule where it is missing."""
    expression = rule.partition("plural=")[2].strip().rstrip(";") or "n != 1"
    try:
        plural = gettext.c2py(expression)  # a checked C expression of n, not an eval of the file's text
    except ValueError:
        return 0, 1
    return plural(1), plural(5)


def column_code(code: str) -> str:
    """The name of a language's side in a `translation`: ISO 639-1 (`id`), whatever code it was asked by."""
    return language(code).code
