"""The files of this machine that a bitext is made of, and whether they are still the same."""

import hashlib
import os
from pathlib import Path

from tqdm import tqdm

from ..bitext.sources import local_files
from .contamination import evaluation_files
from .recipe import BitextRecipe


def input_files(recipe: BitextRecipe) -> dict[str, Path]:
    """Files of the sources and of the evaluation sets, by names without this machine's folders.

    `sources[0]/en-id.tsv.gz` is a file of the recipe's first source. What is on the Hub or in OPUS has none, and
    neither has a path where nothing is.
    """
    entries = {f"contamination[{n}]": evaluation_files(entry) for n, entry in enumerate(recipe.contamination)}
    for n, source in enumerate(recipe.sources):
        try:
            entries[f"sources[{n}]"] = local_files(source.path, *recipe.sides) if source.path else []
        except ValueError:  # what is wrong with the path is told where it is read
            continue
    return {
        f"{entry}/{path.absolute().relative_to(_common_folder(paths)).as_posix()}": path
        for entry, paths in entries.items()
        for path in paths
    }


def _common_folder(paths: list[Path]) -> str:
    return os.path.commonpath([path.absolute().parent for path in paths])


def digests(files: dict[str, Path]) -> dict[str, str]:
    """SHA-256 (64 hex digits) of each file."""
    found = {}
    total = sum(path.stat().st_size for path in files.values())
    with tqdm(total=total, desc="check files", unit="B", unit_scale=True, leave=False) as bar:
        for name, path in files.items():
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while chunk := file.read(1 << 22):
                    digest.update(chunk)
                    bar.update(len(chunk))
            found[name] = digest.hexdigest()
    return found


def changed_files(before: dict[str, str], now: dict[str, str], files: dict[str, Path]) -> list[str]:
    """What differs between two records of `digests`: paths, or the names of files that are no longer there."""
    return [str(files.get(name, name)) for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
