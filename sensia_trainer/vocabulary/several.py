"""New words of several languages: each gets its share, learned from its own pairs, behind those of the one before."""

from typing import NamedTuple

import datasets

from ..bitext.columns import texts


class Share(NamedTuple):
    """What the words of one language are learned from."""

    pairs: datasets.Dataset
    source: str  # the other language of the pairs, which the words are translated into
    protected: list  # texts that are to be cut as before


def plan(pairs: dict[str, datasets.Dataset], source_language: str, languages: list[str] | None = None):
    """
    What the new words of each language are learned from: the pair with the source language where there is one.

    Args:
        pairs (`dict[str, Dataset]`): Training pairs by name (`en-id`).
        source_language (`str`): Its words stay.
        languages (`list[str]`, *optional*): Those that get words; by default all but the source language. Text of the
            others is cut as before: the earlier ones, where a model learns one more.

    Returns:
        `dict[str, Share]`: by code of the language.

    Raises:
        `ValueError`: for a language that no pair has.
    """
    sides = {name: tuple(name.split("-")) for name in pairs}
    known = [
        code for code in dict.fromkeys(code for pair in sides.values() for code in pair) if code != source_language
    ]
    unknown = [code for code in languages or [] if code not in known]
    if unknown:
        raise ValueError(
            f"`vocabulary_languages` holds {unknown[0]!r}, but the languages of `bitext` that can get words are "
            f"{', '.join(known)}."
        )
    chosen = [code for code in known if not languages or code in languages]
    kept = [code for code in (source_language, *known) if code not in chosen]

    def of(code):
        """The pair of a language, best with the source language."""
        return min(
            (name for name in sides if code in sides[name]), key=lambda name: source_language not in sides[name]
        )

    shares = {}
    for code in chosen:
        name = of(code)
        other = next(one for one in sides[name] if one != code)
        protected = [text for one in kept if one != other for text in texts(pairs[of(one)], one).to_pylist()]
        shares[code] = Share(pairs[name], other, protected)
    return shares
