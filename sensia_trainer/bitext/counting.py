"""How many pairs a source has and what they look like, without reading it all: what an estimate needs."""

from collections.abc import Iterator
from itertools import islice

from .sources import DATASETS, iterate_rows, load_bitext, recognise
from .streams import open_binary


LINES_BEFORE = {"tsv": 1, "jsonl": 0, "aligned": 0}  # of kinds that have a pair a line: lines that are none
BLOCK = 1 << 24


def count_pairs(source, languages: tuple[str, str]) -> int | None:
    """
    Pairs of one local source, blank and malformed ones included; lines are counted where each holds a pair.

    Args:
        source ([`PairSource`]): Where they are.
        languages (`tuple[str, str]`): Codes of both sides.

    Returns:
        `int`, or `None` for a data set of the Hub, which would have to be fetched.
    """
    kind, where = recognise(source.place)
    if kind == "hub":
        return None
    if kind in DATASETS:
        return len(_dataset(source, languages))
    if kind not in LINES_BEFORE:
        return sum(1 for _ in iterate_rows(source.place, *languages, source.source_column, source.target_column))
    with open_binary(where[0] if kind == "aligned" else where) as handle:
        lines = sum(block.count(b"\n") for block in iter(lambda: handle.read(BLOCK), b""))
    return lines - LINES_BEFORE[kind]


def some_pairs(source, languages: tuple[str, str], number: int, apart: int = 50) -> list[tuple[str, str]]:
    """So many pairs of a local source that stand so far apart, as files are often sorted; none of a data set of the
    Hub."""
    kind, _ = recognise(source.place)
    if kind == "hub":
        return []
    if kind in DATASETS:
        dataset = _dataset(source, languages)
        apart = max(1, min(apart, len(dataset) // number))
        pairs = dataset[: number * apart : apart]["translation"]
        return [tuple(pair[code] for code in languages) for pair in pairs]
    rows: Iterator = iterate_rows(source.place, *languages, source.source_column, source.target_column)
    read = [(left, right) for left, right, *_ in islice(rows, number * apart)]
    return read[:: max(1, min(apart, len(read) // number))][:number]


def _dataset(source, languages):
    columns = {"source_column": source.source_column, "target_column": source.target_column}
    return load_bitext(source.place, *languages, split=source.split or "train", name=source.config_name, **columns)
