"""Markdown of numbers and names that nobody has read before: tables, and text that shows as it is."""

import json
import re


# What would begin markup anywhere in a line: code, emphasis, a cell, the end of a link's text, HTML, an entity.
_MARKUP = re.compile(r"[\\`*|]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|\](?=[(\[:])|<|&(?=#?\w+;)")
_AS_ENTITY = {"<": "&lt;", "&": "&amp;"}
# Control characters, and those that turn the direction of text around, which make a name read as another one.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""


def escape(text) -> Markdown:
    """`text` on one line, so that Markdown and HTML show it as it is; [`Markdown`] stays what it is."""
    if isinstance(text, Markdown):
        return text
    line = " ".join(_UNSEEN.sub(" ", str(text)).split())
    return Markdown(_MARKUP.sub(lambda found: _AS_ENTITY.get(found[0], f"\\{found[0]}"), line))


def code(text) -> Markdown:
    """`text` on one line in backticks, as many as it takes; a cell may hold it as well."""
    line = " ".join(_UNSEEN.sub(" ", str(text)).split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{fence}{space}{line}{space}{fence}")


def bold(text) -> Markdown:
    """`text` in bold."""
    return Markdown(f"**{escape(text)}**")


def quoted(text: str) -> Markdown:
    """`text` as a string of Python or JSON that cannot end the block of code it stands in."""
    return Markdown(json.dumps(text, ensure_ascii=False).replace("`", "\\u0060").replace("\x7f", ""))


def number(value) -> str:
    """A number as a reader wants it: thousands apart, floats to four significant digits; anything else as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def with_interval(value, interval=None, digits=3, mark="") -> Markdown:
    """A measured value to `digits` decimals with its interval, `0.301 [0.295, 0.307]`; "–" where it is `None`.

    From a million on it is written with an exponent. `mark` follows the value. An interval without ends (null in JSON,
    which has no NaN) is left out.
    """
    if value is None:
        return Markdown("–")

    def decimal(x):
        return f"{x:,.{digits}f}" if abs(x) < 1e6 else f"{x:.1e}"

    ends = f" [{decimal(interval[0])}, {decimal(interval[1])}]" if interval and None not in interval else ""
    return Markdown(f"{decimal(value)}{mark}{ends}")


def table(header, rows) -> Markdown:
    """
    A Markdown table. Cells are escaped, numbers written by [`number`], and columns of nothing but numbers set flush
    right.

    Args:
        header: Names of the columns.
        rows: Cells, row by row, as many as there are columns.

    Returns:
        The table without a newline at its end; empty without rows.

    Raises:
        `ValueError`: for a row of another length.
    """
    header, rows = list(header), [list(row) for row in rows]
    if not rows:
        return Markdown("")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"A row has {len(row)} cells and the table {len(header)} columns: {row}.")
    cells: list[list[str]] = [[escape(number(cell)) for cell in row] for row in rows]
    right = [any(row[i] for row in cells) and all(_is_numeric(row[i]) for row in cells) for i in range(len(header))]
    ruler = ["---:" if flush else "---" for flush in right]
    lines: list[list[str]] = [[escape(name) for name in header], ruler, *cells]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _is_numeric(cell: str) -> bool:
    return re.fullmatch(r"[\d.,\s()\[\]–→%×e+≈*\\-]*", cell) is not None
