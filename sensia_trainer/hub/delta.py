"""
Deltas: what distinguishes a model from the one it was made of, small enough for a repository.

A model that was adapted by parts (`train: lora`) differs from its base by low-rank updates, the rows of new words and
its sense path. Of each weight W with base W_0 a delta holds nothing where they are equal, factors of W - W_0 where its
rank is low, W - W_0 otherwise; rows and weights that the base does not have it holds as they are. Nothing of this
needs to be told how the model was trained.
"""

import re
import shutil
from pathlib import Path

import torch
from huggingface_hub import ModelCard, save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM

from ..evaluation.vectors import SENTENCE_SETTINGS
from ..training.parts import merge_updates
from ..training.runs import METRICS_FILE, weights_fingerprint
from ..utils.files import DELTA_FILE, DELTA_WEIGHTS, portable, read_json, write_json, write_text, written_folder
from ..utils.models import load_model, load_tokenizer
from ..utils.recipes import find_model
from ..vocabulary.extension import keep_report
from .card_prose import MODEL_OF_DELTA, delta_notice, with_notice
from .folders import FILE_SIZE, complete_folder
from .model_card import config_facts, is_as_rendered, write_card


KEPT = ("*.md", "*.png", "*.svg", METRICS_FILE, SENTENCE_SETTINGS, "generation_config.json")
# Singular values below this share of the largest are rounding: less than what float16 makes of the largest.
RANK_TOLERANCE = 2.0**-12


def make_delta(folder, base, destination) -> Path:
    """
    Write the delta of a model: half-precision weights, configuration, tokenizer, card.

    Args:
        folder (`str` or `Path`): The model's folder.
        base (`str`): The model it was made of, with senses or without: folder or Hub id.
        destination (`str` or `Path`): Folder to write, which must not exist.

    Returns:
        The destination.

    Raises:
        `ValueError`: for a destination that exists, weights that are not finite, and weights of `base` that are not
            those of the model by shape.
    """
    model, original = merge_updates(load_model(folder)), load_model(base)
    known, parts = _as_in(model, original), {}
    for name, weight in tqdm(_distinct(model).items(), desc="comparing weights", disable=None):
        parts |= _difference(name, weight, known.get(name))
    if not parts:
        raise ValueError(
            f"{str(folder)!r} has the very weights of its base, {str(base)!r}: there is no delta to keep."
        )
    facts = {
        "base": portable(str(base)),
        "base_fingerprint": weights_fingerprint(original),
        "about_base": _about(find_model(base)),
    }
    with written_folder(destination) as written:
        pattern = DELTA_WEIGHTS.replace(".", "{suffix}.")
        save_torch_state_dict(_in_pieces(parts), str(written), filename_pattern=pattern, max_shard_size=FILE_SIZE)
        model.config.save_pretrained(written)
        size = sum(weight.numel() for weight in _distinct(model).values())
        facts["model"] = {"Parameters": size, "Stored as": "F32"} | config_facts(written)
        write_json(written / DELTA_FILE, facts)
        load_tokenizer(folder).save_pretrained(written)
        _copy(folder, written)
        _complete(written)
        if is_as_rendered(folder):
            write_card(written)
        else:
            _edit_card(written, lambda text: _loading(with_notice(text, facts), MODEL_OF_DELTA))
    return Path(destination)


def apply_delta(folder, base, destination) -> Path:
    """
    Put a delta and its base together: a model folder as any other.

    Args:
        folder (`str` or `Path`): What [`make_delta`] wrote.
        base (`str`): The base: folder or Hub id.
        destination (`str` or `Path`): Folder to write, which must not exist.

    Returns:
        The destination.

    Raises:
        `ValueError`: for a destination that exists, a damaged delta, and another base than that of the delta.
    """
    folder = Path(folder)
    facts, original = read_json(folder / DELTA_FILE), load_model(base)
    found = weights_fingerprint(original)
    if found != facts["base_fingerprint"]:
        raise ValueError(
            f"{str(base)!r} is not the model that {str(folder)!r} is a delta of: its weights have the fingerprint "
            f"{found}, those of {facts['base']!r} have {facts['base_fingerprint']}. Give that model."
        )
    parts = {}
    for file in weight_files(folder):
        try:
            parts |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file} is damaged or missing ({error}): get the delta again.") from error
    parts = _of_pieces(parts)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
    known, weights = _as_in(model, original), _distinct(model)
    if unknown := sorted({key.split(":")[1] for key in parts} - weights.keys()):
        raise ValueError(
            f"{str(folder)!r} holds weights that its configuration has no place for ({', '.join(unknown[:3])}): make "
            "the delta again."
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(_restored(name, weight.shape, known.get(name), parts))
    with written_folder(destination) as written:
        model.save_pretrained(written)
        load_tokenizer(folder).save_pretrained(written)
        _copy(folder, written)
        _complete(written)
        metrics = read_json(written / METRICS_FILE) if (written / METRICS_FILE).is_file() else {}
        name = metrics.get("model_name") or Path(destination).name
        if is_as_rendered(folder):
            write_card(written)
        else:
            _edit_card(written, lambda text: _loading(text.replace(delta_notice(facts), ""), name))
    return Path(destination)


def refresh_card(folder) -> Path:
    """Render the card of a delta again, from its `metrics.json`; returns its path."""
    folder = Path(folder)
    _complete(folder)
    return write_card(folder)


def weight_files(folder) -> list[Path]:
    """The files that hold a delta's weights: one, or those that its index names."""
    index = Path(folder, f"{DELTA_WEIGHTS}.index.json")
    names = set(read_json(index)["weight_map"].values()) if index.is_file() else {DELTA_WEIGHTS}
    return [Path(folder, name) for name in sorted(names)]


def _in_pieces(parts):
    """Parts of at most `FILE_SIZE` bytes: rows of a larger one under its key with `:0`, `:1`, ..."""
    pieces = {}
    for key, part in parts.items():
        if part.nbytes <= FILE_SIZE:
            pieces[key] = part
            continue
        rows = max(1, FILE_SIZE // part[0].nbytes)
        pieces |= {f"{key}:{i}": piece.clone() for i, piece in enumerate(part.split(rows))}
    return pieces


def _of_pieces(pieces):
    """What [`_in_pieces`] was given."""
    parts, rows = {}, {}
    for key, piece in pieces.items():
        kind, name, *place = key.split(":")
        if place:
            rows.setdefault(f"{kind}:{name}", {})[int(place[0])] = piece
        else:
            parts[key] = piece
    return parts | {key: torch.cat([piece for _, piece in sorted(found.items())]) for key, found in rows.items()}


def _as_in(model, base):
    """The weights of `base` by the names they have in `model`, which may have senses where `base` has none."""
    if not hasattr(model, "backpack") or hasattr(base, "backpack"):
        return base.state_dict()
    head = {f"lm_head.{name}": weight for name, weight in base.get_output_embeddings().state_dict().items()}
    return head | {f"backpack.backbone.{name}": weight for name, weight in base.base_model.state_dict().items()}


def _distinct(model):
    """The weights of a model by name, a tied one once."""
    weights, seen = {}, set()
    for name, weight in model.state_dict().items():
        if (place := weight.data_ptr()) not in seen:
            weights[name] = weight
            seen.add(place)
    return weights


def _difference(name, weight, base):
    """What a delta holds of a weight, by key: `part:name`."""
    if not torch.isfinite(weight).all():
        raise ValueError(f"The weight {name!r} holds NaN or infinity: no delta is made of such a model.")
    if base is None:
        return {f"whole:{name}": _half(weight)}
    if weight.shape[1:] != base.shape[1:] or len(weight) < len(base):
        raise ValueError(
            f"The weight {name!r} is {tuple(weight.shape)}, but that of the base is {tuple(base.shape)}: the model "
            "was not made of this base."
        )
    parts, number = {}, len(base)
    if len(weight) > number:
        parts[f"rows:{name}"] = _half(weight[number:])
    change = weight[:number] - base
    if not change.any():
        return parts
    if change.ndim == 2:
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        rank = int((values > RANK_TOLERANCE * values[0]).sum())
        if rank * sum(change.shape) < change.numel():
            root = values[:rank].sqrt()
            factors = {
                f"left:{name}": _half(left[:, :rank] * root),
                f"right:{name}": _half(root[:, None] * right[:rank]),
            }
            return parts | factors
    return parts | {f"difference:{name}": _half(change)}


def _restored(name, shape, base, parts):
    """The weight of which `parts` hold what [`_difference`] gave."""

    def part(kind):
        return parts[f"{kind}:{name}"].float() if f"{kind}:{name}" in parts else None

    weight = part("whole")
    if base is not None:
        weight, left, change, rows = base.float(), part("left"), part("difference"), part("rows")
        if left is not None:
            change = left @ part("right")
        weight = weight if change is None else weight + change
        weight = weight if rows is None else torch.cat([weight, rows])
    if weight is None or weight.shape != shape:
        has = "nothing" if weight is None else tuple(weight.shape)
        raise ValueError(
            f"Of the weight {name!r}, {tuple(shape)}, the delta and its base give {has}: it is not whole."
        )
    return weight


def _half(weight):
    """In float16, where it holds the weight; a single number as it is."""
    fits = weight.numel() > 1 and weight.abs().max() <= torch.finfo(torch.float16).max
    return weight.to(torch.float16 if fits else torch.float32).contiguous()


def _about(base) -> str:
    """What the card of a folder says first of the model; of a repository of the Hub its id says enough."""
    card = Path(base) / "README.md"
    if not card.is_file():
        return ""
    paragraphs = ModelCard.load(card, ignore_metadata_errors=True).text.strip().split("\n\n")
    return next((" ".join(one.split()) for one in paragraphs if not one.startswith("#")), "")


def _complete(folder):
    metrics = folder / METRICS_FILE
    complete_folder(folder, read_json(metrics).get("config") if metrics.is_file() else None)


def _loading(text, repo):
    """A card whose snippets load `repo`."""
    return re.sub(r'^repo = ".*"$', lambda _: f'repo = "{repo}"', text, flags=re.MULTILINE)


def _edit_card(folder, edit):
    if (folder / "README.md").is_file():
        write_text(folder / "README.md", edit((folder / "README.md").read_text(encoding="utf-8")))


def _copy(folder, written):
    for pattern in KEPT:
        for file in Path(folder).glob(pattern):
            shutil.copyfile(file, written / file.name)
    keep_report(folder, written)
