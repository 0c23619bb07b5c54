"""The corpora of a recipe: looked up, fetched, and read as streams of pairs."""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
from tqdm import tqdm

from ..bitext.readers import Row, read_moses
from ..bitext.sources import DATASETS, iterate_rows, load_bitext, local_files, recognise
from ..bitext.streams import Problems
from ..utils.files import read_json, write_json
from . import opus
from .contamination import evaluation_files
from .recipe import BitextRecipe, Source, without_folders
from .statistics import count_lines


logger = logging.getLogger(__name__)


class MissingCorpora(ValueError):
    """Corpora of the recipe could not be had; everything else was fetched and stays."""


def look_up(recipe: BitextRecipe) -> list:
    """Of each source its file in OPUS, or why there is none; None for a path. Raises ValueError for a mistake."""
    index = opus.open_index() if any(source.opus for source in recipe.sources) else None
    found = []
    for source in recipe.sources:
        if source.opus is None:
            recognise(source.path)
            found.append(None)
            continue
        try:
            found.append(opus.resolve(index, source.opus, recipe.source, recipe.target, source.release, source.code))
        except opus.Unavailable as error:
            found.append(error)
    return found


def retrieve(recipe: BitextRecipe, found: list, output: Path, allow_missing: bool) -> list[dict]:
    """Where each corpus lies, with what is known of it; `missing` tells why one is not there.

    One that an earlier run went on without is tried again.
    """
    stages = output / "stages"
    done = stages / "retrieve.json"
    before = read_json(done) if done.is_file() else [None] * len(found)
    corpora = []
    for source, place, known in zip(tqdm(recipe.sources, desc="retrieve", unit="corpus"), found, before):
        if known and not known.get("missing"):
            corpora.append(known)
            continue
        corpus = _describe(source)
        try:
            corpus.update(_fetch(source, place, recipe, output / "downloads"))
        except (opus.Unavailable, opus.DownloadError) as error:
            corpus.update(missing=str(error), is_known=getattr(error, "is_known", False))
            logger.warning("missing: %s", error)
        corpora.append(corpus)
    missing = [corpus for corpus in corpora if corpus.get("missing")]
    unexpected = [corpus["missing"] for corpus in missing if not corpus["is_known"]]
    if unexpected and not allow_missing:
        raise MissingCorpora(
            f"{len(unexpected)} of {len(corpora)} corpora are missing: {'; '.join(unexpected)}. "
            "Start again to try again (what was fetched stays), or go on without them with --allow-missing"
        )
    if len(missing) == len(corpora):
        raise MissingCorpora(f"every corpus is missing: {'; '.join(corpus['missing'] for corpus in missing)}")
    if any(known and known.get("missing") and not corpus.get("missing") for known, corpus in zip(before, corpora)):
        for path in stages.iterdir():  # made without the corpus that is there now
            if path.name not in ("evaluation.parquet", "retrieve.json", "filter"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if corpora != before:
        write_json(done, corpora)
    logger.info("retrieve: %d of %d corpora", len(corpora) - len(missing), len(corpora))
    return corpora


def _describe(source: Source) -> dict:
    page = f"https://opus.nlpl.eu/{opus.RENAMED.get(source.opus, source.opus)}" if source.opus else None
    licence = source.licence or opus.LICENCES.get(
        opus.RENAMED.get(source.opus, source.opus), "not stated in the recipe"
    )
    facts = {"name": source.label, "licence": licence, "origin": source.origin or page or without_folders(source.path)}
    return facts | {name: getattr(source, name) for name in ("max_pairs", "where") if getattr(source, name)}


def _fetch(source: Source, found, recipe: BitextRecipe, downloads: Path) -> dict:
    if found is None:
        kind, where = recognise(source.path)
        if kind == "hub" and not Path(where).exists():
            try:
                _load_dataset(source, recipe)  # fetches it into the cache of `datasets`
            except ValueError as error:
                raise opus.DownloadError(f"{source.label}: {error}") from error
        return {}
    if isinstance(found, opus.Unavailable):
        raise found
    names = zip((source.opus, *recipe.sides), (found.corpus, found.source, found.target))
    renamed = [f"{mine} is called {its}" for mine, its in names if mine != its]
    if renamed:
        logger.info("%s in OPUS: %s", source.label, ", ".join(renamed))
    url = f"{recipe.opus_url.rstrip('/')}/{found.url.split('://', 1)[1].partition('/')[2]}"
    path = opus.download(url, downloads / found.file_name, sha256=source.sha256)
    try:
        members = opus.archive_members(path, found.source, found.target)
    except opus.DownloadError:
        path.unlink()
        raise
    facts = {"release": found.release, "codes": f"{found.source}-{found.target}", "pairs_in_index": found.pairs}
    return facts | {"url": url, "archive": f"downloads/{found.file_name}", "members": list(members)}


def _load_dataset(source: Source, recipe: BitextRecipe) -> datasets.Dataset:
    columns = {"source_column": source.source_column, "target_column": source.target_column}
    return load_bitext(source.path, *recipe.sides, split=source.split, name=source.config_name, **columns)


def read_corpus(source: Source, corpus: dict, recipe: BitextRecipe, output: Path, problems: Problems) -> Iterator[Row]:
    """The pairs of a corpus, streaming."""
    if "archive" in corpus:
        yield from read_moses(output / corpus["archive"], tuple(corpus["members"]), problems)
    elif recognise(source.path)[0] in DATASETS:
        sides = recipe.sides
        for batch in _load_dataset(source, recipe).iter(10_000):
            others = [name for name in batch if name != "translation"]
            for pair, *values in zip(batch["translation"], *(batch[name] for name in others)):
                left, right = ((pair or {}).get(side) or "" for side in sides)
                yield left, right, dict(zip(others, values))
    else:
        yield from iterate_rows(
            source.path, recipe.source, recipe.target, source.source_column, source.target_column, problems
        )


def expected_pairs(source: Source, corpus: dict, recipe: BitextRecipe) -> int | None:
    """How many pairs will be read, for the progress bar; None where only reading tells."""
    if corpus.get("missing"):
        return 0
    count = corpus.get("pairs_in_index")
    kind, where = recognise(source.path) if source.path else (None, None)
    if kind in ("tsv", "jsonl", "aligned"):
        count = count_lines(where[0] if kind == "aligned" else where) - (kind == "tsv")  # its header
    elif kind in DATASETS:
        count = len(_load_dataset(source, recipe))
    return count if count is None or source.max_pairs is None else min(count, source.max_pairs)


# --- files of this machine, and whether they are still the same ------------------------------------------------------


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
