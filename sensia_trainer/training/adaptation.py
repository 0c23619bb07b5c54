"""What `sensia adapt` reads of what it is given, and what it says in the end."""

from pathlib import Path

import numpy as np
from datasets import Dataset, load_dataset
from transformers.utils import logging

from ..bitext.columns import texts
from ..bitext.flores import reported_sentences
from ..bitext.langid import in_language
from ..bitext.pairs import load_pairs, names_languages
from ..bitext.several import languages_of, load_several
from ..bitext.sources import is_hub_id
from ..bitext.streams import plain_name
from ..config import METHODS_WITHOUT_SENSES
from ..curation.contamination import evaluation_keys, is_uncontaminated, keys_of_texts
from ..evaluation.perplexity import perplexity
from ..utils.files import read_json
from ..utils.models import load_config
from ..utils.recipes import expand_variables
from .text import TEXT_SUFFIXES, read_documents


logger = logging.get_logger(__name__)


def load_bitext(data, args):
    """
    Training and held-out pairs and facts of them: [`load_pairs`], or [`load_several`] where the bitext names several
    languages, each then by the name of the pair.

    Raises:
        `ValueError`: as these, and for a `target_language` that is none of several.
    """
    if not names_languages(data.bitext):
        return load_pairs(data, args)
    train, held_out, facts = load_several(data, args)
    named = languages_of(list(train), args.source_language)["targets"]
    if args.target_language not in (None, *named):
        raise ValueError(
            f"`target_language` is {args.target_language!r}, but `bitext` names its languages itself "
            f"({', '.join(named)}); leave `target_language` out."
        )
    return train, held_out, facts


def source_fluency(model, tokenizer, held_out, args, *, bootstrap=1000) -> dict:
    """
    How well a model foretells the held-out source sentences before it is given new words, which take a share of every
    prediction: what the source language's fluency is compared with in the end.

    Args:
        model (`PreTrainedModel`), tokenizer: As they were given; the model is moved to `args.device`.
        held_out (`Dataset`, or `dict` of them by pair of languages): Held-out pairs.
        args ([`SensiaConfig`]): Languages, batch size, length.
        bootstrap (`int`, *optional*, defaults to 1000): Resamples of sentences for the intervals.

    Returns:
        `dict`: `before_source_bits_per_byte` and the like, with intervals, named as those of the trainer.
    """
    model, found = model.to(args.device), {}
    for pair, part in (held_out if isinstance(held_out, dict) else {"": held_out}).items():
        code = pair.split("-")[0] if pair else args.source_language
        sizes = {"batch_size": args.eval_batch_size, "max_length": args.max_length, "bootstrap": bootstrap}
        measured = perplexity(model, tokenizer, texts(part, code).to_pylist(), start="own", **sizes)
        prefix = f"before_{pair}_source" if pair else "before_source"
        found |= {f"{prefix}_{k}": v for k, v in measured.items() if k.startswith(("perplexity", "nll_", "bits_"))}
    return found


def load_texts(data, args, held_out):
    """
    Text that is trained on beside the pairs. What is empty, surely in another language, or shares a sentence with the
    held-out pairs or with another evaluation set is left out and counted.

    Args:
        data ([`AdaptationData`]): Where it is, and the evaluation sets.
        args ([`SensiaConfig`]): Languages.
        held_out (`Dataset`, or `dict` of them): Held-out pairs.

    Returns:
        `dict[str, Dataset]`: texts with a column `text`, by side (`"source"`, `"target"`); and facts (`dict`).

    Raises:
        `ValueError`: for files that are missing or hold no text, or text of another language, which is named.
    """
    loaded, facts, keys = {}, {}, None
    sentences = _sentences(held_out, args)
    target = next(code for code in sentences if code != args.source_language)
    codes = {"source": args.source_language, "target": target}
    for side, name, other in (("source", "replay_source", "target"), ("target", "monolingual_target", "source")):
        places = [expand_variables(place) for place in getattr(data, name) or []]
        if not places:
            continue
        if isinstance(held_out, dict) and side == "target":
            raise ValueError(
                "`monolingual_target` is text of one language, but `bitext` names several; leave it out, or adapt to "
                "one language."
            )
        if keys is None:
            keys = _evaluation_keys(data, sentences)
        if len(places) == 1 and not Path(places[0]).exists() and _may_be_on_the_hub(places[0]):
            read = load_dataset(places[0], split="train").select_columns(["text"])
        else:
            missing = [place for place in places if not Path(place).is_file()]
            if missing:
                raise ValueError(
                    f"`{name}` holds {missing[0]!r}, which is not a file. Give text files, or the id of one data set "
                    "of the Hub (`owner/name`)."
                )
            stamps = [(place, Path(place).stat().st_size, Path(place).stat().st_mtime_ns) for place in places]
            read = Dataset.from_generator(_read_texts, gen_kwargs={"stamps": stamps, "code": codes[side]})
        read = read.filter(_has_text, batched=True)
        if not len(read):
            raise ValueError(f"`{name}`={getattr(data, name)} holds no text.")
        everything = read["text"][:]
        right = in_language(everything, codes[side], codes[other], f"`{name}`")
        right = np.ones(len(read), bool) if right is None else right
        evaluated = set(sentences[codes[side]])  # short ones, which are no evidence, as they are
        clean = is_uncontaminated(everything, keys) & [text not in evaluated for text in everything]
        loaded[side] = read.select(np.flatnonzero(right & clean))
        if not len(loaded[side]):
            raise ValueError(f"Every text of `{name}`={getattr(data, name)} is in an evaluation set.")
        if not (data.evaluation_sets or data.eval_flores):
            logger.warning(
                f"`{name}` is compared with the held-out pairs only. Name what you will evaluate on, FLORES-200 among "
                "it, in `evaluation_sets`, so that none of it is trained on."
            )
        left_out = {"in other languages": int((~right).sum()), "in evaluation sets": int((right & ~clean).sum())}
        names = ", ".join(Path(place).name if Path(place).exists() else place for place in places)
        licence = {"licence": data.text_licence} if data.text_licence else {}
        facts[name.replace("_", " ")] = {"name": names, **licence, "texts": len(loaded[side]), **left_out}
    return loaded, facts


def _sentences(held_out, args):
    """Held-out sentences by language, of one bitext or of several."""
    if not isinstance(held_out, dict):
        return {code: texts(held_out, code).to_pylist() for code in (args.source_language, args.target_language)}
    found: dict[str, list] = {args.source_language: []}
    for name, part in held_out.items():
        for code in name.split("-"):
            found.setdefault(code, []).extend(texts(part, code).to_pylist())
    return found


def _evaluation_keys(data, sentences):
    """Near keys of the sentences that no text may hold: of the held-out pairs, and of the evaluation sets."""
    keys = [keys_of_texts(part) for part in sentences.values()]
    if data.eval_flores:  # its other split as well
        keys += map(keys_of_texts, reported_sentences(expand_variables(data.eval_flores), sentences).values())
    if data.evaluation_sets:
        keys.append(evaluation_keys(tuple(map(expand_variables, data.evaluation_sets)))[0])
    return np.unique(np.concatenate(keys))


def _may_be_on_the_hub(place):
    return is_hub_id(place) and Path(plain_name(place)).suffix not in TEXT_SUFFIXES


def _has_text(batch):
    return [bool(text and text.strip()) for text in batch["text"]]


def _read_texts(stamps, code):
    for place, *_ in stamps:
        yield from ({"text": text} for text in read_documents(place, tsv_column=code))


def base_model(data):
    """
    Name of the model that `data.method` adapts.

    Raises:
        `ValueError`: if the method wants a model without senses and none is given, or one with senses and the model
            has none and will not be given any, or has some and would be given others.
    """
    if data.method not in METHODS_WITHOUT_SENSES:
        has_senses = hasattr(load_config(data.model), "num_senses")
        if data.induce_steps and has_senses:
            raise ValueError(
                f"`induce_steps` is {data.induce_steps}, but `model` is {data.model!r}, which has senses already: "
                "leave it out, or train them further with `sensia induce` before."
            )
        if not data.induce_steps and not has_senses:
            raise ValueError(
                f"`model` is {data.model!r}, a language model without senses to align: give it some with "
                "`--induce_steps 500`, on the source sides, or with `sensia induce` and more text; adapt it without "
                "(`--method mcl` or `fine-tuning`, with `--dense_model`); or name a Backpack."
            )
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


def last_evaluation(history):
    """The last evaluation of a logged history, its keys as they were logged; empty without one. Of several pairs of
    languages, each has a line of the log."""
    rows = [row for row in history if any(key.startswith("eval_") for key in row)]
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    return {key: value for row in last for key, value in row.items() if key.startswith("eval_")}


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
