"""The sentences of a card: of its text and licence, of how it was measured, of its new words, and for its snippets."""

import re

from ..languages import Language, language
from ..utils.files import without_folders
from ..utils.markdown import Markdown, code, escape, number
from ..vocabulary.section import vocabulary_section
from .licences import BY_CORPUS, UNKNOWN


MODEL_OF_DELTA = "MODEL"  # how the card of a delta calls the folder that it is put together to
# Sentences of the snippets where the metrics bring none, in the order of `ENGLISH_EXAMPLES`.
ENGLISH_EXAMPLES = ("The book is on the table.", "Where do you live?", "The file could not be opened.")
PARAPHRASES = ("On the table is a book.", "Where is it that you live?", "He could not open the file.")
EXAMPLES = {
    "et": ("Raamat on laua peal.", "Kus sa elad?", "Faili ei saanud avada."),
    "id": ("Buku itu ada di atas meja.", "Di mana kamu tinggal?", "Berkas tidak dapat dibuka."),
    "sw": ("Kitabu kiko juu ya meza.", "Unaishi wapi?", "Faili haikuweza kufunguliwa."),
    "tr": ("Kitap masanın üstünde.", "Nerede yaşıyorsun?", "Dosya açılamadı."),
    "zh": ("书在桌子上。", "你住在哪里？", "无法打开文件。"),
}


def examples(targets: list[Language]) -> list[tuple[str, str]]:
    """Sentences and their translations for the snippets; of several languages, the first of each."""
    found = [list(zip(ENGLISH_EXAMPLES, EXAMPLES.get(target.code, ()), strict=False)) for target in targets]
    return found[0] if len(found) == 1 else [pairs[n % len(pairs)] for n, pairs in enumerate(filter(None, found))]


def beginning(sentence: str) -> str:
    """The first half of a sentence, for the model to continue."""
    words = sentence.split()
    return " ".join(words[: (len(words) + 1) // 2]) if len(words) > 1 else sentence[: (len(sentence) + 1) // 2]


def vocabulary_text(metrics: dict, source: str, target: str) -> Markdown:
    """What the tokenizer became; empty where it stayed as it was."""
    report = metrics.get("vocabulary")
    if report and "languages" in report:
        sections = []
        for target_code, one in report["languages"].items():
            name, of = language(target_code).name, language(one["source"]).name if "source" in one else source
            sections.append(f"### {name}\n\n{vocabulary_section(one, of, name)}")
        return Markdown("\n\n".join(sections))
    return Markdown(vocabulary_section(report, source, target) if report else "")


def file_name(path: str) -> str:
    """A path, absolute or under a variable, by its last part; what is not a path as it is."""
    return re.sub(r"\$(?:\w+|\{\w+\})/(?:[\w.+-]+/)*(?=[\w.+-])", "", without_folders(path))


def data_text(data: dict, licence: dict, followed: dict) -> Markdown:
    """Where the text is from, what licence it has, and which one the weights have for it; `followed` is the one that
    follows from the text's, which who releases the weights may have set aside."""
    sources = data.get("sources") or []
    sources = sources if isinstance(sources, list) else [sources]
    names = [data["name"]] if data.get("name") else sources
    sentences = [f"Source: {', '.join(code(file_name(str(name))) for name in names)}."] if names else []
    sentences = [escape(data["description"])] if data.get("description") else sentences
    if data.get("licence"):
        sentences.append(f"Licence of the text, as it was given: {escape(data['licence'])}.")
    if licence["license"] == UNKNOWN:
        sentences.append(
            "No licence that all of the weights could go by follows from what was said of the text and of the base "
            "model, so theirs is **unknown**: "
            "ask whoever made them before using them."
        )
    elif licence.get("license_name") == BY_CORPUS["license_name"]:
        sentences.append(
            "The licences of the text and of the base model's text bind the weights in several ways at once "
            "(share-alike, copyleft), so the weights have none of their own beside them."
        )
    else:
        said = f", as who released them states; from the terms above follows {escape(followed['license'])}"
        name = licence.get("license_name") or licence["license"]
        sentences.append(f"Licence of the weights: {escape(name)}{said if licence != followed else ''}.")
    return Markdown(" ".join(sentences))


def delta_notice(facts: dict) -> str:
    """What a folder is that holds no model, but what [`~sensia_trainer.hub.delta.make_delta`] wrote."""
    about = facts.get("about_base")
    return (
        "## A delta\n\nThis folder does not hold the model, but what distinguishes it from its base, "
        f"`{facts['base']}`{f' ({about})' if about else ''}. `sensia delta FOLDER BASE {MODEL_OF_DELTA}` puts both "
        f"together into the folder `{MODEL_OF_DELTA}`, for which the rest of this card was written; another base is "
        "refused.\n\n"
    )


def with_notice(text: str, facts: dict) -> str:
    """A card that says first that the folder is a delta."""
    return text.replace("## Use\n", f"{delta_notice(facts)}## Use\n", 1)


def protocol(metrics: dict) -> Markdown:
    """What was measured on which sentences, and how to read it."""
    after, evaluation = metrics.get("after") or {}, metrics.get("evaluation") or {}
    place = escape(" ".join(filter(None, (evaluation.get("name"), evaluation.get("split")))))
    data, sentences = metrics.get("data") or {}, []
    by_pair = list((metrics.get("by_pair") or {}).values())
    if after.get("pairs"):
        place = f"of {place}" if place else "held out from the training data"
        sentences.append(f"Measured on {_pairs(after, by_pair)} {place}.")
        if after.get("truncated"):
            sentences.append(
                f"{number(after['truncated'])} of them were cut at `max_length` or at the model's positions."
            )
    elif data.get("held_out_blocks"):
        size = f"{number(data['held_out_blocks'])} blocks of {number(data['block_size'])} tokens"
        sentences.append(f"Measured on {size} held out from the training data.")
    elif place:
        sentences.append(f"Measured on {place}.")
    if any("recall" in key for key in after):
        sentences.append(
            "recall@1 is the share of sentences whose nearest neighbour by cosine, among the translations of all of "
            f"{'the same pair of languages' if by_pair else 'them'}, is their own."
        )
    measured = [one.get(name) or {} for one in (metrics, *by_pair) for name in ("before", "after", "control")]
    if any(key.endswith("_interval") for one in measured for key in one):
        sentences.append("Brackets are 95 % bootstrap intervals over sentences.")
    sentences.append("Perplexity is per token of this tokenizer; bits per byte compare across tokenizers.")
    return Markdown(" ".join(sentences))


def _pairs(after: dict, by_pair: list[dict]) -> str:
    """How many sentence pairs there are to choose from: of several pairs of languages, of each."""
    sizes = sorted({one["after"]["pairs"] for one in by_pair}) or [after["pairs"]]
    each = f" of each of {len(by_pair)} pairs of languages," if by_pair else ""
    size = number(sizes[0]) + (f" to {number(sizes[-1])}" if sizes[1:] else "")
    return f"{size} sentence pairs{each}"
