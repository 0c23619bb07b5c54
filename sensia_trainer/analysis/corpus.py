"""Sentence pairs as a model reads them, and the aligned content words in them (Appendix G)."""

from pathlib import Path

import numpy as np

from ..utils.files import fingerprint
from .alignment import align_words, aligned_content_words, encoder_fingerprint
from .words import segment_words, word_positions


def check_same_vocabulary(tokenizers) -> None:
    """`ValueError` unless all tokenizers give the same id to every token: else equal ids would be other words.

    Args:
        tokenizers (`dict`): tokenizers by the name of their model.
    """
    (first, expected), *others = ((name, tokenizer.get_vocab()) for name, tokenizer in tokenizers.items())
    for name, vocabulary in others:
        different = set(expected.items()) ^ set(vocabulary.items())
        if different:
            token = min(token for token, _ in different)
            raise ValueError(
                f"`{first}` and `{name}` have different vocabularies, so their senses are not of the same words: "
                f"token {token!r} is {expected.get(token)} in one and {vocabulary.get(token)} in the other. Compare "
                "models that started from the same one and kept its tokenizer."
            )


def told_pairs(corpus, tokenizer, mixture) -> np.ndarray:
    """
    Which word pairs a model with new words was told of before training, `(pairs,)` bool: the row of a new word in the
    target's spelling was made of a token in the source's spelling, ignoring case and the space before it.

    Args:
        corpus ([`AlignedCorpus`]): Read with the continued tokenizer.
        tokenizer: The continued tokenizer.
        mixture (`scipy.sparse.csr_array` of shape `(new words, old tokens)`): What their rows were made of, see
            [`~sensia_trainer.vocabulary.extension.Extension`]; the new words follow the old tokens.
    """
    first = mixture.shape[1]

    def forms(tokens):
        return {tokenizer.decode([token]).strip().casefold() for token in tokens}

    made_of: dict = {}
    told = []
    for source, target in zip(corpus.spellings["source"], corpus.spellings["target"], strict=True):
        new = [token - first for token in target if token >= first]
        for word in new:
            if word not in made_of:
                made_of[word] = forms(mixture[[word]].indices.tolist())
        told.append(any(forms(source) & made_of[word] for word in new))
    return np.array(told)


class AlignedCorpus:
    """Aligns the words of sentence pairs and finds the subwords that spell them.

    Args:
        tokenizer: The model's, with character offsets.
        source_sentences, target_sentences (`list[str]`): translations, line by line, none empty.
        source_language, target_language (`str`): Codes of the languages, for the content-word filters.
        encoder, layer, cache_dir, device: see `align_words`.
        minimum_count: see `aligned_content_words`.
        max_length (`int`, *optional*): cut sentences at this many tokens; words beyond are left out and counted.

    Raises:
        `ValueError`: If the sides differ in length, a sentence is empty, the tokenizer has no offsets, or no aligned
            content word is left.

    Attributes:
        ids (`dict`): `source` and `target`: token ids of each sentence.
        words (`dict`): the word of each aligned pair on each side, ignoring case.
        spellings (`dict`): its token ids, as a tuple.
        first_of_spelling (`dict`): the first pair of every distinct spelling on each side.
        positions (`dict`): its subword positions, grouped by sentence, in the order of the pairs.
        different (`np.ndarray` of bool): whether the two words of a pair differ, ignoring case.
        disjoint (`np.ndarray` of bool): whether they have no subword in common, either.
        types (`np.ndarray` of int): the first pair of every distinct pair of spellings that are disjoint.
        statistics (`dict`): how many pairs were left after each filter, and which filters.
    """

    def __init__(
        self,
        tokenizer,
        source_sentences,
        target_sentences,
        source_language,
        target_language,
        encoder,
        *,
        layer=8,
        minimum_count=5,
        max_length=None,
        cache_dir=None,
        device="cpu",
        progress=False,
    ):
        if len(source_sentences) != len(target_sentences):
            raise ValueError(
                "The two sides must be translations of each other, line by line, "
                f"got {len(source_sentences)} and {len(target_sentences)} sentences."
            )
        sentences = {"source": source_sentences, "target": target_sentences}
        for side, texts in sentences.items():
            empty = [index for index, text in enumerate(texts) if not text.strip()]
            if empty:
                raise ValueError(f"Sentence {empty[0]} of the {side} side is empty; leave it out on both sides.")
        segmented = {side: [segment_words(text) for text in texts] for side, texts in sentences.items()}
        spelled = [[[word.text for word in words] for words in side] for side in segmented.values()]
        links = align_words(*spelled, encoder, layer=layer, cache_dir=cache_dir, device=device, progress=progress)
        pairs, self.statistics = aligned_content_words(
            *segmented.values(), links, source_language, target_language, minimum_count=minimum_count
        )
        self.statistics["fingerprint"] = fingerprint([list(source_sentences), list(target_sentences)])
        self.statistics |= {"aligner": "SimAlign, itermax", "encoder": Path(encoder).name, "layer": layer}
        self.statistics["encoder_fingerprint"] = encoder_fingerprint(encoder)
        self.ids, located = {}, {}
        for side, texts in sentences.items():
            read = [word_positions(tokenizer, *item, max_length=max_length) for item in zip(texts, segmented[side])]
            self.ids[side] = [ids for ids, _ in read]
            located[side] = [positions for _, positions in read]
        # Words cut off at `max_length` have no subwords left.
        kept = [
            p for p in pairs if located["source"][p.sentence][p.source] and located["target"][p.sentence][p.target]
        ]
        if not kept:
            raise ValueError(f"All {len(pairs)} aligned words lie beyond `max_length` {max_length}; raise it.")
        self.statistics |= {"truncated": len(pairs) - len(kept), "pairs": len(kept)}
        self.words, self.spellings, self.positions = {}, {}, {}
        for side in sentences:
            places = [(pair.sentence, getattr(pair, side)) for pair in kept]
            self.words[side] = [segmented[side][s][w].text.casefold() for s, w in places]
            self.spellings[side] = [tuple(self.ids[side][s][t] for t in located[side][s][w]) for s, w in places]
            self.positions[side] = [[] for _ in self.ids[side]]
            for s, w in places:
                self.positions[side][s].append(located[side][s][w])
        self.first_of_spelling = {
            side: sorted({s: index for index, s in reversed(list(enumerate(names)))}.values())
            for side, names in self.spellings.items()
        }
        different = [a != b for a, b in zip(self.words["source"], self.words["target"])]
        self.different = np.array(different)
        spelled_pairs = list(zip(self.spellings["source"], self.spellings["target"]))
        disjoint = [d and not set(a) & set(b) for d, (a, b) in zip(different, spelled_pairs)]
        self.disjoint = np.array(disjoint)
        first = {pair: index for index, pair in reversed(list(enumerate(spelled_pairs)))}
        self.types = np.array(sorted(index for index in first.values() if disjoint[index]), dtype=int)
        self.statistics |= {
            "pairs_of_different_words": int(self.different.sum()),
            "pairs_without_shared_subword": int(self.disjoint.sum()),
            "distinct_pairs_without_shared_subword": len(self.types),
        }
