"""What a command that trains can say without torch, whose import takes seconds: help, and names that nobody has."""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

from .errors import UsageError
from .recipes import read_recipe


SETTINGS = ("config.py", "training/settings.py", "vocabulary/settings.py")  # of this package
HELP = {"-h", "--help", "--help_all"}


def ends_early(argv, recipe=True) -> bool:
    """
    Whether a command line asks for help or holds a name that no command knows, so that nothing will be trained.

    Args:
        argv (`list[str]`): Arguments of a command that trains.
        recipe (`bool`, *optional*, defaults to `True`): Whether the first of them, without dashes, must be a recipe.
    """
    if HELP & set(argv):
        return True
    given = [argument.partition("=")[0][2:] for argument in argv if argument.startswith("--")]
    if argv and not argv[0].startswith("-") and (recipe or argv[0].endswith(".yaml")):
        try:
            given += read_recipe(argv[0])
        except UsageError:
            return True
    known = known_names()
    return any(str(name).replace("-", "_").removeprefix("no_") not in known for name in given)


def known_names() -> set[str]:
    """Names of the options of all commands that train and of `accelerate launch`, read off the sources that define
    them."""
    own = [Path(__file__).parents[1] / name for name in SETTINGS]
    fields = [
        node.target.id
        for file in (*own, _source("transformers", "training_args.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    launcher = [
        node.value[2:].replace("-", "_")
        for node in ast.walk(ast.parse(_source("accelerate", "commands/launch.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--")
    ]
    return {name.removeprefix("no_") for name in (*fields, *launcher)}


def _source(package, name):
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(spec.origin).parent / name


def without_torch():
    """
    Makes transformers define its `TrainingArguments` as if what they import were not installed. Their fields are the
    same, but they are good for nothing else in this process. Where torch is loaded already nothing is done.
    """
    if "torch" in sys.modules:
        return
    from transformers import utils

    for name in ("is_torch_available", "is_accelerate_available", "is_peft_available"):
        for module in (utils, utils.import_utils):
            setattr(module, name, lambda *_, **__: False)
    from transformers import TrainingArguments

    TrainingArguments.__dataclass_fields__["optim"].default = "adamw_torch_fused"  # what it is with torch 2.8 or newer
