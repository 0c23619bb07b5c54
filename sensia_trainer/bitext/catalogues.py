"""Gettext catalogues, `.po` and `.mo`: a file, a folder of them, or an installed Python package that carries them."""

import gettext
import importlib.util
import re
import struct
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from ..languages import codes_of, find_language, language
from .readers import Row
from .streams import Problems


def catalogue_rows(where: Path, source: str, target: str, problems: Problems) -> Iterator[Row]:
    """Each pair of messages once: the catalogues of a package repeat each other's short strings."""
    code = translated_side(where, source, target)
    catalogues = [where] if where.is_file() else find_catalogues(where, code)
    if not catalogues:
        there = sorted({path.parent.parent.name for path in where.rglob("LC_MESSAGES/*.[pm]o")})
        there = there or sorted({path.stem for path in where.rglob("*.[pm]o")})
        raise ValueError(
            f"{where} has no gettext catalogue for {code!r} (tried {', '.join(codes_of(code))}); "
            f"the languages there are: {', '.join(there)}"
        )
    seen = set()
    for path in catalogues:
        for left, right, others in read_catalogue(path, code if path == where else None, problems):
            if (left, right) not in seen:
                seen.add((left, right))
                yield (left, right, others) if code == target else (right, left, others)


def translated_side(where: Path, source: str, target: str) -> str:
    """The language of the catalogues of a pair: messages are in English, and their translations in the other one."""
    english = language("en")
    if english not in (language(source), language(target)):
        raise ValueError(
            f"{where}: the messages of gettext catalogues are in English, but source={source!r} and "
            f"target={target!r}. Make one of them 'en', or read both with English and join the two on the messages"
        )
    return source if language(target) == english else target


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


def package_folder(name: str) -> Path | None:
    """The folder of an installed package (not imported), if it carries gettext catalogues."""
    if not name.isidentifier():
        return None
    spec = importlib.util.find_spec(name)
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return next((folder for folder in folders if any(folder.rglob("LC_MESSAGES/*.[pm]o"))), None)


def package_licence(name: str) -> str | None:
    """What an installed package says of its licence; `None` where it is none, or says nothing."""
    try:
        facts = metadata(name) if name.isidentifier() else {}
    except PackageNotFoundError:
        return None
    return facts.get("License-Expression") or facts.get("License")


def read_catalogue(path: Path, code: str | None, problems: Problems) -> Iterator[Row]:
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
    except (OSError, ValueError, LookupError, OverflowError, MemoryError, struct.error) as error:
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
                problems.add("untranslated_messages")


def _plural_indices(rule: str) -> tuple[int, int]:
    """The form's index for n = 1 and for n = 5 under a Plural-Forms header; the Germanic rule where it is missing."""
    expression = rule.partition("plural=")[2].strip().rstrip(";") or "n != 1"
    try:
        plural = gettext.c2py(expression)  # a checked C expression of n, not an eval of the file's text
        return plural(1), plural(5)
    except (ValueError, ArithmeticError):
        return 0, 1
