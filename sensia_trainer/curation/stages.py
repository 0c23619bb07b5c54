"""The stages between corpora and dataset: filter, deduplicate, score, sample; shards in, shards out."""

import itertools
import logging
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from ..bitext.near import near_keys, text_keys
from ..bitext.readers import Row
from ..bitext.sources import recognise, refuse_mostly_malformed
from ..bitext.splits import as_written
from ..bitext.streams import Problems, refuse_other_bytes
from ..utils.files import read_json, write_json, written_atomically
from .duplicates import KEPT, NAMES, count_parts, find_duplicates
from .fetch import expected_pairs, read_corpus
from .filters import FilterContext, apply_filters, normalise, pair_keys
from .recipe import BitextRecipe, Source
from .shards import bounded_map, counter_from_json, counter_to_json, read_facts, read_shard, shards_of, write_shard
from .similarity import REFERENCE, Reference, encode_reference, load_encoder, score_pairs
from .statistics import histograms, token_counter


logger = logging.getLogger(__name__)


def filter_corpora(
    recipe: BitextRecipe, stages: Path, corpora: list[dict], context: FilterContext, num_proc: int
) -> None:
    """Normalise and filter every corpus: shards `<corpus>-<n>.parquet`, then `<corpus>.json` when it is through."""
    folder, start = stages / "filter", time.perf_counter()
    expected = [expected_pairs(source, corpus, recipe) for source, corpus in zip(recipe.sources, corpora)]
    total = sum(expected) if None not in expected else None
    with tqdm(total=total, desc="filter", unit="pair", unit_scale=True) as bar:
        for number, (source, corpus) in enumerate(zip(recipe.sources, corpora)):
            done = folder / f"{number:03d}.json"
            if corpus.get("missing"):
                continue
            if done.is_file():
                bar.update(read_json(done)["rows"])
                continue
            problems = Problems()
            everything = read_corpus(source, corpus, recipe, stages.parent, problems)
            rows = itertools.islice(everything, source.max_pairs)
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
            if source.path and recognise(source.path)[0] in ("aligned", "moses"):
                for _ in everything:  # whose end tells whether lines fit each other
                    pass
            if not read:
                what = "; ".join(problems.described()) or "it is empty"
                raise ValueError(f"corpus {source.label!r} holds no pairs ({what}); check it")
            refuse_mostly_malformed(problems, read, source.path or source.label)
            refuse_other_bytes(problems, read, source.path or source.label)
            write_json(done, {"shards": shards, "rows": read, "problems": dict(problems)})
            for problem in problems.described():
                logger.warning("%s: %s", source.label, problem)
    _finish("filter", folder, start)


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
        name: [as_written(v) for v in (value if isinstance(value, list) else [value])]
        for name, value in source.where.items()
    }
    for name in (*wanted, *columns):
        if name not in rows[0][2]:
            raise ValueError(f"{source.label}: {name!r} is not a column; there are: {', '.join(rows[0][2]) or 'none'}")
    chosen = []
    for n, (left, right, others) in enumerate(rows):
        if not all(as_written(others[name]) in values for name, values in wanted.items()):
            dropped[groups[n], "where"] += 1
        elif max(len(left), len(right)) > context.rules.side_characters:
            dropped[groups[n], "characters"] += 1
        else:
            chosen.append(n)
    groups = [groups[n] for n in chosen]
    sources = [normalise(rows[n][0], context.source) for n in chosen]
    targets = [normalise(rows[n][1], context.target) for n in chosen]
    normalised = Counter(
        (group, "normalised")
        for n, group, *pair in zip(chosen, groups, sources, targets)
        if pair != [rows[n][0], rows[n][1]]
    )
    kept, counts = apply_filters(sources, targets, groups, context)
    lengths_read = histograms(sources, targets, context)
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
    write_shard(path, table, facts | {"histograms": lengths_read, "kept": _group_sizes(table)})
    return count


def deduplicate(recipe: BitextRecipe, stages: Path) -> None:
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


def score_shards(recipe: BitextRecipe, stages: Path, encoder, accelerator) -> None:
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


def sample_pairs(recipe: BitextRecipe, stages: Path) -> None:
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
    tokens = token_counter(recipe.tokenizer)
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
        "histograms": histograms(sources, targets, context),
        "bytes": [sum(len(text.encode()) for text in side) for side in (sources, targets)],
        "tokens": [tokens(side) for side in (sources, targets)] if tokens else None,
    }
    pair = pa.StructArray.from_arrays([pa.array(sources, pa.string()), pa.array(targets, pa.string())], recipe.sides)
    table = table.drop_columns(["source", "target"]).add_column(0, "translation", pair)
    write_shard(path, table, facts)


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


def _texts(values) -> list[str | None]:
    return [None if value is None else str(value) for value in values]


def _group_sizes(table: pa.Table) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in table["corpus"].value_counts().to_pylist()}
