"""The whole evaluation of one model by one protocol, written as JSON: what `sensia evaluate` runs."""

import platform
import re
import time
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, set_seed
from transformers.utils import logging

from modeling_backpack import BackpackConfig, is_published_layout

from .. import __version__
from ..bitext.flores import PURPOSES
from ..bitext.langid import check_language
from ..languages import language
from ..utils import models
from ..utils.errors import otherwise
from ..utils.files import fingerprint, portable
from ..utils.recipes import expand_variables, find_model
from .choices import load_choices
from .generation import cut_prompts, fluency, generate_examples, prompts_for
from .intrinsic import evaluate_bitext, random_weights_recall
from .languages import language_matrix, matrix_figure, random_weights_matrix
from .likelihood import choice_likelihoods
from .overlap import token_idf
from .parallel import Pairs, check_pairs, flores_languages, flores_pairs, own_pairs, tatoeba_pairs
from .perplexity import perplexity
from .references import evaluate_writing, load_writing
from .results import Parts, items_file, parts_file, write_result
from .scoring import SCORINGS, accuracy, grid_search, interpolate, paper_parameters, scores
from .settings import GENERATION_TASKS, KNOWN_TASKS, PAIR_TASKS, EvaluationConfig
from .tasks import QUESTIONS, TASKS, TEMPLATES, TaskData, can_ask, load_task, make_items
from .vectors import with_vectors


logger = logging.get_logger(__name__)

FLUENCY_PROMPTS = 200
NEUTRAL = {"lambda": 1.0, "alpha": 0.0}
# Settings that no number depends on (but sampled continuations, of the size of a batch).
FREE = ("output", "name", "batch_size", "device", "progress")


def load_model(config: EvaluationConfig):
    """The model in evaluation mode and its tokenizer. `random_weights` draws fresh weights from the seed."""
    set_seed(config.seed)
    device, trust = models.load_device(config.device), {"trust_remote_code": config.trust_remote_code}
    folder = find_model(config.model)
    dtype = getattr(torch, config.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"`dtype` must name a torch dtype such as 'float32' or 'bfloat16' (got {config.dtype!r}).")
    if config.random_weights:
        config_class = BackpackConfig if is_published_layout(folder) else transformers.AutoConfig
        model_config = config_class.from_pretrained(folder, **trust)
        model = AutoModelForCausalLM.from_config(model_config, dtype=dtype, **trust)
    else:
        model = models.load_model(config.model, dtype=dtype, **trust)
    tokenizer = models.load_tokenizer(config.tokenizer or folder, model, **trust)
    return model.to(device).eval(), tokenizer


def check_config(config: EvaluationConfig) -> None:
    """Refuses what would fail after an hour: unknown tasks, templates, languages, an output that is no JSON file."""
    if Path(config.output).suffix != ".json":
        raise ValueError(f"`output` must be a .json file (got {config.output!r}).")
    known = sorted({name for kind, templates in TEMPLATES.items() for name in templates if kind != "own"})
    for template in config.templates:
        if template not in known:
            raise ValueError(f"`templates` may hold {known} (got {template!r}).")
    for entry in config.tasks:
        task, _, code = entry.partition(":")
        if task not in KNOWN_TASKS:
            raise ValueError(
                f"`tasks` may hold {sorted(KNOWN_TASKS)}, each with an optional `:language` (got {entry!r})."
            )
        language(code or config.target)
        asked = TEMPLATES[TASKS[task].kind] if task in TASKS else config.templates
        if not set(config.templates) & set(asked):
            raise ValueError(
                f"`tasks` holds {entry!r}, which none of `templates` ({', '.join(config.templates)}) asks: give one "
                f"of {sorted(asked)} besides."
            )
    parted = (entry.partition(":") for entry in config.tasks)
    tasks = [(task, language(code or config.target).code) for task, _, code in parted]
    twice = sorted({task for task in tasks if tasks.count(task) > 1})
    if twice:
        raise ValueError(f"`tasks` holds {':'.join(twice[0])!r} twice (got {config.tasks}).")
    for name in ("bitext_name", "choices_name"):
        value = getattr(config, name)
        if not re.fullmatch(r"[\w-]+", value) or value in (*KNOWN_TASKS, "flores"):
            raise ValueError(
                f"`{name}` must be letters, digits, - and _, and no name of a known task (got {value!r})."
            )
    for name, allowed in (("questions", QUESTIONS), ("flores_purpose", tuple(PURPOSES))):
        if getattr(config, name) not in allowed:
            raise ValueError(f"`{name}` must be one of {allowed} (got {getattr(config, name)!r}).")
    for name, least in (("max_items", 1), ("batch_size", 1), ("max_length", 2), ("bootstrap", 0)):
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"`{name}` must be at least {least} (got {value}).")
    if config.scoring_lambda is not None and not 0 <= config.scoring_lambda <= 1:
        raise ValueError(f"`scoring_lambda` must lie between 0 and 1 (got {config.scoring_lambda}).")
    language(config.source)
    codes = [language(code).code for code in (config.source, *config.languages)]
    twice = sorted({code for code in codes if codes.count(code) > 1})
    if twice:
        raise ValueError(f"`languages` holds {twice[0]!r} twice, or `source` too (got {config.languages}).")


def run(config: EvaluationConfig) -> dict:
    """Evaluates and writes `output` and its `.items.json`; returns what it wrote to `output`.

    Interrupted and started again with the same settings, it goes on behind the last part that was measured.

    Raises:
        `ValueError`: Before the model is loaded for a wrong configuration; with the item named for wrong data.
    """
    check_config(config)
    config = with_vectors(config)
    started = time.perf_counter()
    data_dir = expand_variables(config.data_dir)
    if data_dir and not Path(data_dir).is_dir():
        raise ValueError(f"`data_dir` {config.data_dir!r} is not a folder; leave it out to load from the Hub.")
    # All data before the model, so that what is missing is missed at once.
    pairs, tasks, writings = _load_data(config, data_dir)
    many = _load_languages(config, data_dir) if config.languages else None
    prompts = prompts_for(config.target) if config.generate else []
    if config.generate and not prompts:
        logger.warning(
            f"No continuations of Appendix F are shown: it has no prompts in {language(config.target).name}."
        )
    model, tokenizer = load_model(config)
    settings = portable(asdict(config))
    decisive = {key: value for key, value in settings.items() if key not in FREE}
    files = [_files_of(place, config.output) for place in (config.model, config.tokenizer) if place]
    parts = Parts(config.output, decisive | {"files": files, "version": __version__})
    result = {
        "kind": "evaluation",
        "name": config.name or Path(config.model).resolve().name + (" (random)" if config.random_weights else ""),
        "parameters": model.num_parameters(),
        "config": settings,
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        },
        "bitexts": {},
        "tasks": [],
    }  # fmt: skip
    items = {}

    def part(key, digest, measure, *arguments):
        summary, items[key] = parts.measured(f"{key}/{digest}", lambda: measure(config, model, tokenizer, *arguments))
        return summary

    for found in pairs:
        key = found.name if found.name == "flores" else f"bitext/{found.name}"
        summary = part(key, fingerprint([found.source, found.target, found.counted]), evaluate_pairs, found)
        if found.name == "flores":
            result["flores"] = summary
        else:
            result["bitexts"][found.name] = summary
    if many:
        result["matrix"] = part("matrix", fingerprint([many.sentences, many.counted]), _evaluate_languages, many)
        matrix_figure(result["matrix"], Path(config.output).with_name(f"{Path(config.output).stem}-languages"))
    for test, validation in tasks:
        for template in ["own"] if test.kind == "own" else config.templates:
            if can_ask(test, template):
                digest = test.fingerprint + (validation.fingerprint if validation else "")
                key = f"{test.task}/{test.language}/{template}"
                result["tasks"].append(part(key, digest, evaluate_task, test, validation, template))
    if writings:
        result["writing"] = [
            part(f"{found.task}/{found.language}", found.fingerprint, _evaluate_writing, found) for found in writings
        ]
    if prompts:
        result["generation"] = part("generation", fingerprint(prompts), _generate, prompts)
    wanted = (found for found in pairs if config.generate and found.languages[1] == config.target)
    sentences = next((found.target[:FLUENCY_PROMPTS] for found in wanted), [])
    if sentences and not cut_prompts(sentences, config.target):
        logger.warning("Fluency is not measured: none of the sentences is long enough to be begun and gone on with.")
    elif sentences:
        result["fluency"] = part("fluency", fingerprint(sentences), _fluency, sentences)
    result["seconds"] = round(time.perf_counter() - started, 1)
    result = write_result(config.output, result, items)
    parts.finish()
    return result


def _files_of(model: str, output: str) -> list:
    """What tells whether a model folder is still the same, but for results in it; a model of the Hub is known by its
    name."""
    model = find_model(model)
    stem = Path(output).stem
    results = {Path(output).name, items_file(output).name, parts_file(output).name}
    results |= {f"{stem}-languages.png", f"{stem}-languages.svg"}
    files = sorted(Path(model).iterdir()) if Path(model).is_dir() else []
    # `NAME.1234.part` is what a process that was killed while it wrote NAME leaves behind; hidden files are locks.
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    files = [file for file in files if re.sub(r"\.\d+\.part$", "", file.name) not in results]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _load_data(config, data_dir):
    """Pairs, multiple-choice tasks (test and validation), and what is to be written."""
    sides, where = (config.source, config.target), {"data_dir": data_dir, "max_items": config.max_items}
    pairs, tasks, writings = [], [], []
    if config.flores:
        with otherwise("Or leave FLORES out: `--flores false`."):
            pairs.append(flores_pairs(*sides, purpose=config.flores_purpose, **where))
    for entry in config.tasks:
        task, _, code = entry.partition(":")
        if task in PAIR_TASKS:
            found = tatoeba_pairs(config.source, code or config.target, **where)
            pairs.append(found._replace(name=f"{task}-{code}") if code else found)
        elif task in GENERATION_TASKS:
            writings.append(load_writing(task, code or config.target, purpose=config.flores_purpose, **where))
        else:
            tasks.append(_load_task(config, task, code or config.target, where))
    if config.bitext:
        own = {"name": config.bitext_name, "split": config.bitext_split, "max_items": config.max_items}
        pairs.append(own_pairs(config.bitext, *sides, **own))
    if config.choices:
        names = ("name", "context", "answers", "label", "first_label")
        own = {name: getattr(config, f"choices_{name}") for name in names} | {"max_items": config.max_items}
        files = {"test": config.choices, "validation": config.choices_validation if config.grid_search else None}
        tasks.append([file and load_choices(file, config.target, split=split, **own) for split, file in files.items()])
        test, validation = tasks[-1]
        if validation and len(validation.rows[0]["choices"]) != len(test.rows[0]["choices"]):
            raise ValueError(
                f"`choices_validation` has items of {len(validation.rows[0]['choices'])} choices, but `choices` of "
                f"{len(test.rows[0]['choices'])}: give a file of as many, or `--grid_search false`."
            )
    if config.check_languages:
        for found in pairs:
            check_pairs(found)
    if not (pairs or tasks or writings or config.generate or config.languages):
        raise ValueError("There is nothing to evaluate: give `tasks`, `bitext`, `choices`, or leave `flores` on.")
    return pairs, tasks, writings


def _load_task(config, task, code, where) -> tuple[TaskData, TaskData | None]:
    with otherwise(f"Or leave {task} out of `--tasks`."):
        test = load_task(task, code, "test", questions=config.questions, **where)
    if config.check_languages:
        with otherwise("If it is, `--check_languages false`."):
            check_language([_text(row) for row in test.rows], test.language, f"{task} ({test.source})")
    if not (config.grid_search and "validation" in TASKS[task].splits):
        return test, None
    with otherwise("Or choose nothing on it: `--grid_search false`."):
        return test, load_task(task, code, "validation", questions=config.questions, **where)


def _text(row) -> str:
    parts = [row.get("premise", ""), *row.get("sentences", ()), row.get("passage", ""), *row["choices"]]
    return " ".join(parts)


def _generate(config, model, tokenizer, prompts):
    return generate_examples(model, tokenizer, prompts, seed=config.seed), {}


def _fluency(config, model, tokenizer, sentences):
    options = {"seed": config.seed, "batch_size": config.batch_size, "progress": config.progress}
    return fluency(model, tokenizer, sentences, config.target, **options)


def _load_languages(config, data_dir):
    """The sentences of all languages, checked to be in them."""
    where = {"data_dir": data_dir, "max_items": config.max_items, "purpose": config.flores_purpose}
    many = flores_languages([config.source, *config.languages], **where)
    for code, texts in many.sentences.items() if config.check_languages else ():
        check_language(texts, code, f"flores {code}")
    return many


def _evaluate_languages(config, model, tokenizer, many):
    names = ("pooling", "temperature", "context_state", "context_layer", "bootstrap", "seed", "batch_size")
    options = {name: getattr(config, name) for name in (*names, "max_length", "progress")} | {"counted": many.counted}
    source = language(config.source).code
    matrix = language_matrix(model, tokenizer, many.sentences, source, **options)
    if config.random_row:
        matrix |= random_weights_matrix(model, tokenizer, many.sentences, source, **options)
    return portable(many.facts) | {"fingerprint": fingerprint(many.sentences)[:16]} | matrix, {}


def _evaluate_writing(config, model, tokenizer, writing):
    names = ("bootstrap", "seed", "batch_size", "progress")
    return evaluate_writing(model, tokenizer, writing, **{name: getattr(config, name) for name in names})


def evaluate_pairs(config, model, tokenizer, pairs: Pairs) -> tuple[dict, dict]:
    """Retrieval, entropy and perplexity on parallel sentences: a summary; hits and likelihoods of every pair."""
    options = {"batch_size": config.batch_size, "max_length": config.max_length, "progress": config.progress}
    names = ("pooling", "temperature", "context_state", "context_layer", "bootstrap", "seed")
    intrinsic = options | {name: getattr(config, name) for name in names}
    source, target = pairs.source, pairs.target
    if pairs.counted:
        counted = [sentence for side in pairs.counted for sentence in side]
        encoded = tokenizer(counted, add_special_tokens=False, verbose=False)["input_ids"]
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
        **portable(pairs.facts),
        **{side: language(code).flores for side, code in zip(("source", "target"), pairs.languages, strict=True)},
        "fingerprint": detail["fingerprint"],
        "document_frequencies": "other sentences" if pairs.counted else "the evaluated sentences",
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
    given = {"lambda": config.scoring_lambda, "alpha": config.scoring_alpha}
    if set(given.values()) != {None}:
        parameters["given"] = {key: default if given[key] is None else given[key] for key, default in NEUTRAL.items()}
    if preset:
        parameters["paper"] = preset
    parameters = {name: chosen for name, chosen in parameters.items() if chosen["lambda"] == 1 or has_prior}
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
