"""Models and tokenizers as every command loads them: whole, in float32, in any layout that is known."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file, logging

from modeling_backpack import BackpackForCausalLM, is_published_layout
from modeling_backpack.conversion_backpack import wrong_weights

from .files import DELTA_FILE, read_json
from .recipes import find_model


logger = logging.get_logger(__name__)

# Embeddings are padded to round numbers: by some hundreds of rows (Phi 905, Qwen 267).
PADDED_ROWS, PADDED_SHARE = 1024, 0.02
PROBES = ("The cat sat on 2 chairs.", "Kucing tidur di kursi.", "猫坐在椅子上。", "القطة تجلس.")  # fmt: skip


def load_config(name_or_path: str):
    """The configuration of a model: folder, Hub id, or one that comes with the package. `ValueError` without one."""
    try:
        return AutoConfig.from_pretrained(find_model(name_or_path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(name_or_path)!r} is not a model that can be loaded ({str(error).splitlines()[0]}). Give the folder "
            "of a causal language model, or its id on the Hub."
        ) from error


def load_model(name_or_path: str, **kwargs) -> PreTrainedModel:
    """A causal language model: a Backpack, one in the published layout, or any other.

    Args:
        name_or_path (`str`): Folder, Hub id, or a model that comes with the package ([`find_model`]).
        kwargs: Arguments of `from_pretrained`. `dtype` defaults to float32, whatever the file holds.

    Returns:
        `PreTrainedModel` in evaluation mode: [`BackpackForCausalLM`] where there are senses.

    Raises:
        `ValueError`: for a model that cannot be had or is damaged, and for weights that are missing, unexpected or of
            another shape, with their names.
    """
    given, name_or_path = name_or_path, find_model(name_or_path)
    if (Path(name_or_path) / DELTA_FILE).is_file():
        raise ValueError(
            f"{str(given)!r} is a delta, what distinguishes a model from its base: put them together by `sensia delta "
            "DELTA BASE MODEL`, and give that folder."
        )
    try:
        model_class = BackpackForCausalLM if is_published_layout(name_or_path, **kwargs) else AutoModelForCausalLM
        # Weights of another shape are reported with the others, instead of raised alone.
        kwargs = {"dtype": torch.float32} | kwargs | {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = model_class.from_pretrained(name_or_path, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        what = "damaged" if isinstance(error, SafetensorError) else "not a model that can be loaded"
        raise ValueError(
            f"{str(given)!r} is {what} ({' '.join(str(error).split())}). Give the folder of a causal language "
            "model, or its id on the Hub."
        ) from error
    wrong = {kind.replace("_", " "): names for kind, names in wrong_weights(info).items()}
    if wrong:
        counts = "; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in wrong.items())
        raise ValueError(
            f"The weights of {str(name_or_path)!r} do not fill a {type(model).__name__} ({counts}). The rest would be "
            "random: give a whole checkpoint of this architecture."
        )
    return model


def load_device(name: str) -> torch.device:
    """The device of that name; of `"auto"`, the accelerator where there is one. `ValueError` where it is not there."""
    if name == "auto":
        name = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"`device` is {name!r}, which is not here ({str(error).splitlines()[0]}).") from None
    return device


def load_tokenizer(name_or_path: str, model: PreTrainedModel | None = None, **kwargs) -> PreTrainedTokenizerBase:
    """A tokenizer that makes something of text.

    Args:
        name_or_path (`str`): Folder or Hub id.
        model (`PreTrainedModel`, *optional*): The model that is to read its tokens.
        kwargs: Arguments of `from_pretrained`.

    Raises:
        `ValueError`: where there is no tokenizer, where it makes no tokens (or unknown ones alone) of every text, and
            where it knows more tokens than `model` has embeddings. That it knows far fewer is a warning.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(find_model(name_or_path), **kwargs)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(name_or_path)!r} has no tokenizer that can be loaded ({str(error).splitlines()[0]}). Name another "
            "folder or Hub id that holds the tokenizer of the model."
        ) from error
    tokens = [
        token for text in PROBES for token in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ]
    if not set(tokens) - {tokenizer.unk_token_id}:
        raise ValueError(
            f"The tokenizer of {str(name_or_path)!r} gives {'unknown tokens alone' if tokens else 'no tokens'} for "
            f"every text ({type(tokenizer).__name__}, {len(tokenizer)} tokens): its files are missing or damaged. "
            "Name another folder or Hub id that holds the tokenizer of the model."
        )
    if model is not None and rows_needed(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ValueError(
            f"The tokenizer of {str(name_or_path)!r} has {len(tokenizer)} tokens, but the model has embeddings of "
            f"{model.get_input_embeddings().num_embeddings}: it is the tokenizer of another model. Name the model's "
            "own, or call `resize_token_embeddings` and save the model again."
        )
    if model is not None:
        rows, known = model.get_input_embeddings().num_embeddings, len(tokenizer)
        if rows - known > max(PADDED_ROWS, PADDED_SHARE * rows):
            logger.warning(
                f"The model has embeddings of {rows:,} tokens, but the tokenizer of {str(name_or_path)!r} knows "
                f"{known:,}: if it is not the model's own, the model reads other words than are written."
            )
    return tokenizer


def json_of(model, name: str) -> dict:
    """What a JSON file of a model (folder, Hub id, or one that comes with the package) holds; nothing where there is
    none, or where the Hub does not give it. `ValueError` for a damaged one."""
    kinds = ("missing_entries", "connection_errors", "gated_repo")
    try:
        file = cached_file(find_model(model), name, **{f"_raise_exceptions_for_{kind}": False for kind in kinds})
    except (OSError, ValueError):  # loading the model says what is wrong
        file = None
    content = read_json(file) if file else {}
    return content if isinstance(content, dict) else {}


def rows_needed(tokenizer, below: int | None = None) -> int:
    """Embeddings that texts need: as many as the tokenizer has tokens (of ids `below` a number), less special ones
    behind all others that begin, end, pad and stand for nothing: Gemma 3 has no row for that of its images."""
    used = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    spare = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special} - used
    ids = sorted(id for id in tokenizer.get_vocab().values() if below is None or id < below)
    while ids and ids[-1] in spare:
        ids.pop()
    return ids[-1] + 1 if ids else 0


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def own_start_token(tokenizer) -> int | None:
    """The token that the tokenizer itself puts before a text ([CLS] of Goldfish, </s> of XGLM), or None."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    starts = [i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare]
    return full[0] if starts and starts[0] > 0 else None
