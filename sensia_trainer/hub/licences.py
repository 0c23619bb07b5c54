"""Which licence the weights can have, from what is said of the text they were trained on.

Nothing is granted that nobody gave: text of an unknown licence makes weights of an unknown one. Non-commercial and
share-alike terms carry over to the weights; permissive ones leave them under the licence of this project, or under
terms of its own that the base model has.
"""

import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError
from transformers.utils import logging

from ..utils.files import portable, write_text
from ..utils.recipes import find_model


logger = logging.get_logger(__name__)


OWN = "apache-2.0"
UNKNOWN = "unknown"
TEXTS = ("replay source", "monolingual target")  # entries of `data`: text beside the pairs, with its own `licence`
# Terms that bind the weights in different ways at once: the card says which.
BY_CORPUS = {
    "license": "other",
    "license_name": "see-the-training-data",
    "license_link": "README.md#training-data",
}
DENIED = r"\bno\b(?![ -]rights)|\bnot\b|\bnone\b"  # "no open licence" names none
FAMILIES = {  # the first that matches; what none matches is not known
    "no derivatives": r"\bnd\b|no[ -]?deriv",
    "non-commercial share-alike": r"\bnc[ -]sa\b|non[ -]?commercial.*share[ -]?alike",
    "non-commercial": r"\bnc\b|non[ -]?commercial",
    "share-alike": r"\bby[ -]sa\b|share[ -]?alike",
    "affero": r"\bagpl|affero",
    "lesser": r"\blgpl|lesser general public",
    "copyleft": r"\bgpl|general public licen[cs]e|free[ -]software|open[ -]source licen[cs]e|\bg?fdl\b|\bmpl\b|\bmpl-"
    r"|open database|open software licen[cs]e"
    r"|mozilla public|\bepl\b|\bepl-|\beupl|\bodbl\b|\bosl\b|\bosl-",
    "permissive": r"\bcc0|\bcc[ -]?by\b(?![ -](?:nc|sa|nd))|public[ -]domain|\bpddl\b|\bodc-by\b|\bbsd|\bmit\b"
    r"|\bapache|\bisc\b|\bzlib\b|unlicense|\bpsf\b|python software|\bwtfpl\b|\bartistic|^open$|\bboost"
    r"|\bcdla-permissive|creative commons (?:zero|attribution)(?! (?:share|non|no))",
}
_GNU = {"affero": "agpl-3.0", "lesser": "lgpl", "copyleft": "gpl"}
_GNU_VERSIONS = ("agpl-3.0", "lgpl-2.1", "lgpl-3.0", "gpl-2.0", "gpl-3.0")  # that the Hub knows
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—", "-"))


def weights_licence(data: dict, base: dict | None = None) -> dict:
    """
    The licence of weights that were trained on `data`, as metadata of a card.

    Args:
        data (`dict`): As in `metrics.json`: `licence`, a text that may name several, separated by commas or "and";
            `licence_classes`, pairs by class ("open", "nc"), and text beside the pairs ([`TEXTS`]), which add to it.
        base (`dict`, *optional*): The same metadata of the model that training began with; its terms carry over too.

    Returns:
        `dict`: `license`, an identifier of the Hub, "unknown" where the text's is not known; with "other", also
        `license_name` and `license_link`.
    """
    beside = [data[name].get("licence") for name in TEXTS if name in data]
    classes = [str(name) for name in data.get("licence_classes") or {}]
    if not (all(beside) and (data.get("licence") or "nc" in classes)):
        return {"license": UNKNOWN}
    licence = "; ".join(dict.fromkeys(str(one) for one in (data.get("licence"), *beside) if one))
    parts = _parts(licence) + [name for name in classes if name != "open"]
    families, of_base = {family_of(part) for part in parts}, _terms_of(base)
    if families <= {"permissive"} and of_base == {None} and (own := _own_terms(base or {})):
        return own
    families |= of_base
    if None in families or "no derivatives" in families:
        return {"license": UNKNOWN}
    if any(family.startswith("non-commercial") for family in families):
        if families & {"copyleft", "affero", "lesser"}:  # which no one licence of the weights keeps both of
            return dict(BY_CORPUS)
        shared = families & {"share-alike", "non-commercial share-alike"}
        return {"license": "cc-by-nc-sa-4.0" if shared else "cc-by-nc-4.0"}
    binding = families - {"permissive"}
    if not binding:
        return {"license": OWN}
    if binding == {"share-alike"}:
        return {"license": "cc-by-sa-4.0"}
    if len(binding) == 1 and (family := binding.pop()) in _GNU and re.search(r"gpl", licence, re.IGNORECASE):
        named = re.fullmatch(r"(a?gpl|lgpl)-?v?(\d(?:\.\d)?)(?:-only|-or-later|\+)?", licence.strip().lower())
        version = f"{named[1]}-{named[2]}{'' if '.' in named[2] else '.0'}" if named else ""
        return {"license": version if version in _GNU_VERSIONS else _GNU[family]}
    return dict(BY_CORPUS)


def with_text_licence(metrics: dict, licence: str) -> dict:
    """The contents of a `metrics.json` with the licence of the text beside the pairs, where there is such text."""
    data = metrics.get("data") or {}
    return metrics | {"data": data | {name: data[name] | {"licence": licence} for name in TEXTS if name in data}}


def family_of(part: str) -> str | None:
    """The family of one licence, a key of [`FAMILIES`]; `None` where it is not known."""
    if re.search(DENIED, part, re.IGNORECASE) and not re.search(FAMILIES["no derivatives"], part, re.IGNORECASE):
        return None
    return next((name for name, pattern in FAMILIES.items() if re.search(pattern, part, re.IGNORECASE)), None)


def licence_of_model(name) -> dict | None:
    """What the card of a model (a folder, or a repository of the Hub) says of its licence. An unknown one where it
    says nothing, where a repository has no card, and, with a warning, where the card cannot be read; `None` for a
    folder without a card, which is somebody's own."""
    name = find_model(name)
    is_folder = Path(name).is_dir()
    if is_folder and not (Path(name) / "README.md").is_file():
        return None
    try:
        card = ModelCard.load(str(Path(name) / "README.md" if is_folder else name), ignore_metadata_errors=True)
        card = card.data.to_dict()
    except RemoteEntryNotFoundError:  # nobody gave one
        return {"license": UNKNOWN}
    except HFValidationError:  # a name that no repository has
        return None
    except Exception as error:  # damaged, or no network
        logger.warning(
            f"The licence of {str(name)!r} cannot be read ({' '.join(str(error).split())[:200]}), so that of what is "
            "made of it is unknown; `sensia release --license` states it."
        )
        return {"license": UNKNOWN}
    stated = {key: card[key] for key in ("license", "license_name", "license_link") if card.get(key)}
    return stated or {"license": UNKNOWN}


def keep_licence(model, folder) -> None:
    """Write into a folder that was made of a model a card that says that one's licence, if it has one: what is made of
    the folder is bound by it as well."""
    if licence := licence_of_model(model):
        front = yaml.safe_dump(licence, sort_keys=False)
        write_text(
            Path(folder) / "README.md", f"---\n{front}---\n\nMade of {portable(str(model))}, whose licence it has.\n"
        )


def _parts(licence: str) -> list[str]:
    """The licences that a text names: "CC0, CC BY and free-software licences, by corpus" are three."""
    binding = [pattern for name, pattern in FAMILIES.items() if name != "permissive"]
    binding = re.compile("|".join([*binding, DENIED, r"\w+ only\b"]), re.IGNORECASE)

    def in_brackets(found):  # explains, unless it takes something back
        return f", {found[1]}, " if binding.search(found[1]) else " "

    licence = re.sub(r"\(([^()]*)\)", in_brackets, licence.translate(_DASHES))
    parts = re.split(r"[,;/]|\s(?:and|or|with)\s", licence, flags=re.IGNORECASE)
    return [part.strip() for part in parts if part.strip() and part.strip().lower() not in ("by corpus", "in part")]


def _own_terms(base: dict) -> dict:
    """The licence of a base model under terms of its own, such as Gemma's, which what is made of it keeps; empty where
    that grants nothing. A link is kept if it does not lie in the base's repository."""
    named = str(base.get("license_name") if base.get("license") == "other" else base.get("license") or "")
    if re.search(rf"{DENIED}|proprietary|unlicensed|{UNKNOWN}|^None$|^$", named, re.IGNORECASE):
        return {}
    is_link = str(base.get("license_link", "")).startswith("http")
    return {key: value for key, value in base.items() if key != "license_link" or is_link}


def _terms_of(base: dict | None) -> set[str | None]:
    """The families of a base model's licence; that of one without a card says nothing."""
    license = (base or {}).get("license")
    if isinstance(license, list):  # of a repository under several
        return set().union(*(_terms_of(base | {"license": one}) for one in license))
    if not license:
        return set()
    if license == "other":
        return {"copyleft", "share-alike"} if base.get("license_name") == BY_CORPUS["license_name"] else {None}
    return {family_of(license.replace("cc-by-nc-sa", "nc-sa"))}
