"""What a run trains on and measures itself with: pairs of one source or of several, chosen, held out and described."""

import dataclasses
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..languages import LANGUAGES, NO_LANGUAGES, find_language, language, other_language, parts_of
from ..utils.errors import did_you_mean
from ..utils.recipes import expand_variables
from . import store
from .catalogues import package_licence
from .columns import select_rows, sides, texts
from .flores import load_flores, reported_sentences
from .langid import check_sides
from .near import is_uncontaminated, near_keys
from .sources import DATASETS, is_structured, names_in, read_bitext, recognise
from .splits import (
    cap_per_group,
    drawn,
    fingerprint,
    hold_out,
    keep_rows,
    value_counts,
    without_blanks,
    without_sentences_of,
    without_texts,
)
from .streams import plain_name


logger = logging.getLogger(__name__)

CHOOSING = 3  # the version of what is made of the sources
SHARES = "in the language of its side"  # a fact: of each side, the share that is not surely in another language
JUDGED = 500  # pairs of which the languages are looked at
SHOWN = 20  # values of a column: crawled text may have a domain a page
DESCRIBED = {"corpus": "corpora", "domain": "domains", "licence_class": "licence_classes"}


@dataclasses.dataclass(frozen=True)
class PairSource:
    """
    One source of pairs, and which of them are taken.

    Args:
        path (`str` or `list[str]`): Anything [`read_bitext`] takes; two line-aligned files as a list. `${VARIABLE}` is
            replaced from the environment.
        name (`str`, *optional*): What cards call it, and the value of the column `corpus` in sources that have none;
            by default the path's last part.
        split, config_name (`str`, *optional*): Of a dataset.
        source_column, target_column (`str`, *optional*): Where the columns are not language codes.
        keep (`dict`, *optional*): Column to the value, or list of values, that a row must have.
        cap (`dict`, *optional*): Column to the most rows taken of each of its values.
        max_pairs (`int`, *optional*): The most rows taken of all that are left, drawn by the seed.
        licence (`str`, *optional*): Of the text; a Python package that carries it names its own.
    """

    path: str | list[str]
    name: str | None = None
    split: str | None = None
    config_name: str | None = None
    source_column: str | None = None
    target_column: str | None = None
    keep: dict = dataclasses.field(default_factory=dict)
    cap: dict = dataclasses.field(default_factory=dict)
    max_pairs: int | None = None
    licence: str | None = None

    @property
    def place(self) -> str | list[str]:
        """The path with what its variables stand for."""
        return expand_variables(self.path) if isinstance(self.path, str) else list(map(expand_variables, self.path))

    @property
    def label(self) -> str:
        first = self.path if isinstance(self.path, str) else self.path[0]
        return self.name or Path(plain_name(first.split(",")[0])).stem

    @property
    def title(self) -> str:
        """What cards call it: its name, else the path as it was given."""
        return self.name or (self.path if isinstance(self.path, str) else ", ".join(self.path))


def parse_sources(entries: list, split: str = "train", argument: str = "bitext") -> list[PairSource]:
    """
    The sources that a list names.

    Args:
        entries (`list`): A path or the fields of a [`PairSource`] (a mapping, or JSON) each. Two files of text a line
            that follow each other are one source, the source's language first.
        split (`str`): Of data sets that name none; files have none.
        argument (`str`): What errors call the list.

    Raises:
        `ValueError`: for an unknown field or a wrong value, no source, two of one name, a file of text a line alone.
    """
    sources, alone = [], None
    for entry in entries:
        if isinstance(entry, str) and entry.lstrip().startswith("{"):
            entry = parse_mapping(entry, argument)
        if isinstance(entry, dict):
            sources.append(_source(entry, argument))
            continue
        path = str(entry)
        place = Path(expand_variables(path)).expanduser()
        suffix = place.suffix[1:].lower()
        is_of_a_language = find_language(suffix) and suffix not in NO_LANGUAGES
        if "/" in path and "," not in path and is_of_a_language and not place.exists():  # no id of the Hub
            raise ValueError(f"`{argument}`: there is no file {path!r}; check the path.")
        if is_structured(expand_variables(path)):
            sources.append(PairSource(path))
        elif alone is None:
            alone = path
        else:
            sources, alone = [*sources, PairSource([alone, path])], None
    if alone is not None:
        recognise(expand_variables(alone))  # has a word about unknown formats
        raise ValueError(f"`{argument}`: {alone} is one side of two line-aligned files; give the other one after it.")
    if not sources:
        raise ValueError(f"`{argument}` is empty; give at least one source of pairs.")
    sources = [dataclasses.replace(one, split=one.split or split) if _is_dataset(one) else one for one in sources]
    labels = [source.label for source in sources]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"`{argument}` has two sources called {', '.join(twice)}; give each a `name` of its own.")
    return sources


def parse_mapping(text: str, argument: str) -> dict:
    """A mapping that is given as JSON, in which every key is named once."""

    def once(items):
        names = [name for name, _ in items]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"it names {', '.join(map(repr, twice))} twice; put both values into a list")
        return dict(items)

    try:
        return json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        raise ValueError(f"`{argument}`: {text!r} cannot be read as JSON ({error}).") from None


def _is_dataset(source: PairSource) -> bool:
    try:
        return recognise(source.place)[0] in DATASETS
    except ValueError:  # what is wrong with the place is told where it is read
        return False


def _source(values: dict, argument: str) -> PairSource:
    kinds = {field.name: field.type for field in dataclasses.fields(PairSource)}
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(
                f"`{argument}`: a source has an unknown field {name!r}.{did_you_mean(name, kinds)} Its fields are: "
                f"{', '.join(kinds)}."
            )
        if value is not None and name != "path" and not isinstance(value, kinds[name]):
            raise ValueError(f"`{argument}`: {name!r} of a source is {value!r}, but must be {kinds[name]}.")
    path = values.get("path")
    if not isinstance(path, str | list) or not path:
        raise ValueError(f"`{argument}`: a source needs a `path`, got {path!r}.")
    check_choice(values.get("keep"), values.get("cap"), argument)
    most = values.get("max_pairs")
    if most is not None and most < 1:
        raise ValueError(f"`{argument}`: `max_pairs` of a source is {most!r}; give a number of 1 or more.")
    if not re.fullmatch(r"[^\n\r<>|`]{1,200}", values.get("name") or "x"):
        raise ValueError(f"`{argument}`: name={values['name']!r} of a source is not a name; give one of plain text.")
    return PairSource(**{name: value for name, value in values.items() if value is not None})


def names_languages(entries: list | None) -> bool:
    """Whether a `bitext` is a mapping from languages (`id`) or pairs (`id-sw`) to sources, and no list of sources."""
    if not entries or len(entries) != 1 or not isinstance(entries[0], dict):
        return False
    fields = {field.name for field in dataclasses.fields(PairSource)}
    keys = set(entries[0])
    if keys & fields:
        return False
    if any(isinstance(key, bool) for key in keys):
        return True
    rows = {part: find_language(part) for key in keys for part in parts_of(key) if part not in NO_LANGUAGES}
    # `pth` is a language, too: but of those that few write, not where it is nearly the name of a field.
    near = {part for part in rows if get_close_matches(part, fields, cutoff=0.8)}
    return any(row and (row in LANGUAGES or part not in near) for part, row in rows.items())


def check_choice(keep, cap, argument: str) -> None:
    """`ValueError` for what `keep_rows` and `cap_per_group` cannot take."""
    for name, value in (("keep", keep), ("cap", cap)):
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"`{argument}`: `{name}` is {value!r}, but must be a mapping from columns.")
    for column, most in (cap or {}).items():
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise ValueError(f"`{argument}`: at most {most!r} rows of each {column!r}; give a number of 1 or more.")


def load_pairs(data, args, evaluated=None):
    """
    Training and held-out pairs, and what the model card says of them; kept for other processes and a resumed run.

    Args:
        data ([`AdaptationData`]): Where they are.
        args ([`SensiaConfig`]): Languages and seed; a `target_language` that is not set becomes the other one that
            the first source has.
        evaluated (`np.ndarray`, *optional*): Near keys of what evaluation sets hold; pairs that have one are left out.

    Returns:
        Training `Dataset`, held-out `Dataset` (both with `translation`), and facts (`dict`).

    Raises:
        `ValueError`: if a source has no pairs, lacks a language or has its sides swapped, or fewer pairs remain than
            are held out.
    """
    sources = parse_sources(data.bitext, data.bitext_split)
    whole = [source.title for source in sources if data.bitext_split != "train" and not _is_dataset(source)]
    if whole:
        logger.warning("`bitext_split` is of data sets: %s have no splits and are read whole.", ", ".join(whole))
    if args.target_language is None:
        first = sources[0]
        names = names_in(first.place, split=first.split or "train", name=first.config_name)
        args.target_language = other_language(names, args.source_language, f"`bitext` ({first.label})")
    languages = args.source_language, args.target_language
    read = [read_source(source, languages) for source in sources]
    held_out, held_out_problems = _held_out(data, languages, args.seed)
    reported = reported_sentences(expand_variables(data.eval_flores), languages) if data.eval_flores else {}
    key = [CHOOSING, [[one._fingerprint, found] for one, found in read], list(map(dataclasses.asdict, sources))]
    key += [held_out and held_out._fingerprint, languages, args.seed, data.bitext_keep, data.bitext_cap]
    key += [data.max_pairs, data.held_out_pairs, data.licence, reported, evaluated]

    def build(folder):
        counts = {"pairs read": sum(len(one) for one, _ in read)}
        parts = [chosen(one, source, args.seed) for (one, _), source in zip(read, sources)]
        pairs = parts[0]
        if len(parts) > 1:
            labels = [source.label for source in sources]
            store.write_tables(folder / "joined.arrow", _joined(labels, parts, languages))
            pairs = datasets.Dataset.from_file(str(folder / "joined.arrow"))
        blanks = sum(len(one) - len(without_blanks(one)) for one, _ in read)
        if blanks:
            counts["with text on both sides"] = counts["pairs read"] - blanks
        if len(pairs) < counts["pairs read"] - blanks:
            counts["chosen of each source"] = len(pairs)
        pairs, held = _divided(pairs, held_out, reported, evaluated, data, args.seed, counts)
        store.write_tables(folder / "train.arrow", batches(pairs))
        store.write_tables(folder / "held_out.arrow", batches(held))
        (folder / "joined.arrow").unlink(missing_ok=True)
        problems = sum((Counter(found) for _, found in read), Counter(held_out_problems))
        return {"counts": counts} | _described(pairs, held, sources, data, languages, problems)

    built: list = []
    parts, facts = store.kept(key, lambda folder: built.append(folder) or build(folder))
    for code, share in facts.get(SHARES, {}).items():
        if share < 0.5 and not built:  # where it was found, more was said
            logger.warning(f"Only {share:.0%} of the {language(code).name} side of the bitext look like it.")
    return parts["train"], parts["held_out"], facts


def read_source(source: PairSource, languages) -> tuple[datasets.Dataset, dict]:
    columns = {"source_column": source.source_column, "target_column": source.target_column}
    return read_bitext(source.place, *languages, split=source.split or "train", name=source.config_name, **columns)


def _held_out(data, languages, seed: int) -> tuple[datasets.Dataset | None, dict]:
    """The pairs that `eval_flores` or `eval_bitext` names, or None; and what was wrong with them."""
    if data.eval_flores:
        dev = load_flores(expand_variables(data.eval_flores), "dev", languages, purpose="selection")
        rows = [dict(zip(languages, pair, strict=True)) for pair in zip(*dev.values(), strict=True)]
        return datasets.Dataset.from_dict({"translation": rows}), {}
    if not data.eval_bitext:
        return None, {}
    sources = parse_sources(data.eval_bitext, data.bitext_split, "eval_bitext")
    read = [read_source(source, languages) for source in sources]
    parts = [chosen(one, source, seed).select_columns("translation") for (one, _), source in zip(read, sources)]
    pairs = datasets.concatenate_datasets(parts)
    if len(pairs):
        shares_of_languages(pairs, languages)
    return pairs, dict(sum((Counter(found) for _, found in read), Counter()))


def chosen(pairs, source: PairSource, seed: int):
    """The pairs that a source is to give: with text on both sides, of the rows it keeps, no more than it says."""
    pairs = without_blanks(pairs)
    pairs = keep_rows(pairs, source.keep) if source.keep else pairs
    for column, most in source.cap.items():
        pairs = cap_per_group(pairs, column, most, seed)
    return pairs if source.max_pairs is None else drawn(pairs, source.max_pairs, seed)


def _divided(pairs, held_out, reported, evaluated, data, seed: int, counts: dict):
    """Training and held-out pairs, with what each step left added to `counts`."""
    if data.bitext_keep:
        pairs = keep_rows(pairs, data.bitext_keep)
        counts[f"kept by {json.dumps(data.bitext_keep)}"] = len(pairs)
    for column, most in (data.bitext_cap or {}).items():
        pairs = cap_per_group(pairs, column, most, seed)
        counts[f"at most {most} per {column}"] = len(pairs)
    if evaluated is not None:
        clean = np.logical_and.reduce(
            [is_uncontaminated(texts(pairs, side).to_pylist(), evaluated) for side in sides(pairs)]
        )
        if not clean.any():
            raise ValueError("Every pair holds a sentence of `evaluation_sets`. Give other text as `bitext`.")
        if not clean.all():
            pairs = pairs.select(np.flatnonzero(clean))
            counts["share no sentence with evaluation sets"] = len(pairs)
    if held_out is None:
        pairs, held_out = hold_out(pairs, data.held_out_pairs, seed)
        counts["held out"] = len(held_out)
    else:
        disjoint = without_sentences_of(pairs, held_out)
        disjoint = without_texts(disjoint, {code: near_keys(lines, numbers=True) for code, lines in reported.items()})
        if len(disjoint) < len(pairs):
            pairs = disjoint
            counts["share no sentence with held-out pairs"] = len(pairs)
    if data.max_pairs is not None and len(pairs) > data.max_pairs:
        pairs = drawn(pairs, data.max_pairs, seed)
        counts[f"drawn, seed {seed}"] = len(pairs)
    return pairs, held_out


def _joined(labels: list[str], parts: list[datasets.Dataset], languages) -> Iterator[pa.Table]:
    """The rows of several sources under the same columns: the sides, `corpus`, and what else any of them has, as
    text."""
    names = dict.fromkeys(["corpus"])
    for part in parts:
        names |= {
            field.name: None
            for field in part.data.schema
            if field.name != "translation"
            and not pa.types.is_nested(field.type)
            and not pa.types.is_binary(field.type)
        }
    for label, part in zip(labels, parts):
        for table in batches(part):
            pairs = [pc.struct_field(table["translation"].combine_chunks(), one) for one in languages]
            columns = {"translation": pa.StructArray.from_arrays([one.cast(pa.string()) for one in pairs], languages)}
            for name in names:
                there = name in table.column_names
                columns[name] = table[name].cast(pa.string()) if there else pa.nulls(len(table), pa.string())
            if "corpus" not in table.column_names:
                columns["corpus"] = pa.array([label] * len(table), pa.string())
            yield pa.table(columns)


def batches(dataset: datasets.Dataset, size: int = 50_000) -> Iterator[pa.Table]:
    """The rows of a dataset in order, some at a time; of its rows alone where it is a selection of a larger one."""
    table, chosen = dataset.data.table, dataset._indices
    rows = np.arange(len(table)) if chosen is None else chosen.column(0).to_numpy()
    if (rows[1:] < rows[:-1]).any():
        table, rows = select_rows(table, rows), np.arange(len(rows))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield select_rows(table.slice(part[0], part[-1] - part[0] + 1), part - part[0])


def _described(pairs, held_out, sources, data, languages, problems) -> dict:
    """What the card says of the pairs."""
    licences = {one.label: one.licence or data.licence or package_licence(str(one.place)) for one in sources}
    facts = {
        "name": ", ".join(one.title for one in sources),
        **licence_facts(licences),
        "pairs": len(pairs),
        "fingerprint": fingerprint(pairs),
        "held_out_fingerprint": fingerprint(held_out),
    }
    facts |= kinds_of(pairs)
    if problems:
        facts["met while reading"] = {name.replace("_", " "): count for name, count in problems.items()}
    if shares := shares_of_languages(pairs, languages):
        facts[SHARES] = {code: round(share, 3) for code, share in shares.items()}
    return facts


def shares_of_languages(pairs, languages) -> dict[str, float]:
    """Of a sample of pairs, what share of each side is in its language, see [`check_sides`], which refuses swapped
    sides and sides without words."""
    sample = pairs.select(np.unique(np.linspace(0, len(pairs) - 1, JUDGED).astype(int)))
    return check_sides(*(texts(sample, one).to_pylist() for one in languages), *languages)


def licence_facts(licences: dict[str, str | None]) -> dict:
    """What a card says of the licences of several texts by name: one that nobody stated makes the whole unknown."""
    known = list(dict.fromkeys(licences.values()))
    facts: dict = {"licence": None if None in known else "; ".join(known)}
    return facts | ({"licences": {k: v or "not stated" for k, v in licences.items()}} if len(known) > 1 else {})


def kinds_of(pairs) -> dict[str, dict[str, int]]:
    """How many pairs are of which corpus, domain and class of licence, where columns say so."""
    found = {}
    for column, name in DESCRIBED.items():
        if column in pairs.column_names and not pa.types.is_nested(pairs.data.schema.field(column).type):
            counts = list(value_counts(pairs, column).items())
            found[name] = dict(counts[:SHOWN])
            if len(counts) > SHOWN:
                found[name]["others"] = sum(count for _, count in counts[SHOWN:])
    return found


def held_out_name(data) -> dict:
    """What a card calls the held-out pairs; empty where they are a part of the training data."""
    if data.eval_flores:
        return {"name": "FLORES-200", "split": "dev"}
    if not data.eval_bitext:
        return {}
    entries = data.eval_bitext
    if names_languages(entries):
        parts = [part if isinstance(part, list) else [part] for part in entries[0].values()]
        titles = [one.title for part in parts for one in parse_sources(part, data.bitext_split, "eval_bitext")]
    else:
        titles = [one.title for one in parse_sources(entries, data.bitext_split, "eval_bitext")]
    return {"name": ", ".join(dict.fromkeys(titles))}
