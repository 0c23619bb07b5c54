"""All analyses of one adapted Backpack beside its control, as one result."""

import time
import warnings
from collections import Counter

import numpy as np
from tqdm.auto import tqdm

from ..utils.statistics import paired_bootstrap
from . import DEFINITIONS
from .corpus import AlignedCorpus
from .mixture import mixture_ablation, variants_of
from .procrustes import compare_procrustes, procrustes
from .senses import mutual_information, recall_by_sense, sense_drift, sense_neighbours, translation_precision
from .topology import sense_geometry, standardised_ranks, topology_scores
from .words import sentence_senses, word_senses


HISTOGRAM_BINS = np.linspace(-1, 1, 81)


def analyse(
    model,
    corpus: AlignedCorpus,
    *,
    control=None,
    base=None,
    told=None,
    definitions=DEFINITIONS,
    temperature=0.7,
    top_k=1,
    batch_size=16,
    iterations=10_000,
    seed=0,
    queries=12,
    progress=False,
) -> dict:
    """Every analysis of `model` on `corpus`, beside `control`.

    Args:
        model, control, base: Backpacks with the tokenizer that `corpus` was made with: the adapted model, the one
            that was fine-tuned on the same data with the language modelling loss only (may be None: its columns are
            then None), and the English one both started from (may be None: no drift).
        told (`np.ndarray` of bool, *optional*): which pairs new words were told of, see [`told_pairs`]: the others are
            then measured apart, to tell what is learned from the dictionary that was given.
        definitions: The sense probabilities of `sense_probs` that Procrustes is computed with; the first is reported.
        temperature (`float`, defaults to 0.7): of the sense probabilities.
        queries (`int`): how many frequent source words get a list of nearest target words.

    Returns:
        `dict` of numbers, strings and lists, ready for JSON: `topology`, `procrustes`, `mixture`, `senses`, `corpus`.
    """
    if control is None:
        warnings.warn("There is no control: scores cannot be told from what any fine-tuning gives.", stacklevel=2)
    models = {name: m for name, m in (("model", model), ("control", control), ("base", base)) if m is not None}
    _check_vocabularies(models, corpus)
    bootstrap = {"iterations": iterations, "seed": seed}
    started = time.perf_counter()
    compared = [name for name in ("model", "control") if name in models]
    # Every sentence of both sides once for each model, and the target's under each variant of the mixture.
    reads = 2 * len(models) + sum(len(variants_of(models[name])) for name in compared)
    bar = tqdm(total=reads * len(corpus.ids["target"]), unit=" sentences", disable=not progress)
    options = {"batch_size": batch_size, "bar": bar}
    bar.set_description("senses of words and sentences")
    spellings = {side: sorted(set(corpus.spellings[side])) for side in ("source", "target")}
    lexicon = {
        name: {side: word_senses(m, spellings[side]) for side in ("source", "target")} for name, m in models.items()
    }
    passes = {
        name: {
            side: sentence_senses(
                m,
                corpus.ids[side],
                corpus.positions[side],
                definitions=definitions,
                temperature=temperature,
                **options,
            )
            for side in ("source", "target")
        }
        for name, m in models.items()
    }
    bar.set_description("mixture ablation")
    mixture = {
        name: mixture_ablation(models[name], corpus.ids["target"], top_k=top_k, **bootstrap, **options)
        for name in compared
    }
    bar.set_description("statistics")
    result = {
        "corpus": corpus.statistics,
        "topology": _topology(corpus, lexicon, spellings, bootstrap, told),
        "procrustes": _procrustes(corpus, passes, definitions, bootstrap, told),
        "mixture": mixture,
        "senses": _senses(corpus, lexicon, spellings, passes, queries, told),
        "settings": {
            "num_senses": model.config.num_senses,
            "vocab_size": len(model.get_input_embeddings().weight),
            "definitions": list(definitions),
            "temperature": temperature,
            "top_k": top_k,
            "iterations": iterations,
            "seed": seed,
        },
        "seconds": round(time.perf_counter() - started, 1),
    }
    bar.close()
    result["mixture"].setdefault("control", None)
    return result


def _check_vocabularies(models, corpus):
    largest = max(token for side in corpus.ids.values() for ids in side for token in ids)
    for name, model in models.items():
        rows = len(model.get_input_embeddings().weight)
        if rows <= largest:
            raise ValueError(
                f"The tokenizer gives token {largest}, but `{name}` embeds only {rows} tokens: they do not belong "
                "together. Model, control and base must share one vocabulary."
            )
    shapes = {
        name: (len(model.get_input_embeddings().weight), model.config.num_senses) for name, model in models.items()
    }
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"Model, control and base must share vocabulary and number of senses to be compared, got {shapes}."
        )


def _topology(corpus, lexicon, spellings, bootstrap, told):
    """Eq. 4-6 over all pairs (as published), over pairs of different words, over pairs without a shared subword, and
    over the distinct ones of those, where the bootstrap draws source words.

    Names and loans that are spelled alike have equal senses on both sides, so they score 1 whatever was learned, and
    words that share subwords share part of their senses.
    """
    rows = {}
    for side, names in spellings.items():
        index = {spelling: row for row, spelling in enumerate(names)}
        rows[side] = np.array([index[spelling] for spelling in corpus.spellings[side]])
    subsets = {
        "all": np.arange(len(corpus.disjoint)),
        "different_words": np.flatnonzero(corpus.different),
        "no_shared_subword": np.flatnonzero(corpus.disjoint),
        "distinct_pairs": corpus.types,
    }
    if told is not None:
        subsets |= {"told": corpus.types[told[corpus.types]], "not_told": corpus.types[~told[corpus.types]]}
    scores = {}
    for name in ("model", "control"):
        if name in lexicon:
            ranks = {side: standardised_ranks(sense_geometry(lexicon[name][side])) for side in rows}
            scores[name] = {
                subset: topology_scores(
                    ranks["source"][rows["source"][chosen]], ranks["target"][rows["target"][chosen]]
                )
                for subset, chosen in subsets.items()
            }
    result = {}
    for subset, chosen in subsets.items():
        usable = np.all([~np.isnan(s[subset][1]) for s in scores.values()], axis=0)
        if usable.sum() < 2:
            result[subset] = None
            continue
        own, mismatched = zip(*(tuple(part[usable] for part in s[subset]) for s in scores.values()))
        above = [scored - chance for scored, chance in zip(own, mismatched)]
        options = dict(bootstrap)
        if subset in ("distinct_pairs", "told", "not_told"):
            options["groups"] = np.array(corpus.words["source"])[chosen][usable]
        compared = [paired_bootstrap(*columns, **options) for columns in (own, mismatched, above)]
        parts = ({name: part[name] for name in ("model", "control", "difference")} for part in compared[1:])
        result[subset] = compared[0] | {
            "discarded": int((~usable).sum()),
            **dict(zip(("shuffled", "above_shuffled"), parts)),
            "histogram": {name: np.histogram(own[k], HISTOGRAM_BINS)[0].tolist() for k, name in enumerate(scores)},
        }
    return result


def _procrustes(corpus, passes, definitions, bootstrap, told):
    """Eq. 7-9 by every definition of the sense probabilities, centred; the first one also uncentred and for pairs
    without a shared subword. Held-out halves never share a source word, and the bootstrap draws source words."""
    groups = np.unique(corpus.words["source"], return_inverse=True)[1]
    everything = np.ones(len(groups), dtype=bool)
    runs = [(definition, definition, everything, True) for definition in definitions]
    runs += [
        (f"{definitions[0]}, uncentred", definitions[0], everything, False),
        (f"{definitions[0]}, no shared subword", definitions[0], corpus.disjoint, True),
    ]
    if told is not None:
        runs += [
            (f"{definitions[0]}, {label}", definitions[0], corpus.disjoint & chosen, True)
            for label, chosen in (("told", told), ("not told", ~told))
        ]
    result = {}
    for label, definition, chosen, center in runs:
        if len(np.unique(groups[chosen])) < 2:
            result[label] = None
            continue
        fits = {}
        for name in ("model", "control"):
            if name in passes:
                source, target = (passes[name][side].word_vectors[definition][chosen] for side in ("source", "target"))
                fits[name] = procrustes(source, target, groups=groups[chosen], center=center, seed=bootstrap["seed"])
        compared = compare_procrustes(fits["model"], fits.get("control"), groups=groups[chosen], **bootstrap)
        result[label] = {"compared": compared} | {
            name: {key: value for key, value in fit.items() if key != "scores"} for name, fit in fits.items()
        }
    return result


def _senses(corpus, lexicon, spellings, passes, queries, told):
    result = {"recall": {}, "mutual_information": {}, "translation_precision": {}}
    for name, sides in passes.items():
        result["recall"][name] = recall_by_sense(sides["source"].contributions, sides["target"].contributions)
        # Over distinct spellings, so that frequent words do not count more.
        result["mutual_information"][name] = {
            side: {
                definition: mutual_information(probs[corpus.first_of_spelling[side]])
                for definition, probs in part.word_probs.items()
            }
            for side, part in sides.items()
        }
    gold = np.zeros(tuple(len(spellings[side]) for side in ("source", "target")), dtype=bool)
    rows = {side: {spelling: row for row, spelling in enumerate(names)} for side, names in spellings.items()}
    for source, target in zip(corpus.spellings["source"], corpus.spellings["target"]):
        gold[rows["source"][source], rows["target"][target]] = True
    for name, senses in lexicon.items():
        # Words that are their own translation are found by any model; they are not candidates here.
        distinct = [row for row, spelling in enumerate(spellings["source"]) if spelling not in rows["target"]]
        if distinct:
            result["translation_precision"][name] = translation_precision(
                senses["source"][distinct], senses["target"], gold[distinct]
            )
    if told is not None:
        known = np.zeros_like(gold)
        for source, target, given in zip(corpus.spellings["source"], corpus.spellings["target"], told, strict=True):
            known[rows["source"][source], rows["target"][target]] |= given
        distinct = np.array([spelling not in rows["target"] for spelling in spellings["source"]])
        for name, chosen in (("told", known.any(axis=1)), ("not_told", ~known.any(axis=1))):
            queries_of = np.flatnonzero(distinct & chosen)
            result[f"translation_precision_{name}"] = {"words": len(queries_of)} | {
                model: translation_precision(senses["source"][queries_of], senses["target"], gold[queries_of])
                for model, senses in lexicon.items()
                if len(queries_of)
            }
    if "base" in lexicon:
        result["drift"] = {
            name: {side: sense_drift(lexicon["base"][side], lexicon[name][side]) for side in spellings}
            for name in lexicon
            if name != "base"
        }
        result["mutual_information_gap"] = {
            name: {
                side: {
                    definition: value - result["mutual_information"]["base"][side][definition]
                    for definition, value in result["mutual_information"][name][side].items()
                }
                for side in spellings
            }
            for name in passes
            if name != "base"
        }
    result["neighbours"] = _neighbours(corpus, lexicon["model"], spellings, rows, queries)
    return result


def _neighbours(corpus, senses, spellings, rows, count):
    """The nearest target words, by each sense, of the most frequent source words that share no subword with
    their translation, their cosines, and the translations among the aligned pairs."""
    text = {side: dict(zip(corpus.spellings[side], corpus.words[side])) for side in spellings}
    counts = Counter(s for s, apart in zip(corpus.spellings["source"], corpus.disjoint) if apart)
    by_word = {}
    for spelling in sorted(counts, key=lambda s: (-counts[s], s)):
        by_word.setdefault(text["source"][spelling], spelling)
    frequent = list(by_word.values())[:count]
    # One spelling of each word: the same word with and without a space before it would fill the list.
    chosen = {text["target"][spelling]: row for row, spelling in enumerate(spellings["target"])}
    queries = senses["source"][[rows["source"][spelling] for spelling in frequent]]
    names, cosines = sense_neighbours(queries, senses["target"][list(chosen.values())], list(chosen), count=3)
    translations = Counter(zip(corpus.words["source"], corpus.words["target"])).most_common()
    return [
        {
            "word": word,
            "translations": [target for (source, target), _ in translations if source == word],
            "by_sense": names[index],
            "cosines": cosines[index].round(4).tolist(),
        }
        for index, word in enumerate(text["source"][spelling] for spelling in frequent)
    ]
