"""Translation memories (TMX): the units that have both languages, streaming, without expanding any entity."""

import codecs
import html
import re
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from ..languages import codes_of, find_language, language
from .readers import Row
from .streams import MAX_LINE, Problems, open_binary


# Elements of a <seg> that hold codes of the original document, not text (TMX 1.4, section "Inline elements").
_CODES = {"bpt", "ept", "ph", "it", "ut"}


def read_tmx(path: Path, source: str, target: str, problems: Problems) -> Iterator[Row]:
    """
    The translation units of a TMX file that have both languages (`en-US` counts as `en`), see [`read_units`].
    """
    for segments in read_units(path, problems):
        unit: dict = {}
        for name, text in segments:  # of two segments in one language, or in two variants of it, the first
            unit.setdefault(name, text)
        left, right = _side(unit, source), _side(unit, target)
        if left is None or right is None:
            problems.add("units_without_both_languages")
        else:
            yield left, right, {}


def read_units(path: Path, problems: Problems) -> Iterator[list[tuple[str, str]]]:
    """
    The translation units of a TMX file, each a list of `(language, text)`, with the languages as the file has them but
    in lower case and with underscores.

    Entity declarations are refused: they have no use in a translation memory, and expanding them can fill any memory.
    A file in another encoding than UTF-8 must say so in its XML declaration or begin with a byte order mark. A segment
    outside of a `<tuv>` or of more than `MAX_LINE` characters is left out (`malformed_segments`); one whose `<tuv>`
    names no language has the empty name.

    Raises:
        `ValueError`: on XML that is not well formed, an entity declaration or an unknown encoding.
    """
    unit: list[tuple[str, str]] = []
    state = {"language": None, "text": None, "size": 0, "skip": 0}
    finished: list[list] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(name, attributes):
        if name == "tu":
            unit.clear()
        elif name == "tuv":
            state["language"] = attributes.get("xml:lang") or attributes.get("lang") or ""
        elif name == "seg":
            state.update(text=[], size=0, skip=0)
        elif name in _CODES:
            state["skip"] += 1

    def end(name):
        if name == "seg" and state["text"] is not None:
            if state["language"] is None or state["size"] > MAX_LINE:
                problems.add("malformed_segments", parser.CurrentLineNumber)
            else:
                unit.append((state["language"].lower().replace("-", "_"), " ".join("".join(state["text"]).split())))
            state["text"] = None
        elif name == "tuv":
            state["language"] = None
        elif name == "tu":
            finished.append(list(unit))
        elif name in _CODES:
            state["skip"] -= 1

    def characters(text):
        if state["text"] is not None and not state["skip"] and state["size"] <= MAX_LINE:
            state["size"] += len(text)
            state["text"].append(text)

    def named(name, is_parameter):
        # An entity of the declared document type, which is not read: those of HTML are known, others stay as written.
        if not is_parameter:
            characters(html.unescape(f"&{name};"))

    def refuse(name, *_):
        raise ValueError(f"{path} declares the XML entity {name!r}; remove the declaration, entities are not expanded")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    parser.EntityDeclHandler, parser.SkippedEntityHandler = refuse, named
    with open_binary(path) as handle:
        try:
            for chunk in _chunks(handle, path, problems):
                parser.Parse(chunk, False)
                yield from finished
                finished.clear()
            parser.Parse("", True)
        except expat.ExpatError as error:
            raise ValueError(f"{path} is not well-formed XML: {error}; repair the file or export it again") from error
    yield from finished


def _chunks(handle, path: Path, problems: Problems) -> Iterator[str]:
    """The text of the file, a line or less at a time; of other encodings than UTF-8, 1 MB at a time."""
    head = handle.peek(200)[:200]
    declared = re.match(rb"[^>]*encoding\s*=\s*[\"']([\w.:-]+)", head)
    encoding = declared[1].decode("ascii", "replace").lower() if declared else "utf-8"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    if encoding not in ("utf-8", "utf8"):
        try:
            decoder = codecs.getincrementaldecoder(encoding)("replace")
            decoder.decode(b"")
        except LookupError as error:
            raise ValueError(f"{path} is in an unknown encoding, {encoding!r}; convert it to UTF-8") from error
        while chunk := handle.read(MAX_LINE):
            yield decoder.decode(chunk)
        return
    rest = b""
    while line := handle.readline(MAX_LINE):  # a file may be one line, of which a character may be cut in two
        line = rest + line
        try:
            text, used = codecs.utf_8_decode(line, "strict")
        except UnicodeDecodeError:
            text, used = codecs.utf_8_decode(line, "replace")
            problems.add("invalid_utf8")
        rest = line[used:]
        yield text


def _side(unit: dict, code: str) -> str | None:
    for name in codes_of(code):
        if (text := unit.get(name.lower().replace("-", "_"))) is not None:
            return text
    return next((text for name, text in unit.items() if find_language(name) == language(code)), None)
