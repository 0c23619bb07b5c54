"""From wherever parallel text lies to one `datasets.Dataset` with a `translation` column."""

import csv
import glob
import itertools
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..languages import codes_of
from . import store
from .catalogues import catalogue_rows, find_catalogues, package_folder, translated_side
from .columns import sides
from .hub_data import hub_configurations, load_hub
from .readers import (
    Row,
    check_order,
    column_code,
    csv_reader,
    find_column,
    moses_members,
    read_aligned,
    read_csv,
    read_jsonl,
    read_moses,
    read_tsv,
    side_name,
    unquoted,
)
from .streams import (
    COMPRESSED,
    Problems,
    is_zip,
    open_binary,
    open_zip,
    plain_name,
    refuse_other_bytes,
    refuse_other_encodings,
    zip_names,
)
from .tmx import read_tmx


logger = logging.getLogger(__name__)

KINDS = {".tsv": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
KINDS |= {".tmx": "tmx", ".po": "catalogues", ".mo": "catalogues", ".parquet": "parquet"}
DATASETS = ("saved", "hub", "parquet")  # the kinds that `datasets` reads
_FORMATS = (
    "a Hub dataset id, a folder saved by `datasets`, a .tsv, .csv, .jsonl, .parquet or .tmx file, two line-aligned "
    "text files ('a.en,a.id') or a .zip of two, a .po or .mo file, a folder of gettext catalogues, or an installed "
    "Python package that carries catalogues (such as 'django'); text may be compressed (.gz, .xz, .bz2, .zst)"
)
READING = 2  # the version of what is made of a file; another one is read again
_BATCH = 50_000


def load_bitext(path, source: str, target: str, **options) -> datasets.Dataset:
    """Parallel text of any supported kind as one dataset with a column `translation`; see [`read_bitext`]."""
    return read_bitext(path, source, target, **options)[0]


def read_bitext(
    path,
    source: str,
    target: str,
    *,
    split: str = "train",
    source_column: str | None = None,
    target_column: str | None = None,
    name: str | None = None,
) -> tuple[datasets.Dataset, dict[str, int]]:
    """
    Parallel text of any supported kind as one dataset with a column `translation`, and what was wrong with it.

    What a file holds is kept in the cache of `datasets`, and read from there as long as the file is the same.

    Args:
        path: What to read, told apart by what is there: a Hub dataset id; a folder saved by `datasets`; a TSV (with a
            header), CSV, JSONL, Parquet or TMX file; two line-aligned files (a list, or joined by a comma, the
            source's first), or a zip of them as OPUS has it; a gettext catalogue, a folder of catalogues, or a Python
            package that carries catalogues. What text is compressed with is told by its content.
        source, target (`str`): Language codes of any kind; the sides are called by their ISO 639-1 codes.
        split (`str`): Split of a dataset (`"train[:1000]"` works as on the Hub); files have no splits.
        source_column, target_column (`str`, *optional*): Column names, where they are not language codes.
        name (`str`, *optional*): Configuration of a Hub dataset; found by the two language codes (`"en-id"`) where it
            is not given.

    Returns:
        `datasets.Dataset` with `translation` ({"en": str, "id": str}) and every other column of the source; and what
        was met while reading, by kind (`{"malformed_lines": 3}`).

    Raises:
        `ValueError`: no pairs, no column for a language, files of different lengths, more malformed lines than others,
            unknown format or language.
    """
    languages = (column_code(source), column_code(target))
    if languages[0] == languages[1]:
        raise ValueError(f"source={source!r} and target={target!r} are the same language; give two languages")
    kind, where = recognise(path)
    if kind in DATASETS:
        return _load_dataset(kind, where, source, target, split, source_column, target_column, name), {}
    if split != "train":
        raise ValueError(f"split={split!r}: {path} is a file and has no splits; leave split='train', cut the dataset")

    def build(folder):
        problems = Problems()
        rows = iterate_rows(path, source, target, source_column, target_column, problems)
        count = store.write_tables(folder / "pairs.arrow", _tables(rows, languages, problems))
        if not count:
            raise ValueError(
                f"path={str(path)!r} holds no {languages[0]}-{languages[1]} pairs "
                f"({'; '.join(problems.described()) or 'it is empty'}); check the file and the two language codes"
            )
        refuse_mostly_malformed(problems, count, path)
        refuse_other_bytes(problems, count, path)
        return {"problems": dict(problems), "described": problems.described()}

    files = local_files(path, source, target)
    key = [str(path), *map(store.identity, files), source, target, source_column, target_column, READING]
    parts, facts = store.kept(key, build)
    for problem in facts["described"]:
        logger.warning("%s: %s", path, problem)
    return parts["pairs"], facts["problems"]


def refuse_mostly_malformed(problems: Problems, count: int, path) -> None:
    """`ValueError` where a file has more malformed lines than pairs."""
    if problems["malformed_lines"] > count:
        raise ValueError(
            f"path={str(path)!r} has {problems['malformed_lines']:,} malformed lines beside {count:,} pairs "
            f"({'; '.join(problems.described())}); every line must have the fields that the first one names"
        )


def recognise(path) -> tuple[str, object]:
    """
    What kind of source a path is: (kind, where).

    The kind is "aligned", "moses", "tsv", "csv", "jsonl", "tmx", "catalogues", "parquet", "saved" or "hub".
    Raises ValueError where nothing readable is there.
    """
    alone = not isinstance(path, (list, tuple)) and _exists(path)
    parts = [str(path)] if alone else path if isinstance(path, (list, tuple)) else str(path).split(",")
    parts = [str(part).strip() for part in parts]
    if len(parts) == 2:
        for part in parts:
            if not Path(part).expanduser().is_file():
                raise ValueError(f"path={path!r}: there is no file {part!r}; two line-aligned files are expected")
        if any(map(is_structured, parts)):
            raise ValueError(
                f"path={path!r}: a file that holds both languages is not a side of two line-aligned files; give each "
                "such file alone"
            )
        return "aligned", tuple(Path(part).expanduser() for part in parts)
    if len(parts) != 1:
        raise ValueError(f"path={path!r} names {len(parts)} files; give one path, or two line-aligned files")
    where = Path(parts[0]).expanduser()
    if where.is_file():
        return _kind_of_file(where, path), where
    if where.is_dir():
        if (where / "state.json").is_file() or (where / "dataset_dict.json").is_file():
            return "saved", where
        if any(where.rglob("*.po")) or any(where.rglob("*.mo")):
            return "catalogues", where
        if any(where.rglob("*.parquet")) or any(where.rglob("*.arrow")):
            return "hub", where
        raise ValueError(f"path={path!r}: nothing readable in this folder; give {_FORMATS}")
    package = package_folder(parts[0])
    if package is not None:
        return "catalogues", package
    if not is_hub_id(parts[0]):
        is_address = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", parts[0])
        why = "addresses are not fetched; download it" if is_address else "there is no such file or folder"
        raise ValueError(f"path={path!r}: {why}; give {_FORMATS}")
    return "hub", parts[0]


def _exists(path) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a home of nobody
        raise ValueError(f"path={str(path)[:99]!r} is not a path: {error}") from error


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository: `owner/name` or `name`; a path, a URL or a scheme never is."""
    is_file_name = Path(plain_name(name)).suffix.lower() in KINDS
    return not is_file_name and re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name) is not None


def is_structured(path) -> bool:
    """Whether a path names one file or folder that holds both languages, and not one side of two aligned files."""
    place = Path(path).expanduser()
    return not place.is_file() or Path(plain_name(place)).suffix.lower() in KINDS or is_zip(place)


def _kind_of_file(where: Path, path) -> str:
    suffix = Path(plain_name(where)).suffix.lower()
    if is_zip(where):
        names = _zip_members(where)
        if "[Content_Types].xml" in names:
            raise ValueError(f"path={str(path)!r} is a spreadsheet or a document; save it as CSV or TSV")
        if len(names) != 1:
            return "moses"
        suffix = Path(names[0]).suffix.lower()
    if suffix not in KINDS:
        raise ValueError(f"path={str(path)!r}: unknown format {suffix!r}; give {_FORMATS}")
    if KINDS[suffix] in ("catalogues", "parquet") and (is_zip(where) or where.suffix.lower() in COMPRESSED):
        raise ValueError(f"path={str(path)!r}: a {suffix} file is not read while it is packed; unpack it")
    return KINDS[suffix]


def _zip_members(where: Path) -> list[str]:
    with open_zip(where) as archive:
        return zip_names(archive, where)


def local_files(path, source: str, target: str) -> list[Path]:
    """The files of this machine that a source is read from, sorted; none of a Hub dataset."""
    kind, where = recognise(path)
    if kind == "aligned":
        return list(where)
    where = Path(where)
    if where.is_file():
        return [where]
    if kind == "catalogues":
        return find_catalogues(where, translated_side(where, source, target))
    # `datasets` keeps what it computes of a saved dataset in files of these names beside it.
    files = (file for file in sorted(where.rglob("*")) if not file.name.startswith(("cache-", "tmp")))
    return [file for file in files if file.is_file()]


def names_in(path, *, split: str = "train", name: str | None = None) -> list[str]:
    """The names in a source that may be language codes: of columns, keys of `translation`, files or folders."""
    kind, where = recognise(path)
    if kind in ("aligned", "moses"):
        files = list(where) if kind == "aligned" else _zip_members(where)
        return [side_name(file) for file in files]
    if kind == "catalogues":
        files = [where] if where.is_file() else list(where.rglob("*.[pm]o"))
        return sorted({"en", *(part for file in files for part in (file.stem, *file.relative_to(where.parent).parts))})
    if kind in DATASETS:
        dataset = _saved(where, split) if kind == "saved" else _by_datasets(kind, where, "", "", split, name)
        return sides(dataset) if _is_nested(dataset) else dataset.column_names
    if kind != "tmx":
        refuse_other_encodings(where)
    with open_binary(where) as handle:
        head = handle.read(1 << 20).decode("utf-8-sig", "replace")
    if kind == "tmx":
        return sorted(set(re.findall(r"""\blang\s*=\s*["']([\w-]+)""", head)))
    first = head.partition("\n")[0].strip("\r")
    if kind == "jsonl":
        first = head.lstrip().partition("\n")[0]
        try:
            record = json.loads(first)
        except (ValueError, RecursionError):
            return []
        record = record.get("translation", record) if isinstance(record, dict) else {}
        return list(record) if isinstance(record, dict) else []
    if kind == "tsv":
        return [unquoted(field) for field in first.split("\t")]
    try:
        return next(csv_reader([first]), [])
    except csv.Error:
        return []


def iterate_rows(path, source, target, source_column=None, target_column=None, problems=None) -> Iterator[Row]:
    """The pairs of a source of files, streaming: `(source text, target text, other columns)`.

    Args:
        path, source, target, source_column, target_column: as for `read_bitext`.
        problems: receives what was wrong with the file (`invalid_utf8`, `malformed_lines`, ...).
    """
    problems = Problems() if problems is None else problems
    kind, where = recognise(path)
    tables = {"tsv": read_tsv, "csv": read_csv, "jsonl": read_jsonl}
    if kind in tables:
        yield from tables[kind](where, source, target, source_column, target_column, problems)
    elif kind == "aligned":
        check_order(where, source, target)
        yield from read_aligned(where, problems)
    elif kind == "moses":
        yield from read_moses(where, moses_members(where, codes_of(source), codes_of(target)), problems)
    elif kind in ("tmx", "catalogues"):
        yield from (read_tmx if kind == "tmx" else catalogue_rows)(where, source, target, problems)
    else:
        raise ValueError(f"path={path!r} is a dataset, not a file; read it with load_bitext")


def _tables(rows: Iterator[Row], languages: tuple[str, str], problems: Problems) -> Iterator[pa.Table]:
    """The rows, some at a time, with the columns and types that the first ones have."""
    types = None
    for batch in iter(lambda: list(itertools.islice(rows, _BATCH)), []):
        texts = [pa.array([row[side] for row in batch], pa.string()) for side in (0, 1)]
        columns = {"translation": pa.StructArray.from_arrays(texts, languages)}
        if types is None:
            names = dict.fromkeys(name for row in batch for name in row[2] if name != "translation")  # the pairs' own
            types = {name: _type([row[2].get(name) for row in batch]) for name in names}
        for name, kind in types.items():
            columns[name] = _column([row[2].get(name) for row in batch], kind, name, problems)
        yield pa.table(columns)


def _type(values: list) -> type:
    """Whole numbers, numbers or truth values where all are, else text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 and kinds <= {int, float, bool} else str


def _column(values: list, kind: type, name: str, problems: Problems) -> pa.Array:
    fits = {int: (int,), float: (int, float), bool: (bool,)}.get(kind)
    if fits is None:
        texts = (value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False) for value in values)
        return pa.array(texts, pa.string())
    limit = 2**63 if kind is int else float("inf")
    good = [value if type(value) in fits and -limit <= value < limit else None for value in values]
    lost = sum(value is not None for value in values) - sum(value is not None for value in good)
    if lost:
        problems[f"values_of_another_type_in_{name}"] += lost
    return pa.array(good, {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[kind])


def _load_dataset(kind, where, source, target, split, source_column, target_column, name) -> datasets.Dataset:
    if kind == "saved":
        dataset = _saved(where, split)
    else:
        dataset = _by_datasets(kind, where, source, target, split, name)
    if not len(dataset):
        raise ValueError(f"path={str(where)!r}, split={split!r} holds no pairs; choose another split or dataset")
    languages = (column_code(source), column_code(target))
    nested = "translation" in dataset.column_names and pa.types.is_struct(
        dataset.data.schema.field("translation").type
    )
    there, place = (sides(dataset), f"`translation` of {where}") if nested else (dataset.column_names, where)
    columns = (
        find_column(there, source, source_column, "source", str(place)),
        find_column(there, target, target_column, "target", str(place)),
    )
    plain = {one: datasets.Value("string") for one in languages}  # `Translation` is the same, but joins no other
    if nested and columns == languages and len(there) == 2 and dataset.features["translation"] == plain:
        return dataset

    def gather(table):
        fields = table["translation"].combine_chunks() if nested else table
        texts = [(pc.struct_field(fields, one) if nested else fields[one].combine_chunks()) for one in columns]
        pairs = pa.StructArray.from_arrays([text.cast(pa.string()) for text in texts], languages)
        kept = table.drop_columns(used)
        return kept.add_column(0, "translation", pairs)

    # A column of that name is the pairs' own place.
    used = ["translation"] if nested else [*columns, *({"translation"} & set(there))]
    features = {name: feature for name, feature in dataset.features.items() if name not in used}
    features = {"translation": {side: datasets.Value("string") for side in languages}} | features
    gathered = dataset.with_format("arrow").map(
        gather, batched=True, batch_size=_BATCH, features=datasets.Features(features), remove_columns=used
    )
    return gathered.with_format(None)


def _is_nested(dataset: datasets.Dataset) -> bool:
    there = "translation" in dataset.column_names
    return there and pa.types.is_struct(dataset.data.schema.field("translation").type)


def _saved(where: Path, split: str) -> datasets.Dataset:
    saved = datasets.load_from_disk(str(where))
    saved = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    name, _, part = split.partition("[")
    if name not in saved:
        raise ValueError(f"split={split!r} is not in {where}; its splits are: {', '.join(saved)}")
    if not part:
        return saved[name]
    try:
        (rows,) = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(saved[name])})
    except (ValueError, AssertionError) as error:
        raise ValueError(f"split={split!r} cannot be read ({error}); give such as {name}[:1000].") from error
    return saved[name].select(range(rows.from_ or 0, len(saved[name]) if rows.to is None else rows.to))


def _by_datasets(kind: str, where, source: str, target: str, split: str, name: str | None) -> datasets.Dataset:
    try:
        if kind == "parquet":
            return datasets.load_dataset("parquet", data_files={"train": glob.escape(str(where))}, split=split)
        if name is None and source:
            names = hub_configurations(str(where))
            pairs = [f"{a}-{b}" for a in codes_of(source) for b in codes_of(target)]
            wanted = [*pairs, *("-".join(reversed(pair.split("-"))) for pair in pairs)]
            wanted += [pair.replace("-", joint) for pair in wanted for joint in ("_", "")]
            name = next((one for one in wanted if one in names), None)
            if name is None and len(names) > 1:
                raise ValueError(
                    f"path={where!r} has no configuration for {source}-{target}; name one of: {', '.join(names[:40])}"
                )
        return load_hub(str(where), name, split)
    except (OSError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        what = (
            "the file is damaged"
            if kind == "parquet"
            else "it is not a file or folder here, and as a Hub dataset it failed"
        )
        if str(where).isidentifier():
            what = f"{what}, and no Python package of that name is installed (`pip install {where}`)"
        raise ValueError(f"path={str(where)!r}: {what} ({error}); give {_FORMATS}") from error
