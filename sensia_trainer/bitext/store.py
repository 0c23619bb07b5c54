"""What was read or chosen once, as Arrow files in the cache of `datasets`: for other processes and later runs."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import uuid4

import datasets
import pyarrow as pa
from datasets.fingerprint import Hasher, get_temporary_cache_files_directory

from ..utils.files import read_json, write_json


FACTS = "facts.json"


def kept(key, build: Callable[[Path], dict]) -> tuple[dict[str, datasets.Dataset], dict]:
    """
    Datasets that are made once and then memory-mapped.

    Args:
        key: All that decides what they hold, of plain types.
        build (`Callable`): Writes `NAME.arrow` files into a folder, see [`write_tables`], and returns what else is to
            be kept (JSON). What it leaves is there as a whole or not at all.

    Returns:
        The datasets by name, and what `build` returned.
    """
    cached = datasets.is_caching_enabled()
    root = Path(datasets.config.HF_DATASETS_CACHE if cached else get_temporary_cache_files_directory()) / "sensia"
    digest = Hasher.hash(key)
    folder = root / digest
    if not (folder / FACTS).is_file():
        partial = root / f"{digest}.{uuid4().hex}.part"  # on other machines that share the cache, pids are the same
        partial.mkdir(parents=True)
        try:
            write_json(partial / FACTS, build(partial))
            if not (folder / FACTS).is_file():  # what was left half made; a whole one is of a process that was faster
                shutil.rmtree(folder, ignore_errors=True)
            os.rename(partial, folder)
        except OSError:
            if not (folder / FACTS).is_file():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    names = sorted(path.stem for path in folder.glob("*.arrow") if not path.stem.startswith(("cache-", "tmp")))
    return {name: _mapped(folder / f"{name}.arrow", f"{digest}{name}") for name in names}, read_json(folder / FACTS)


def write_tables(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write tables of one schema as one Arrow stream; returns the number of their rows."""
    count, writer = 0, None
    with pa.OSFile(str(path), "wb") as file:
        for table in tables:
            writer = writer or pa.ipc.new_stream(file, table.schema)
            writer.write_table(table)
            count += len(table)
        if writer is not None:
            writer.close()
    return count


def identity(path: Path) -> tuple[str, int, int]:
    """What tells that a file is the same: where it is, its size, and when it was last written."""
    facts = path.stat()
    return str(path.absolute()), facts.st_size, facts.st_mtime_ns


def _mapped(path: Path, fingerprint: str) -> datasets.Dataset:
    return datasets.Dataset(datasets.Dataset.from_file(str(path)).data, fingerprint=Hasher.hash(fingerprint))
