"""Errors that a person can read: what a user can mend is told in one line, with the nearest of what was meant."""

import difflib
from contextlib import contextmanager


# Packages whose exceptions tell of files, networks and settings; recognised by name, so that none of them is imported.
TELLING = {"datasets", "huggingface_hub", "httpx", "httpx2", "requests", "safetensors", "sensia_trainer", "yaml"}
TELLING |= {"lzma", "zipfile", "zlib"}


class UsageError(ValueError):
    """A command line or a recipe that cannot be understood."""


@contextmanager
def otherwise(way: str):
    """Adds another way out to what data within are refused for."""
    try:
        yield
    except (ValueError, OSError) as error:
        error.add_note(way)
        raise


def did_you_mean(name, known) -> str:
    """`" Did you mean 'x'?"` with the nearest of the `known` names (at most three), or nothing where none is near."""
    near = difflib.get_close_matches(str(name), sorted(map(str, known)), n=3)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def explain(error) -> str | None:
    """One line about an error that the user can mend; `None` for one that tells of a fault in the program."""
    telling = type(error).__module__.split(".")[0] in TELLING
    if not telling and not isinstance(error, ValueError | OSError | ImportError | EOFError):
        # Named, not imported: it is a RuntimeError, whose kin are faults.
        if type(error).__name__ != "OutOfMemoryError":
            return None
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(" ".join([str(error), *getattr(error, "__notes__", [])]).split()) or type(error).__name__
