"""Which of two languages a sentence is in: the model of py3langid, restricted to a pair, over many sentences at once.

py3langid walks its automaton over one text at a time in Python (60 microseconds a sentence). Here all texts of a batch
take each step together, which is the same computation in about a tenth of the time.
"""

import unicodedata
from functools import lru_cache

import numpy as np


MAX_BYTES = 600  # of a sentence: more does not change the answer


@lru_cache
def _model():
    """The model inside py3langid, for all its languages (a second to load)."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ValueError(
            "filters.language_confidence needs py3langid: pip install py3langid, or set it to null"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class PairIdentifier:
    """Naive Bayes over byte n-grams between two languages, with temperature sqrt(bytes), as py3langid does it.

    Args:
        first, second: codes of `Language`.

    Raises ValueError when py3langid is not installed or does not know a language.
    """

    def __init__(self, first: str, second: str):
        model = _model()
        first, second = (code.partition("_")[0] for code in (first, second))  # it knows no scripts
        unknown = [code for code in (first, second) if code not in model.nb_classes]
        if unknown or first == second:
            what = unknown or f"the scripts of {first!r}"
            raise ValueError(f"py3langid does not know {what}; set filters.language_confidence to null for this pair")
        # A language written in two scripts has two columns, whose probabilities add up.
        columns = [n for n, code in enumerate(model.nb_classes) if code in (first, second)]
        self.is_second = np.array([model.nb_classes[n] == second for n in columns])
        self.feature_scores = np.asarray(model.nb_ptc[:, columns], np.float64)  # log P(feature | language)
        self.prior_scores = np.asarray(model.nb_pc[columns], np.float64)
        self.next_state = np.asarray(model.tk_nextmove)
        self.row_start = np.asarray(model.tk_row, np.int64) << 8
        self.output = np.asarray(model.tk_output, np.int64)

    def second(self, texts: list[str]) -> np.ndarray:
        """Probability that each text is in the second language, (n,) float64; 0.5 where nothing speaks for either."""
        encoded = [self._encode(text) for text in texts]
        probability = np.empty(len(texts))
        by_length = np.argsort([len(text) for text in encoded], kind="stable")[::-1]
        for start in range(0, len(texts), 4096):
            rows = by_length[start : start + 4096]
            probability[rows] = self._second([encoded[row] for row in rows])
        return probability

    def _second(self, encoded: list[bytes]) -> np.ndarray:
        count = len(encoded)
        sizes = np.array([len(text) for text in encoded])
        letters = np.zeros((sizes.max(initial=0), count), np.uint8)
        for column, text in enumerate(encoded):
            letters[: len(text), column] = np.frombuffer(text, np.uint8)
        state = np.zeros(count, np.int64)
        found = []
        for step in range(len(letters)):
            active = int(np.searchsorted(-sizes, -step, "left"))  # texts are sorted, longest first
            state[:active] = self.next_state[self.row_start[state[:active]] + letters[step, :active]]
            feature = self.output[state[:active]]
            seen = np.flatnonzero(feature >= 0)
            found.append(seen * len(self.feature_scores) + feature[seen])
        visits, times = np.unique(np.concatenate(found) if found else np.zeros(0, np.int64), return_counts=True)
        text, feature = np.divmod(visits, len(self.feature_scores))
        weighted = np.log1p(times)[:, None] * self.feature_scores[feature]
        scores = np.stack([np.bincount(text, column, count) for column in weighted.T], axis=1)
        has_features = np.bincount(text, minlength=count) > 0
        scores = np.where(has_features[:, None], scores + self.prior_scores, 0.0)
        scores /= np.sqrt(np.maximum(sizes, 1))[:, None]
        probability = np.exp(scores - scores.max(axis=1, keepdims=True))
        return probability[:, self.is_second].sum(axis=1) / probability.sum(axis=1)

    @staticmethod
    def _encode(text: str) -> bytes:
        text = unicodedata.normalize("NFC", text.lower() if text.isupper() else text)
        return text.encode("utf-8", "surrogatepass")[:MAX_BYTES]
