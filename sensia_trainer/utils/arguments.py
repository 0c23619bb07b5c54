"""Command lines: parsers whose errors are exceptions with the nearest option, help that can be read, typed values."""

import argparse
import dataclasses
import enum
import json
import math
import re
import sys
import textwrap
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from .errors import UsageError, did_you_mean


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every option that has one; of the spellings of an option only the first."""

    def _format_action_invocation(self, action):
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0]} {self._format_args(action, action.dest.upper())}"

    def _get_help_string(self, action):
        if action.default in (None, "", [], {}) or action.default is False and action.nargs == 0:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """`ArgumentParser` that takes no abbreviations and raises [`UsageError`] in the place of leaving the process."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{"formatter_class": HelpFormatter, "allow_abbrev": False, **options})

    def error(self, message):
        raise UsageError(f"{message[0].upper()}{message[1:]}. `{self.prog} --help` lists what there is.")

    def parse_args(self, args=None, namespace=None):
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown)
        return namespace

    def refuse(self, unknown):
        """Raises [`UsageError`] that names the first of the `unknown` arguments and the options near to it."""
        name = unknown[0].partition("=")[0]
        if not name.startswith("-"):
            self.error(f"{name!r} is one argument too many: it belongs to no option")
        spelt = {action.option_strings[0][2:] for action in self._actions if action.option_strings}
        near = did_you_mean(name.lstrip("-").replace("-", "_"), spelt).replace("'", "`")
        raise UsageError(f"There is no option {name!r}.{near} `{self.prog} --help` lists all.")


def recipe_parser(dataclass_types, *, prog=None, description=None):
    """
    A parser for `[recipe.yaml] [--field value …]` with every field of some dataclasses as an option.

    Its `print_help` puts what the dataclasses define themselves first and only names what they inherit from
    `TrainingArguments`; `print_help(everything=True)` describes that too.

    Args:
        dataclass_types: Dataclasses, whose fields are the options.
        prog (`str`, *optional*): What the command is called.
        description (`str`, *optional*): First lines of the help.
    """
    from transformers import HfArgumentParser

    class RecipeParser(Parser, HfArgumentParser):
        def print_help(self, file=None, everything=False):
            self._print_message(_help(self, everything), file or sys.stdout)

    usage = "%(prog)s [recipe.yaml] [--field value ...]"
    parser = RecipeParser(dataclass_types, prog=prog, usage=usage, description=description)
    hints = hints_of(dataclass_types)
    for action in parser._actions:
        if action.dest in hints:
            action.type = action.choices = None  # [`typed`] does it, for the command line and the recipe alike
            kinds = [kind for kind in map(_plain, _alternatives(hints[action.dest])) if kind in METAVARS]
            action.metavar = METAVARS[kinds[0]] if kinds and action.nargs != 0 else None
            action.nargs = "*" if action.nargs == "+" else action.nargs  # a list may be empty
            action.help = action.help or "As in transformers' TrainingArguments."  # with its default behind it
    return parser


def _help(parser, everything):
    formatter = parser._get_formatter()
    formatter.add_usage(parser.usage, parser._actions, [])
    formatter.add_text(parser.description)
    actions: dict[str, argparse.Action] = {}
    for action in parser._actions:
        actions.setdefault(action.dest, action)  # not the `--no_…` of a switch
    inherited = []
    for cls in parser.dataclass_types:
        fields = [field.name for field in dataclasses.fields(cls) if field.init]
        of_library = {
            f.name
            for base in cls.__mro__[1:]
            if dataclasses.is_dataclass(base) and not base.__module__.startswith(f"{__package__.split('.')[0]}.")
            for f in dataclasses.fields(base)
        }
        redefined = [name for name in fields if name in of_library and name in cls.__dict__.get("__annotations__", {})]
        inherited += [name for name in fields if name in of_library and name not in redefined]
        title = re.sub(r"[\[\]`.]", "", (cls.__doc__ or cls.__name__).strip().split("\n")[0].split(": ")[0])
        for heading, names in ((title, [n for n in fields if n not in of_library]), ("Training", redefined)):
            formatter.start_section(heading)
            formatter.add_arguments([actions[name] for name in names])
            formatter.end_section()
    if inherited:
        formatter.start_section("Fields of transformers' TrainingArguments" + ("" if everything else " (--help_all)"))
        if everything:
            formatter.add_arguments([actions[name] for name in inherited])
        else:
            formatter.add_text(textwrap.fill(", ".join(inherited), 100))
        formatter.end_section()
    return formatter.format_help()


def hints_of(dataclass_types) -> dict[str, Any]:
    """The types of all fields of some dataclasses, by name."""
    hints: dict[str, Any] = {}
    for cls in dataclass_types:
        types = get_type_hints(cls)
        hints |= {field.name: types[field.name] for field in dataclasses.fields(cls) if field.init}
    return hints


WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}
METAVARS = {bool: "BOOL", int: "INT", float: "FLOAT", str: "TEXT", list: "TEXT", dict: "JSON"}
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def typed(name, value, hint):
    """
    `value`, from YAML or from a command line, as the type of the field `name`.

    YAML reads `2e-3` as text and a command line gives nothing but text, so that text is read as what the field is, and
    `null` as nothing where a field may be left out.

    Raises:
        `UsageError`: for a value that cannot be meant so.
    """
    kinds = [kind for kind in _alternatives(hint) if kind is not NoneType]
    if value in (None, "null") and len(kinds) < len(_alternatives(hint)):
        return None
    if any(_is_enum(kind) for kind in kinds):
        kinds = [kind for kind in kinds if kind is not str]
    if isinstance(value, str):  # text is text where it is nothing more exact, and a list of one where it must be
        kinds.sort(key=lambda kind: 2 if _plain(kind) is list else 1 if kind is str else 0)
    for kind in kinds:
        try:
            return _as(_plain(kind), value, get_args(kind))
        except (TypeError, ValueError, KeyError):
            continue
    wanted = " or ".join(dict.fromkeys(_words(kind) for kind in kinds))
    hint = f"; write it in quotes ({'yes' if value else 'no'!r})" if isinstance(value, bool) and str in kinds else ""
    raise UsageError(f"`{name}` is {value!r}, but must be {wanted}{hint}.")


def _alternatives(hint):
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _plain(kind):
    return get_origin(kind) or kind


def _is_enum(kind):
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _words(kind):
    if _is_enum(kind):
        return f"one of {', '.join(str(one.value) for one in kind)}"
    items = [f", each item {_words(part)}" for part in get_args(kind)[:1] if _plain(kind) is list]
    return "".join([WORDS.get(_plain(kind), str(kind)), *items])


def _as(kind, value, arguments):
    if kind is bool:
        return TRUTHS[str(value).lower()]
    if kind in (int, float, str) and isinstance(value, bool):
        raise TypeError(value)
    if kind is int:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(value)
        return int(value)
    if kind is float:
        number = float(value)
        if math.isnan(number):
            raise ValueError(value)
        return number if isinstance(value, str) else value
    if kind is str:
        if not isinstance(value, str | int | float):
            raise TypeError(value)
        return str(value)
    if kind is list:
        items = value if isinstance(value, list | tuple) else [value]
        return [typed("", item, arguments[0]) for item in items] if arguments else list(items)
    if kind is dict:
        value = json.loads(value) if isinstance(value, str) else value
        if not isinstance(value, dict):
            raise TypeError(value)
        return value
    return kind(value) if _is_enum(kind) else value
