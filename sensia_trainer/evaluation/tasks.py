"""Multiple-choice tasks: where their items are, and how an item becomes a context and its continuations.

Items come from the Hub or from a local folder in the published formats:

    xcopa/id/val.id.jsonl, test.id.jsonl            copa_en/val.en.labelled.jsonl
    xstorycloze/id.train.jsonl, id.eval.jsonl       or the published spring2016.val.id.tsv.split_20_80_eval.tsv
    belebele/ind_Latn.jsonl                         global_mmlu_lite/global_mmlu_lite_id_test.jsonl
    xstorycloze_like/en.eval.jsonl                  XStoryCloze's English
    xstorycloze_like/id_mt.eval.jsonl               a machine-translated stand-in, never called XStoryCloze
"""

import csv
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..bitext.hub_data import load_hub
from ..languages import language
from ..utils.errors import otherwise
from ..utils.files import fingerprint, text_lines


logger = logging.getLogger(__name__)


class TaskSource(NamedTuple):
    """Where a task is found; `splits` maps "validation" and "test" to the names it uses locally and on the Hub."""

    kind: str  # "causal", "story" or "reading": the shape of its items, and so its templates
    hub: str | None
    config: str | None  # the Hub configuration of a language: a pattern with {iso} and {flores}
    files: tuple[str, ...]  # local file patterns with {iso}, {flores} and {split}
    splits: dict[str, tuple[str, str]]
    note: str = ""


TASKS = {
    "xcopa": TaskSource(
        "causal", "cambridgeltl/xcopa", "{iso}", ("xcopa/{iso}/{split}.{iso}.jsonl",),
        {"validation": ("val", "validation"), "test": ("test", "test")},
    ),
    "copa": TaskSource(
        "causal", "aps/super_glue", "copa", ("copa_en/{split}.{iso}.labelled.jsonl",),
        {"train": ("train", "train"), "validation": ("val", "validation"), "test": ("test", "test")},
        "English COPA, the source of XCOPA",  # on the Hub the labels of its test split are hidden
    ),
    "xstorycloze": TaskSource(
        "story", "juletxara/xstory_cloze", "{iso}",
        ("xstorycloze/{iso}.{split}.jsonl", "xstorycloze/spring2016.val.{iso}.tsv.split_20_80_{split}.tsv",
         "xstorycloze_like/{iso}.{split}.jsonl"),
        {"validation": ("train", "train"), "test": ("eval", "eval")},
    ),
    "xstorycloze_like": TaskSource(
        "story", None, None, ("xstorycloze_like/{iso}_mt.{split}.jsonl",),
        {"validation": ("train", "train"), "test": ("eval", "eval")},
        "machine-translated from XStoryCloze's English: not the official human XStoryCloze",
    ),
    "belebele": TaskSource(
        "reading", "facebook/belebele", "{flores}", ("belebele/{flores}.jsonl",), {"test": ("test", "test")},
        "its passages contain FLORES sentences",
    ),
    "global_mmlu_lite": TaskSource(
        "reading", "CohereLabs/Global-MMLU-Lite", "{iso}", ("global_mmlu_lite/global_mmlu_lite_{iso}_{split}.jsonl",),
        {"validation": ("dev", "dev"), "test": ("test", "test")},
        "four-choice knowledge questions, a stand-in where Belebele is missing: not Belebele",
    ),
}  # fmt: skip

# What lm-evaluation-harness puts between premise and choice.
CONNECTORS = {
    "en": {"cause": "because", "effect": "therefore"},
    "et": {"cause": "sest", "effect": "seetõttu"},
    "id": {"cause": "karena", "effect": "maka"},
    "sw": {"cause": "kwa sababu", "effect": "kwa hiyo"},
    "tr": {"cause": "çünkü", "effect": "bu yüzden"},
    "zh": {"cause": "因为", "effect": "所以"},
}
QUESTIONS = ("corrected", "published")


class Item(NamedTuple):
    """One item as a model is asked it: which of `continuations` follows `context`? `label` is the right index."""

    id: str
    context: str
    continuations: tuple[str, ...]
    label: int


@dataclass
class TaskData:
    """The items of one task, language and split, before a template is chosen."""

    task: str
    language: str  # ISO 639-1
    split: str
    rows: list[dict]
    source: str
    fingerprint: str  # of the rows after any correction
    note: str = ""
    corrected: list[str] = field(default_factory=list)  # ids whose wrong `question` was corrected
    kind: str = ""  # of its templates; that of TASKS by default

    def __post_init__(self):
        self.kind = self.kind or TASKS[self.task].kind


def load_task(task: str, code: str, split: str, *, data_dir=None, questions="corrected", max_items=None) -> TaskData:
    """Loads a task from `data_dir` (layout above) or, without one, from the Hub.

    Args:
        task: A key of `TASKS`.
        code: Language code, `id` or `ind_Latn`.
        split: "test", or "validation" for choosing scoring parameters.
        questions: The published XCOPA files carry wrong `question` fields. "corrected" takes them from English COPA
            by `idx` and lists the ids that changed; "published" leaves the files as they are.
        max_items (`int`, *optional*): The first items only.

    Raises:
        `ValueError`: If the task, split or language is unknown or missing (what exists is listed), or an item has an
            empty choice or a label that no choice has.
    """
    if task not in TASKS:
        raise ValueError(f"Unknown task {task!r}; there are {sorted(TASKS)}.")
    if questions not in QUESTIONS:
        raise ValueError(f"`questions` must be one of {QUESTIONS} (got {questions!r}).")
    source = TASKS[task]
    if split not in source.splits:
        raise ValueError(f"{task} has no {split!r} split; it has {sorted(source.splits)}.")
    raw, origin = _read(source, task, code, split, data_dir)
    iso = language(code).code
    rows = _parsed(source.kind, raw, f"{task} {iso} {split} ({origin})")
    corrected = []
    if task == "xcopa" and questions == "corrected":
        with otherwise("Or take the questions as they were published: `--questions published`."):
            english, _ = _read(TASKS["copa"], "copa", "en", split, data_dir)
        corrected = correct_questions(rows, _parsed("causal", english, f"copa en {split}"))
    rows = rows[:max_items]
    kept = {row["id"] for row in rows}
    for row in rows:
        check_row(row, f"{task} {iso} {split}")
    corrected = [i for i in corrected if i in kept]
    return TaskData(task, iso, split, rows, origin, fingerprint(rows)[:16], source.note, corrected)


def correct_questions(rows: list[dict], english: list[dict]) -> list[str]:
    """Sets `question` of XCOPA rows, in place, to that of the English COPA item of the same id.

    Returns:
        The ids that changed.

    Raises:
        `ValueError`: If an item is missing in English COPA or the labels disagree: then the ids do not correspond.
    """
    by_id = {row["id"]: row for row in english}
    changed = []
    for row in rows:
        original = by_id.get(row["id"])
        if original is None or (original["label"] >= 0 and original["label"] != row["label"]):
            raise ValueError(
                f"Item {row['id']} of XCOPA does not correspond to English COPA by `idx`; its question cannot be "
                "corrected. Check the English file, or evaluate with questions='published'."
            )
        if original["question"] != row["question"]:
            row["question"] = original["question"]
            changed.append(row["id"])
    return changed


# ---- templates: (row, ISO code) -> context, continuations ----


def _causal_plain(row, iso):
    return row["premise"] + "\n", row["choices"]  # as published: the question is not asked


def _causal_harness(row, iso):
    if iso not in CONNECTORS:
        raise ValueError(
            f"There is no connector for {iso!r}; there are {sorted(CONNECTORS)}. Use the template 'plain'."
        )
    connector = CONNECTORS[iso][row["question"]]
    return row["premise"].strip()[:-1] + f" {connector}", [f" {c[0].lower()}{c[1:]}" for c in row["choices"]]


def _story_plain(row, iso):
    return " ".join(row["sentences"]) + "\n", row["choices"]


def _story_harness(row, iso):
    return " ".join(row["sentences"]), [f" {c}" for c in row["choices"]]


def _reading_plain(row, iso):
    passage = row["passage"] + "\n\n" if row["passage"] else ""
    return f"{passage}Q: {row['question']}\nA:", [f" {c}" for c in row["choices"]]


def _reading_goldfish(row, iso):
    parts = [row["passage"].strip(), row["question"].strip()]
    return " ".join(part for part in parts if part), [f" {c.strip()}" for c in row["choices"]]


def _reading_harness(row, iso):
    letters = "ABCD"[: len(row["choices"])]
    options = "\n".join(f"{letter}: {c}" for letter, c in zip(letters, row["choices"], strict=True))
    passage = f"P: {row['passage']}\nQ: " if row["passage"] else ""
    return f"{passage}{row['question'].strip()}\n{options}\nAnswer:", [f" {letter}" for letter in letters]


# "plain" is the published code's, "harness" lm-evaluation-harness's, "goldfish" that of the Goldfish paper's Belebele.
TEMPLATES = {
    "causal": {"plain": _causal_plain, "harness": _causal_harness},
    "story": {"plain": _story_plain, "harness": _story_harness},
    "own": {"own": lambda row, iso: (row["context"], row["choices"])},  # asked as its file says: `choices.py`
    "reading": {"plain": _reading_plain, "harness": _reading_harness, "goldfish": _reading_goldfish},
}


def can_ask(data: TaskData, template: str) -> bool:
    """Whether there are the words for a template in the language of a task; a warning says so where there are none."""
    there = template in TEMPLATES[data.kind]
    if there and TEMPLATES[data.kind][template] is _causal_harness and data.language not in CONNECTORS:
        logger.warning(
            f"{data.task} is not asked by the template 'harness': it has no connector for {data.language!r}, but for "
            f"{sorted(CONNECTORS)}."
        )
        return False
    return there


def make_items(data: TaskData, template: str) -> list[Item]:
    """The items of a task in the words of a template ("plain", "harness"; "goldfish" for reading tasks)."""
    templates = TEMPLATES[data.kind]
    if template not in templates:
        raise ValueError(f"{data.task} has no template {template!r}; it has {sorted(templates)}.")
    build = templates[template]
    items = []
    for row in data.rows:
        context, continuations = build(row, data.language)
        items.append(Item(row["id"], context, tuple(continuations), row["label"]))
    return items


# ---- reading ----


def _read(source: TaskSource, task: str, code: str, split: str, data_dir) -> tuple[list[dict], str]:
    iso, flores = language(code).code, language(code).flores
    local, hub = source.splits[split]
    if data_dir is None:
        return _read_hub(source, task, source.config and source.config.format(iso=iso, flores=flores), hub)
    names = [pattern.format(iso=iso, flores=flores, split=local) for pattern in source.files]
    for name in names:
        if (Path(data_dir) / name).is_file():
            return _read_file(Path(data_dir) / name), name
    folders = {Path(data_dir) / Path(pattern).parts[0]: None for pattern in source.files}
    files = (file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file())
    present = [str(file.relative_to(data_dir)) for file in files]
    raise ValueError(
        f"{task} in {iso} ({split}) is not in {data_dir}: looked for {' and '.join(names)}; "
        f"present: {', '.join(present) if present else 'nothing'}."
    )


def _read_file(path: Path) -> list[dict]:
    if path.suffix == ".tsv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [json.loads(line) for line in text_lines(path) if line.strip()]


def _read_hub(source: TaskSource, task: str, config: str, split: str) -> tuple[list[dict], str]:
    if source.hub is None:
        raise ValueError(f"{task} exists as local files only; give the folder that holds them as `data_dir`.")
    return list(load_hub(source.hub, config, split)), source.hub


def _parse_causal(row, position):
    return {
        "id": str(row.get("idx", position)),
        "premise": row["premise"],
        "choices": [row["choice1"], row["choice2"]],
        "question": row["question"],
        "label": int(row["label"]),
    }


def _parse_story(row, position):
    if "InputStoryid" in row:  # the header of the published TSV
        sentences = [row[f"InputSentence{i}"] for i in range(1, 5)]
        choices = [row["RandomFifthSentenceQuiz1"], row["RandomFifthSentenceQuiz2"]]
        return {
            "id": row["InputStoryid"], "sentences": sentences, "choices": choices,
            "label": int(row["AnswerRightEnding"]) - 1,
        }  # fmt: skip
    return {
        "id": str(row.get("story_id", position)),
        "sentences": [row[f"input_sentence_{i}"] for i in range(1, 5)],
        "choices": [row["sentence_quiz1"], row["sentence_quiz2"]],
        "label": int(row["answer_right_ending"]) - 1,
    }


def _parse_reading(row, position):
    if "flores_passage" in row:
        return {
            "id": f"{row['link']}#{row['question_number']}" if "link" in row else str(position),
            "passage": row["flores_passage"],
            "question": row["question"],
            "choices": [row[f"mc_answer{i}"] for i in range(1, 5)],
            "label": int(row["correct_answer_num"]) - 1,
        }
    question = row["prompts"][0] if "prompts" in row else row
    sample = row.get("sample_id") or row.get("metadata", {}).get("sample_id")
    return {
        "id": str(sample or position),
        "passage": "",
        "question": question["question"],
        "choices": [question[f"option_{letter}"] for letter in "abcd"],
        "label": "ABCD".index(row["label"] if "label" in row else row["answer"]),
    }


_PARSERS = {"causal": _parse_causal, "story": _parse_story, "reading": _parse_reading}


def _parsed(kind, raw, where) -> list[dict]:
    """The items of a file's rows; `ValueError` where it holds none, or one lacks a field or has no label."""
    rows = []
    for position, row in enumerate(raw):
        try:
            rows.append(_PARSERS[kind](row, position))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Item {position + 1} of {where} is none of this task ({type(error).__name__}: {error}); it has "
                f"{sorted(row) if isinstance(row, dict) else row!r}."
            ) from error
    if not rows:
        raise ValueError(f"{where} holds no items.")
    return rows


def check_row(row: dict, where: str) -> None:
    """`ValueError` for an empty choice or a label that names none."""
    empty = [i for i, choice in enumerate(row["choices"]) if not choice.strip()]
    if empty:
        raise ValueError(f"Item {row['id']} of {where}: choice {empty[0]} is empty.")
    if not 0 <= row["label"] < len(row["choices"]):
        raise ValueError(
            f"Item {row['id']} of {where}: label {row['label']} names none of its {len(row['choices'])} choices"
            + (" (hidden, as on the Hub: give the labelled files by `data_dir`)." if row["label"] == -1 else ".")
        )
