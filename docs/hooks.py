"""What the site needs beside its pages: results as pages of it, and docstrings in the dialect of Hugging Face."""

import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File


ROOT = Path(__file__).resolve().parents[1]
# Outside `docs/`, linked as `../results/…` so that the links work on GitHub too.
OUTSIDE = ("results/**/*.md", "results/**/*.png", "results/**/*.csv", "examples/README.md", "CHANGELOG.md")
OUTSIDE += ("CONTRIBUTING.md",)


def on_files(files, config):
    """Takes files outside `docs/` into the site."""
    for pattern in OUTSIDE:
        for file in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, file.relative_to(ROOT).as_posix(), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown, page, config, files):
    """`../results/…` is inside the site; what the results link outside of it is not."""
    if "/" in page.file.src_uri or page.file.src_uri.isupper():
        return markdown
    return re.sub(r"\]\(\.\./(results|examples|CHANGELOG|CONTRIBUTING)", r"](\1", markdown)


class HuggingFaceDocstrings(griffe.Extension):
    """``name (`type` of shape `(B, T)`, *optional*): …`` for a parser of Google's dialect; ``[`Name`]`` as code."""

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring is not None:
            obj.docstring.value = google_dialect(obj.docstring.value)


def google_dialect(text):
    """A docstring in the dialect that griffe parses: types without markup, continued lines of a section hanging."""
    text = re.sub(r"\[`~?([\w.]+)`\](?![(\[])", lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    text = re.sub(r"^( {4}\*{0,2}\w+(?:, \w+)* \(|    )([`*].*?)(\)?:(?: |$))", _plain, text, flags=re.MULTILINE)
    return re.sub(r"(?<=^Raises:\n)(?:    .*\n?)+", _hanging, text, flags=re.MULTILINE)


def _plain(found):
    return f"{found[1]}{re.sub('[`*]', '', found[2])}{found[3]}"


def _hanging(found):
    return re.sub(r"^    (?!\w+: )", "        ", found[0], flags=re.MULTILINE)
