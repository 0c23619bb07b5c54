"""Which licence the weights can have, from what is said of the text they were trained on.

Nothing is granted that nobody gave: text of an unknown licence makes weights of an unknown one. Non-commercial and
share-alike terms carry over to the weights; permissive ones leave them under the licence of this project.
"""

import re
from pathlib import Path

from huggingface_hub import ModelCard

from ..utils.recipes import find_model


OWN = "apache-2.0"
UNKNOWN = "unknown"
TEXTS = ("replay source", "monolingual target")  # entries of `data`: text beside the pairs, with its own `licence`
# Terms that bind the weights in different ways at once: the card says which, corpus by corpus.
BY_CORPUS = {
    "license": "other",
    "license_name": "see-the-training-data",
    "license_link": "README.md#training-data",
}
FAMILIES = {  # the first that matches; what none matches is not known
    "non-commercial share-alike": r"\bnc[ -]sa\b",
    "non-commercial": r"\bnc\b|non-?commercial",
    "no derivatives": r"\bnd\b|no[ -]deriv",
    "share-alike": r"\bby-sa\b|share-?alike",
    "affero": r"\bagpl|affero",
    "lesser": r"\blgpl|lesser general public",
    "copyleft": r"\bgpl|general public licen[cs]e|free[ -]software|open[ -]source licen[cs]e|\bg?fdl\b|\bmpl\b|\bmpl-"
    r"|mozilla public|\bepl\b|\bepl-|\beupl|\bodbl\b|\bosl\b|\bosl-",
    "permissive": r"\bcc0|\bcc[ -]?by\b(?![ -](?:nc|sa|nd))|public[ -]domain|\bpddl\b|\bodc-by\b|\bbsd|\bmit\b"
    r"|\bapache|\bisc\b|\bzlib\b|unlicense|\bpsf\b|python software|\bwtfpl\b|\bartistic|\bopen\b|\bboost"
    r"|\bcdla-permissive|creative commons (?:zero|attribution)(?! (?:share|non|no))",
}
_GNU = {"affero": "agpl-3.0", "lesser": "lgpl", "copyleft": "gpl"}


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
    families = {family_of(part) for part in parts}
    for term in _terms_of(base):
        families.add(term)
    if None in families or "no derivatives" in families:
        return {"license": UNKNOWN}
    if any(family.startswith("non-commercial") for family in families):
        shared = families & {"share-alike", "non-commercial share-alike"}
        return {"license": "cc-by-nc-sa-4.0" if shared else "cc-by-nc-4.0"}
    binding = families - {"permissive"}
    if not binding:
        return {"license": OWN}
    if binding == {"share-alike"}:
        return {"license": "cc-by-sa-4.0"}
    if len(binding) == 1 and (family := binding.pop()) in _GNU and re.search(r"gpl", licence, re.IGNORECASE):
        named = re.fullmatch(r"(a?gpl|lgpl)-?v?(\d(?:\.\d)?)(?:-only|-or-later|\+)?", licence.strip().lower())
        version = f"-{named[2]}{'' if '.' in named[2] else '.0'}" if named else ""
        return {"license": f"{named[1]}{version}" if named else _GNU[family]}
    return dict(BY_CORPUS)


def with_text_licence(metrics: dict, licence: str) -> dict:
    """The contents of a `metrics.json` with the licence of the text beside the pairs, where there is such text."""
    data = metrics.get("data") or {}
    return metrics | {"data": data | {name: data[name] | {"licence": licence} for name in TEXTS if name in data}}


def family_of(part: str) -> str | None:
    """The family of one licence, a key of [`FAMILIES`]; `None` where it is not known."""
    return next((name for name, pattern in FAMILIES.items() if re.search(pattern, part, re.IGNORECASE)), None)


def licence_of_model(name) -> dict | None:
    """What the card of a model (a folder, or a repository of the Hub) says of its licence; `None` without a card."""
    name = find_model(name)
    card = Path(name) / "README.md" if Path(name).is_dir() else name
    try:
        card = ModelCard.load(str(card), ignore_metadata_errors=True).data.to_dict()
    except Exception:  # there is none, or no network
        return None
    return {key: card[key] for key in ("license", "license_name", "license_link") if card.get(key)} or None


def _parts(licence: str) -> list[str]:
    """The licences that a text names: "CC0, CC BY and free-software licences, by corpus" are three."""
    licence = re.sub(r"\([^()]*\)", " ", licence)
    parts = re.split(r"[,;/]|\s(?:and|or|with)\s", licence, flags=re.IGNORECASE)
    return [part.strip() for part in parts if part.strip() and part.strip().lower() not in ("by corpus", "in part")]


def _terms_of(base: dict | None) -> set[str | None]:
    """The families of a base model's licence; that of one without a card, or with an unknown one, says nothing."""
    license = (base or {}).get("license")
    if isinstance(license, list):  # of a repository under several
        return set().union(*(_terms_of(base | {"license": one}) for one in license))
    if not license or license == UNKNOWN:
        return set()
    if license == "other":
        return {"copyleft", "share-alike"} if base.get("license_name") == BY_CORPUS["license_name"] else {None}
    return {family_of(license.replace("cc-by-nc-sa", "nc-sa"))}
