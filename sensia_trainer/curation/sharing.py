"""The recipe of a bitext as others may have it: complete, but without the folders of this machine."""

import dataclasses
from pathlib import Path

import yaml

from .contamination import entry_names
from .recipe import BitextRecipe


def without_folders(path: str) -> str:
    """A path, or two joined by a comma, without the folders it is in; what is no path here, a Hub id, stays whole."""
    parts = [path] if Path(path).expanduser().exists() else [part.strip() for part in path.split(",")]
    places = [Path(part).expanduser() for part in parts]
    return ",".join(place.absolute().name if place.exists() else part for part, place in zip(parts, places))


def shareable(recipe: BitextRecipe) -> BitextRecipe:
    """The recipe with the names of its files, folders, encoder and tokenizer in place of their paths."""
    semantic = recipe.semantic
    return dataclasses.replace(
        recipe,
        sources=tuple(
            dataclasses.replace(source, path=source.path and without_folders(source.path)) for source in recipe.sources
        ),
        contamination=tuple(entry_names(recipe.contamination)),
        semantic=semantic and dataclasses.replace(semantic, encoder=without_folders(semantic.encoder)),
        tokenizer=recipe.tokenizer and without_folders(recipe.tokenizer),
    )


def recipe_yaml(recipe: BitextRecipe) -> str:
    """YAML from which `load_recipe` makes the recipe, with every default written out."""
    fields = dataclasses.asdict(recipe)
    fields["sources"] = [
        {name: value for name, value in source.items() if value is not None} for source in fields["sources"]
    ]
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=119)
