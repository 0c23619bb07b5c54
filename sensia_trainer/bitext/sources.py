"""From wherever parallel text lies to one `datasets.Dataset` with a `translation` column."""

import hashlib
import importlib.util
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..languages import codes_of, language
from .columns import sides, texts
from .readers import (
    Row,
    column_code,
    find_catalogues,
    find_column,
    read_aligned,
    read_catalogue,
    read_jsonl,
    read_tmx,
    read_tsv,
)


logger = logging.getLogger(__name__)

_FORMATS = (
    "a Hub dataset id, a folder saved by `datasets`, a .tsv(.gz) or .jsonl(.gz) file, two line-aligned text files "
    "('a.en,a.id'), a .tmx(.gz), a .po or .mo file, a folder of gettext catalogues, or an installed Python package "
    "that carries catalogues (such as 'django')"
)
_BATCH = 50_000


def load_bitext(
    path,
    source: str,
    target: str,
    *,
    split: str = "train",
    source_column: str | None = None,
    target_column: str | None = None,
    name: str | None = None,
) -> datasets.Dataset:
    """Load parallel text of any supported kind as one dataset with a column `translation`.

    Args:
        path: what to read, told apart by what is there: a Hub dataset id, a folder saved by `datasets`, a TSV(.gz)
            with a header and no quoting, a JSONL(.gz), two line-aligned files (a list, or joined by a comma, the
            source's first), a TMX(.gz), a gettext catalogue, a folder of catalogues, or a Python package that carries
            catalogues.
        source, target: language codes of any kind in `languages.py`; the sides are called by their ISO 639-1 codes.
        split: split of a dataset (`"train[:1000]"` works as on the Hub); files have no splits.
        source_column, target_column: column names, where they are not language codes.
        name: configuration of a Hub dataset; found by the two language codes (`"en-id"`) where it is not given.

    Returns:
        `datasets.Dataset` with `translation` ({"en": str, "id": str}) and every other column of the source.

    Raises:
        ValueError: no pairs, no column for a language, files of different lengths, unknown format or language.
    """
    sides = (column_code(source), column_code(target))
    if sides[0] == sides[1]:
        raise ValueError(f"source={source!r} and target={target!r} are the same language; give two languages")
    kind, where = recognise(path)
    if kind in ("saved", "hub"):
        return _load_dataset(kind, where, source, target, split, source_column, target_column, name)
    if split != "train":
        raise ValueError(f"split={split!r}: {path} is a file and has no splits; leave split='train', cut the dataset")
    problems = Counter()
    rows = iterate_rows(path, source, target, source_column, target_column, problems)
    tables = [_table(batch, sides) for batch in iter(lambda: list(itertools.islice(rows, _BATCH)), [])]
    for problem, count in problems.items():
        logger.warning("%s: %s: %d", path, problem.replace("_", " "), count)
    if not tables:
        raise ValueError(
            f"path={path!r} holds no {sides[0]}-{sides[1]} pairs ({dict(problems) or 'it is empty'}); "
            "check the file and the two language codes"
        )
    return datasets.Dataset(pa.concat_tables(tables, promote_options="permissive"))


def recognise(path) -> tuple[str, object]:
    """What kind of source a path is: (kind, where).

    The kind is "aligned", "tsv", "jsonl", "tmx", "catalogues", "saved" or "hub".
    Raises ValueError where nothing readable is there.
    """
    alone = not isinstance(path, (list, tuple)) and Path(path).exists()
    parts = [str(path)] if alone else path if isinstance(path, (list, tuple)) else str(path).split(",")
    parts = [str(part).strip() for part in parts]
    if len(parts) == 2:
        for part in parts:
            if not Path(part).is_file():
                raise ValueError(f"path={path!r}: there is no file {part!r}; two line-aligned files are expected")
        return "aligned", (Path(parts[0]), Path(parts[1]))
    if len(parts) != 1:
        raise ValueError(f"path={path!r} names {len(parts)} files; give one path, or two line-aligned files")
    where = Path(parts[0]).expanduser()
    if where.is_file():
        kinds = {".tsv": "tsv", ".jsonl": "jsonl", ".tmx": "tmx", ".po": "catalogues", ".mo": "catalogues"}
        suffix = Path(where.name.removesuffix(".gz")).suffix
        if suffix not in kinds:
            raise ValueError(f"path={path!r}: unknown format {suffix!r}; give {_FORMATS}")
        return kinds[suffix], where
    if where.is_dir():
        if (where / "state.json").is_file() or (where / "dataset_dict.json").is_file():
            return "saved", where
        if any(where.rglob("*.po")) or any(where.rglob("*.mo")):
            return "catalogues", where
        if any(where.rglob("*.parquet")) or any(where.rglob("*.arrow")):
            return "hub", where
        raise ValueError(f"path={path!r}: nothing readable in this folder; give {_FORMATS}")
    package = _package_folder(parts[0])
    if package is not None:
        return "catalogues", package
    if parts[0].startswith((".", "/", "~")) or parts[0].count("/") > 1 or not parts[0]:
        raise ValueError(f"path={path!r}: there is no such file or folder; give {_FORMATS}")
    return "hub", parts[0]


def local_files(path, source: str, target: str) -> list[Path]:
    """The files of this machine that a source is read from, sorted; none of a Hub dataset."""
    kind, where = recognise(path)
    if kind == "aligned":
        return list(where)
    where = Path(where)
    if where.is_file():
        return [where]
    if kind == "catalogues":
        return find_catalogues(where, _translated_side(where, source, target))
    # `datasets` keeps what it computes of a saved dataset in files of these names beside it.
    files = (file for file in sorted(where.rglob("*")) if not file.name.startswith(("cache-", "tmp")))
    return [file for file in files if file.is_file()]


def _check_order(files: tuple[Path, Path], source: str, target: str) -> None:
    """ValueError where the suffix of a file (text.en, text.sw.gz) is the other side's language."""
    for file, expected, other in ((files[0], source, target), (files[1], target, source)):
        suffix = Path(file.name.removesuffix(".gz")).suffix[1:]
        if suffix in codes_of(other) and suffix not in codes_of(expected):
            raise ValueError(
                f"path names {file.name} as the side in {expected!r}, but its name says {suffix!r}; give the file of "
                f"{source!r} first and that of {target!r} second"
            )


def iterate_rows(path, source, target, source_column=None, target_column=None, problems=None) -> Iterator[Row]:
    """The pairs of a source of files, streaming: `(source text, target text, other columns)`.

    Args:
        path, source, target, source_column, target_column: as for `load_bitext`.
        problems: a Counter that receives what was wrong with the file (`invalid_utf8`, `malformed_lines`, ...).
    """
    problems = Counter() if problems is None else problems
    kind, where = recognise(path)
    if kind == "tsv":
        yield from read_tsv(where, source, target, source_column, target_column, problems)
    elif kind == "jsonl":
        yield from read_jsonl(where, source, target, source_column, target_column, problems)
    elif kind == "aligned":
        _check_order(where, source, target)
        yield from read_aligned(where, problems)
    elif kind == "tmx":
        yield from read_tmx(where, source, target, problems)
    elif kind == "catalogues":
        yield from _catalogue_rows(where, source, target, problems)
    else:
        raise ValueError(f"path={path!r} is a dataset, not a file; read it with load_bitext")


def keep_rows(dataset: datasets.Dataset, conditions: dict) -> datasets.Dataset:
    """The rows whose columns have the given values: `keep_rows(bitext, {"licence_class": "open"})`.

    Args:
        dataset: any dataset.
        conditions: column name to the value wanted, or to a list of values any of which will do.

    Raises ValueError for an unknown column, or when no row is left (the values that occur are listed).
    """
    keep = np.ones(len(dataset), dtype=bool)
    for column, wanted in conditions.items():
        indices, values = _column(dataset, column)
        wanted = [str(value) for value in (wanted if isinstance(wanted, (list, tuple, set)) else [wanted])]
        keep &= np.isin(indices, [index for index, value in enumerate(values) if value in wanted])
        if not keep.any():
            there = ", ".join(f"{value!r} ({count})" for value, count in zip(values, np.bincount(indices).tolist()))
            raise ValueError(f"no row is left after {column}={wanted!r}; the column's values are: {there}")
    return dataset.select(np.flatnonzero(keep))


def cap_per_group(dataset: datasets.Dataset, column: str, maximum: int, seed: int) -> datasets.Dataset:
    """At most `maximum` rows of each value of a column, drawn uniformly without replacement; the order is kept.

    Args:
        dataset: any dataset.
        column: the column to balance by, such as `"domain"` or `"corpus"`.
        maximum: rows kept of each value (all of a value that has fewer).
        seed: of the draw.
    """
    if maximum < 1:
        raise ValueError(f"maximum={maximum}: give at least 1 row a group")
    order = np.random.default_rng(seed).permutation(len(dataset))
    values = _column(dataset, column)[0][order]
    groups = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, values[groups][1:] != values[groups][:-1]])
    rank = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return dataset.select(np.sort(order[groups[rank < maximum]]))


def fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 (64 hex digits) over the texts of a bitext in order, both sides; other columns do not count."""
    digest = hashlib.sha256()
    table = pa.table({side: texts(dataset, side) for side in sorted(sides(dataset))})
    for batch in table.to_batches(max_chunksize=_BATCH):
        parts = [part for side in batch.schema.names for part in (f"{side}\t", batch[side], "\n")]
        lines = pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="None")
        digest.update("".join(lines.to_pylist()).encode())
    return digest.hexdigest()


def _column(dataset: datasets.Dataset, column: str) -> tuple[np.ndarray, list[str]]:
    """The column as (index of the value of each row, the distinct values as text)."""
    if column not in dataset.column_names:
        raise ValueError(f"column={column!r} is not in the dataset; its columns: {', '.join(dataset.column_names)}")
    values = dataset.select_columns([column]).with_format("arrow")[:].column(0).cast(pa.string()).fill_null("None")
    encoded = values.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def _table(rows: list[Row], sides: tuple[str, str]) -> pa.Table:
    texts = [pa.array([row[side] for row in rows], pa.string()) for side in (0, 1)]
    columns = {"translation": pa.StructArray.from_arrays(texts, sides)}
    for name in dict.fromkeys(name for row in rows for name in row[2]):
        columns[name] = pa.array([row[2].get(name) for row in rows])
    return pa.table(columns)


def _translated_side(where: Path, source: str, target: str) -> str:
    """The language of the catalogues of a pair: messages are in English, and their translations in the other one."""
    english = language("en")
    if english not in (language(source), language(target)):
        raise ValueError(
            f"{where}: the messages of gettext catalogues are in English, but source={source!r} and "
            f"target={target!r}. Make one of them 'en', or read both with English and join the two on the messages"
        )
    return source if language(target) == english else target


def _catalogue_rows(where: Path, source: str, target: str, problems: Counter) -> Iterator[Row]:
    """Each pair of messages once: the catalogues of a package repeat each other's short strings."""
    code = _translated_side(where, source, target)
    catalogues = [where] if where.is_file() else find_catalogues(where, code)
    if not catalogues:
        there = sorted({path.parent.parent.name for path in where.rglob("LC_MESSAGES/*.[pm]o")})
        there = there or sorted({path.stem for path in where.rglob("*.[pm]o")})
        raise ValueError(
            f"{where} has no gettext catalogue for {code!r} (tried {', '.join(codes_of(code))}); "
            f"the languages there are: {', '.join(there)}"
        )
    seen = set()
    for path in catalogues:
        for left, right, others in read_catalogue(path, code if path == where else None, problems):
            if (left, right) not in seen:
                seen.add((left, right))
                yield (left, right, others) if code == target else (right, left, others)


def _package_folder(name: str) -> Path | None:
    """The folder of an installed package (not imported), if it carries gettext catalogues."""
    if not name.isidentifier():
        return None
    spec = importlib.util.find_spec(name)
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return next((folder for folder in folders if any(folder.rglob("LC_MESSAGES/*.[pm]o"))), None)


def _load_dataset(kind, where, source, target, split, source_column, target_column, name) -> datasets.Dataset:
    dataset = _saved(where, split) if kind == "saved" else _from_hub(where, source, target, split, name)
    if not len(dataset):
        raise ValueError(f"path={str(where)!r}, split={split!r} holds no pairs; choose another split or dataset")
    sides = (column_code(source), column_code(target))
    nested = "translation" in dataset.column_names
    there, place = (
        (list(dataset[0]["translation"]), f"`translation` of {where}") if nested else (dataset.column_names, where)
    )
    columns = (
        find_column(there, source, source_column, "source", str(place)),
        find_column(there, target, target_column, "target", str(place)),
    )
    if nested and columns == sides and len(there) == 2:
        return dataset

    def gather(batch):
        pairs = (
            [[t[c] for c in columns] for t in batch["translation"]] if nested else zip(*(batch[c] for c in columns))
        )
        return {"translation": [dict(zip(sides, pair)) for pair in pairs]}

    used = ["translation"] if nested else list(columns)
    features = {name: feature for name, feature in dataset.features.items() if name not in used}
    features["translation"] = {side: datasets.Value("string") for side in sides}
    return dataset.map(gather, batched=True, remove_columns=used, features=datasets.Features(features))


def _saved(where: Path, split: str) -> datasets.Dataset:
    dataset = datasets.load_from_disk(str(where))
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise ValueError(f"split={split!r} is not in {where}; its splits are: {', '.join(dataset)}")
        dataset = dataset[split]
    return dataset


def load_from_hub(path: str, name: str | None = None, **options):
    """`datasets.load_dataset`, by the converted copy on the branch `refs/convert/parquet` where a data set on the Hub
    still holds a loading script, which `datasets` no longer runs."""
    return _of_script_or_files(datasets.load_dataset, path, name, **options)


def _of_script_or_files(function, path: str, *arguments, **options):
    try:
        return function(path, *arguments, **options)
    except RuntimeError as error:
        if "script" not in str(error):
            raise
    return function(path, *arguments, **options, revision="refs/convert/parquet")


def _from_hub(where, source: str, target: str, split: str, name: str | None) -> datasets.Dataset:
    try:
        if name is None:
            names = _of_script_or_files(datasets.get_dataset_config_names, str(where))
            pairs = [f"{a}-{b}" for a in codes_of(source) for b in codes_of(target)]
            wanted = [*pairs, *("-".join(reversed(pair.split("-"))) for pair in pairs)]
            wanted += [pair.replace("-", joint) for pair in wanted for joint in ("_", "")]
            name = next((one for one in wanted if one in names), None)
            if name is None and len(names) > 1:
                raise ValueError(
                    f"path={where!r} has no configuration for {source}-{target}; name one of: {', '.join(names[:40])}"
                )
        return load_from_hub(str(where), name, split=split)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"path={where!r} is no file or folder here, and as a Hub dataset it failed ({error}); give {_FORMATS}"
        ) from error
