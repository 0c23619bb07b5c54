"""
Continue a tokenizer on the text of another language: new tokens behind the old ones.

Old ids, old merges and special tokens stay, and the source language stays as it was cut. New merges rank behind the
old ones, so the first of them that fires in a text joins two *old* tokens: a text is cut as before exactly if no two
old tokens that stand side by side in it are a new merge. Pairs that stand side by side in the source text are
therefore left out (`max_source_change` lets some in), and merges are learned around them.

That alone would leave the commonest words of a related language in pieces: Indonesian `dan` is `d` and `an`, and so
begins English `Danube`. Most of the new tokens are therefore whole words, which the tokenizer looks up before it cuts
(`ignore_merges`): a word that the source text does not hold changes nothing in it.
"""

import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import regex
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from .merges import MIN_COUNT, GrowingVocabulary, learn_merges
from .symbols import MAX_TOKENS, count_pairs, count_words, cut_words, is_in, pair_key, to_ids


logger = logging.get_logger(__name__)

# Of the new tokens, where spaces part the words. Measured with 160,001 Indonesian pairs and 4,096 tokens, bytes a
# token of FLORES-200 dev: 3.53 without whole words, 3.83 with half, 3.88 with three quarters, 3.76 with nothing else.
WORD_SHARE = 0.75
# Of the characters of the target text, known ones counted, for tokenizers that spell the others by bytes.
CHARACTER_COVERAGE = 0.9995
SAMPLE = 5_000  # texts by which bytes a token are measured
MAX_TEXTS = 250_000  # that tokens are learned from; of more, so many at equal distances
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]")
_LETTER = regex.compile(r"[\p{L}\p{M}]")
_MARK = regex.compile(r"\p{M}")
MARK_SHARE = 0.01  # of letters and marks, from which on a language writes with marks
# GPT-2's words, with the marks behind letters in them.
WORDS_WITH_MARKS = r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"


def continue_tokenizer(
    tokenizer, source_texts, target_texts, size, *, protected=(), max_source_change=0.0, progress=False
):
    """
    A tokenizer with `size` more tokens, learned on the target texts.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): A byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM2), or a BPE of whole
            texts with byte fallback (Llama 2, Mistral, Gemma).
        source_texts (`Sequence[str]`): Text of the language that is to be cut as before.
        target_texts (`Sequence[str]`): Text of the language that gets tokens of its own.
        protected (`Sequence[str]`, *optional*): Texts of further languages that are to be cut as before.
        size (`int`): Number of new tokens. Fewer are added where the text has no more that occur twice.
        max_source_change (`float`, *optional*, defaults to 0.0): Share of the source texts that may be cut
            differently. A few sentences that were left untranslated cost good tokens: .001 gives most of them back.
        progress (`bool`, *optional*, defaults to `False`): Whether to show progress.

    Returns:
        `PreTrainedTokenizerFast`: Like one that was loaded from a folder; the ids behind the largest old one are new.
        `dict`: `new_tokens` and, of these, `characters`, `whole_words` and `merged`; `merges`; `source_change`, the
        share of the source texts that are cut differently; `source_bytes_per_token` and `target_bytes_per_token`,
        each `{"before": …, "after": …}`, on up to 5,000 texts.

    Raises:
        `ValueError`: for a tokenizer of another kind or one that cannot be kept, a size below 1, texts without text,
        or texts that yield no token.
    """
    state = continuable_state(tokenizer)
    _check(source_texts, target_texts, size, max_source_change)
    kept_texts = [*source_texts, *protected]
    old, by_words = Tokenizer.from_str(json.dumps(state)), _is_byte_level(state)
    if by_words and _writes_marks(target_texts) and _cuts_at_marks(old):
        kept = _with_marks(state)
        changed = source_change(old, Tokenizer.from_str(json.dumps(kept)), kept_texts) if kept != state else 1.0
        if changed <= max_source_change:
            state = kept
        else:
            logger.warning(
                "The language writes vowels or tones as marks behind letters, at which this tokenizer cuts words, and "
                "that cannot be changed without cutting the source language otherwise: new words will be pieces."
            )
    vocabulary = GrowingVocabulary(tokenizer.get_vocab())
    if vocabulary.first + size > MAX_TOKENS:
        raise ValueError(f"`size` is {size}, but {MAX_TOKENS} tokens are all that can be had, the old ones included.")
    budget = allowed = int(max_source_change * len(source_texts))

    learned = target_texts[:: -(-len(target_texts) // MAX_TEXTS)]
    if not by_words:
        budget -= _add_characters(vocabulary, old, kept_texts, learned, size // 2, budget)
    characters = vocabulary.added
    grown = Tokenizer.from_str(json.dumps(_grown(state, vocabulary)))
    joins = None if by_words else _joins(vocabulary)
    target_words = count_words(grown, learned, joins=joins, desc="reading target words" if progress else None)
    options = {"joins": joins, "desc": "reading source words" if progress else None}
    source_words = _protected_words(grown, kept_texts, target_words, budget, **options)

    looks_up = by_words and _has_spaces(learned)
    if looks_up:  # some tokens are made by no merge, and would be found where they were not before
        looks_up = _keeps(
            Tokenizer.from_str(json.dumps(_grown(state, vocabulary, looks_up))), vocabulary, source_words
        )
    forbidden, _ = count_pairs(source_words)
    whole_words = []
    if looks_up:
        whole_words = _best_words(target_words, source_words, int(WORD_SHARE * size))
        for word in whole_words:
            vocabulary.add(vocabulary.spell(word))
            del target_words[word]
    refused = {token["content"] for token in state["added_tokens"]}
    if looks_up or state["model"].get("ignore_merges"):
        refused |= {vocabulary.spell(word) for word in source_words}
    learn_merges(vocabulary, target_words, size, forbidden=forbidden, refused=refused, progress=progress)
    if vocabulary.added == 0:
        raise ValueError(
            "The target text yields no new token: nothing occurs twice in it that the tokenizer cuts and the source "
            "text does not hold. Give more text, or let more source sentences be cut otherwise (`--source_change` of "
            "`sensia vocabulary`, `vocabulary_source_change` of `sensia adapt`); a model that has words of the "
            "language needs no more (size 0)."
        )

    new = _load(tokenizer, _grown(state, vocabulary, looks_up))
    kept = allowed == 0 and _keeps(new.backend_tokenizer, vocabulary, source_words)
    changed = 0.0 if kept else source_change(old, new.backend_tokenizer, source_texts)
    report: dict[str, object] = {
        "new_tokens": vocabulary.added,
        "characters": characters,
        "whole_words": len(whole_words),
        "merged": vocabulary.added - characters - len(whole_words),
        "merges": len(vocabulary.merges),
        "source_change": changed,
    }
    for side, texts in (("source", source_texts), ("target", target_texts)):
        sizes = {"before": bytes_per_token(old, texts), "after": bytes_per_token(new.backend_tokenizer, texts)}
        report[f"{side}_bytes_per_token"] = sizes
    return new, report


def bytes_per_token(backend, texts, sample=SAMPLE) -> float:
    """UTF-8 bytes a token (`float`) of up to `sample` texts, taken at equal distances, without special tokens."""
    texts = [text for text in texts[:: -(-len(texts) // sample)] if text]
    tokens = sum(len(encoding) for encoding in backend.encode_batch(texts, add_special_tokens=False))
    return sum(len(text.encode()) for text in texts) / max(tokens, 1)


def _check(source_texts, target_texts, size, max_source_change):
    if size < 1:
        raise ValueError(f"`size` must be at least 1, the number of tokens to add, got {size}.")
    if not 0 <= max_source_change <= 1:
        raise ValueError(f"`max_source_change` must lie between 0 and 1, a share of texts, got {max_source_change}.")
    for name, texts in (("source_texts", source_texts), ("target_texts", target_texts)):
        if not any(text.strip() for text in texts):
            raise ValueError(f"`{name}` holds no text: give the sentences that the tokens are learned from.")


def continuable_state(tokenizer):
    """The state of a tokenizer as its JSON holds it, without the settings of its last call. `ValueError` for one that
    cannot be continued."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"`tokenizer` ({type(tokenizer).__name__}) has no `tokenizer.json`, which is what can be continued. Load "
            "it as a fast tokenizer."
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    model = state["model"]
    if model["type"] != "BPE":
        raise ValueError(
            f"`tokenizer` is a {model['type']} model, and only BPE can be continued so that old text stays as it was "
            "cut: in a Unigram model a new piece competes with all old ones, and WordPiece has no merges. Choose a "
            "model with a BPE tokenizer, or leave its vocabulary as it is (size 0)."
        )
    if model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ValueError(
            "`tokenizer` is a BPE with dropout, or with marks for the inside or the end of words "
            "(`continuing_subword_prefix`, `end_of_word_suffix`), which cannot be continued. Leave its vocabulary as "
            "it is (size 0)."
        )
    if not _is_byte_level(state) and not model["byte_fallback"]:
        raise ValueError(
            "`tokenizer` is a BPE of characters without bytes: text outside its alphabet would not survive encoding. "
            "Byte-level BPE (GPT-2, Llama 3, Qwen) and BPE with byte fallback (Llama 2, Gemma) can be continued."
        )
    return state


def _writes_marks(texts) -> bool:
    """Whether a language writes with combining marks (vowels of Devanagari or Thai, tones of Yoruba)."""
    text = "".join(texts[:: -(-len(texts) // SAMPLE)])
    return len(_MARK.findall(text)) > MARK_SHARE * max(1, len(_LETTER.findall(text)))


def _cuts_at_marks(backend) -> bool:
    """Whether a word with vowel signs is more than one word to a tokenizer."""
    return backend.pre_tokenizer is not None and len(backend.pre_tokenizer.pre_tokenize_str(" किताब")) > 1


def _with_marks(state):
    """The state of a byte-level tokenizer with a pre-tokenizer that leaves marks with their letters; as it is where
    that is of an unknown kind."""
    step = state["pre_tokenizer"] or {}
    steps = step["pretokenizers"] if step.get("type") == "Sequence" else [step]
    changed = []
    for one in steps:
        if one.get("type") == "ByteLevel" and one.get("use_regex", True) and not one.get("add_prefix_space"):
            split = {"type": "Split", "pattern": {"Regex": WORDS_WITH_MARKS}, "behavior": "Isolated", "invert": False}
            changed += [split, one | {"use_regex": False}]
        elif one.get("type") == "Split" and r"\p{L}+" in one["pattern"].get("Regex", ""):
            pattern = one["pattern"]["Regex"].replace(r"\p{L}+", r"[\p{L}\p{M}]+")
            pattern = pattern.replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
            changed.append(one | {"pattern": {"Regex": pattern}})
        else:
            changed.append(one)
    return state if changed == steps else state | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": changed}}


def _is_byte_level(state):
    """Whether the alphabet is that of bytes."""
    steps = [state["pre_tokenizer"] or {}, state["normalizer"] or {}]
    steps += [step for part in steps for step in part.get("pretokenizers", part.get("normalizers", []))]
    return any(step.get("type") == "ByteLevel" for step in steps)


def _grown(state, vocabulary, looks_up=False):
    """The state with new tokens and merges. Special tokens join the model's vocabulary, where their ids are kept."""
    model = state["model"]
    merges = [*model["merges"], *[list(merge) for merge in vocabulary.merges]]
    model = model | {"vocab": vocabulary.ids, "merges": merges}
    return state | {"model": model | {"ignore_merges": looks_up or model.get("ignore_merges", False)}}


def _load(tokenizer, state):
    """
    A tokenizer of `state` with the settings of another one (special tokens, chat template, length), loaded as ever.

    The general class is named, because those of single models (`GPT2Tokenizer`) rebuild the model and lose settings.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        settings_file = Path(folder) / "tokenizer_config.json"
        settings = json.loads(settings_file.read_text(encoding="utf-8")) | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            # Those of some classes (Gemma's) are no settings of theirs.
            "padding_side": tokenizer.padding_side,
            "truncation_side": tokenizer.truncation_side,
        }
        settings.pop("auto_map", None)
        settings_file.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
        new = PreTrainedTokenizerFast.from_pretrained(folder)
    new.name_or_path = tokenizer.name_or_path
    loaded = json.loads(new.backend_tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"):
        if loaded[part] != state[part]:
            raise ValueError(
                f"The `{part}` of `tokenizer` ({type(tokenizer).__name__}) cannot be kept in a tokenizer of the "
                f"general class: it was {state[part]} and became {loaded[part]}. Leave the vocabulary as it is "
                "(size 0)."
            )
    return new


def _add_characters(vocabulary, backend, source_texts, target_texts, limit, budget):
    """
    Add the characters of the target text that the tokenizer spells by bytes, the most frequent first.

    Returns:
        `int`: how often those admitted occur in the source text, at most `budget`.
    """
    source, target = (Counter(itertools.chain.from_iterable(texts)) for texts in (source_texts, target_texts))
    covered, spent, start = 0, 0, vocabulary.added
    for character, count in sorted(target.items(), key=lambda item: (-item[1], item[0])):
        if covered >= CHARACTER_COVERAGE * target.total() or count < MIN_COUNT or vocabulary.added - start >= limit:
            break
        covered += count
        spelled = backend.encode(character, add_special_tokens=False).tokens
        by_bytes = any(token.startswith("<0x") for token in spelled)
        if by_bytes and spent + source[character] <= budget:
            vocabulary.add(character)
            spent += source[character]
    return spent


def _joins(vocabulary):
    """For each token, whether another one may follow it, and whether another one may precede it, in one word."""
    followed, preceded = np.zeros((2, max(vocabulary.names) + 1), dtype=bool)
    for token, text in vocabulary.names.items():
        followed[token] = bool(text) and (text == "▁" or _LETTER.match(text[-1]) is not None)
        preceded[token] = bool(text) and _LETTER.match(text[0]) is not None
    return followed, preceded


def _has_spaces(texts):
    """Whether spaces part the words of a text."""
    text = "".join(texts[:: -(-len(texts) // SAMPLE)])
    return len(_UNSPACED.findall(text)) < 0.5 * len(_LETTER.findall(text))


def _keeps(backend, vocabulary, words):
    """Whether a backend cuts words of symbols as they are."""
    model = backend.model
    return all([token.id for token in model.tokenize(vocabulary.spell(word))] == to_ids(word) for word in words)


def _protected_words(backend, texts, target_words, number, **options):
    """
    The words of the source text, but for the `number` texts that keep most target words and pairs from being tokens.

    Every text that holds something takes an equal part of what that costs: a text that was left untranslated takes all
    of it alone.
    """
    if number == 0:
        return count_words(backend, texts, **options)
    lines = [line for text in cut_words(backend, texts, **options) for line in text.split("\n")]
    words = Counter(word for line in lines for word in line.split(" "))
    (pairs, counts), (target_pairs, target_counts) = count_pairs(words), count_pairs(target_words)
    shared = np.isin(pairs, target_pairs)
    shares = target_counts[is_in(target_pairs, pairs)] / counts[shared]
    share_of = dict(zip(pairs[shared].tolist(), shares.tolist(), strict=True))

    def cost(word):
        tokens = to_ids(word)
        whole = target_words[word] * (len(word) - 1) / words[word]
        return whole + sum(share_of.get(pair_key(*pair), 0.0) for pair in itertools.pairwise(tokens))

    costs = {word: cost(word) for word in words}
    by_cost = sorted(lines, key=lambda line: (-sum(costs[word] for word in line.split(" ")), line))
    words.subtract(word for line in by_cost[:number] for word in line.split(" "))
    return +words


def _best_words(target_words, source_words, number):
    """The words of symbols that save most tokens, of those that the source text does not hold."""
    candidates = [
        (count * (len(word) - 1), word)
        for word, count in target_words.items()
        if len(word) > 1 and count >= MIN_COUNT and word not in source_words
    ]
    return [word for _, word in sorted(candidates, key=lambda pair: (-pair[0], pair[1]))[:number]]


def source_change(old, new, texts) -> float:
    """The share of texts that the backend `new` cuts otherwise than the backend `old`."""
    changed = 0
    for start in range(0, len(texts), SAMPLE):
        both = [
            backend.encode_batch(texts[start : start + SAMPLE], add_special_tokens=False) for backend in (old, new)
        ]
        changed += sum(before.ids != after.ids for before, after in zip(*both, strict=True))
    return changed / len(texts)
