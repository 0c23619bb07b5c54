"""Several languages in one run: the pairs that a `bitext` of several names, read so that none sees what another holds
out."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import datasets
import numpy as np

from ..languages import language, parts_of
from .columns import key_of, texts
from .pairs import PairSource, kinds_of, licence_facts, load_pairs, names_languages, parse_sources
from .splits import fingerprint, keys_of, without_texts


class LanguagePair(NamedTuple):
    """One pair of languages, and its sources as the field `bitext` of a single pair takes them."""

    source: str  # codes, as bitext columns have them
    target: str
    entries: list

    @property
    def name(self) -> str:
        """What logs and results call it: `en-id`."""
        return f"{self.source}-{self.target}"


def check_sources(entries: list, split: str, argument: str) -> None:
    """`ValueError` for a mapping of languages with a source that is none; the pair is named."""
    for key, places in entries[0].items():
        parse_sources(_as_list(places), split, f"{argument}.{key}")


def language_pairs(entries: list, source_language: str, argument: str = "bitext") -> dict[str, LanguagePair]:
    """
    The pairs that a mapping of languages names.

    Args:
        entries (`list`): One mapping from a language, which stands for its pair with `source_language`, or a pair of
            languages (`id-sw`) to a source or a list of sources.
        source_language (`str`): The pivot.
        argument (`str`, *optional*, defaults to `"bitext"`): What errors call the mapping.

    Returns:
        `dict[str, LanguagePair]`: by name (`en-id`), in the order of the mapping.

    Raises:
        `ValueError`: for a language that is unknown or paired with itself, a pair named twice, two languages that read
            the same column, and languages that no chain of pairs ties to `source_language`.
    """
    pairs: dict[str, LanguagePair] = {}
    for key, places in entries[0].items():
        parts = parts_of(key)
        if len(parts) > 2:
            raise ValueError(f"`{argument}` names {key!r}, which is neither a language (id) nor a pair (id-sw).")
        try:
            source, target = ([source_language] if len(parts) == 1 else []) + [language(part).code for part in parts]
        except ValueError as error:
            raise ValueError(f"`{argument}` names {key!r}: {error}.") from None
        if source == target:
            raise ValueError(f"`{argument}` names {key!r}, which pairs {source!r} with itself; give another language.")
        pair = LanguagePair(source, target, _as_list(places))
        twice = next((name for name in (pair.name, f"{target}-{source}") if name in pairs), None)
        if twice:
            raise ValueError(
                f"`{argument}` names the pair {twice} twice (the second time as {key!r}); give its sources as one "
                "list."
            )
        pairs[pair.name] = pair
    _check_columns(pairs, argument)
    return pairs


def check_pivot(pairs: dict[str, LanguagePair], source_language: str) -> None:
    """`ValueError` where languages of the training pairs are not tied to the source language, by one pair or more."""
    tied = {source_language}
    for _ in pairs:
        tied |= {code for pair in pairs.values() if {pair.source, pair.target} & tied for code in pair[:2]}
    loose = sorted({code for pair in pairs.values() for code in pair[:2]} - tied)
    if loose:
        raise ValueError(
            f"`bitext` ties {', '.join(loose)} to `source_language` {source_language!r} by no chain of pairs "
            f"({', '.join(pairs)}), so that nothing would bring them together. Add a pair such as "
            f"{source_language}-{loose[0]}, or set `source_language` to a language that the pairs share."
        )


def load_several(data, args, evaluated=None):
    """
    [`load_pairs`] of every pair of a `bitext` of several. What one pair holds out, no other trains on: a sentence that
    is held out in a language is left out of every pair that has the language.

    Args:
        data ([`AdaptationData`]): Where they are; `bitext_keep`, `bitext_cap`, `max_pairs`, `held_out_pairs` and
            `licence` are of each pair.
        args ([`SensiaConfig`]): Source language and seed.
        evaluated (`np.ndarray`, *optional*): As of [`load_pairs`].

    Returns:
        Training and held-out `Dataset`s and facts (`dict`), each by the name of the pair.

    Raises:
        `ValueError`: as [`language_pairs`] and [`load_pairs`], the pair named.
    """
    pairs = language_pairs(data.bitext, args.source_language)
    check_pivot(pairs, args.source_language)
    held_out_entries = {}
    if data.eval_bitext:
        if not names_languages(data.eval_bitext):
            raise ValueError("`eval_bitext` must name its languages as `bitext` does: a mapping, {id: …, sw: …}.")
        held_out_entries = language_pairs(data.eval_bitext, args.source_language, "eval_bitext")
        missing = sorted(set(pairs) - set(held_out_entries))
        if missing:
            raise ValueError(f"`eval_bitext` has nothing for {', '.join(missing)}; give each pair its held-out data.")
    train, held_out, facts = {}, {}, {}
    for name, pair in pairs.items():
        own = replace(data, bitext=pair.entries, eval_bitext=data.eval_bitext and held_out_entries[name].entries)
        sides = SimpleNamespace(source_language=pair.source, target_language=pair.target, seed=args.seed)
        try:
            train[name], held_out[name], facts[name] = load_pairs(own, sides, evaluated)
        except ValueError as error:
            raise ValueError(f"`bitext`, pair {name}: {error}") from error
    for name, pair in pairs.items():
        known = {
            code: np.concatenate([keys_of(held_out[other], code) for other in held_out if code in other.split("-")])
            for code in pair[:2]
        }
        kept = without_texts(train[name], known)
        if len(kept) < len(train[name]):
            train[name] = kept
            facts[name] |= {"pairs": len(kept), "fingerprint": fingerprint(kept)} | kinds_of(kept)
            facts[name]["counts"]["share no sentence with what other pairs hold out"] = len(kept)
    return train, held_out, facts


def languages_of(names: list[str], source_language: str) -> dict:
    """What `metrics.json` holds of the languages of pairs (`en-id`, `id-sw`): the source, the others, the pairs."""
    codes = dict.fromkeys(code for name in names for code in name.split("-"))
    return {"source": source_language, "targets": [code for code in codes if code != source_language], "pairs": names}


def facts_of_all(facts: dict[str, dict]) -> dict:
    """What a card says of all pairs together, from the facts of each ([`load_several`])."""
    joined = {
        "name": ", ".join(dict.fromkeys(one["name"] for one in facts.values())),
        **licence_facts({name: one["licence"] for name, one in facts.items()}),
        "pairs": sum(one["pairs"] for one in facts.values()),
        "pairs by languages": {name: one["pairs"] for name, one in facts.items()},
    }
    for key in ("fingerprint", "held_out_fingerprint"):
        joined[key] = hashlib.sha256("".join(one[key] for one in facts.values()).encode()).hexdigest()
    classes: dict[str, int] = {}
    for one in facts.values():
        for name, count in one.get("licence_classes", {}).items():
            classes[name] = classes.get(name, 0) + count
    return joined | ({"licence_classes": classes} if classes else {})


def _as_list(places) -> list:
    return places if isinstance(places, list) else [places]


def _check_columns(pairs: dict[str, LanguagePair], argument: str) -> None:
    """Refuses two languages that read the same text: one column of a file, or one file of text a line."""
    readers: dict[tuple, str] = {}
    for pair in pairs.values():
        for entry in parse_sources(pair.entries, argument=f"{argument}.{pair.name}"):
            for side, column, code in _columns(entry, pair):
                other = readers.setdefault((side, column), code)
                if other != code:
                    raise ValueError(
                        f"`{argument}`: {other} and {code} share a column ({column or 'the whole file'} of {side}); "
                        "give each language its own: `source_column` and `target_column` of the source, or its file."
                    )


def _columns(entry: PairSource, pair: LanguagePair):
    """Place, column and language of each side that is named by more than the language's code."""
    if isinstance(entry.path, list):
        yield from ((str(Path(path)), None, code) for path, code in zip(entry.path, pair[:2], strict=False))
        return
    for column, code in ((entry.source_column, pair.source), (entry.target_column, pair.target)):
        if column is not None:
            yield str(entry.path), column, code


def sentences_of(parts: dict[str, datasets.Dataset] | datasets.Dataset, code: str) -> Iterator[str]:
    """The sentences of one language in a bitext, or in all of several that have it."""
    for part in parts.values() if isinstance(parts, dict) else [parts]:
        if key_of(part, code) is not None:
            yield from texts(part, code).to_pylist()
