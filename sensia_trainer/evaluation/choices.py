"""Multiple-choice files of your own: columns by name, and templates that say how an item is asked."""

import csv
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path

from ..bitext.readers import csv_reader, unquoted
from ..languages import language
from ..utils.files import fingerprint, text_lines
from ..utils.recipes import expand_variables
from .tasks import TaskData, check_row


LETTERS = string.ascii_uppercase
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")


def load_choices(
    path,
    code: str,
    *,
    name: str,
    context: str,
    answers: list[str],
    label="label",
    first_label=0,
    split="test",
    max_items=None,
) -> TaskData:
    """The items of a file as a task.

    Args:
        path: JSONL (an object a line), JSON (a list of objects), CSV (with commas or semicolons) or TSV (an item a
            line, quotation marks being text, unless a whole cell is quoted as spreadsheets do it), both with a header.
            May name environment variables.
        code (`str`): Language of the items.
        name (`str`): What the result calls the task.
        context (`str`): What stands before the choice, with columns in braces: `"{passage}\\nQ: {question}\\nA:"`. The
            backslash of `\\n` may be typed as such.
        answers (`list[str]`): One template for each choice, `[" {option_a}", " {option_b}"]`; or a single one with a
            column that holds a list, `[" {options}"]`.
        label (`str`): Column of the right choice: its number, its letter (A is the first), or its text. What can be
            read in two ways is refused; an integer of JSON is a number.
        first_label (`int`): The number of the first choice where choices are numbered.
        split (`str`): "test", or "validation" for items that choose scoring parameters.
        max_items (`int`, *optional*): The first items only.

    Raises:
        `ValueError`: For a file that cannot be read so; the line, the item and what is there are named.
    """
    path = Path(expand_variables(str(path)))
    context, answers = _typed(context), [_typed(answer) for answer in answers]
    rows = []
    for number, row in enumerate(_read(path)[:max_items], 1):
        where = f"{path.name}, item {number}"
        choices, names = zip(*_choices(answers, row, where), strict=True)
        # As lm-evaluation-harness: a space before the choice belongs to it, since it is in its first token.
        filled = _fill(context, row, where)
        before = filled.rstrip()
        item = {
            "id": str(row.get("id", number)),
            "context": before,
            "choices": [filled[len(before) :] + choice for choice in choices],
            "label": _label(row, label, first_label, names, where),
        }
        check_row(item, path.name)
        rows.append(item)
        if len(choices) != len(rows[0]["choices"]):
            raise ValueError(
                f"{where} has {len(choices)} choices, but the first has {len(rows[0]['choices'])}: give a file for "
                "each number of choices."
            )
    if not rows:
        raise ValueError(f"{path} holds no items.")
    return TaskData(name, language(code).code, split, rows, path.name, fingerprint(rows)[:16], kind="own")


def _typed(template: str) -> str:
    return template.replace("\\n", "\n").replace("\\t", "\t")


def _read(path: Path) -> list[dict]:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"`choices` must be a file of the kinds {', '.join(SUFFIXES)} (got {str(path)!r}).")
    if not path.is_file():
        raise ValueError(f"`choices` names {str(path)!r}, which is not a file.")
    lines = text_lines(path)
    try:
        if path.suffix == ".json":
            rows = json.loads("\n".join(lines))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            rows = _rows(_tsv(lines) if path.suffix == ".tsv" else csv_reader(lines, strict=True), path)
    except (json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no {path.suffix[1:].upper()}: {error}.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} must hold objects, one an item, with the columns by name.")
    return rows


def _tsv(lines: list[str]) -> Iterator[list[str]]:
    return ([unquoted(cell) for cell in line.split("\t")] if line else [] for line in lines)


def _rows(table: Iterator[list[str]], path: Path) -> list[dict]:
    """The lines of a table by the names in the first; a line that is short lacks its last columns."""
    header = next(table, [])
    rows = [cells for cells in table if any(cell.strip() for cell in cells)]
    for number, cells in enumerate(rows, 1):
        if any(cells[len(header) :]):  # empty ones are what spreadsheets leave of a wider line
            raise ValueError(
                f"{path.name}, item {number} has {len(cells)} cells where the header names {len(header)}: quote "
                "a cell that holds the delimiter of a CSV, or give JSONL."
            )
    return [dict(zip(header, cells)) for cells in rows]


def _parsed(template: str) -> list[tuple[str, str | None]]:
    """Texts of a template and the column behind each: names only, so that it cannot reach into anything else."""
    try:
        return [(text, column) for text, column, *_ in string.Formatter().parse(template)]
    except ValueError as error:
        raise ValueError(f"The template {template!r} cannot be read ({error}); a brace itself is doubled.") from error


def _columns(template: str) -> list[str]:
    return [column for _, column in _parsed(template) if column is not None]


def _fill(template: str, row: dict, where: str) -> str:
    filled = []
    for text, column in _parsed(template):
        if column is not None and row.get(column) is None:
            raise ValueError(f"{where}: the template {template!r} wants the column {column!r}; it has {list(row)}.")
        filled += [text] if column is None else [text, str(row[column])]
    return "".join(filled)


def _choices(answers: list[str], row: dict, where: str) -> list[tuple[str, str]]:
    """Each choice as it is asked, and what it is without the words of the template."""
    if len(answers) > 1:
        filled = [_fill(answer, row, where) for answer in answers]
        return [(text, " ".join(str(row[column]) for column in _columns(a))) for a, text in zip(answers, filled)]
    columns = _columns(answers[0])
    options = row.get(columns[0]) if len(columns) == 1 else None
    if isinstance(options, str) and options.lstrip().startswith("["):  # a list in a cell of a CSV file
        try:
            options = json.loads(options)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: {columns[0]!r} is {options!r}, which is no list in JSON ({error}).") from error
    if not isinstance(options, list) or len(options) < 2:
        raise ValueError(
            f"{where}: a single template of answers wants one column that holds a list of choices, such as "
            f"' {{options}}' (got {answers[0]!r}, in which {columns} is {options!r}). Or give a template for each."
        )
    return [(_fill(answers[0], {columns[0]: option}, where), str(option)) for option in options]


def _label(row: dict, column: str, first_label: int, choices: tuple[str, ...], where: str) -> int:
    if row.get(column) is None:
        raise ValueError(f"{where}: there is no column {column!r} with the right choice; it has {list(row)}.")
    cell = row[column]
    value = str(cell).strip()
    number = int(value) - first_label if re.fullmatch(r"-?[0-9]+", value) else -1
    readings = {"number": number} if 0 <= number < len(choices) else {}
    if isinstance(cell, str) or not readings:  # an integer of JSON is a number where it can be
        if value in choices:
            readings["text"] = choices.index(value)
        if len(value) == 1 and value.upper() in LETTERS[: len(choices)]:
            readings["letter"] = LETTERS.index(value.upper())
    if len(set(readings.values())) > 1:
        each = ", ".join(f"the {kind} of choice {LETTERS[index]}" for kind, index in readings.items())
        raise ValueError(
            f"{where}: {column!r} is {value!r}, which is {each}. Name the right choices by letters that are no "
            "choices themselves, or in JSON by integers."
        )
    if not readings:
        raise ValueError(
            f"{where}: {column!r} is {value!r}, which is neither the text nor the letter of one of its "
            f"{len(choices)} choices, nor its number counted from {first_label} (`choices_first_label`)."
        )
    return next(iter(readings.values()))
