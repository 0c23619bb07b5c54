"""Which language a sentence is in: the model of py3langid, over many sentences at once.

py3langid walks its automaton over one text at a time in Python (60 microseconds a sentence). Here all texts of a batch
take each step together, which is the same computation in about a tenth of the time.
"""

import logging
import unicodedata
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_matrix

from ..languages import language


logger = logging.getLogger(__name__)

MAX_BYTES = 600  # of a sentence: more does not change the answer
MIN_BYTES = 20  # on a word or two ("Save Metadata", "24 bits") the model is sure and wrong
BATCH = 4096
SURE = 0.95
COMMON = ("en", "et", "id", "sw", "tr", "zh")  # the languages of the paper, from which an evaluation set is told apart
# Languages that py3langid takes for each other in whole sentences; being sure of a relative is not evidence.
RELATIVES = tuple(
    frozenset(group.split())
    for group in (
        "id ms jv ace",
        "et fi",
        "tr az crh tk uz uzs",
        "kk ky tt ba ug uz",
        "zh wuu yue ja",
        "sw rw lg xh zu sn kik",
        "xh zu nso st sn",
        "bs hr sr sl mk bg",
        "cs sk",
        "da no nn sv fo is",
        "nl af fy lb de",
        "es pt gl ca an ext oc it lij vec la fr wa",
        "ru uk be bg mk sr tg",
        "lt lv ltg",
        "hi mr ne sa gom",
        "bn as",
        "fa ps ur ku sdh ug ar",
        "ar ary arz",
        "he hbo",
        "el grc",
        "qu gug",
        "en pcm",
        "ht gcf gcr fr",
        "ga gd",
        "fi se et",
        "tl bcl",
        "yo guw ig",
    )
)


@lru_cache
def _model():
    """The model inside py3langid, for all its languages (a second to load)."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ValueError("language identification needs py3langid: pip install py3langid") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class Identifier:
    """
    Naive Bayes over byte n-grams with temperature sqrt(bytes), as py3langid does it.

    Args:
        languages (`Sequence[str]`, *optional*): Codes of `Language` to choose from; by default all that py3langid
            knows.

    Raises:
        `ValueError`: when py3langid is not installed or does not know a language.
    """

    def __init__(self, languages=None):
        model = _model()
        known = [code for code in dict.fromkeys(model.nb_classes) if code != "zxx"]  # no language
        self.codes = known if languages is None else [identified_code(one) for one in languages]
        unknown = [given for given, code in zip(languages or (), self.codes) if code not in known]
        if unknown or len(set(self.codes)) < len(self.codes):
            raise ValueError(f"py3langid does not know {unknown or f'the scripts of {list(languages)}'}")
        # A language written in two scripts has two columns, whose probabilities add up.
        columns = [n for n, code in enumerate(model.nb_classes) if code in self.codes]
        self._column_is = np.array([[model.nb_classes[n] == code for code in self.codes] for n in columns], np.float64)
        self._feature_scores = np.ascontiguousarray(model.nb_ptc[:, columns], np.float32)  # log P(feature | language)
        self._prior_scores = np.asarray(model.nb_pc[columns], np.float64)
        self._next_state = np.asarray(model.tk_nextmove)
        self._row_start = np.asarray(model.tk_row, np.int64) << 8
        self._output = np.asarray(model.tk_output, np.int64)

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """That each text is in each of `codes`, (n, L) float64; equal where nothing speaks for any."""
        encoded = [_encode(text) for text in texts]
        result = np.empty((len(texts), len(self.codes)))
        by_length = np.argsort([len(text) for text in encoded], kind="stable")[::-1]
        for start in range(0, len(texts), BATCH):
            rows = by_length[start : start + BATCH]
            result[rows] = self._probabilities([encoded[row] for row in rows])
        return result

    def _probabilities(self, encoded: list[bytes]) -> np.ndarray:
        count, sizes = len(encoded), np.array([len(text) for text in encoded])
        letters = np.zeros((sizes.max(initial=0), count), np.uint8)
        for column, text in enumerate(encoded):
            letters[: len(text), column] = np.frombuffer(text, np.uint8)
        state = np.zeros(count, np.int64)
        texts, features = [], []
        for step in range(len(letters)):
            active = int(np.searchsorted(-sizes, -step, "left"))  # texts are sorted, longest first
            state[:active] = self._next_state[self._row_start[state[:active]] + letters[step, :active]]
            feature = self._output[state[:active]]
            seen = np.flatnonzero(feature >= 0)
            texts.append(seen)
            features.append(feature[seen])
        place = (np.concatenate(texts), np.concatenate(features)) if texts else ((), ())
        shape = (count, len(self._feature_scores))
        visits = csr_matrix((np.ones(len(place[0]), np.float32), place), shape=shape)  # adds up what repeats
        visits.data = np.log1p(visits.data)
        scores = (visits @ self._feature_scores).astype(np.float64)
        scores = np.where(np.diff(visits.indptr)[:, None] > 0, scores + self._prior_scores, 0.0)
        scores /= np.sqrt(np.maximum(sizes, 1))[:, None]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True) @ self._column_is


@lru_cache
def identifier(*languages: str) -> Identifier:
    """[`Identifier`] of all languages, or of some."""
    return Identifier(languages or None)


def identified_code(code: str) -> str:
    """What py3langid calls a language: it knows no scripts, and some languages by other codes (the Norwegian of the
    most text, the Fula of Nigeria, Kikuyu)."""
    base = language(code).code.partition("_")[0]
    return {"nb": "no", "ff": "fuv", "ki": "kik"}.get(base, base)


def relatives(code: str) -> set[str]:
    """Codes of py3langid for a language and its close relatives."""
    code = identified_code(code)
    return {code}.union(*(group for group in RELATIVES if code in group))


def is_elsewhere(texts: list[str], code: str, other: str, confidence: float) -> np.ndarray:
    """
    Whether each text is surely in another language than `code`, (n,) bool.

    In `other`, the two compared with each other, with at least `confidence`; or in any but `code` and its close
    relatives, all compared, with half the doubt: 0.95 for 0.9; the latter alone where `other` cannot be told. Of the
    sentences of software, news and bibles in six languages, 0.03 to 0.1 % are taken wrongly by the latter (English
    0.3 %, menus mostly; FLORES-200: none), and 0.7 to 1.9 % of another language's pass, where 97 % did that were
    compared with English alone.
    """
    every = identifier()
    probabilities = every.probabilities(texts)
    mine, its = (probabilities[:, np.isin(every.codes, identified_code(one))].sum(axis=1) for one in (code, other))
    related = probabilities[:, np.isin(every.codes, list(relatives(code)))].sum(axis=1)
    return (its >= confidence * np.maximum(mine + its, np.finfo(float).tiny)) | (related <= (1 - confidence) / 2)


def identified(texts, code: str) -> list[str] | None:
    """The language that each text looks like, of `code` and the common ones; `None` if it cannot be told."""
    iso, _ = _checked_code(code)
    if iso is None:
        return None
    among = identifier(*sorted({*COMMON, iso}))
    return [among.codes[n] for n in among.probabilities(list(texts)).argmax(axis=1)]


def check_language(texts, code: str, what: str, *, sample=100) -> float | None:
    """
    Share of the first `sample` texts identified as `code`; `None` if it cannot be told, which is logged.

    Raises:
        `ValueError`: If less than half of them are, naming the language they look like.
    """
    found, (iso, reason) = identified(texts[:sample], code), _checked_code(code)
    if found is None:
        _say_unchecked(what, reason)
        return None
    share = found.count(iso) / len(found)
    if share < 0.5:
        likely = max(set(found), key=found.count)
        raise ValueError(
            f"{what} should be in {language(iso).name} but {found.count(likely)} of {len(found)} texts look like "
            f"{language(likely).name}: is it the right file?"
        )
    return share


def can_tell(codes, what: str) -> bool:
    """Whether some languages can be told; why not is logged, once, of `what`."""
    reason = next((reason for iso, reason in map(_checked_code, codes) if iso is None), None)
    if reason:
        _say_unchecked(what, reason)
    return reason is None


def elsewhere(texts: list[str], code: str, other: str) -> list[str | None]:
    """
    What language each text surely is in instead of `code`: py3langid's code for it; empty where it may be the right
    one, `None` for less than `MIN_BYTES`, which is not judged.

    Args:
        texts (`list[str]`): n texts.
        code (`str`): The language they should be in, one that [`can_tell`] knows.
        other (`str`): The one they are most easily mixed up with by mistake.
    """
    found: list[str | None] = [None] * len(texts)
    long = [n for n, text in enumerate(texts) if len(text.encode("utf-8", "surrogatepass")) >= MIN_BYTES]
    is_away = is_elsewhere([texts[n] for n in long], code, other, SURE)
    away = [n for n, one in zip(long, is_away, strict=True) if one]
    every = identifier()
    likely = every.probabilities([texts[n] for n in away]).argmax(axis=1)
    for n in long:
        found[n] = ""
    for n, column in zip(away, likely, strict=True):
        found[n] = every.codes[column]
    return found


def refuse_elsewhere(found: dict[str | None, int], code: str, what: str, way_out: str = "") -> None:
    """`ValueError` if at least half of the texts that were judged are in another language, which is named; `found` are
    the numbers of texts of each language, as [`elsewhere`] tells it, and `way_out` what to do where it errs."""
    away = {name: count for name, count in found.items() if name}
    share = sum(away.values()) / max(1, sum(count for name, count in found.items() if name is not None))
    if share >= 0.5:
        raise ValueError(
            f"{what} should be in {language(code).name}, but {share:.0%} of its texts are in another language, mostly "
            f"{language(max(away, key=away.get)).name}: is it the right file?{way_out}"
        )


def check_sides(sources: list[str], targets: list[str], source: str, target: str) -> dict[str, float]:
    """
    Whether the two sides of some pairs are in their languages. A side that mostly is not is named in a warning.

    Args:
        sources, targets (`list[str]`): n texts each; those of less than `MIN_BYTES` are not judged.
        source, target (`str`): Language codes.

    Returns:
        The share of texts of each side, by its code, that are not surely in another language; without those sides
        whose language cannot be told.

    Raises:
        `ValueError`: for sides that are each in the other's language, and one that mostly has no letter.
    """
    shares, swapped, likely = {}, [], {}
    for texts, code, other in ((sources, source, target), (targets, target, source)):
        wordless = [text for text in texts if not any(character.isalpha() for character in text)]
        if len(wordless) > len(texts) / 2:
            raise ValueError(
                f"the {language(code).name} ({code}) side of the bitext mostly has no words ({wordless[0][:40]!r}): "
                "is its column one of numbers? Set `source_language` and `target_language`, or name the columns with "
                "source_column and target_column"
            )
        texts = [text for text in texts if len(text.encode()) >= MIN_BYTES]
        if not texts:
            continue
        iso, reason = _checked_code(code)
        if iso is None:
            _say_unchecked(f"the {language(code).name} side of the bitext", reason)
            continue
        every = identifier()
        probabilities = every.probabilities(texts)
        mine, others = (
            probabilities[:, np.isin(every.codes, list(relatives(one)))].sum(axis=1) for one in (code, other)
        )
        swapped.append(np.mean(others > mine) > 0.5 and not relatives(code) & relatives(other))
        shares[code] = float(np.mean(mine > 1 - SURE))
        if shares[code] < 0.5:
            likely[code] = every.codes[int(np.bincount(probabilities.argmax(axis=1)).argmax())]
    if len(swapped) == 2 and all(swapped):
        raise ValueError(
            f"the sides of the bitext are swapped: what should be {language(source).name} looks like "
            f"{language(target).name}, and the other way round. Rename the columns, name them with source_column and "
            f"target_column, or give the file of {source!r} first"
        )
    for code, seems in likely.items():
        logger.warning(
            "Only %.0f %% of the %s side of the bitext look like it; the others mostly like %s. Is it the right file "
            "and column, and is it translated?",
            100 * shares[code],
            language(code).name,
            language(seems).name,
        )
    return shares


def _checked_code(code: str) -> tuple[str | None, str]:
    """What py3langid calls the language; `None` and why where it cannot tell it."""
    iso = identified_code(code)
    try:
        known = iso in identifier().codes
    except ValueError:
        return None, "py3langid is not installed (`pip install py3langid`)"
    return (iso, "") if known else (None, f"py3langid does not know {iso}")


@lru_cache
def _say_unchecked(what: str, reason: str) -> None:
    """Once each."""
    logger.warning("The language of %s is not checked: %s.", what, reason)


def _encode(text: str) -> bytes:
    text = text[:MAX_BYTES]
    text = unicodedata.normalize("NFC", text.lower() if text.isupper() else text)
    return text.encode("utf-8", "surrogatepass")[:MAX_BYTES]
