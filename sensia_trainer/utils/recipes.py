"""Recipes: YAML files whose fields are those of the dataclasses a script needs, overridable on the command line."""

import difflib
import sys
from dataclasses import fields
from pathlib import Path

import yaml
from transformers import HfArgumentParser


RECIPES = Path(__file__).parents[1] / "recipes"  # those that come with the package


def find_recipe(name) -> Path:
    """
    The file of a recipe: a path, or the name of one that comes with the package (`quickstart`, `bitext/sw`).

    Raises:
        `ValueError`: if there is neither, with the nearest names.
    """
    for path in (Path(name), RECIPES / name, RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    known = sorted(file.relative_to(RECIPES).with_suffix("").as_posix() for file in RECIPES.rglob("*.yaml"))
    near = difflib.get_close_matches(str(name), known, n=3) or known
    raise ValueError(f"The recipe {str(name)!r} does not exist. Give the path of a YAML file, or a name: {near}.")


def read_recipe(name):
    """The mapping in a YAML file, see [`find_recipe`]. `ValueError` if it is missing or no mapping."""
    path = find_recipe(name)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(recipe, dict):
        raise ValueError(
            f"The recipe {str(path)!r} must be a mapping of fields to values, got {type(recipe).__name__}."
        )
    return recipe


def parse_recipe(dataclass_types, argv=None, description=None):
    """
    Fill dataclasses from `[recipe.yaml] [--field value …]`; the command line wins over the recipe.

    Args:
        dataclass_types: Dataclasses, whose fields are the known names.
        argv (`list[str]`, *optional*): Arguments; the process's own by default.
        description (`str`, *optional*): First lines of `--help`.

    Returns:
        One instance of each dataclass.

    Raises:
        `ValueError`: for a field that no dataclass has, with the nearest names.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    usage = "%(prog)s [recipe.yaml] [--field value ...]"
    parser = HfArgumentParser(dataclass_types, description=description, usage=usage)
    recipe = read_recipe(argv.pop(0)) if argv and not argv[0].startswith("-") else {}
    known = {field.name for dataclass_type in dataclass_types for field in fields(dataclass_type) if field.init}
    unknown = sorted(recipe.keys() - known)
    if unknown:
        near = {name: difflib.get_close_matches(name, known, n=3) for name in unknown}
        hints = "; ".join(f"{name!r}: did you mean {names}?" if names else f"{name!r}" for name, names in near.items())
        raise ValueError(f"The recipe has unknown field(s): {hints} `--help` lists all fields.")
    for action in parser._actions:
        if action.dest in recipe:
            action.required = False
    parser.set_defaults(**recipe)
    return parser.parse_args_into_dataclasses(argv)
