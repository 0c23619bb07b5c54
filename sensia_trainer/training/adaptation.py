"""What `sensia adapt` reads of what it is given, and what it says in the end."""

import hashlib
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Features, Value
from datasets.exceptions import DatasetsError
from datasets.fingerprint import Hasher
from transformers.utils import logging

from ..bitext import store
from ..bitext.columns import texts
from ..bitext.flores import reported_sentences
from ..bitext.hub_data import load_hub
from ..bitext.langid import MIN_BYTES, can_tell, elsewhere, refuse_elsewhere
from ..bitext.near import is_uncontaminated
from ..bitext.pairs import load_pairs, names_languages
from ..bitext.several import languages_of, load_several
from ..bitext.sources import is_hub_id, names_in
from ..bitext.streams import Problems, plain_name, refuse_other_bytes, refuse_other_encodings
from ..config import METHODS_WITHOUT_SENSES
from ..curation.contamination import evaluation_keys, keys_of_texts
from ..evaluation.perplexity import perplexity
from ..languages import in_language, language
from ..utils.files import METRICS_FILE, read_json
from ..utils.models import load_config
from ..utils.recipes import expand_variables
from .text import TEXT_SUFFIXES, read_documents


logger = logging.get_logger(__name__)


def load_bitext(data, args):
    """
    Training and held-out pairs and facts of them: [`load_pairs`], or [`load_several`] where the bitext names several
    languages, each then by the name of the pair. No pair has a sentence of `evaluation_sets`.

    Raises:
        `ValueError`: as these, and for a `target_language` that is none of several.
    """
    evaluated = _keys_of_sets(data) if data.evaluation_sets else None
    if not names_languages(data.bitext):
        return load_pairs(data, args, evaluated)
    train, held_out, facts = load_several(data, args, evaluated)
    named = languages_of(list(train), args.source_language)["targets"]
    if args.target_language not in (None, *named):
        raise ValueError(
            f"`target_language` is {args.target_language!r}, but `bitext` names its languages itself "
            f"({', '.join(named)}); leave `target_language` out, or where a recipe sets it, give `--target_language "
            "null`."
        )
    return train, held_out, facts


def source_fluency(model, tokenizer, held_out, args, *, bootstrap=1000) -> dict:
    """
    How well a model predicts the held-out source sentences before it is given new words, which take a share of every
    prediction: what the source language's fluency is compared with in the end.

    Args:
        model (`PreTrainedModel`), tokenizer: As they were given; the model is moved to `args.device`.
        held_out (`Dataset`, or `dict` of them by pair of languages): Held-out pairs.
        args ([`SensiaConfig`]): Languages, batch size, length.
        bootstrap (`int`, *optional*, defaults to 1000): Resamples of sentences for the intervals.

    Returns:
        `dict`: `before_source_bits_per_byte` and the like, with intervals, named as those of the trainer and in the
        precision of training, as they are.
    """
    model, found = model.to(args.device), {}
    for pair, part in (held_out if isinstance(held_out, dict) else {"": held_out}).items():
        code = pair.split("-")[0] if pair else args.source_language
        sizes = {"batch_size": args.eval_batch_size, "max_length": args.max_length, "bootstrap": bootstrap}
        with torch.autocast(args.device.type, torch.bfloat16 if args.bf16 else torch.float16, args.bf16 or args.fp16):
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
        places = _places(data, name)
        if not places:
            continue
        if isinstance(held_out, dict) and side == "target":
            raise ValueError(
                "`monolingual_target` is text of one language, but `bitext` names several; leave it out, or adapt to "
                "one language."
            )
        if keys is None:
            keys = _evaluation_keys(data, sentences)
        try:
            read, problems = _read_texts(places, codes[side])
        except ValueError as error:
            raise ValueError(f"`{name}`: {error}") from error
        for problem in problems["described"]:
            logger.warning(f"`{name}`: {problem}")
        judged = _judged(read, codes[side], codes[other], sentences[codes[side]], keys, f"`{name}`")
        found = {row["values"]: row["counts"] for row in judged.data["elsewhere"].value_counts().to_pylist()}
        refuse_elsewhere(found, codes[side], f"`{name}`")
        short = found.get(None, 0)
        if short > len(read) / 2 and can_tell((codes[side],), f"`{name}`"):
            logger.warning(
                f"`{name}`: {short:,} of {len(read):,} texts are of less than {MIN_BYTES} bytes, too short to tell "
                "what language they are in; they are taken as they are."
            )
        clean = judged.data["clean"].to_numpy()
        right = pc.equal(judged.data["elsewhere"].fill_null(""), "").to_numpy()
        loaded[side] = read.select(np.flatnonzero(right & clean))
        if not len(loaded[side]):
            raise ValueError(f"Every text of `{name}`={getattr(data, name)} is in an evaluation set.")
        compared = bool(data.evaluation_sets or data.eval_flores)
        if not compared:
            logger.warning(
                f"`{name}` is compared with the held-out pairs only. Name what you will evaluate on, FLORES-200 among "
                "it, in `evaluation_sets`, so that none of it is trained on."
            )
        where = "in evaluation sets" if compared else "in held-out pairs"
        left_out = {"in other languages": int((~right).sum())} if can_tell((codes[side],), f"`{name}`") else {}
        left_out[where] = int((right & ~clean).sum())
        names = ", ".join(Path(place).name if Path(place).exists() else place for place in places)
        licence = {"licence": data.text_licence} if data.text_licence else {}
        described = {"name": names, **licence, "texts": len(loaded[side]), **left_out, **problems["counts"]}
        facts[name.replace("_", " ")] = described
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
        keys.append(_keys_of_sets(data))
    return np.unique(np.concatenate(keys))


def _keys_of_sets(data):
    return evaluation_keys(tuple(map(expand_variables, data.evaluation_sets)))[0]


def _judged(read, code, other, evaluated, keys, what):
    """Of each text, by columns: what language it is in instead ([`elsewhere`]), and whether it is `clean`: it shares
    no key with evaluation sets and is no held-out sentence as it is, for the short ones have no key."""
    evaluated, told = set(evaluated), can_tell((code,), what)

    def judge(batch):
        clean = is_uncontaminated(batch["text"], keys) & [text not in evaluated for text in batch["text"]]
        found = elsewhere(batch["text"], code, other) if told else [None] * len(clean)
        return {"elsewhere": found, "clean": clean}

    judging = ("judge 2", read._fingerprint, code, other, told, sorted(evaluated), keys)
    return read.map(
        judge,
        batched=True,
        remove_columns=["text"],
        features=Features({"elsewhere": Value("string"), "clean": Value("bool")}),
        new_fingerprint=Hasher.hash(judging),
        desc="checking text beside the pairs",
    )


def some_texts(data, name, code, number) -> list[str]:
    """The first `number` texts of each file of `replay_source` or `monolingual_target`, without any check; none of a
    data set of the Hub. Raises as [`load_texts`]."""
    try:
        return [text for file in _files(_places(data, name)) for text in islice(_texts_of(file, code), number)]
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error


def _places(data, name):
    return [expand_variables(place) for place in getattr(data, name) or []]


def _files(places) -> list[Path]:
    """The files that text lies in; none of a data set of the Hub."""
    files = [Path(place).expanduser() for place in places]
    repository = places[0].partition(":")[0]
    on_hub = is_hub_id(repository) and Path(plain_name(repository)).suffix not in TEXT_SUFFIXES
    if len(places) == 1 and on_hub and not files[0].exists():
        return []
    missing = [place for place, file in zip(places, files, strict=True) if not file.is_file()]
    if missing:
        raise ValueError(
            f"{missing[0]!r} is not a file. Give text files, or the id of one data set of the Hub (`owner/name`, or "
            "`owner/name:configuration`)."
        )
    return files


def _read_texts(places, code):
    """Text as a dataset with a column `text`, and what was wrong with it: `counts` by kind, and `described`."""
    files = _files(places)
    if not files:
        return _hub_texts(places[0], code), {"counts": {}, "described": []}

    def build(folder):
        problems = [(file, Problems()) for file in files]
        store.write_tables(folder / "texts.arrow", _tables(problems, code))
        described = [f"{file.name}: {one}" for file, found in problems for one in found.described()]
        counts = sum((Counter(found) for _, found in problems), Counter())
        return {"counts": {kind.replace("_", " "): n for kind, n in counts.items()}, "described": described}

    parts, problems = store.kept(["texts", code, *map(store.identity, files)], build)
    return parts["texts"], problems


def _tables(problems, code):
    """The texts of files, some at a time; what is wrong with a file is counted in its own `problems`."""
    for file, found in problems:
        texts = _texts_of(file, code, found)
        count = 0
        while batch := list(islice(texts, 1000)):
            count += len(batch)
            yield pa.table({"text": pa.array(batch, pa.string())})
        refuse_other_bytes(found, count, file)
        if not count:
            found = "".join(f" ({one})" for one in found.described())
            raise ValueError(
                f"{file} holds no text{found}: give a text a line, in JSONL and TSV in a column `text`; pairs of "
                "translations are for `bitext`."
            )


def _texts_of(file, code, problems=None):
    columns = {}
    if Path(plain_name(file)).suffix.lower() in TEXT_SUFFIXES[1:]:
        refuse_other_encodings(file)
        names = names_in(file)
        if any(names):  # else it is empty, or has no JSON in its first line
            columns = dict.fromkeys(("text_column", "tsv_column"), _column(names, code, file))
    return filter(str.strip, read_documents(file, **columns, problems=problems))


def _column(names, code, place):
    """The column that holds text: `text`, else the one that is named by the language, in whatever form."""
    mine = [name for name in ("text", code) if name in names][:1] or in_language(names, code)
    if len(mine) != 1:
        raise ValueError(
            f"{place} has the columns {', '.join(names)}, of which {len(mine) or 'none'} name {language(code).name} "
            f"({code}): rename the one to use to `text`."
        )
    return mine[0]


def _hub_texts(place, code):
    repository, _, configuration = place.partition(":")
    try:
        read = load_hub(repository, configuration or None, "train")
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"{place!r} is not a file here, and as a data set of the Hub it failed ({error}). Give text files, "
            "`owner/name` or `owner/name:configuration`."
        ) from error
    column = _column(read.column_names, code, place)
    read = read.select_columns([column]).rename_columns({column: "text"}).filter(_has_text, batched=True)
    if not len(read):
        raise ValueError(f"{place!r} holds no text.")
    return read


def _has_text(batch):
    return [bool(text and text.strip()) for text in batch["text"]]


def texts_fingerprint(texts) -> str:
    """16 hexadecimal digits of the SHA-256 of a dataset's texts, written as one list in JSON."""
    digest, between = hashlib.sha256(b"["), b""
    for batch in texts.iter(1000):
        digest.update(between + json.dumps(batch["text"], ensure_ascii=False)[1:-1].encode())
        between = b", "
    digest.update(b"]")
    return digest.hexdigest()[:16]


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


def induction_of(folder) -> dict | None:
    """
    How the senses of the model in `folder` were induced, as the card of its adaptation tells it: `steps`, `tokens`
    read in them, `model` that had none, `text`, and what was measured `before` and `after`. `None` for other models.
    """
    from ..hub.card_tables import trained_tokens

    file = Path(folder) / METRICS_FILE
    made = read_json(file) if file.is_file() else {}
    if made.get("kind") != "induction":
        return None
    names = [plain_name(str(source)) for source in made["data"].get("sources") or []]
    return {
        "steps": made["config"]["steps"],
        "tokens": trained_tokens(made),
        "model": made["base_model"],
        "text": None if names == ["induced.txt"] else ", ".join(names) or None,  # else the source sides of the pairs
        "before": made["before"],
        "after": made["after"],
    }


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
    The `after` metrics in the metrics file of a control run, of several pairs of languages those of each `by_pair`
    besides; `None` without one.

    Raises:
        `ValueError`: for a file that is missing, cut short, or holds no such metrics.
    """
    if not path:
        return None
    metrics = read_json(expand_variables(path))
    if not isinstance(metrics, dict) or not isinstance(metrics.get("after"), dict):
        raise ValueError(f"`control` is {path!r}, which holds no metrics of a finished run: give its metrics.json.")
    of_pairs = {name: one["after"] for name, one in (metrics.get("by_pair") or {}).items()}
    return metrics["after"] | ({"by_pair": of_pairs} if of_pairs else {})


def check_control(path, facts):
    """`ValueError` where the control was measured on other held-out pairs than this run will be (`facts` are of its
    bitext): it would be compared with, and could not be."""
    theirs = read_json(expand_variables(path)).get("data", {}).get("held_out_fingerprint") if path else None
    if theirs not in (None, facts["held_out_fingerprint"]):
        raise ValueError(
            f"`control` is {path!r}, which was measured on other held-out pairs (of another language, bitext, seed or "
            "number). Give the metrics.json of a control by the same recipe, with `method: lm-only`."
        )


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
        "random_sense_recall_source_to_target": "recall@1 {source} -> {target}, senses of random weights",
        "random_sense_recall_target_to_source": "recall@1 {target} -> {source}, senses of random weights",
        "sense_beyond_overlap_source_to_target": "recall@1 {source} -> {target}, senses where overlap fails",
        "sense_beyond_overlap_target_to_source": "recall@1 {target} -> {source}, senses where overlap fails",
        "sense_entropy_source": "sense entropy, {source} (nats)",
        "sense_entropy_target": "sense entropy, {target} (nats)",
        "target_perplexity": "perplexity, {target}",
        "target_bits_per_byte": "bits per byte, {target}",
        "source_bits_per_byte": "bits per byte, {source}",
    }
    shown = {key: label for key, label in labels.items() if after.get(key) is not None}
    rows = [(label.format(**names), before.get(key, after[key]), after[key]) for key, label in shown.items()]
    width = max(len(label) for label, *_ in rows)
    lines = [f"{label:<{width}}  {old:>9.3f}  {new:>9.3f}" for label, old, new in rows]
    title = f"{after['pairs']} held-out pairs"
    return "\n".join([f"{title:<{width}}  {'before':>9}  {'after':>9}", *lines])
