"""What `examples/adapt.py` reads: a base model and a bitext, parted into training and held-out pairs."""

import json
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import ClassVar

from datasets import Dataset, load_dataset

from ..bitext.columns import texts
from ..bitext.flores import load_flores
from ..bitext.langid import check_language
from ..bitext.sources import load_bitext
from ..bitext.splits import cap_per_group, fingerprint, hold_out, keep_rows, without_blanks, without_sentences_of
from ..config import METHODS, METHODS_WITHOUT_SENSES
from ..utils.files import read_json
from ..utils.recipes import expand_variables
from .text import read_documents


@dataclass
class AdaptationData:
    """
    The base model, the bitext, and the pairs that measure progress.

    `FREE` fields do not tell runs apart: what the first ones name is compared itself, see [`RunFolder.settle`].
    """

    FREE: ClassVar = (
        "model",
        "dense_model",
        "tokenizer",
        "bitext",
        "eval_bitext",
        "eval_flores",
        "licence",
        "control",
    )

    model: str = field(
        metadata={"help": "English Backpack to adapt: Hub id, folder, or the packaged backpack-micro-en."}
    )
    bitext: list[str] = field(
        metadata={
            "help": "Parallel text: a Hub dataset id, a folder saved by datasets, a TSV file whose first line names "
            "its columns by language code (en, id), a JSONL or TMX file, two line-aligned files (source first), a "
            "folder of gettext catalogues, or a Python package that carries them (django). May name environment "
            "variables: ${SENSIA_DATA}/train/en-id.tsv.gz."
        }
    )
    method: str = field(
        default="sensia",
        metadata={
            "help": "sensia; lm-only: language modelling alone, the control; fine-tuning: the same for a model "
            "without senses; mcl: dense alignment of such a model (Li et al., 2024). A method has its own defaults "
            "of some fields below; what a recipe or the command line gives goes before them."
        },
    )
    dense_model: str | None = field(
        default=None,
        metadata={
            "help": "What the methods without senses (fine-tuning, mcl) adapt instead: a causal language model, best "
            "the backbone of `model` pretrained on the same text."
        },
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Tokenizer of the model, where its folder has none: Hub id or folder."}
    )
    bitext_split: str = field(default="train", metadata={"help": "Split of a Hub or saved dataset."})
    bitext_keep: dict | str | None = field(
        default=None, metadata={"help": 'Only rows with these values, e.g. {"licence_class": "open"}.'}
    )
    bitext_cap: dict | str | None = field(
        default=None, metadata={"help": 'At most so many rows of each value of a column, e.g. {"domain": 60000}.'}
    )
    max_pairs: int | None = field(default=None, metadata={"help": "At most so many training pairs, drawn by `seed`."})
    eval_bitext: list[str] | None = field(default=None, metadata={"help": "Held-out bitext; any kind `bitext` takes."})
    eval_flores: str | None = field(
        default=None, metadata={"help": "FLORES-200 folder or Hub id instead; its dev split is used."}
    )
    held_out_pairs: int = field(
        default=200, metadata={"help": "Pairs parted from `bitext` where no held-out data is given."}
    )
    replay_source: list[str] | None = field(
        default=None,
        metadata={
            "help": "Text of the source language to train on beside the pairs, so that it is not forgotten (with "
            "`source_lm_weight`): .txt (a text a line), .jsonl (`text`) or .tsv files (the column named by the "
            "language's code), or a Hub dataset id."
        },
    )
    monolingual_target: list[str] | None = field(
        default=None, metadata={"help": "Text of the target language to train on beside the pairs; likewise."}
    )
    licence: str | None = field(
        default=None,
        metadata={
            "help": "Licence of the bitext, for the model card; a Python package that carries it names its own."
        },
    )
    control: str | None = field(
        default=None, metadata={"help": "metrics.json of the LM-only control, shown beside in the model card."}
    )

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"`method` is {self.method!r}, but must be one of {tuple(METHODS)}.")
        for name in ("bitext_keep", "bitext_cap"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, json.loads(getattr(self, name)))
        for name in ("bitext", "eval_bitext", "replay_source", "monolingual_target"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        if self.eval_bitext and self.eval_flores:
            raise ValueError("Give one of `eval_bitext` and `eval_flores`, not both.")


def load_pairs(data, args):
    """
    Training and held-out pairs, and what the model card says of them.

    Args:
        data ([`AdaptationData`]): Where they are.
        args ([`SensiaConfig`]): Languages (`target_language` must be set) and seed.

    Returns:
        Training `Dataset`, held-out `Dataset` (both with `translation`), and facts (`dict`).

    Raises:
        `ValueError`: if a source has no pairs or lacks a language, or fewer pairs remain than are held out.
    """
    if args.target_language is None:
        raise ValueError("`target_language` is not set: give the code of the language to adapt to, e.g. `id`.")
    languages = args.source_language, args.target_language
    read = _load(data.bitext, languages, data.bitext_split)
    pairs = without_blanks(read)
    licence = data.licence or _package_licence(data.bitext)
    facts = {"name": ", ".join(data.bitext), "licence": licence, "counts": {"pairs read": len(read)}}
    if len(pairs) < len(read):
        facts["counts"]["with text on both sides"] = len(pairs)
    if data.bitext_keep:
        pairs = keep_rows(pairs, data.bitext_keep)
        facts["counts"][f"kept by {json.dumps(data.bitext_keep)}"] = len(pairs)
    for column, maximum in (data.bitext_cap or {}).items():
        pairs = cap_per_group(pairs, column, maximum, args.seed)
        facts["counts"][f"at most {maximum} per {column}"] = len(pairs)
    if data.eval_flores:
        dev = load_flores(expand_variables(data.eval_flores), "dev", languages, purpose="selection")
        rows = [dict(zip(languages, pair, strict=True)) for pair in zip(*dev.values(), strict=True)]
        held_out = Dataset.from_dict({"translation": rows})
    elif data.eval_bitext:
        held_out = without_blanks(_load(data.eval_bitext, languages, data.bitext_split))
    else:
        pairs, held_out = hold_out(pairs, data.held_out_pairs, args.seed)
        facts["counts"]["held out"] = len(held_out)
    if data.eval_flores or data.eval_bitext:
        disjoint = without_sentences_of(pairs, held_out)
        if len(disjoint) < len(pairs):
            pairs = disjoint
            facts["counts"]["share no sentence with held-out pairs"] = len(pairs)
    if data.max_pairs is not None and len(pairs) > data.max_pairs:
        pairs = pairs.shuffle(seed=args.seed).select(range(data.max_pairs))
        facts["counts"][f"drawn, seed {args.seed}"] = len(pairs)
    for column, name in (("corpus", "corpora"), ("domain", "domains"), ("licence_class", "licence_classes")):
        if column in pairs.column_names:
            facts[name] = dict(Counter(pairs[column]).most_common())
    facts |= {"pairs": len(pairs), "fingerprint": fingerprint(pairs), "held_out_fingerprint": fingerprint(held_out)}
    return pairs, held_out, facts


def load_texts(data, args, held_out):
    """
    Text that is trained on beside the pairs.

    Args:
        data ([`AdaptationData`]): Where it is.
        args ([`SensiaConfig`]): Languages.
        held_out (`Dataset`): Held-out pairs, whose sentences are left out.

    Returns:
        `dict[str, Dataset]`: texts with a column `text`, by side (`"source"`, `"target"`); and facts (`dict`).

    Raises:
        `ValueError`: for files that are missing or hold no text, or text of another language, which is named.
    """
    loaded, facts = {}, {}
    for side, name, code in (
        ("source", "replay_source", args.source_language),
        ("target", "monolingual_target", args.target_language),
    ):
        places = [expand_variables(place) for place in getattr(data, name) or []]
        if not places:
            continue
        if len(places) == 1 and not Path(places[0]).exists():
            read = load_dataset(places[0], split="train").select_columns(["text"])
        else:
            missing = [place for place in places if not Path(place).is_file()]
            if missing:
                raise ValueError(f"`{name}` holds {missing[0]!r}, which is not a file.")
            stamps = [(place, Path(place).stat().st_size, Path(place).stat().st_mtime_ns) for place in places]
            read = Dataset.from_generator(_read_texts, gen_kwargs={"stamps": stamps, "code": code})
        evaluated = set(texts(held_out, code).to_pylist())
        kept = read.filter(
            lambda batch, evaluated=evaluated: [bool(t and t.strip()) and t not in evaluated for t in batch["text"]],
            batched=True,
        )
        if not len(kept):
            raise ValueError(f"`{name}`={getattr(data, name)} holds no text.")
        check_language(kept[:100]["text"], code, f"`{name}`")
        loaded[side] = kept
        facts[name.replace("_", " ")] = {"name": ", ".join(getattr(data, name)), "texts": len(kept)}
    return loaded, facts


def _read_texts(stamps, code):
    for place, *_ in stamps:
        yield from ({"text": text} for text in read_documents(place, tsv_column=code))


def held_out_name(data):
    """What a card calls the held-out pairs; empty where they were parted from the training data."""
    if data.eval_flores:
        return {"name": "FLORES-200", "split": "dev"}
    return {"name": ", ".join(data.eval_bitext)} if data.eval_bitext else {}


def base_model(data):
    """
    Name of the model that `data.method` adapts.

    Raises:
        `ValueError`: if the method wants a model without senses and none is given.
    """
    if data.method not in METHODS_WITHOUT_SENSES:
        return data.model
    if data.dense_model is None:
        raise ValueError(
            f"`method` is {data.method!r}, which adapts a model without senses, but `dense_model` is not set: give a "
            "causal language model, e.g. what pretrain_micro_gpt2 makes."
        )
    return data.dense_model


def evaluations(history):
    """The evaluations of a logged history, without their prefix: what `training_dynamics` draws."""
    rows = [row for row in history if any(key.startswith("eval_") for key in row)]
    return [{"step": row["step"]} | {k[5:]: v for k, v in row.items() if k.startswith("eval_")} for row in rows]


def read_control(path):
    """
    The `after` metrics in the metrics file of a control run; `None` without one.

    Raises:
        `ValueError`: for a file that is missing, cut short, or holds no such metrics.
    """
    if not path:
        return None
    metrics = read_json(expand_variables(path))
    if not isinstance(metrics, dict) or not isinstance(metrics.get("after"), dict):
        raise ValueError(f"`control` is {path!r}, which holds no metrics of a finished run: give its metrics.json.")
    return metrics["after"]


def summary(before, after, source, target):
    """A printed table of the held-out metrics before and after adaptation, by the names of the two languages."""
    names = {"source": source, "target": target}
    labels = {
        "sense_recall_source_to_target": "recall@1 {source} -> {target}, sense vectors",
        "sense_recall_target_to_source": "recall@1 {target} -> {source}, sense vectors",
        "context_recall_source_to_target": "recall@1 {source} -> {target}, context vectors",
        "context_recall_target_to_source": "recall@1 {target} -> {source}, context vectors",
        "overlap_recall_source_to_target": "recall@1 {source} -> {target}, token overlap (no model)",
        "overlap_recall_target_to_source": "recall@1 {target} -> {source}, token overlap (no model)",
        "sense_entropy_source": "sense entropy, {source} (nats)",
        "sense_entropy_target": "sense entropy, {target} (nats)",
        "target_perplexity": "perplexity, {target}",
        "target_bits_per_byte": "bits per byte, {target}",
        "source_bits_per_byte": "bits per byte, {source}",
    }
    rows = [(label.format(**names), before[key], after[key]) for key, label in labels.items() if key in after]
    width = max(len(label) for label, *_ in rows)
    lines = [f"{label:<{width}}  {old:>9.3f}  {new:>9.3f}" for label, old, new in rows]
    title = f"{after['pairs']} held-out pairs"
    return "\n".join([f"{title:<{width}}  {'before':>9}  {'after':>9}", *lines])


def _package_licence(paths):
    """What the one installed package that `paths` names says of its licence; `None` where it is none."""
    try:
        facts = metadata(paths[0]) if len(paths) == 1 and paths[0].isidentifier() else {}
    except PackageNotFoundError:
        return None
    return facts.get("License-Expression") or facts.get("License")


def _load(paths, languages, split):
    paths = [expand_variables(path) for path in paths]
    path = paths[0] if len(paths) == 1 else paths
    return load_bitext(path, *languages, split=split)
