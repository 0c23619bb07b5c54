"""From corpora to one clean dataset: retrieve, filter, deduplicate, score, sample, export (Appendix D).

Every stage reads the shards of the one before and writes its own into `<output>/stages/<stage>/`, each complete or
absent. A run that was stopped, however hard, goes on from the last complete shard when it is started again, and gives
the same bytes as one that was not; it is refused where the recipe or a file has changed meanwhile. Memory holds a few
shards, whatever the size of the corpora, but for one byte a pair and a part of the keys in deduplication
(`duplicates.py`).
"""

import dataclasses
import itertools
import logging
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from . import accounting, opus
from .contamination import evaluation_keys
from .duplicates import KEPT, NAMES, count_parts, find_duplicates
from .filters import FilterContext, apply_filters, keep_languages, near_keys, normalise, pair_keys, text_keys
from .inputs import changed_files, digests, input_files
from .readers import Row, aligned_rows
from .recipe import BitextRecipe, Source
from .scoring import REFERENCE, Reference, encode_reference, load_encoder, require_encoder, score_pairs
from .shards import (
    bounded_map,
    counter_from_json,
    counter_to_json,
    read_facts,
    read_json,
    read_shard,
    shards_of,
    write_json,
    write_shard,
    written_atomically,
)
from .sharing import recipe_yaml, shareable, without_folders
from .sources import fingerprint, iterate_rows, load_bitext, recognise


logger = logging.getLogger(__name__)


class MissingCorpora(ValueError):
    """Corpora of the recipe could not be had; everything else was fetched and stays."""


def build_bitext(
    recipe: BitextRecipe,
    output_dir,
    *,
    num_proc: int = 1,
    allow_missing: bool = False,
    keep_files: bool = False,
    encoder=None,
    accelerator=None,
    command: str = "",
) -> dict:
    """Build the dataset of a recipe.

    Args:
        recipe: see `BitextRecipe`.
        output_dir: receives the dataset (`load_bitext(output_dir, ...)` reads it), `README.md` (the data card),
            `statistics.json`, `statistics.md`, `lengths.png`, `lengths.svg`, `recipe.yaml` (the recipe to share, with
            the names of local files in place of their paths) and `recipe.json` (this one).
        num_proc: processes that filter.
        allow_missing: go on without the corpora that cannot be had, other than those known to be gone.
        keep_files: leave downloads and the shards of the stages after success.
        encoder: a function from n sentences to (n, d) unit vectors, in place of the one the recipe names.
        accelerator: `accelerate.Accelerator`, to spread the scoring over its processes; all must call this function.
        command: for the record.

    Returns:
        The statistics, as in `statistics.json`.

    Raises:
        MissingCorpora: a corpus could not be had and `allow_missing` is not set.
        ValueError: bad input, an output folder of another recipe or of files that have changed since, or no pair
            left (the filters' counts are given).
    """
    output = Path(output_dir)
    stages = output / "stages"
    is_main = accelerator is None or accelerator.is_main_process
    if is_main:
        if _claim(output, recipe):
            logger.info("%s is complete already", output)
        else:
            # What is wrong with the recipe shows now, not after hours of downloads.
            found = _look_up(recipe)
            if recipe.semantic is not None and encoder is None:
                require_encoder(recipe.semantic.encoder)
            context = _filter_context(recipe, stages)
            corpora = _retrieve(recipe, found, output, allow_missing)
            _filter(recipe, stages, corpora, context, num_proc)
            _deduplicate(recipe, stages)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    if not (output / "state.json").is_file():
        if recipe.semantic is not None:
            _score(recipe, stages, encoder, accelerator)
        if accelerator is not None:
            accelerator.wait_for_everyone()
        if is_main:
            _sample(recipe, stages)
            _export(recipe, output, command)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    if is_main and not keep_files:
        shutil.rmtree(stages, ignore_errors=True)
        shutil.rmtree(output / "downloads", ignore_errors=True)
    return read_json(output / "statistics.json")


def _claim(output: Path, recipe: BitextRecipe) -> bool:
    """Make the folder this recipe's; true when its dataset is complete.

    The folder is bound to the recipe and the files as soon as a shard is made of them.
    """
    there, stages = output / "recipe.json", output / "stages"
    for partial in output.glob("*.part"):  # what a killed run was writing
        partial.unlink()
    if not there.is_file() and output.is_dir() and any(output.iterdir()):
        raise ValueError(
            f"output_dir={str(output)!r} is not empty and holds no bitext of this recipe; give another folder"
        )
    is_done = (output / "state.json").is_file()
    other = {"files": {}} | (read_json(there) if there.is_file() else {})
    files = input_files(recipe)
    mine = _plain(dataclasses.asdict(recipe)) | {"files": digests(files)}
    if is_done:  # its files may be gone; those that are there must be the same
        other["files"] = {name: digest for name, digest in other["files"].items() if name in files}
    different = [name for name in mine if mine[name] != other.get(name)]
    different = [name for name in different if name not in ("files", "opus_url")]  # a mirror has the same
    different += changed_files(other["files"], mine["files"], files)
    if different and (is_done or any(stages.glob("filter/*.parquet"))):
        way_out = "delete this one" if is_done else f"delete {stages} to begin again (what was fetched stays)"
        raise ValueError(
            f"output_dir={str(output)!r} belongs to another recipe or to other files (other {', '.join(different)}); "
            f"give another folder, or {way_out}"
        )
    if different:
        if stages.is_dir():
            logger.info("%s begins again with other %s; what was fetched stays", output, ", ".join(different))
            shutil.rmtree(stages)
        write_json(there, mine)
    return is_done


def _filter_context(recipe: BitextRecipe, stages: Path) -> FilterContext:
    """What the filters need; raises ValueError for evaluation texts or a language identifier that cannot be had."""
    texts = stages / "evaluation.parquet"
    if not texts.is_file():
        keys, counts = evaluation_keys(recipe.contamination)
        write_shard(texts, pa.table({"key": keys}), {"texts": counts})
    keys = read_shard(texts).column("key").to_numpy()
    context = FilterContext(recipe.source, recipe.target, recipe.filters, keys)
    if recipe.filters.language_confidence is not None:
        keep_languages([], [], context)
    return context


def _plain(value):
    """Tuples as lists, as they come back from JSON."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


# --- retrieve --------------------------------------------------------------------------------------------------------


def _look_up(recipe: BitextRecipe) -> list:
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


def _retrieve(recipe: BitextRecipe, found: list, output: Path, allow_missing: bool) -> list[dict]:
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


def _rows(source: Source, corpus: dict, recipe: BitextRecipe, output: Path, problems: Counter) -> Iterator[Row]:
    """The pairs of a corpus, streaming."""
    if "archive" in corpus:
        with zipfile.ZipFile(output / corpus["archive"]) as archive:
            with archive.open(corpus["members"][0]) as left, archive.open(corpus["members"][1]) as right:
                yield from aligned_rows(left, right, tuple(corpus["members"]), problems)
    elif recognise(source.path)[0] in ("saved", "hub"):
        sides = recipe.sides
        for batch in _load_dataset(source, recipe).iter(10_000):
            others = [name for name in batch if name != "translation"]
            for pair, *values in zip(batch["translation"], *(batch[name] for name in others)):
                yield pair[sides[0]] or "", pair[sides[1]] or "", dict(zip(others, values))
    else:
        yield from iterate_rows(
            source.path, recipe.source, recipe.target, source.source_column, source.target_column, problems
        )


# --- filter ----------------------------------------------------------------------------------------------------------


def _filter(recipe: BitextRecipe, stages: Path, corpora: list[dict], context: FilterContext, num_proc: int) -> None:
    """Normalise and filter every corpus: shards `<corpus>-<n>.parquet`, then `<corpus>.json` when it is through."""
    folder, start = stages / "filter", time.perf_counter()
    expected = [_expected_pairs(source, corpus, recipe) for source, corpus in zip(recipe.sources, corpora)]
    total = sum(expected) if None not in expected else None
    with tqdm(total=total, desc="filter", unit="pair", unit_scale=True) as bar:
        for number, (source, corpus) in enumerate(zip(recipe.sources, corpora)):
            done = folder / f"{number:03d}.json"
            if corpus.get("missing"):
                continue
            if done.is_file():
                bar.update(read_json(done)["rows"])
                continue
            problems = Counter()
            rows = itertools.islice(_rows(source, corpus, recipe, stages.parent, problems), source.max_pairs)
            shards = 0

            def tasks(rows=rows, number=number, source=source):
                for shard in itertools.count():
                    chunk = list(itertools.islice(rows, recipe.shard_size))
                    if not chunk:
                        return
                    path = folder / f"{number:03d}-{shard:06d}.parquet"
                    yield (None if path.is_file() else chunk, path, len(chunk), source, context, recipe.keep_columns)

            read = 0
            for count in bounded_map(_filter_shard, tasks(), num_proc):
                bar.update(count)
                shards, read = shards + 1, read + count
            if not read:
                raise ValueError(
                    f"corpus {source.label!r} holds no pairs ({dict(problems) or 'it is empty'}); check it"
                )
            write_json(done, {"shards": shards, "rows": read, "problems": dict(problems)})
            for problem, count in problems.items():
                logger.warning("%s: %s: %d", source.label, problem.replace("_", " "), count)
    _finish("filter", folder, start)


def _expected_pairs(source: Source, corpus: dict, recipe: BitextRecipe) -> int | None:
    """How many pairs will be read, for the progress bar; None where only reading tells."""
    if corpus.get("missing"):
        return 0
    count = corpus.get("pairs_in_index")
    kind, where = recognise(source.path) if source.path else (None, None)
    if kind in ("tsv", "jsonl", "aligned"):
        count = accounting.count_lines(where[0] if kind == "aligned" else where) - (kind == "tsv")  # its header
    elif kind in ("saved", "hub"):
        count = len(_load_dataset(source, recipe))
    return count if count is None or source.max_pairs is None else min(count, source.max_pairs)


def _filter_shard(
    rows: list[Row] | None, path: Path, count: int, source: Source, context: FilterContext, columns
) -> int:
    """One shard, in a process of its own; None for rows when it is there already."""
    if rows is None:
        return count
    corpus_of = source.corpus_column
    if corpus_of and corpus_of not in rows[0][2]:
        raise ValueError(
            f"{source.label}: corpus_column={corpus_of!r} is not a column; there are: {', '.join(rows[0][2])}"
        )
    label = source.label
    named = [row[2][corpus_of] if corpus_of else None for row in rows]
    groups = [label if name is None else str(name) for name in named]
    read = Counter((group, "read") for group in groups)
    dropped = Counter()
    wanted = {
        name: [str(v) for v in (value if isinstance(value, list) else [value])] for name, value in source.where.items()
    }
    for name in (*wanted, *columns):
        if name not in rows[0][2]:
            raise ValueError(f"{source.label}: {name!r} is not a column; there are: {', '.join(rows[0][2]) or 'none'}")
    chosen = [n for n, row in enumerate(rows) if all(str(row[2][name]) in values for name, values in wanted.items())]
    if len(chosen) < len(rows):
        dropped.update((group, "where") for group in groups)
        dropped.subtract((groups[n], "where") for n in chosen)
        dropped = +dropped
    groups = [groups[n] for n in chosen]
    sources = [normalise(rows[n][0], context.source) for n in chosen]
    targets = [normalise(rows[n][1], context.target) for n in chosen]
    normalised = Counter(
        (group, "normalised")
        for n, group, *pair in zip(chosen, groups, sources, targets)
        if pair != [rows[n][0], rows[n][1]]
    )
    kept, counts = apply_filters(sources, targets, groups, context)
    histograms = accounting.histograms(sources, targets, context)
    sources, targets = [sources[n] for n in kept], [targets[n] for n in kept]
    source_keys = near_keys(sources)
    table = pa.table(
        {
            "source": pa.array(sources, pa.string()),
            "target": pa.array(targets, pa.string()),
            "corpus": pa.array([groups[n] for n in kept], pa.string()),
            **{name: pa.array(_texts(rows[chosen[n]][2][name] for n in kept), pa.string()) for name in columns},
            "exact_key": pair_keys(text_keys(sources), text_keys(targets)),
            "near_key": pair_keys(source_keys, near_keys(targets)),
            "source_key": source_keys,
        }
    )
    facts = {"read": counter_to_json(read + normalised), "dropped": counter_to_json(dropped + counts)}
    write_shard(path, table, facts | {"histograms": histograms, "kept": _group_sizes(table)})
    return count


def _texts(values) -> list[str | None]:
    return [None if value is None else str(value) for value in values]


def _group_sizes(table: pa.Table) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in table["corpus"].value_counts().to_pylist()}


def _finish(stage: str, folder: Path, start: float) -> None:
    """The stage's line in the log; an error when it left nothing."""
    facts = [read_facts(shard) for shard in shards_of(folder)]
    kept = sum(sum(fact["kept"].values()) for fact in facts)
    dropped = sum((counter_from_json(fact["dropped"]) for fact in facts), Counter())
    taken = Counter()
    for (_, name), count in dropped.items():
        taken[name] += count
    seconds = time.perf_counter() - start
    seen = kept + taken.total()
    by_filter = ", ".join(f"{name} {count:,}" for name, count in taken.most_common())
    rate = f"{(seen - taken['not_scored']) / max(seconds, 1e-9):,.0f} pairs/s"
    logger.info(
        "%s: kept %d of %d pairs in %.1f s (%s); taken by %s", stage, kept, seen, seconds, rate, by_filter or "none"
    )
    if not kept:
        shutil.rmtree(folder.parent)  # of no use to any recipe
        raise ValueError(
            f"stage {stage!r} left no pair of {seen:,}; taken by: {by_filter}. Loosen that filter in the recipe and "
            "start again (what was fetched stays)"
        )


# --- deduplicate -----------------------------------------------------------------------------------------------------


def _deduplicate(recipe: BitextRecipe, stages: Path) -> None:
    shards, folder, start = shards_of(stages / "filter"), stages / "deduplicate", time.perf_counter()
    sizes = [sum(read_facts(shard)["kept"].values()) for shard in shards]
    found_file = stages / "duplicates.npy"
    if not found_file.is_file():
        passes = 3 * count_parts(sum(sizes))  # over the keys of three kinds
        with tqdm(total=passes * sum(sizes), desc="find duplicates", unit="key", unit_scale=True) as bar:

            def columns(name):
                for shard, size in zip(shards, sizes):
                    bar.update(size)
                    yield read_shard(shard, [f"{name}_key"]).column(0).to_numpy()

            found = find_duplicates(sum(sizes), columns, recipe.filters.max_targets_per_source)
        with written_atomically(found_file) as partial, open(partial, "wb") as file:
            np.save(file, found)
    found, position = np.load(found_file, mmap_mode="r"), 0
    with tqdm(total=sum(sizes), desc="deduplicate", unit="pair", unit_scale=True) as bar:
        for shard, size in zip(shards, sizes):
            mine, position = np.asarray(found[position : position + size]), position + size
            bar.update(size)
            if not (folder / shard.name).is_file():
                table = read_shard(shard).drop_columns(["near_key", "source_key"])
                groups = table["corpus"].to_pylist()
                dropped = Counter((groups[n], NAMES[mine[n]]) for n in np.flatnonzero(mine != KEPT))
                table = table.filter(pa.array(mine == KEPT))
                write_shard(
                    folder / shard.name, table, {"dropped": counter_to_json(dropped), "kept": _group_sizes(table)}
                )
    _finish("deduplicate", folder, start)


# --- score -----------------------------------------------------------------------------------------------------------


def _score(recipe: BitextRecipe, stages: Path, encoder, accelerator) -> None:
    """Score the shards of this process; process p of P takes every P-th."""
    semantic, folder, start = recipe.semantic, stages / "score", time.perf_counter()
    shards = shards_of(stages / "deduplicate")
    sizes = [sum(read_facts(shard)["kept"].values()) for shard in shards]
    chosen = draw_uniformly(sizes, semantic.max_pairs, np.random.default_rng([recipe.seed, 0]))
    process, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    mine = [n for n in range(len(shards)) if n % processes == process]
    todo = [n for n in mine if not (folder / shards[n].name).is_file()]
    if todo and encoder is None:
        device = str(accelerator.device) if accelerator else None
        encoder = load_encoder(semantic.encoder, device, semantic.batch_size)
    reference = None
    if semantic.mode == "margin":
        if process == 0 and not (stages / "reference.npz").is_file():
            _write_reference(shards, sizes, recipe, stages / "reference.npz", encoder)
        if accelerator is not None:
            accelerator.wait_for_everyone()
        with np.load(stages / "reference.npz") as file:
            reference = Reference(**file)
    total = sum(_drawn(chosen[n], sizes[n]) for n in mine)
    with tqdm(total=total, desc="score", unit="pair", unit_scale=True, disable=process > 0) as bar:
        for n in mine:
            if n in todo:
                _score_shard(shards[n], folder / shards[n].name, chosen[n], semantic, encoder, reference, bar.update)
            else:
                bar.update(_drawn(chosen[n], sizes[n]))
    if accelerator is not None:
        accelerator.wait_for_everyone()
    if process == 0:
        _finish("score", folder, start)


def _drawn(mask: np.ndarray | None, size: int) -> int:
    return size if mask is None else int(mask.sum())


def _write_reference(shards: list[Path], sizes: list[int], recipe: BitextRecipe, path: Path, encoder) -> None:
    """Draw and encode the pairs of which the neighbours come: the same, whatever the shards and the processes."""
    total, neighbours = sum(sizes), recipe.semantic.neighbours
    if not 0 < neighbours < total:
        raise ValueError(
            f"semantic.neighbours={neighbours}: with mode='margin' give at least 1 and less than the {total} pairs "
            "there are, or mode='cosine'"
        )
    rng = np.random.default_rng([recipe.seed, 4])
    rows = np.sort(rng.choice(total, min(total, max(REFERENCE, neighbours + 1)), replace=False))
    starts = np.cumsum([0, *sizes])
    drawn = pa.concat_tables(
        read_shard(shard, ["exact_key", "source", "target"]).take(rows[(start <= rows) & (rows < end)] - start)
        for shard, start, end in zip(shards, starts, starts[1:])
    )
    texts = (drawn[side].to_pylist() for side in ("source", "target"))
    reference = encode_reference(encoder, drawn["exact_key"].to_numpy(), *texts)
    with written_atomically(path) as partial, open(partial, "wb") as file:
        np.savez(file, **reference._asdict())


def _score_shard(shard: Path, path: Path, chosen: np.ndarray | None, semantic, encoder, reference, progress) -> None:
    table = read_shard(shard)
    groups = np.array(table["corpus"].to_pylist(), dtype=object)
    dropped = Counter()
    if chosen is not None:
        dropped.update((group, "not_scored") for group in groups[~chosen])
        table, groups = table.filter(pa.array(chosen)), groups[chosen]
    scores = np.zeros(0, np.float32)
    if len(table):
        sides = (table["source"].to_pylist(), table["target"].to_pylist())
        keys = table["exact_key"].to_numpy()
        scores = score_pairs(encoder, *sides, keys, reference, semantic.neighbours, progress)
    alike = scores >= semantic.threshold
    dropped.update((group, "similarity") for group in groups[~alike])
    table = table.append_column("score", pa.array(scores)).filter(pa.array(alike))
    histogram = np.histogram(np.clip(scores, 0, 2), bins=100, range=(0, 2))[0].tolist()
    facts = {"dropped": counter_to_json(dropped), "kept": _group_sizes(table), "score_histogram": histogram}
    write_shard(path, table, facts)


# --- sample ----------------------------------------------------------------------------------------------------------


def draw_uniformly(sizes: list[int], count: int | None, rng: np.random.Generator) -> list[np.ndarray | None]:
    """A uniform draw without replacement from rows that lie in several shards.

    Args:
        sizes: rows of each shard.
        count: rows to draw from all together; None for all.
        rng: NumPy generator.

    Returns:
        For each shard a boolean mask of its rows, or None for all of them. How many fall on a shard is
        hypergeometric, so only one shard's rows are ever in question.
    """
    left, wanted = sum(sizes), count
    if count is None or count >= left:
        return [None] * len(sizes)
    masks = []
    for size in sizes:
        mine = int(rng.hypergeometric(size, left - size, wanted)) if wanted else 0
        mask = np.zeros(size, bool)
        mask[rng.choice(size, mine, replace=False)] = True
        masks.append(mask)
        left, wanted = left - size, wanted - mine
    return masks


def _sample(recipe: BitextRecipe, stages: Path) -> None:
    """Cap each corpus, then the whole, then draw the sample; and count tokens, bytes and lengths of what is left."""
    shards = shards_of(stages / ("score" if recipe.semantic else "deduplicate"))
    folder, start = stages / "sample", time.perf_counter()
    sizes = [read_facts(shard)["kept"] for shard in shards]
    by_corpus = {}
    for number, corpus in enumerate(sorted({corpus for size in sizes for corpus in size})):
        rng = np.random.default_rng([recipe.seed, 1, number])
        by_corpus[corpus] = draw_uniformly([size.get(corpus, 0) for size in sizes], recipe.cap_per_corpus, rng)
    left = [sum(_drawn(by_corpus[c][n], size.get(c, 0)) for c in size) for n, size in enumerate(sizes)]
    total = draw_uniformly(left, recipe.cap_total, np.random.default_rng([recipe.seed, 2]))
    left = list(map(_drawn, total, left))
    if recipe.sample is not None and recipe.sample > sum(left):
        logger.warning("sample=%d is more than the %d pairs there are; all are kept", recipe.sample, sum(left))
    sample = draw_uniformly(left, recipe.sample, np.random.default_rng([recipe.seed, 3]))
    context = FilterContext(recipe.source, recipe.target, recipe.filters, np.zeros(0, np.uint64))
    tokens = accounting.token_counter(recipe.tokenizer)
    with tqdm(total=sum(map(_drawn, sample, left)), desc="sample", unit="pair", unit_scale=True) as bar:
        for n, shard in enumerate(shards):
            path = folder / shard.name
            if not path.is_file():
                masks = {corpus: by_corpus[corpus][n] for corpus in sizes[n]}
                _sample_shard(read_shard(shard), path, masks, total[n], sample[n], recipe, context, tokens)
            bar.update(sum(read_facts(path)["kept"].values()))
    _finish("sample", folder, start)


def _sample_shard(table, path: Path, by_corpus: dict, total, sample, recipe: BitextRecipe, context, tokens) -> None:
    groups = np.array(table["corpus"].to_pylist(), dtype=object)
    dropped = Counter()
    keep = np.ones(len(table), bool)
    for corpus, mask in by_corpus.items():
        if mask is not None:
            keep[np.flatnonzero(groups == corpus)[~mask]] = False
    dropped.update((group, "corpus_cap") for group in groups[~keep])
    for name, mask in (("total_cap", total), ("sample", sample)):
        if mask is not None:
            out = np.flatnonzero(keep)[~mask]
            keep[out] = False
            dropped.update((group, name) for group in groups[out])
    table = table.filter(pa.array(keep)).drop_columns(["exact_key"])
    sources, targets = table["source"].to_pylist(), table["target"].to_pylist()
    facts = {
        "dropped": counter_to_json(dropped),
        "kept": _group_sizes(table),
        "histograms": accounting.histograms(sources, targets, context),
        "bytes": [sum(len(text.encode()) for text in side) for side in (sources, targets)],
        "tokens": [tokens(side) for side in (sources, targets)] if tokens else None,
    }
    pair = pa.StructArray.from_arrays([pa.array(sources, pa.string()), pa.array(targets, pa.string())], recipe.sides)
    table = table.drop_columns(["source", "target"]).add_column(0, "translation", pair)
    write_shard(path, table, facts)


# --- export ----------------------------------------------------------------------------------------------------------


def _export(recipe: BitextRecipe, output: Path, command: str) -> None:
    """Write the `datasets` folder, the statistics, the figure and the card; `state.json` comes last and seals it."""
    stages = output / "stages"
    arrow = stages / "arrow"
    shutil.rmtree(arrow, ignore_errors=True)
    arrow.mkdir()
    parts = []
    for shard in tqdm(shards_of(stages / "sample"), desc="export", unit="shard"):
        table = read_shard(shard).replace_schema_metadata(None)
        if len(table):
            path = arrow / f"{shard.stem}.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            parts.append(datasets.Dataset.from_file(str(path)))
    joined = datasets.concatenate_datasets(parts)
    digest = fingerprint(joined)
    # The name of the content in place of a random one: the same recipe gives the same bytes.
    joined = datasets.Dataset(joined.data, fingerprint=digest[:16])
    saved = stages / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    joined.save_to_disk(saved, num_shards=max(1, -(-len(joined) // 500_000)))
    statistics = accounting.collect(recipe, stages, digest, command)
    accounting.write_report(statistics, output)
    with written_atomically(output / "recipe.yaml") as partial:
        partial.write_text(recipe_yaml(shareable(recipe)), encoding="utf-8")
    for file in sorted(saved.iterdir(), key=lambda path: path.name == "state.json"):
        shutil.copyfile(file, stages / "copy")
        (stages / "copy").replace(output / file.name)
    logger.info("export: %d pairs in %s", len(joined), output)
