"""Parallel sentences to evaluate on: FLORES-200, Tatoeba, and any bitext of your own."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from transformers.utils import logging

from ..bitext.flores import PURPOSES, load_flores
from ..bitext.hub_data import load_hub
from ..bitext.langid import can_tell, elsewhere, refuse_elsewhere
from ..bitext.pairs import chosen, parse_sources, read_source
from ..bitext.splits import without_blanks
from ..languages import language
from ..utils.files import text_lines


logger = logging.get_logger(__name__)

HUB_FLORES = "openlanguagedata/flores_plus"  # maintained, gated: its terms are accepted once, on its page
HUB_TATOEBA = "mteb/tatoeba-bitext-mining"
# Tatoeba's test sets name Chinese by the language that is written, and others by the macrolanguage.
TATOEBA_CODES = {"als": "sqi", "arb": "ara", "azj": "aze", "khk": "mon", "zho": "cmn"}
TATOEBA_CODES |= {"uzn": "uzb", "kmr": "kur", "ydd": "yid"}


class Pairs(NamedTuple):
    """Sentences and their translations, and both sides of other pairs, on which document frequencies are counted."""

    name: str
    languages: tuple[str, str]  # codes of the two sides
    source: list[str]
    target: list[str]
    facts: dict  # what a result says of them
    counted: list[list[str]] | None = None


class ManyLanguages(NamedTuple):
    """Sentences that are translated into all of some languages, and other ones, to count document frequencies on."""

    sentences: dict[str, list[str]]  # by code, as bitext columns have it
    facts: dict
    counted: list[str]


def flores_languages(codes: list[str], *, data_dir=None, purpose="reporting", max_items=None) -> ManyLanguages:
    """FLORES-200 in several languages; the split as for [`flores_pairs`]."""
    texts, counted, facts = _flores(codes, data_dir, purpose)
    sentences = {language(code).code: texts[code][:max_items] for code in codes}
    return ManyLanguages(sentences, facts, [text for side in counted or () for text in side])


def flores_pairs(source: str, target: str, *, data_dir=None, purpose="reporting", max_items=None) -> Pairs:
    """The split of FLORES-200 that `purpose` may read (see `load_flores`), from `data_dir/flores200` or the Hub."""
    codes = (source, target)
    texts, counted, facts = _flores(codes, data_dir, purpose)
    return Pairs("flores", codes, *(texts[code][:max_items] for code in codes), facts, counted)


def _flores(codes, data_dir, purpose):
    """The sentences of a split by language; those of the other one as a list for each, on which only tokens are
    counted, for their overlap, or None where it is not there; and what a result says of them."""
    path = Path(data_dir) / "flores200" if data_dir else HUB_FLORES
    split = PURPOSES.get(purpose, purpose)
    texts = load_flores(path, split, codes, purpose=purpose)
    ((other_purpose, other),) = (item for item in PURPOSES.items() if item[1] != split)
    try:
        counted = [*load_flores(path, other, codes, purpose=other_purpose).values()]
    except ValueError:
        logger.warning(f"FLORES {other} is not there: document frequencies are counted on {split} itself.")
        counted = None
    return texts, counted, {"split": split, "purpose": purpose}


def tatoeba_pairs(source: str, target: str, *, data_dir=None, max_items=None) -> Pairs:
    """Tatoeba's test set of a language and English (Artetxe and Schwenk, 2019): at most 1,000 short sentences.

    Local files are those published with LASER: `tatoeba/tatoeba.ind-eng.ind` and `.eng`.

    Raises:
        `ValueError`: If none of the two languages is English, or a file is missing.
    """
    sides = [TATOEBA_CODES.get(iso3, iso3) for iso3 in (language(source).iso3, language(target).iso3)]
    if "eng" not in sides or sides == ["eng", "eng"]:
        raise ValueError(f"Tatoeba's test sets are with English on one side (got {source!r} and {target!r}).")
    other = next(code for code in sides if code != "eng")
    if data_dir is None:
        rows = load_hub(HUB_TATOEBA, f"{other}-eng", "test")
        texts = {other: list(rows["sentence1"]), "eng": list(rows["sentence2"])}
    else:
        files = {code: Path(data_dir) / "tatoeba" / f"tatoeba.{other}-eng.{code}" for code in sides}
        missing = [file.name for file in files.values() if not file.is_file()]
        if missing:
            raise ValueError(f"tatoeba is not in {data_dir}: {' and '.join(missing)} are missing in its tatoeba/.")
        texts = {code: text_lines(file) for code, file in files.items()}
        if len({len(lines) for lines in texts.values()}) > 1:
            sizes = " and ".join(f"{files[code].name} has {len(lines)}" for code, lines in texts.items())
            raise ValueError(f"The lines of the two files translate each other, but {sizes}; fetch them again.")
    sentences = (texts[code][:max_items] for code in sides)
    return Pairs("tatoeba", (source, target), *sentences, {"data": f"Tatoeba test, {other}-eng", "split": "test"})


JUDGED = 1000  # sentences of a side, whether they are in its language


def own_pairs(paths, source: str, target: str, *, name: str, split="train", max_items=None) -> Pairs:
    """Sources as `adapt` reads them: two line-aligned files, a TSV, JSONL or TMX file, a dataset of the Hub.

    Args:
        paths (`list[str]`): Paths, ids or the fields of a `PairSource` as JSON; of two files the source's first.
        name (`str`): What the result calls it.
        split (`str`): Of a dataset of the Hub.
    """
    sides = [language(code).code for code in (source, target)]
    rows, empty, titles = [], 0, []
    for one in parse_sources(paths, split):
        read, _ = read_source(one, sides)
        empty += len(read) - len(without_blanks(read))
        picked = chosen(read, one, seed=0)
        rows += picked[: max_items - len(rows) if max_items else len(picked)]["translation"]
        titles.append(one.title)
    sentences = ([row[side] for row in rows] for side in sides)
    return Pairs(name, (source, target), *sentences, {"data": ", ".join(titles), "pairs_without_text": empty})


def check_pairs(pairs: Pairs) -> None:
    """`ValueError` where a side is mostly in another language than its code says, close relatives excepted."""
    for side, code, other in zip((pairs.source, pairs.target), pairs.languages, pairs.languages[::-1], strict=True):
        if can_tell((code,), f"{pairs.name} {code}"):
            found = Counter(elsewhere(side[:JUDGED], code, other))
            refuse_elsewhere(found, code, f"{pairs.name} {code}", " If it is, `check_languages: false`.")
