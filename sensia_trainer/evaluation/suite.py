"""The whole evaluation of one model by one protocol, written as JSON: what `examples/evaluate.py` runs."""

import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from transformers.utils import logging

from ..bitext.flores import PURPOSES, load_flores
from ..bitext.language_check import check_language
from ..languages import language
from ..utils.files import fingerprint, portable, write_json
from .generation import generate_examples, prompts_for
from .intrinsic import evaluate_bitext, random_weights_recall
from .likelihood import choice_likelihoods
from .overlap import token_idf
from .perplexity import perplexity
from .scoring import SCORINGS, accuracy, grid_search, interpolate, paper_parameters, scores
from .tasks import TASKS, TEMPLATES, TaskData, load_task, make_items


logger = logging.get_logger(__name__)

HUB_FLORES = "openlanguagedata/flores_plus"  # maintained, gated: its terms are accepted once, on its page


@dataclass
class EvaluationConfig:
    """What to evaluate. `data_dir` may hold environment variables: `${SENSIA_DATA}/eval`."""

    model: str = field(metadata={"help": "Model folder or Hub id; any causal language model."})
    output: str = field(metadata={"help": "JSON file to write; per-item predictions go beside it as *.items.json."})
    target: str = field(metadata={"help": "Language evaluated, e.g. ind_Latn or id."})
    source: str = field(default="eng_Latn", metadata={"help": "The other side of the bitext."})
    name: str | None = field(default=None, metadata={"help": "Name in tables; the last part of `model` by default."})
    tokenizer: str | None = field(default=None, metadata={"help": "Tokenizer, if not in the model folder."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder with local data; the Hub by default."})
    flores: bool = field(default=True, metadata={"help": "Whether to evaluate on FLORES-200."})
    flores_purpose: str = field(default="reporting", metadata={"help": "reporting (devtest) or selection (dev)."})
    tasks: list[str] = field(
        default_factory=lambda: ["xcopa", "xstorycloze", "belebele"],
        metadata={"help": f"Of {', '.join(TASKS)}; in another language as task:code, e.g. copa:en."},
    )
    templates: list[str] = field(
        default_factory=lambda: ["plain", "harness"], metadata={"help": "plain, harness, goldfish (reading tasks)."}
    )
    questions: str = field(default="corrected", metadata={"help": "XCOPA's question field: corrected or published."})
    grid_search: bool = field(default=True, metadata={"help": "Search lambda and alpha on the validation split."})
    generate: bool = field(default=True, metadata={"help": "Whether to sample the prompts of Appendix F."})
    max_items: int | None = field(default=None, metadata={"help": "First items of each task only."})
    batch_size: int = field(default=32, metadata={"help": "Items in a batch; results do not depend on it."})
    max_length: int | None = field(default=None, metadata={"help": "The model's positions by default."})
    context_state: str = field(default="mixture", metadata={"help": "Backpacks: mixture or backbone."})
    context_layer: int | None = field(
        default=None, metadata={"help": "Context vectors from the state after this many blocks instead."}
    )
    pooling: str = field(default="magnitude", metadata={"help": "Backpacks: magnitude or contextual."})
    temperature: float = field(default=0.7, metadata={"help": "Backpacks: softmax temperature of the pooling."})
    dtype: str = field(default="float32", metadata={"help": "Weights' dtype; metrics are float32 in any case."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, ..."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})
    random_weights: bool = field(default=False, metadata={"help": "Use only the config of `model`: a chance line."})
    random_row: bool = field(
        default=True, metadata={"help": "Whether retrieval also stands beside that of the same model, untrained."}
    )
    check_languages: bool = field(default=True, metadata={"help": "Refuse files in the wrong language."})
    bootstrap: int = field(default=1000, metadata={"help": "Resamples for intervals on FLORES-200."})
    seed: int = 0
    progress: bool = True


def load_model(config: EvaluationConfig):
    """The model in evaluation mode and its tokenizer. `random_weights` draws fresh weights from the seed."""
    import modeling_backpack  # noqa: F401  # registers Backpacks with the Auto classes

    set_seed(config.seed)
    trust = {"trust_remote_code": config.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(config.tokenizer or config.model, **trust)
    dtype = getattr(torch, config.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"`dtype` must name a torch dtype such as 'float32' or 'bfloat16' (got {config.dtype!r}).")
    if config.random_weights:
        model_config = transformers.AutoConfig.from_pretrained(config.model, **trust)
        model = AutoModelForCausalLM.from_config(model_config, dtype=dtype, **trust)
    else:
        model = AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype, **trust)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), tokenizer


def check_config(config: EvaluationConfig) -> None:
    """Refuses what would fail after an hour: unknown tasks, templates, languages, an output that is no JSON file."""
    if Path(config.output).suffix != ".json":
        raise ValueError(f"`output` must be a .json file (got {config.output!r}).")
    known = sorted({name for templates in TEMPLATES.values() for name in templates})
    for template in config.templates:
        if template not in known:
            raise ValueError(f"`templates` may hold {known} (got {template!r}).")
    for entry in config.tasks:
        task, _, code = entry.partition(":")
        if task not in TASKS:
            raise ValueError(f"`tasks` may hold {sorted(TASKS)}, each with an optional `:language` (got {entry!r}).")
        language(code or config.target)
    language(config.source)


def run(config: EvaluationConfig) -> dict:
    """Evaluates and writes `output` and its `.items.json`; returns what it wrote to `output`.

    Raises:
        ValueError: Before the model is loaded for a wrong configuration; with the item named for wrong data.
    """
    check_config(config)
    started = time.perf_counter()
    data_dir = os.path.expandvars(config.data_dir) if config.data_dir else None
    if data_dir and not Path(data_dir).is_dir():
        raise ValueError(f"`data_dir` {config.data_dir!r} is no folder; leave it out to load from the Hub.")
    # All data before the model, so that what is missing is missed at once.
    flores = _load_flores(config, data_dir) if config.flores else None
    tasks = [_load_task(config, entry, data_dir) for entry in config.tasks]
    prompts = prompts_for(config.target) if config.generate else []
    if config.generate and not prompts:
        logger.warning(f"No continuations are sampled: there are no prompts in {language(config.target).name}.")
    model, tokenizer = load_model(config)
    result = {
        "kind": "evaluation",
        "name": config.name or Path(config.model).name + (" (random)" if config.random_weights else ""),
        "parameters": model.num_parameters(),
        "config": portable(asdict(config)),
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        },
        "tasks": [],
    }  # fmt: skip
    items = {}

    def write():
        """After every part: an interrupted run keeps what it measured."""
        result["seconds"] = round(time.perf_counter() - started, 1)
        write_json(config.output, result)
        write_json(items_file(config.output), items, indent=None)

    if flores:
        result["flores"], items["flores"] = evaluate_flores(config, model, tokenizer, *flores)
        write()
    for test, validation in tasks:
        for template in config.templates:
            if template in TEMPLATES[TASKS[test.task].kind]:
                summary, detail = evaluate_task(config, model, tokenizer, test, validation, template)
                result["tasks"].append(summary)
                items[f"{test.task}/{test.language}/{template}"] = detail
                write()
    if prompts:
        result["generation"] = generate_examples(model, tokenizer, prompts, seed=config.seed)
    write()
    return result


def items_file(output) -> Path:
    """Where the per-item predictions of the result file `output` are."""
    return Path(output).with_suffix(".items.json")


def _load_flores(config, data_dir) -> tuple[list[str], list[str], list[list[str]] | None]:
    """Both sides of the split that is evaluated, and both of the other one, for document frequencies."""
    path = Path(data_dir) / "flores200" if data_dir else HUB_FLORES
    codes = config.source, config.target
    split = _flores_split(config)
    texts = load_flores(path, split, codes, purpose=config.flores_purpose)
    if config.check_languages:
        for code in codes:
            check_language(texts[code], code, f"FLORES {split} {code}")
    ((purpose, other),) = ((purpose, name) for purpose, name in PURPOSES.items() if name != split)
    try:  # only to count in how many sentences a token is, for its overlap
        counted = load_flores(path, other, codes, purpose=purpose)
    except ValueError:
        logger.warning(f"FLORES {other} is not there: document frequencies are counted on {split} itself.")
        counted = None
    texts, counted = ([*found.values()] if found else None for found in (texts, counted))
    return *(side[: config.max_items] for side in texts), counted


def _flores_split(config) -> str:
    return PURPOSES.get(config.flores_purpose, config.flores_purpose)


def _load_task(config, entry, data_dir) -> tuple[TaskData, TaskData | None]:
    task, _, code = entry.partition(":")
    load = {"data_dir": data_dir, "questions": config.questions, "max_items": config.max_items}
    test = load_task(task, code or config.target, "test", **load)
    if config.check_languages:
        check_language([_text(row) for row in test.rows], test.language, f"{task} ({test.source})")
    searched = config.grid_search and "validation" in TASKS[task].splits
    return test, load_task(task, code or config.target, "validation", **load) if searched else None


def _text(row) -> str:
    parts = [row.get("premise", ""), *row.get("sentences", ()), row.get("passage", ""), *row["choices"]]
    return " ".join(parts)


def evaluate_flores(config, model, tokenizer, source, target, counted=None) -> tuple[dict, dict]:
    """Retrieval, entropy and perplexity on FLORES-200: a summary; the hits of every pair and its likelihoods.

    `counted`, both sides of other sentences, are those that document frequencies for the overlap are counted on.
    """
    options = {"batch_size": config.batch_size, "max_length": config.max_length, "progress": config.progress}
    names = ("pooling", "temperature", "context_state", "context_layer", "bootstrap", "seed")
    intrinsic = options | {name: getattr(config, name) for name in names}
    if counted:
        encoded = tokenizer([*counted[0], *counted[1]], add_special_tokens=False, verbose=False)["input_ids"]
        intrinsic["idf"] = token_idf(encoded, len(model.get_input_embeddings().weight))
    metrics = evaluate_bitext(model, tokenizer, source, target, by_pair=True, **intrinsic)
    if config.random_row:
        metrics |= random_weights_recall(model, tokenizer, source, target, **intrinsic)
    detail = {"fingerprint": fingerprint([source, target])[:16], "hits": metrics.pop("hits")}
    # Every token of every sentence after the start token: the same bytes for every model and tokenizer.
    from_start = {}
    for side, texts in (("source", source), ("target", target)):
        found = perplexity(model, tokenizer, texts, bootstrap=config.bootstrap, seed=config.seed, **options)
        detail[f"{side}_nll_from_start"] = [round(value, 4) for value in found.pop("nll")]
        from_start[f"{side}_from_start"] = found
    summary = {
        "split": _flores_split(config),
        "purpose": config.flores_purpose,
        "source": language(config.source).flores,
        "target": language(config.target).flores,
        "fingerprint": detail["fingerprint"],
        "document_frequencies": "the other split" if counted else "the evaluated sentences",
        **metrics,
        **from_start,
    }
    return summary, detail


def evaluate_task(config, model, tokenizer, data: TaskData, validation, template) -> tuple[dict, dict]:
    """Every scoring of one task under one template: a summary, and ids, labels, scores, predictions of the items.

    `validation`, the items that choose lambda and alpha, may be `None`: then nothing is searched.
    """
    options = {"batch_size": config.batch_size, "max_length": config.max_length, "progress": config.progress}
    if template == "goldfish":  # its scripts start every text with a special token and keep the first tokens
        options |= {"context_start": "auto", "truncation": "tail"}
    found = choice_likelihoods(model, tokenizer, make_items(data, template), **options)
    has_prior = found.unconditional is not None
    values = {name: scores(found, name) for name in SCORINGS if name != "pmi" or has_prior}
    parameters = {}
    preset = paper_parameters(data.task, data.language)
    if preset and (preset["lambda"] == 1 or has_prior):
        parameters["paper"] = preset
    summary = {
        "task": data.task,
        "language": data.language,
        "template": template,
        "split": data.split,
        "data": data.source,
        "fingerprint": data.fingerprint,
        "note": data.note,
        "items": len(data.rows),
        "questions_corrected": len(data.corrected),
        "cut_context": found.cut.count("context"),
        "cut_answer": found.cut.count("answer"),
    }
    if not has_prior:
        summary["no_pmi"] = "the tokenizer has no start token for the unconditional prior"
    elif validation is not None:
        on_validation = choice_likelihoods(model, tokenizer, make_items(validation, template), **options)
        summary["grid_search"] = grid_search(on_validation, split=validation.split) | {"items": len(validation.rows)}
        parameters["searched"] = {key: summary["grid_search"][key] for key in ("lambda", "alpha")}
    for name, chosen in parameters.items():
        values[name] = interpolate(found, chosen["lambda"], chosen["alpha"])
    summary["scores"] = {
        name: accuracy(value, found.labels) | parameters.get(name, {}) for name, value in values.items()
    }
    rounded = {"conditional": found.conditional.round(4).tolist(), "lengths": found.lengths.tolist()}
    if found.unconditional is not None:
        rounded["unconditional"] = found.unconditional.round(4).tolist()
    detail = {
        "fingerprint": data.fingerprint,
        "ids": found.ids,
        "labels": found.labels.tolist(),
        "corrected": data.corrected,
        **rounded,
        "predictions": {name: value.argmax(1).tolist() for name, value in values.items()},
    }
    return summary, detail
