"""Model folders that are whole: beside the weights the model's code, the module for sentence vectors, and the card."""

import shutil
from pathlib import Path

import modeling_backpack

from ..evaluation.vectors import SENTENCE_SETTINGS, VECTOR_SETTINGS
from ..utils.files import read_json, write_json
from .model_card import write_card
from .validation import validate_card


# Bytes of the weights in a file at most, for repositories that take no large ones: below 8 MB, names included.
FILE_SIZE = 7_900_000
CODE = Path(modeling_backpack.__file__).parent
SENTENCE_CODE = "sentence_backpack.py"
# What configurations tell of the machine they were saved on.
ORIGIN = (
    "_name_or_path",
    "name_or_path",
    "is_local",
    "local_files_only",
    "vocab_file",
    "merges_file",
    "tokenizer_file",
)


def complete_folder(folder, config: dict | None = None) -> None:
    """
    Put into the folder of a Backpack what a copy of it elsewhere needs: the model's code in place of links to it or of
    an older one, and the module that gives sentence vectors to sentence-transformers. Folders of other models, and of
    adapters, stay as they are.

    Args:
        folder: With `config.json`.
        config (`dict`, *optional*): Settings of the run, of which the sentence vectors follow its pooling.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        return
    auto_map = read_json(folder / "config.json").get("auto_map") or {}
    if not str(auto_map.get("AutoModelForCausalLM", "")).startswith("modeling_backpack."):
        return
    for file in CODE.glob("*_backpack.py"):
        (folder / file.name).unlink(missing_ok=True)  # writing through a link would change what it links to
        shutil.copyfile(file, folder / file.name)
    if config is not None or not (folder / SENTENCE_SETTINGS).is_file():
        given = {name: (config or {}).get(key) for name, key in VECTOR_SETTINGS.items()}
        write_json(folder / SENTENCE_SETTINGS, {name: value for name, value in given.items() if value is not None})
    module = {"idx": 0, "name": "0", "path": "", "type": f"{SENTENCE_CODE[:-3]}.BackpackSentenceVectors"}
    write_json(folder / "modules.json", [module])


def finish_folder(folder, repo_id: str | None = None, metrics: dict | None = None, to_publish: bool = False) -> Path:
    """
    Make a model folder whole and write its card.

    Args:
        folder, repo_id, metrics: As those of [`~sensia_trainer.hub.model_card.write_card`].
        to_publish (`bool`, *optional*, defaults to `False`): Refuse now what would be refused when it is published.

    Returns:
        The path of the card.
    """
    measured = read_json(Path(folder) / "metrics.json") if metrics is None else metrics
    complete_folder(folder, measured.get("config"))
    card = write_card(folder, repo_id, metrics)
    if to_publish:
        validate_card(card.read_text(encoding="utf-8"), to_publish=True)
    return card


def without_origin(config):
    """A configuration (any JSON value) without the places on this machine that it was loaded from."""
    if isinstance(config, dict):
        return {key: without_origin(value) for key, value in config.items() if key not in ORIGIN}
    return [without_origin(value) for value in config] if isinstance(config, list) else config
