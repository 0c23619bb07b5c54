"""Is a file in the language its name says? Needs py3langid (the `data` extra); without it a warning says so."""

import functools
import logging

from ..languages import language


logger = logging.getLogger(__name__)

# The languages of the paper; a text is told apart from these and its own.
COMMON = ("en", "et", "id", "sw", "tr", "zh")


@functools.cache
def _identifier():
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    return LanguageIdentifier.from_model_file(MODEL_FILE)


def identified(texts, code: str) -> list[str] | None:
    """The language that each text looks like, of `code` and the common ones; `None` if it cannot be told."""
    identifier, iso = _identifier(), language(code).code.partition("_")[0]
    if identifier is None or iso not in identifier.nb_classes:
        return None
    identifier.set_languages(sorted({*COMMON, iso}))
    found = [identifier.classify(text)[0] for text in texts]
    identifier.set_languages(None)
    return found


def check_language(texts, code: str, what: str, *, sample=100) -> float | None:
    """Share of the first `sample` texts identified as `code`; `None` if it cannot be told.

    Raises:
        ValueError: If less than half of them are, naming the language they look like.
    """
    found, iso = identified(texts[:sample], code), language(code).code.partition("_")[0]
    if found is None:
        reason = "py3langid is not installed" if _identifier() is None else f"py3langid does not know {iso}"
        logger.warning("The language of %s is not checked: %s.", what, reason)
        return None
    share = found.count(iso) / len(found)
    if share < 0.5:
        likely = max(set(found), key=found.count)
        raise ValueError(
            f"{what} should be in {language(iso).name} but {found.count(likely)} of {len(found)} texts look like "
            f"{language(likely).name}: is it the right file?"
        )
    return share
