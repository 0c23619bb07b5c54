"""New merges behind the old ones, learned by the library's BPE trainer on words whose characters are tokens."""

import json

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tqdm.auto import tqdm

from .symbols import FIRST, cut_words, pair_key, part_words, repeat_words


# Within a round no token reaches across a pair that is left out; the next round starts from its tokens. On 160,001
# Indonesian pairs and 4,096 merges: 3.42 million tokens by one round, 2.97 by two, 2.89 by four, 2.88 by exact search.
ROUNDS = 4
MIN_COUNT = 2  # a token occurs at least twice in the text
LINE = 1000  # words encoded as one text


class GrowingVocabulary:
    """
    The tokens of a BPE, and the tokens and merges that are added to them.

    Args:
        ids (`dict[str, int]`): Id of each token, special ones included.

    Attributes:
        names (`dict[int, str]`): The inverse of `ids`.
        first (`int`): Ids from here on are new.
        merges (`list[tuple[str, str]]`): New merges, by rank.
    """

    def __init__(self, ids):
        self.ids = dict(ids)
        self.names = {token: text for text, token in self.ids.items()}
        self.first = max(self.names) + 1
        self.added = 0
        self.merges = []

    def add(self, text: str) -> int:
        """The id of a token, which is new where the vocabulary lacks it."""
        if text not in self.ids:
            self.ids[text] = self.first + self.added
            self.names[self.first + self.added] = text
            self.added += 1
        return self.ids[text]

    def spell(self, word: str) -> str:
        """The text of a word of symbols."""
        return "".join(self.names[ord(symbol) - FIRST] for symbol in word)


def learn_merges(vocabulary, words, size, *, forbidden, refused=frozenset(), rounds=ROUNDS, progress=False):
    """
    Add merges, the most frequent first, until `vocabulary` has `size` new tokens or no pair occurs twice.

    Args:
        vocabulary ([`GrowingVocabulary`]): Gets the tokens and merges.
        words (`Counter`): How often each word of symbols occurs.
        size (`int`): Number of new tokens in the end.
        forbidden (`np.ndarray`): Sorted keys of pairs of tokens that are no merge, see `symbols.pair_key`. A token may
            still reach across such a pair, where one of the two was joined to its other neighbour before.
        refused (`set[str]`): Tokens that are not to be made.
        rounds (`int`, *optional*, defaults to 4): Rounds of learning; one is exact where nothing is forbidden.
    """
    counts, words = list(words.values()), list(words)
    with tqdm(total=size - vocabulary.added, desc="learning merges", disable=not progress) as bar:
        while vocabulary.added < size:
            wanted, before = size - vocabulary.added, vocabulary.added
            texts = [part_words(text, forbidden) for text in repeat_words(words, counts)]
            merges, useless = _admit(vocabulary, _train(texts, -(-wanted // max(rounds, 1))), refused)
            if not merges and not useless:
                break
            words = _join(words, merges)
            forbidden = np.union1d(forbidden, np.array(useless, dtype=np.int64))
            rounds -= 1
            bar.update(vocabulary.added - before)


def _train(texts, number):
    """The `number` most frequent merges of texts, as pairs of strings of symbols."""
    alphabet = set().union(*texts) - {" "}
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + number, min_frequency=MIN_COUNT, show_progress=False, special_tokens=[]
    )
    backend = _symbol_backend()
    backend.train_from_iterator(texts, trainer)
    return [tuple(merge) for merge in json.loads(backend.to_str())["model"]["merges"]]


def _symbol_backend(**model):
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def _admit(vocabulary, merges, refused):
    """
    Put merges into the vocabulary, but for those that make a refused token and those that need its parts.

    Returns:
        The merges admitted, `dict` of pairs of strings of symbols to token ids, and the keys of the pairs refused.
    """
    token_of: dict[str, int] = {}
    admitted, useless = {}, []

    def token(part):
        return ord(part) - FIRST if len(part) == 1 else token_of.get(part)

    for left, right in merges:
        pair = token(left), token(right)
        if None in pair:
            continue
        texts = tuple(vocabulary.names[part] for part in pair)
        if "".join(texts) in refused:
            useless.append(pair_key(*pair))
            continue
        token_of[left + right] = admitted[left, right] = vocabulary.add("".join(texts))
        vocabulary.merges.append(texts)
    return admitted, useless


def _join(words, merges):
    """The words after `merges`: a symbol of theirs is one token again."""
    symbols = sorted(set().union(*words))
    tokens = {symbol: ord(symbol) - FIRST for symbol in symbols}
    tokens |= {left + right: token for (left, right), token in merges.items()}
    backend = _symbol_backend(vocab={part: i for i, part in enumerate(tokens)}, merges=list(merges))
    lines = [" ".join(words[start : start + LINE]) for start in range(0, len(words), LINE)]
    to_token = np.array(list(tokens.values()), dtype=np.int64)
    return [word for text in cut_words(backend, lines, to_token=to_token, batch_size=64) for word in text.split()]
