"""FLORES-200, from a local folder in its published layout or from the Hub; dev selects, devtest reports."""

import logging
from pathlib import Path

from ..languages import language
from ..utils.files import text_lines
from .hub_data import hub_configurations, load_hub


logger = logging.getLogger(__name__)

PURPOSES = {"selection": "dev", "reporting": "devtest"}
# FLORES+, which goes on from FLORES-200, names macrolanguages by the language that was translated (its CHANGELOG.md).
RENAMED = {"zho_Hans": "cmn_Hans", "zho_Hant": "cmn_Hant", "est_Latn": "ekk_Latn", "grn_Latn": "gug_Latn"}
RENAMED |= {"kon_Latn": "ktu_Latn", "tgl_Latn": "fil_Latn", "tzm_Tfng": "zgh_Tfng"}
RENAMED |= {"ajp_Arab": "apc_Arab_sout3123", "apc_Arab": "apc_Arab_nort3139"}
RENAMED |= {"aka_Latn": "twi_Latn_asan1239", "twi_Latn": "twi_Latn_akua1239"}


def load_flores(path, split: str, languages, *, purpose: str) -> dict[str, list[str]]:
    """The sentences of each language, aligned by position.

    Args:
        path: A folder with `dev/eng_Latn.dev`, `devtest/eng_Latn.devtest`, ...; or a Hub dataset with one
            configuration per language and a column `sentence` or `text`, such as `openlanguagedata/flores_plus`.
        split: "dev" or "devtest".
        languages: Language codes, `ind_Latn` or `id`; the result is keyed by the codes as given.
        purpose: What the numbers are for. "selection" (during training, choosing checkpoints and parameters) may
            read only dev, "reporting" only devtest: choosing on the sentences that are reported makes the report
            worthless, so the two are not to be mixed.

    Raises:
        `ValueError`: If purpose and split do not fit, or a split or language is missing (what exists is listed).
    """
    if purpose not in PURPOSES or split not in PURPOSES.values():
        raise ValueError(
            f"`purpose` must be one of {list(PURPOSES)} (got {purpose!r}) and `split` one of "
            f"{list(PURPOSES.values())} (got {split!r})."
        )
    if PURPOSES[purpose] != split:
        raise ValueError(
            f"FLORES {split} must not be used for {purpose}: select on dev, report on devtest. Pass "
            f"split={PURPOSES[purpose]!r}."
        )
    languages, path = list(languages), Path(path).expanduser() if str(path).startswith("~") else path
    codes = [language(code).flores for code in languages]
    read = _read_folder if Path(path).is_dir() else _read_hub
    sentences = dict(zip(languages, read(path, split, codes), strict=True))
    sizes = {code: len(lines) for code, lines in sentences.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"FLORES {split} is not aligned: the languages differ in length ({sizes}).")
    return sentences


def reported_sentences(path, languages) -> dict[str, list[str]]:
    """The sentences of devtest by language, which nothing may be trained on; none, with a warning, where they cannot
    be read. Arguments as [`load_flores`]."""
    from datasets.exceptions import DatasetsError

    try:
        return load_flores(path, PURPOSES["reporting"], languages, purpose="reporting")
    except (OSError, ValueError, DatasetsError) as error:
        logger.warning(
            "What is trained on is compared with the dev split of %s only: devtest cannot be read (%s). If you report "
            "on it, give a folder or data set that has both.",
            path,
            error,
        )
        return {}


def _read_folder(path, split, codes) -> list[list[str]]:
    folder = Path(path) / split
    present = sorted(file.stem for file in folder.glob(f"*.{split}"))
    if not present:
        splits = sorted(d.name for d in Path(path).iterdir() if d.is_dir())
        raise ValueError(f"There is no FLORES split {split!r} in {path}; its folders are {splits}.")
    missing = [code for code in codes if code not in present]
    if missing:
        raise ValueError(f"FLORES {split} in {path} lacks {missing}; it has {present}.")
    return [text_lines(folder / f"{code}.{split}") for code in codes]


def _read_hub(path, split, codes) -> list[list[str]]:
    from datasets.exceptions import DatasetsError

    try:
        present = hub_configurations(str(path))
    except (OSError, DatasetsError) as error:
        raise ValueError(
            f"FLORES is not at {str(path)!r}: it is no folder here, and as a Hub data set it failed ({error}). Give "
            "the folder that holds `dev` and `devtest`, or a data set, such as openlanguagedata/flores_plus."
        ) from error
    names = [code if code in present else RENAMED.get(code, code) for code in codes]
    missing = [code for code, name in zip(codes, names, strict=True) if name not in present]
    if missing:
        raise ValueError(f"The dataset {path} lacks {missing}; it has {present}.")
    columns = []
    for name in names:
        data = load_hub(str(path), name, split)
        column = next((column for column in ("sentence", "text") if column in data.column_names), None)
        if column is None:
            raise ValueError(f"{path} ({name}) has no column `sentence` or `text`; it has {data.column_names}.")
        columns.append(list(data[column]))
    return columns
