"""The explorer as a Space of the Hub: everything it runs lies in the repository, the code of this package included."""

import re
import sys
from importlib.metadata import version
from pathlib import Path

import yaml

import modeling_backpack
import sensia_trainer


# Folders that the page has no use for, and files that come with its code.
LEFT_OUT = {"__pycache__", "models", "recipes", "templates"}
SUFFIXES = {".py", ".css", ".tsv"}
# What the page's code imports, in the versions it runs with here.
REQUIREMENTS = ("torch", "transformers", "accelerate", "datasets", "evaluate", "huggingface-hub", "filelock",
                "safetensors", "tokenizers", "numpy", "pyarrow", "scipy", "regex", "pyyaml", "jinja2", "langcodes",
                "language-data", "tqdm", "matplotlib")  # fmt: skip
APP = '''"""The sense explorer as a Space: the models and the code lie beside this file."""

from pathlib import Path

from sensia_trainer.explorer.models import load_explored
from sensia_trainer.explorer.page import build_page, launch


MODEL = Path(__file__).parent / "models" / {name!r}

page = build_page(*load_explored([str(MODEL)]))

if __name__ == "__main__":
    launch(page)
'''
TEXT = """# {title}

The senses of [`{name}`](models/{name}) as one sees them: those of a word in both languages, their weights in a
sentence, what follows when one is silenced or boosted, sentences that find their translations, and a map of words
before and after adaptation. Made by `sensia publish --space`; `sensia explore` shows the same page on one's own
machine.
"""


def space_files(name: str, card: dict, title: str | None = None) -> dict[str, bytes]:
    """The files of a Space, but for its models, which lie in `models/`.

    Args:
        name (`str`): Folder of the model in `models/`.
        card (`dict`): Metadata of the model's card: `license`, `license_name`, `license_link`, `language`, `tags`.
        title (`str`, *optional*): First line of the page of the Space.

    Returns:
        `dict[str, bytes]`: Content by path.

    Raises:
        `ValueError`: where Gradio is not installed, whose version the Space is to run.
    """
    try:
        gradio = version("gradio")
    except ModuleNotFoundError:
        raise ValueError(
            "A Space runs the version of Gradio that is tried here, and none is: pip install 'sensia[explore]'."
        ) from None
    title = title or f"Senses of {name}"
    front = {"title": title, "emoji": "🎒", "colorFrom": "blue", "colorTo": "yellow", "sdk": "gradio"}
    front |= {
        "sdk_version": gradio,
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
    }
    front |= {key: card[key] for key in ("license", "license_name", "license_link") if card.get(key)}
    if not re.match(r"https?://", str(front.get("license_link", "https://"))):
        front["license_link"] = f"models/{name}/{front['license_link']}"
    front |= {"short_description": "What a language model means by a word", "tags": ["backpack", "sensia"]}
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    pinned = [f"{package}=={version(package).partition('+')[0]}" for package in REQUIREMENTS]
    files = {
        "README.md": f"---\n{head}---\n\n{TEXT.format(title=title, name=name)}",
        "app.py": APP.format(name=name),
        "requirements.txt": "\n".join(["# The versions that the page was tried with.", *pinned]) + "\n",
    }
    return {path: text.encode("utf-8") for path, text in files.items()} | _code()


def _code() -> dict[str, bytes]:
    found = {}
    for package in (modeling_backpack, sensia_trainer):
        root = Path(package.__file__).parent
        for file in sorted(root.rglob("*")):
            path = file.relative_to(root)
            if file.suffix in SUFFIXES and not LEFT_OUT & set(path.parts):
                found[f"{root.name}/{path.as_posix()}"] = file.read_bytes()
    return found
