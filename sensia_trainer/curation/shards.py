"""Shards: files that are either complete or not there, with the counts of what was done to make them inside."""

import json
import multiprocessing.connection
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..utils.files import written_atomically


FACTS = b"sensia"  # key of the counts in a shard's schema


def write_shard(path: Path, table: pa.Table, facts: dict) -> None:
    """A Parquet file with its facts (JSON) in the schema."""
    table = table.replace_schema_metadata({FACTS: json.dumps(facts)})
    with written_atomically(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_facts(path: Path) -> dict:
    """The facts of a shard; its rows are not read."""
    return json.loads(pq.read_schema(path).metadata[FACTS])


def read_shard(path: Path, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(path, columns=columns)


def shards_of(folder: Path) -> list[Path]:
    """The complete shards of a stage, in order."""
    return sorted(folder.glob("*.parquet"))


def counter_to_json(counts: Counter) -> dict:
    """A Counter of (corpus, what) as nested dicts in sorted order."""
    nested: dict = {}
    for (corpus, what), count in sorted(counts.items()):
        nested.setdefault(corpus, {})[what] = int(count)
    return nested


def counter_from_json(nested: dict) -> Counter:
    return Counter({(corpus, what): count for corpus, counts in nested.items() for what, count in counts.items()})


def bounded_map(function: Callable, tasks: Iterable[tuple], num_proc: int) -> Iterator:
    """`function(*task)` of each task, in order, over `num_proc` processes, with no more than two tasks a process
    waiting.

    (`Pool.imap` would read the whole stream of tasks into its queue.)
    """
    if num_proc <= 1:
        for task in tasks:
            yield function(*task)
        return
    with ProcessPoolExecutor(num_proc, initializer=_end_with_parent) as pool:
        waiting = deque()
        for task in tasks:
            waiting.append(pool.submit(function, *task))
            if len(waiting) >= 2 * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _end_with_parent() -> None:
    """End this worker when its parent is no more: if that was killed, it would wait for tasks for ever."""
    parent = multiprocessing.parent_process().sentinel

    def watch():
        multiprocessing.connection.wait([parent])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
