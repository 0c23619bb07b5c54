"""Files of an evaluation: a result that is whole or absent, and the parts of one that is not finished yet.

While an evaluation runs, every part that was measured is a line of `NAME.parts.jsonl`; started again with the same
settings, it goes on behind them. When all are there, `NAME.items.json` (what was predicted, item by item) and then
`NAME.json` are written, each at once, and the parts are removed. The result says that it is complete and names its
items by their fingerprint; every reader checks both.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging

from ..utils.files import fingerprint, plain, read_json, write_json


logger = logging.get_logger(__name__)


def items_file(output) -> Path:
    """Where the per-item predictions of the result file `output` are."""
    return Path(output).with_suffix(".items.json")


def parts_file(output) -> Path:
    """Where the parts of the unfinished result `output` are."""
    return Path(output).with_suffix(".parts.jsonl")


class Parts:
    """The parts of an evaluation that were measured so far, on the disk as soon as they are.

    Args:
        output: The result file they are for.
        settings (`dict`): What decides the numbers; parts of other settings are dropped.
    """

    def __init__(self, output, settings: dict):
        self.file = parts_file(output)
        self.done: dict[str, list] = {}
        first = {"settings": fingerprint(plain(settings))}
        lines = self.file.read_bytes().splitlines(keepends=True) if self.file.is_file() else []
        whole = [_read_line(line) for line in lines]
        whole = whole[: whole.index(None)] if None in whole else whole  # a line cut by a kill, and what is behind it
        if whole[:1] == [first]:
            self.done = dict(whole[1:])
        elif lines:
            logger.warning(f"{self.file.name} holds parts of other settings; they are measured again.")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        for line in (first, *self.done.items()):
            self._append(line)

    def measured(self, key: str, measure: Callable[[], tuple[dict, object]]) -> tuple[dict, object]:
        """Summary and items of the part `key`: from an earlier start, or measured now and kept.

        Args:
            key: Name of the part with the fingerprint of its data.
            measure: Gives the summary and the items.
        """
        if key not in self.done:
            self.done[key] = plain(measure())
            self._append([key, self.done[key]])
        return tuple(self.done[key])

    def finish(self) -> None:
        """The result is written: the parts are of no more use."""
        self.file.unlink(missing_ok=True)

    def _append(self, line) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _read_line(line: bytes):
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def write_result(output, result: dict, items: dict) -> dict:
    """Writes the items and then the result, marked as complete; returns the result as it is read again."""
    items = plain(items)
    result = plain(result) | {"complete": True, "items_fingerprint": fingerprint(items)}
    write_json(items_file(output), items, indent=None)
    write_json(output, result)
    return result


def read_result(path, *, with_items=False) -> dict:
    """A result that [`write_result`] wrote.

    Args:
        path: The file.
        with_items (`bool`): Put the per-item predictions under "items" (empty where the file is not there).

    Raises:
        `ValueError`: If it is not such a file, was not finished, or its items belong to another result.
    """
    result = read_json(path)
    if not isinstance(result, dict) or result.get("kind") != "evaluation":
        raise ValueError(f"{path} is not a result of an evaluation (its `kind` is not 'evaluation').")
    if result.get("complete") is not True:
        raise ValueError(f"{path} is the result of an evaluation that did not finish. Start its command again.")
    if with_items:
        items = items_file(path)
        result["items"] = read_json(items) if items.is_file() else {}
        if result["items"] and fingerprint(result["items"]) != result["items_fingerprint"]:
            raise ValueError(f"{items.name} belongs to another result than {path}. Evaluate again.")
    return result


def is_whole(path) -> bool:
    """Whether `path` is the result of a finished evaluation."""
    try:
        return bool(read_result(path))
    except ValueError:
        return False
