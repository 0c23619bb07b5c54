"""From corpora to one clean dataset: retrieve, filter, deduplicate, score, sample, export (Appendix D).

Every stage reads the shards of the one before and writes its own into `<output>/stages/<stage>/`, each complete or
absent. A run that was stopped, however hard, goes on from the last complete shard when it is started again, and gives
the same bytes as one that was not; it is refused where the recipe or a file has changed meanwhile. Memory holds a few
shards, whatever the size of the corpora, but for one byte a pair and a part of the keys in deduplication
(`duplicates.py`).
"""

import dataclasses
import logging
import re
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
from tqdm import tqdm

from ..bitext.splits import fingerprint
from ..utils.files import plain, read_json, write_json, write_text
from . import data_card, statistics
from .contamination import evaluation_keys
from .fetch import changed_files, digests, input_files, look_up, retrieve
from .filters import FilterContext, keep_languages, with_length_bounds
from .recipe import BitextRecipe, recipe_yaml, shareable
from .shards import read_shard, shards_of, write_shard
from .similarity import require_encoder
from .stages import deduplicate, filter_corpora, sample_pairs, score_shards


logger = logging.getLogger(__name__)

# What a killed run was writing into the folder, as `written_atomically` calls it.
_PARTIAL = re.compile(r"(recipe\.(json|yaml)|README\.md|statistics\.(json|md)|lengths\.(png|svg))\.\d+\.part")


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
        `ValueError`: bad input, an output folder of another recipe or of files that have changed since, or no pair
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
            found = look_up(recipe)
            if recipe.semantic is not None and encoder is None:
                require_encoder(recipe.semantic.encoder)
            context = _filter_context(recipe, stages)
            corpora = retrieve(recipe, found, output, allow_missing)
            filter_corpora(recipe, stages, corpora, context, num_proc)
            deduplicate(recipe, stages)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    if not (output / "state.json").is_file():
        if recipe.semantic is not None:
            score_shards(recipe, stages, encoder, accelerator)
        if accelerator is not None:
            accelerator.wait_for_everyone()
        if is_main:
            sample_pairs(recipe, stages)
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
    partials = [file for file in output.glob("*.part") if _PARTIAL.fullmatch(file.name)]
    if not there.is_file() and output.is_dir() and set(output.iterdir()) - set(partials):
        raise ValueError(
            f"output_dir={str(output)!r} is not empty and holds no bitext of this recipe; give another folder"
        )
    is_done = (output / "state.json").is_file()
    other = {"files": {}} | (read_json(there) if there.is_file() else {})
    files = input_files(recipe)
    resolved = dataclasses.replace(recipe, filters=with_length_bounds(recipe.filters, *recipe.sides))
    mine = plain(resolved) | {"files": digests(files)}
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
    for partial in partials:
        partial.unlink(missing_ok=True)
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
    data_card.write_report(statistics.collect(recipe, stages, digest, command), output)
    write_text(output / "recipe.yaml", recipe_yaml(shareable(recipe)))
    for file in sorted(saved.iterdir(), key=lambda path: path.name == "state.json"):
        shutil.copyfile(file, stages / "copy")
        (stages / "copy").replace(output / file.name)
    logger.info("export: %d pairs in %s", len(joined), output)
