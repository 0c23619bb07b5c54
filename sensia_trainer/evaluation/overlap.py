"""Token overlap: how far sentence retrieval gets without a model, by the tokens that translations share.

Names, numbers, borrowed and cognate words are spelled alike in two languages, so a retrieval score means something
only beside this one.
"""

import numpy as np
import torch
from scipy import sparse

from .retrieval import rank_translations


def token_idf(sequences, vocab_size: int) -> np.ndarray:
    """Inverse document frequency of every token, ln((1 + N) / (1 + df)), `(vocab_size,)`, float64.

    Args:
        sequences: Token ids of the N sentences it is counted on, of both languages together; best not those that are
            evaluated.
        vocab_size (`int`): Rows of the model's embeddings.

    Raises:
        `ValueError`: If there is no sentence.
    """
    if not len(sequences):
        raise ValueError("`sequences` is empty: document frequencies need at least one sentence.")
    present = np.concatenate([np.unique(np.asarray(ids, dtype=np.int64)) for ids in sequences])
    frequency = np.bincount(present, minlength=vocab_size)
    return np.log((1 + len(sequences)) / (1 + frequency))


def overlap_vectors(sequences, idf: np.ndarray) -> sparse.csr_array:
    """TF-IDF of sentences: counts of tokens times `idf`, rows of unit norm (zero where no token weighs anything).

    Returns:
        Sparse matrix of shape `(len(sequences), vocab_size)`, float64.
    """
    rows = np.repeat(np.arange(len(sequences)), [len(ids) for ids in sequences])
    columns = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in sequences])
    weights = sparse.csr_array((idf[columns], (rows, columns)), shape=(len(sequences), len(idf)))
    norms = np.sqrt((weights * weights).sum(axis=1))
    return sparse.diags_array(1 / np.where(norms > 0, norms, 1.0)) @ weights


def overlap_by_query(source, target, idf: np.ndarray, *, chunk_size=1024) -> dict[str, torch.Tensor]:
    """`hits`, `margins` and `ranks` of retrieval by the cosine of TF-IDF vectors, as
    [`~sensia_trainer.evaluation.retrieval.retrieval_by_query`] gives them for a model's vectors.

    Args:
        source, target (`list[list[int]]`): Token ids of N sentences and of their translations, without start tokens.
        idf (`np.ndarray` of shape `(vocab_size,)`): From [`token_idf`].
        chunk_size (`int`): Rows of the N x N cosine matrix held at once.
    """
    source, target = overlap_vectors(source, idf), overlap_vectors(target, idf)
    own = torch.from_numpy((source * target).sum(axis=1))

    def cosines(start, stop):
        return torch.from_numpy((source[start:stop] @ target.T).toarray())

    return rank_translations(own, cosines, chunk_size)
