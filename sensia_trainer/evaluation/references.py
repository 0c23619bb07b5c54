"""Generation against references: chrF and ROUGE of what a model writes (the `generation` extra).

continuation    the second half of FLORES-200 sentences, from their first half
xlsum           summaries of news (XL-Sum, Hasan et al., 2021): the article, then "TL;DR:"
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..analysis.words import segment_words
from ..bitext.hub_data import load_hub
from ..languages import language
from ..utils.files import fingerprint, text_lines
from ..utils.statistics import bootstrap_interval
from .batching import max_positions
from .generation import complete
from .parallel import flores_pairs
from .settings import GENERATION_TASKS


HUB_XLSUM = "csebuetnlp/xlsum"
XLSUM_NAMES = {"zh": "chinese_simplified", "zh_Hant": "chinese_traditional"}  # most others go by their English names
XLSUM_NAMES |= {"rn": "kirundi", "sr": "serbian_cyrillic", "sr_Latn": "serbian_latin", "pcm": "pidgin"}
NEW_TOKENS = 64
XLSUM_ITEMS = 200


class Writing(NamedTuple):
    """What is to be written, and what people wrote: `prompts` are a text and its ending, which is never cut."""

    task: str
    language: str
    prompts: list[tuple[str, str]]
    references: list[str]
    source: str

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.prompts, self.references])[:16]


def load_writing(task: str, code: str, *, data_dir=None, purpose="reporting", max_items=None) -> Writing:
    """The items of a generation task, from `data_dir` (`flores200/`, `xlsum/indonesian_test.jsonl`) or the Hub.

    Raises:
        `ValueError`: For a task or a language that is not there.
    """
    iso = language(code).code
    if task == "continuation":
        pairs = flores_pairs(code, code, data_dir=data_dir, purpose=purpose, max_items=max_items)
        words = [segment_words(sentence) for sentence in pairs.source]
        halves = [
            (sentence[: found[len(found) // 2 - 1].end], sentence[found[len(found) // 2 - 1].end :])
            for sentence, found in zip(pairs.source, words, strict=True)
            if len(found) > 1
        ]
        prompts, references = [(first, "") for first, _ in halves], [second for _, second in halves]
        return Writing(task, iso, prompts, references, f"FLORES-200 {pairs.facts['split']}")
    if task != "xlsum":
        raise ValueError(f"Unknown generation task {task!r}; there are {GENERATION_TASKS}.")
    name = XLSUM_NAMES.get(iso, language(code).name.lower().replace(" ", "_"))
    if data_dir is None:
        rows, source = load_hub(HUB_XLSUM, name, "test"), HUB_XLSUM
        rows = rows.select(range(min(max_items or XLSUM_ITEMS, len(rows))))
    else:
        file = Path(data_dir) / "xlsum" / f"{name}_test.jsonl"
        if not file.is_file():
            raise ValueError(f"xlsum in {iso} is not in {data_dir}: looked for xlsum/{file.name}.")
        lines = [line for line in text_lines(file) if line.strip()]
        rows, source = [json.loads(line) for line in lines[: max_items or XLSUM_ITEMS]], f"xlsum/{file.name}"
    prompts, references = [(row["text"], "\nTL;DR:") for row in rows], [row["summary"] for row in rows]
    return Writing(task, iso, prompts, references, source)


def evaluate_writing(model, tokenizer, writing: Writing, *, bootstrap=1000, seed=0, batch_size=32, progress=False):
    """Greedy continuations of at most 64 tokens, up to the end of the line, against the references.

    Returns:
        `dict` with `items`, and for chrF and ROUGE-1, -2 and -L the mean over items (0 to 100, `chrf`, `rouge1`,
        `rouge2`, `rougeL`, with `..._interval`), and under `other_references` the same of the reference of the next
        item: what text of the kind scores by chance; and a `list` of what was written.
    """
    positions = max_positions(model)
    prompts = [_shortened(tokenizer, *prompt, positions) for prompt in writing.prompts]
    settings = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "batch_size": batch_size, "progress": progress}
    written = [text.strip().split("\n")[0] for text in complete(model, tokenizer, prompts, **settings)]
    references = [reference.strip() for reference in writing.references]
    result = {"task": writing.task, "language": writing.language, "data": writing.source, "items": len(written)}
    result["fingerprint"] = writing.fingerprint
    for name, values in text_scores(written, references).items():
        result[name] = float(np.mean(values))
        result[f"{name}_interval"] = bootstrap_interval(values, samples=bootstrap, seed=seed) if bootstrap else None
    by_chance = text_scores(references[1:] + references[:1], references)
    result["other_references"] = {name: float(np.mean(values)) for name, values in by_chance.items()}
    return result, written


def text_scores(written: list[str], references: list[str]) -> dict[str, list[float]]:
    """chrF and the F-measures of ROUGE-1, -2 and -L of each text, 0 to 100; words as `segment_words` parts them.

    Raises:
        ImportError: Without sacrebleu and rouge-score.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise ImportError(
            "chrF and ROUGE need sacrebleu and rouge-score: `pip install sensia[generation]`."
        ) from error
    chrf, rouge = CHRF(), RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())
    scores = {"chrf": [], "rouge1": [], "rouge2": [], "rougeL": []}
    for text, reference in zip(written, references, strict=True):
        scores["chrf"].append(chrf.sentence_score(text, [reference]).score)
        for name, score in rouge.score(reference, text).items():
            scores[name].append(100 * score.fmeasure)
    return scores


class _Words:
    """What rouge-score calls a tokenizer; its own knows the letters a to z only."""

    def tokenize(self, text):
        return [word.text.casefold() for word in segment_words(text)]


def _shortened(tokenizer, text: str, ending: str, positions: int | None) -> str:
    """The text cut so that its ending and what is to be written fit the positions."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    kept = len(tokenizer(ending, add_special_tokens=False)["input_ids"]) + 1
    if positions is None or len(ids) + kept + NEW_TOKENS <= positions:
        return text + ending
    room = max(positions - kept - NEW_TOKENS, 1)
    return tokenizer.decode(ids[:room]) + ending
