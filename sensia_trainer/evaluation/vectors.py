"""Which vectors a model was trained for: how its senses are pooled, and which state its context vectors are."""

import re
from dataclasses import replace
from pathlib import Path

from transformers.utils import logging

from ..utils.files import write_json
from ..utils.models import json_of


logger = logging.get_logger(__name__)

# Settings of the evaluation and of the module for sentence vectors, by their names in a run.
VECTOR_SETTINGS = {
    "pooling": "sense_pooling",
    "temperature": "sense_pool_temperature",
    "context_state": "context_state",
    "context_layer": "context_layer",
}
SENTENCE_SETTINGS = "sentence_backpack.json"
# As in the paper; those of models that say nothing of it.
DEFAULTS = {"pooling": "magnitude", "temperature": 0.7, "context_state": "mixture", "context_layer": None}


def vectors_of(model: str) -> dict:
    """
    What a model's folder, or its repository on the Hub, says of its vectors.

    Returns:
        `dict`: of the keys of `VECTOR_SETTINGS` those that it names; none for a model that was not aligned.
    """
    config = json_of(model, "metrics.json").get("config") or {}
    if not config and re.fullmatch(r"checkpoint-\d+", Path(model).name):  # the run's settings are above it
        config = json_of(str(Path(model).parent), "settings.json").get("training") or {}
    found = {name: config[key] for name, key in VECTOR_SETTINGS.items() if key in config}
    own = {} if found else json_of(model, SENTENCE_SETTINGS)
    return found or {name: value for name, value in own.items() if name in VECTOR_SETTINGS}


def keep_vectors(model: str, folder) -> None:
    """Write into a folder that was made of a model what that one says of its vectors, if anything."""
    if found := vectors_of(model):
        write_json(Path(folder) / SENTENCE_SETTINGS, found)


def with_vectors(config):
    """
    A configuration of the evaluation whose vectors are those that the model was trained for, where it asks for none.
    Others than those are told.
    """
    trained, chosen = vectors_of(config.model), {}
    for name, default in DEFAULTS.items():
        given, own = getattr(config, name), trained.get(name, default)
        chosen[name] = own if given is None else given
        if name in trained and chosen[name] != own:
            logger.warning(f"`{name}` is {given!r}, but {config.model} was trained with {own!r}: vectors differ.")
    return replace(config, **chosen)
