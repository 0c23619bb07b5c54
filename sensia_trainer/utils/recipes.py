"""Recipes: YAML files whose fields are those of the dataclasses a script needs, overridable on the command line."""

import os
import re
from argparse import SUPPRESS
from pathlib import Path

import yaml

from .arguments import hints_of, typed
from .errors import UsageError, did_you_mean


RECIPES = Path(__file__).parents[1] / "recipes"  # those that come with the package
MODELS = Path(__file__).parents[1] / "models"  # the model that the quickstart starts from


def find_recipe(name) -> Path:
    """
    The file of a recipe: a path, or the name of one that comes with the package (`quickstart`, `bitext/sw`).

    Raises:
        `ValueError`: if there is neither, with the nearest names.
    """
    for path in (Path(name), RECIPES / name, RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    known = [file.relative_to(RECIPES).with_suffix("").as_posix() for file in sorted(RECIPES.rglob("*.yaml"))]
    near = did_you_mean(name, known) or f" Among the names are {', '.join(one for one in known if '/' not in one)}."
    raise UsageError(f"The recipe {str(name)!r} does not exist: give the path of a YAML file, or a name.{near}")


def find_model(name) -> str:
    """A model that comes with the package (`backpack-micro-en`) as its folder; any other name as it is."""
    if name and not Path(name).exists() and (MODELS / name / "config.json").is_file():
        return str(MODELS / name)
    return name


def read_recipe(name) -> dict:
    """
    The mapping in a YAML file, see [`find_recipe`], and beneath it those of the recipes that it names as `based_on`
    (one or a list, the later over the earlier; beside it or by name).

    Raises:
        `ValueError`: for a file that is missing or not a mapping, and recipes that are based on each other.
    """
    return merge_layers([layer for _, layer in _read(find_recipe(name), ())])


def read_layers(name) -> list[dict]:
    """The mappings that [`read_recipe`] merges, the lowest first and the recipe's own last; what is beside a recipe is
    found from anywhere (see [`beside`])."""
    return [
        {field: beside(path.parent, field, value) for field, value in layer.items()}
        for path, layer in _read(find_recipe(name), ())
    ]


def merge_layers(layers: list[dict], presets: dict | None = None) -> dict:
    """
    The layers as one mapping, the later over the earlier.

    With presets (see [`parse_recipe`]) those of a field's value lie right beneath the last layer that names the field:
    a method's own numbers go before those of a recipe that it is named over, and what is said beside it before them.
    """
    layers = list(layers)
    for field, choices in (presets or {}).items():
        named = [place for place, layer in enumerate(layers) if field in layer]
        value = layers[named[-1]][field] if named else None
        if isinstance(value, str):
            layers.insert(named[-1], choices.get(value, {}))
    return {name: value for layer in layers for name, value in layer.items()}


def _read(path, above):
    if path in above:
        raise UsageError(f"The recipe {str(path)!r} is based on itself: {' > '.join(map(str, (*above, path)))}.")
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce) or {}
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"The recipe {str(path)!r} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise UsageError(
            f"The recipe {str(path)!r} must be a mapping of fields to values, got {type(recipe).__name__}."
        )
    bases = recipe.pop("based_on", None) or []
    layers = []
    for base in [bases] if isinstance(bases, str) else bases:
        beside = [path.parent / name for name in (str(base), f"{base}.yaml")]
        layers += _read(next((file for file in beside if file.is_file()), None) or find_recipe(base), (*above, path))
    return [*layers, (path, recipe)]


class _EachKeyOnce(yaml.SafeLoader):
    """YAML in which a mapping that names a key twice is refused; plain YAML takes the last without a word."""

    def flatten_mapping(self, node):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(problem=f"{twice!r} is named twice", problem_mark=node.start_mark)
        super().flatten_mapping(node)


def parse_recipe(parser, argv, presets=None, default=None):
    """
    Fill the dataclasses of `parser` from `[recipe.yaml] [--field value …]`; the command line wins over the recipe.

    A relative path of the recipe that is not in the working directory is looked for beside the recipe.

    Args:
        parser: What [`recipe_parser`] gives.
        argv (`list[str]`): The arguments.
        presets (`dict`, *optional*): `{field: {value: {name: default}}}`: a value of that field brings its own
            values of others. They go before what the recipes say that this one is based on or the command line names
            it over; what is said beside it goes before them.
        default (`str`, *optional*): The recipe where `argv` names none.

    Returns:
        One instance of each dataclass.

    Raises:
        `ValueError`: for a field that no dataclass has, with the nearest names, a value of the wrong type, and an
            environment variable that is not set.
    """
    argv, hints = list(argv), hints_of(parser.dataclass_types)
    if {"-h", "--help", "--help_all"} & set(argv):
        parser.print_help(everything="--help_all" in argv)
        raise SystemExit(0)
    name = argv.pop(0) if argv and not argv[0].startswith("-") else default
    layers = _typed_layers(name, hints) if name else []
    recipe = merge_layers(layers)
    for action in parser._actions:
        action.required = action.required and action.dest not in recipe
        action.default = SUPPRESS  # what nobody gives is the dataclass's own default
    given = vars(parser.parse_args(argv))
    given = {name: typed(name, value, hints[name]) for name, value in given.items()}
    values = merge_layers([*layers, given], presets)
    _check_variables(values)
    own = [hints_of([cls]) for cls in parser.dataclass_types]
    return tuple(
        cls(**{name: values[name] for name in values if name in names})
        for cls, names in zip(parser.dataclass_types, own)
    )


def expand_variables(value):
    """
    `value` with every `${VARIABLE}` replaced by what the environment has for it; what is not text stays as it is.

    Raises:
        `ValueError`: for a variable that is not set.
    """
    if not isinstance(value, str):
        return value

    def look_up(match):
        if match[1] not in os.environ:
            raise UsageError(
                f"The environment variable {match[1]} is not set, but {value!r} names it: `export {match[1]}=...`, or "
                "give the path in full."
            )
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", look_up, value)


def _typed_layers(name, hints):
    def checked(path, field, value):
        if field not in hints:
            raise UsageError(f"The recipe {str(path)!r} has an unknown field {field!r}.{did_you_mean(field, hints)}")
        try:
            return beside(path.parent, field, typed(field, value, hints[field]))
        except UsageError as error:
            raise UsageError(f"The recipe {str(path)!r}: {error}") from None

    layers = _read(find_recipe(name), ())
    return [{field: checked(path, field, value) for field, value in layer.items()} for path, layer in layers]


def beside(folder, name, value):
    """Relative paths in a `value` that are beside the recipe but not in the working directory; outputs stay."""
    if isinstance(value, list):
        return [beside(folder, name, item) for item in value]
    if isinstance(value, dict) and "path" in value:  # a source of pairs
        return value | {"path": beside(folder, name, value["path"])}
    if isinstance(value, dict) and name in ("bitext", "eval_bitext"):  # of several languages
        return {key: beside(folder, name, places) for key, places in value.items()}
    if isinstance(value, str) and value.count(",") == 1 and not Path(value).exists():  # two aligned files
        parts = [part.strip() for part in value.split(",")]
        found = [beside(folder, name, part) for part in parts]
        return value if found == parts else ",".join(found)
    looks_like_a_path = isinstance(value, str) and ("/" in value or Path(value).suffix)
    names_a_model = name in ("model", "dense_model", "tokenizer") and isinstance(value, str)
    if not (looks_like_a_path or names_a_model) or name.startswith("output") or Path(value).exists():
        return value
    return str(folder / value) if (folder / value).exists() else value


def _check_variables(values):
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            try:
                expand_variables(item)
            except UsageError as error:
                raise UsageError(f"`{name}`: {error}") from None
