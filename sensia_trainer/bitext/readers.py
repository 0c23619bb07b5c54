"""
Readers of parallel text, a row a line: TSV, CSV, JSON lines, line-aligned files; streaming, in the order of the file.

Every reader, here and in `tmx` and `catalogues`, gives rows `(source, target, extras)`, with `extras` a dict of the
other columns. A line that is not what it should be is left out and counted in `problems["malformed_lines"]`, whatever
is wrong with it.
"""

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..languages import NO_LANGUAGES, codes_of, find_language, in_language, language
from .streams import (
    Problems,
    open_binary,
    open_member,
    open_zip,
    plain_name,
    read_lines,
    refuse_other_encodings,
    zip_names,
)


Row = tuple[str, str, dict]
SAMPLE = 200  # first lines by which a file is judged


def column_code(code: str) -> str:
    """The name of a language's side in a `translation`: ISO 639-1 (`id`), whatever code it was asked by."""
    return language(code).code


def find_column(columns: list[str], code: str, given: str | None, argument: str, where: str) -> str:
    """
    The column of one language: the one given, else the first of the language's codes that is there, else the one
    column that is named by any other code of it (`pt_BR`, `ger`).

    Raises:
        `ValueError`: where there is none, or several of the last kind.
    """
    names = [given] if given else codes_of(code)
    folded = {} if given else {str(column).casefold(): column for column in reversed(columns)}
    for name in names:
        if name in columns:
            return name
    for name in names:
        if name.casefold() in folded:
            return folded[name.casefold()]
    same = [] if given else in_language(columns, code)
    if len(same) == 1:
        return same[0]
    if same:
        raise ValueError(
            f"{where} has {len(same)} columns for {argument} language {code!r}: {_shown(same)}. Name one with "
            f"{argument}_column=... where that can be given, or rename the one to use to {language(code).code!r}"
        )
    if not any(str(column).strip() for column in columns):
        raise ValueError(f"{where} is empty, or its first line is: give a file with a line of names of columns.")
    if len(columns) == 1 and re.search(r"[,;]", str(columns[0])):
        raise ValueError(
            f"{where} has one column for {argument}, {_shown(columns)}: its first line has no tab. Call it `.csv` "
            "where commas or semicolons part its columns."
        )
    others = [] if given else [str(column) for column in columns if find_language(str(column))]
    others = [column for column in others if argument == "target" and language(column) != language("en")]
    if len(others) == 1:
        raise ValueError(
            f"{where} has no column for {argument} language {code!r}, but one for {others[0]!r}: say which language "
            f"it is, by `--target_language {others[0]}`. Its columns are: {_shown(columns)}; where one is "
            f"{language(code).name}, rename it to {code!r}, or name it with {argument}_column=... where that can be "
            "given"
        )
    if any("\r" in str(column) for column in columns):
        raise ValueError(
            f"{where} ends its lines by carriage returns alone, as Macs of old did: convert it, `tr '\\r' '\\n'`."
        )
    wanted = repr(given) if given else f"language {code!r} (tried {', '.join(codes_of(code))})"
    raise ValueError(
        f"{where} has no column for {argument} {wanted}; its columns are: {_shown(columns)}. "
        f"Rename the column to {code!r}, name it with {argument}_column=... where that can be given, or, if these are "
        "the first pair, put a line with the names of the columns before it"
    )


def _shown(columns: list[str]) -> str:
    return ", ".join(name if len(name) <= 60 else f"{name[:60]}…" for name in map(str, columns[:20]))


def read_tsv(path: Path, source: str, target: str, source_column, target_column, problems: Problems) -> Iterator[Row]:
    """
    Tab-separated values with a header line; every line has as many fields as the header. Quotes are text, but for
    those around a field in which quotes are doubled, and around any field where all names of the header have them.
    """
    refuse_other_encodings(path)
    with open_binary(path) as handle:
        lines = read_lines(handle, problems)
        header, fields = tsv_fields(next(lines, "") or "")
        table = ((number, number, fields(line) if line else None) for number, line in enumerate(lines, 2))
        yield from _table_rows(header, table, path, (source, target), (source_column, target_column), problems)


def tsv_fields(header: str) -> tuple[list[str], Callable[[str], list[str]]]:
    """The names in a header of tab-separated values, and what makes the fields of its lines (see [`read_tsv`])."""
    names = header.split("\t")
    all_quoted = all(len(name) > 2 and name[0] == name[-1] == '"' for name in names)

    def fields(line: str) -> list[str]:
        cells = line.split("\t")
        return [unquoted(cell) if all_quoted or '""' in cell else cell for cell in cells] if '"' in line else cells

    return [unquoted(name) for name in names], fields


def read_csv(path: Path, source: str, target: str, source_column, target_column, problems: Problems) -> Iterator[Row]:
    """Values separated by commas or semicolons, with a header line; quotes as spreadsheets write them. Where a quote
    that nothing closes makes a record of many lines, all of them are counted as malformed where its fields are too few
    or too many, and the record as one of several lines where they are not."""
    refuse_other_encodings(path)
    with open_binary(path) as handle:
        reader = csv_reader(line or "" for line in read_lines(handle, problems))

        def table():
            while True:
                first = reader.line_num + 1
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error:  # a field of more than 131,072 characters
                    fields = ()
                yield first, reader.line_num, fields

        rows = table()
        *_, header = next(rows, (1, 1, []))
        yield from _table_rows(header, rows, path, (source, target), (source_column, target_column), problems)


def unquoted(cell: str) -> str:
    """A field without quotes around it, if those within are doubled."""
    inner = cell[1:-1].replace('""', "")
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner
    return cell[1:-1].replace('""', '"') if is_quoted else cell


def csv_reader(lines: Iterable[str], *, strict: bool = False):
    """A `csv.reader` of lines without their ends, whose delimiter is what the first line has most of outside of
    quotes: , ; or a tab. `strict`: `csv.Error` for a quote that nothing closes or that ends within its field."""
    lines = iter(lines)
    first = next(lines, "")
    delimiter = max(",;\t", key=re.sub(r'"[^"]*"', "", first).count)
    rest = (line + "\n" for line in lines)
    return csv.reader(itertools.chain([first + "\n"], rest), delimiter=delimiter, strict=strict)


def _table_rows(header, table, path, languages, columns, problems) -> Iterator[Row]:
    names = [
        find_column(header, code, given, argument, str(path))
        for code, given, argument in zip(languages, columns, ("source", "target"))
    ]
    if twice := [name for name in names if header.count(name) > 1]:
        raise ValueError(f"{path} has {header.count(twice[0])} columns {twice[0]!r}: rename all but the one to use.")
    left, right = map(header.index, names)
    others = [(index, name) for index, name in enumerate(header) if name not in names]
    for first, last, fields in table:
        if fields is None or fields == []:
            continue
        if len(fields) != len(header):
            for number in range(first, last + 1):
                problems.add("malformed_lines", number)
            continue
        if last > first:
            problems.add("records_of_several_lines", first)
        yield fields[left], fields[right], {name: fields[index] for index, name in others}


def read_jsonl(
    path: Path, source: str, target: str, source_column, target_column, problems: Problems
) -> Iterator[Row]:
    """
    JSON lines, each `{"translation": {"en": …, "id": …}, …}` or with the two sides as fields of their own.

    Every row has the other columns of the first one, `None` where its line lacks them. Halves of surrogate pairs
    become U+FFFD, and their lines are counted in `problems["lone_surrogates"]`.

    Raises:
        `ValueError`: for a file that is one JSON array.
    """
    refuse_other_encodings(path)
    names = None
    with open_binary(path) as handle:
        for number, line in enumerate(read_lines(handle, problems), 1):
            if not line or not line.strip():
                continue
            if number == 1 and line.lstrip().startswith("["):
                raise ValueError(f"{path} holds one JSON array; give one object a line: jq -c '.[]' {path.name}")
            try:
                record = without_surrogates(json.loads(line), line, number, problems)
            except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, brackets in brackets
                record = None
            if not isinstance(record, dict):
                problems.add("malformed_lines", number)
                continue
            sides = record["translation"] if isinstance(record.get("translation"), dict) else record
            if names is None:
                where = f"{path}, line {number}"
                names = (
                    find_column(list(sides), source, source_column, "source", where),
                    find_column(list(sides), target, target_column, "target", where),
                )
                others = {name: None for name in record if name not in (*names, "translation")}
            left, right = sides.get(names[0]), sides.get(names[1])
            if not isinstance(left, str) or not isinstance(right, str):
                problems.add("malformed_lines", number)
                continue
            mine = {name: value for name, value in record.items() if name not in (*names, "translation")}
            yield left, right, others | mine


def without_surrogates(record, line: str, number: int, problems: Problems):
    """What a line of JSON holds, as valid Unicode: an escape such as `\\ud83d` may stand alone."""
    if not re.search(r"\\u[dD][89a-fA-F]", line):
        return record
    text, count = re.subn("[\ud800-\udfff]", "\ufffd", json.dumps(record, ensure_ascii=False))
    if count:
        problems.add("lone_surrogates", number)
    return json.loads(text)


def read_aligned(paths: tuple[Path, Path], problems: Problems) -> Iterator[Row]:
    """
    Two files whose n-th lines translate each other.

    Raises:
        `ValueError`: when the files differ in length (both counts are given), which is known after the last common
            line, so that nothing read before it may be trusted; or when one does not look like text a line.
    """
    for path in paths:
        refuse_other_encodings(path)
    with open_binary(paths[0]) as left, open_binary(paths[1]) as right:
        yield from aligned_rows(left, right, tuple(map(str, paths)), problems)


def read_moses(path: Path, members: tuple[str, str], problems: Problems) -> Iterator[Row]:
    """Two line-aligned members of a zip archive, see [`moses_members`]."""
    with open_zip(path) as archive:
        with open_member(archive, members[0], path) as left, open_member(archive, members[1], path) as right:
            yield from aligned_rows(left, right, members, problems)


def moses_members(path: Path, source_codes: list[str], target_codes: list[str]) -> tuple[str, str]:
    """
    The members of a zip archive as OPUS has them, whose names end in a code of each side.

    Raises:
        `ValueError`: for an archive that is damaged or suspect, or where a side has no member or several.
    """
    with open_zip(path) as archive:
        names = zip_names(archive, path)
    members = []
    for codes in (source_codes, target_codes):
        ends = {name: name.rpartition(".")[2] for name in names}
        mine = [name for name in names if ends[name] in codes]
        mine = mine or [name for name in names if ends[name] in in_language(ends.values(), codes[0])]
        if len(mine) != 1:
            raise ValueError(f"{path} has {len(mine)} members ending in .{codes[0]}; its members: {names}")
        members.append(mine[0])
    return members[0], members[1]


def aligned_rows(left_handle, right_handle, names: tuple[str, str], problems: Problems) -> Iterator[Row]:
    """`read_aligned` on two open binary files (which may be members of an archive)."""
    left, right = (
        _checked(read_lines(handle, problems), name)
        for handle, name in ((left_handle, names[0]), (right_handle, names[1]))
    )
    count = 0
    nothing = object()
    for source_text in left:
        target_text = next(right, nothing)
        if target_text is nothing:
            break
        count += 1
        if source_text is not None and target_text is not None:
            yield source_text, target_text, {}
    else:
        extra = sum(1 for _ in right)
        if not extra:
            return
        raise ValueError(_unequal(names, count, count + extra))
    raise ValueError(_unequal(names, count + 1 + sum(1 for _ in left), count))


def _checked(lines: Iterator[str | None], name: str) -> Iterator[str | None]:
    """The lines, after a look at the first ones: a table is not text, a sentence a line."""
    sample = list(itertools.islice(lines, SAMPLE))
    for kind, is_one in (
        ("tabs", lambda line: "\t" in line),
        ("JSON", lambda line: line.startswith("{") and line.endswith("}")),
        ("XML", lambda line: line.startswith(("<?xml", "<tmx", "<tu"))),
    ):
        found = sum(bool(line) and is_one(line) for line in sample)
        if 2 * found > len(sample) or kind == "XML" and found:
            raise ValueError(
                f"{name} is given as one side of two line-aligned files, but {found} of its first {len(sample)} lines "
                f"hold {kind}: name a table by what it is (.tsv with a header line, .jsonl, .tmx), and give each file "
                "that holds both languages alone"
            )
    return itertools.chain(sample, lines)


def _unequal(names, left: int, right: int) -> str:
    return (
        f"line-aligned files of different lengths: {names[0]} has {left:,} lines, {names[1]} has {right:,}. "
        "Line n of one must translate line n of the other: align them again, or give a TSV"
    )


def side_name(file) -> str:
    """What the name of a file of one side calls its language: `en` of text.en, text.en.gz and text.en.txt."""
    suffixes = [suffix[1:] for suffix in Path(plain_name(file)).suffixes]
    told = [suffix for suffix in suffixes if suffix.lower() not in NO_LANGUAGES]
    return (told or suffixes or [""])[-1]


def check_order(files: tuple[Path, Path], source: str, target: str) -> None:
    """`ValueError` where the suffix of a file (text.en, text.sw.gz) is the other side's language."""
    for file, expected, other in ((files[0], source, target), (files[1], target, source)):
        suffix = find_language(side_name(file))
        if suffix == language(other):
            raise ValueError(
                f"path names {file.name} as the side in {expected!r}, but its name says {suffix.code!r}; give the "
                f"file of {source!r} first and that of {target!r} second"
            )
