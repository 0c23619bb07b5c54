"""The card of a trained model, rendered from its metrics file: every number in a card was measured and written there.

`metrics.json` holds `kind` ("adaptation", "pretraining" or "baseline"), `model_name`, `base_model`, `languages`
{"source": code, "target": code}, `data`, `config`, `before`, `after`, `control`, `seconds`, `versions` and `command`,
as the training scripts write them. Optional keys add to the card; what is absent is left out of it:

- `license` of the weights (default: apache-2.0, or cc-by-nc-4.0 where `data["licence"]` or a key of
  `data["licence_classes"]`, {class: pairs}, is non-commercial);
- `data`: `name` or `sources` (files), `pairs`, `licence`, `fingerprint`, `hub_id` (str or list), `counts`
  {name: number}, `filters` [{"filter": ..., "kept": ..., ...}], `corpora` {name: pairs}, `description` (sentences);
  other entries are listed as they are;
- `evaluation`: `name`, `type` (Hub id), `config`, `split`: the data set behind `before`, `after` and `control`;
- `benchmarks`: [{"name", "type", "split", "metric", "value", "interval", "control", "items", "protocol"}];
- `examples`: [[source sentence, its translation], ...] and `prompt`, for the snippet;
- `vocabulary`: what `extend_vocabulary` reports of new words;
- `repo_id` on the Hub, which the snippet then loads;
- `hardware`, `energy_kwh`, `co2_eq_emissions` (grams), `figure` (a file of the folder), `base_model_relation`, `tags`.
"""

import json
import math
import re
from dataclasses import fields
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors import safe_open

from ..languages import Language, language, named
from ..schedule import PHASES, PhaseSchedule
from ..vocabulary.section import vocabulary_section
from .hub_terms import LICENSES, TASKS


VOCABULARY_FIGURE = "vocabulary.png"
MODEL_FIELDS = ("language", "license", "library_name", "pipeline_tag", "tags", "model-index")
DATASET_FIELDS = ("language", "license", "pretty_name", "task_categories")
MODEL_SECTIONS = (
    "Use",
    "Intended use",
    "Training data",
    "Training procedure",
    "Evaluation",
    "Limitations and risks",
    "Citation",
)

# Keys of an intrinsic evaluation: label, decimals, metric of the model index (None: in the body only).
RESULTS = {
    "sense_recall_source_to_target": ("recall@1 {source} → {target}, sense vectors", 3, "accuracy"),
    "sense_recall_target_to_source": ("recall@1 {target} → {source}, sense vectors", 3, "accuracy"),
    "context_recall_source_to_target": ("recall@1 {source} → {target}, context vectors", 3, "accuracy"),
    "context_recall_target_to_source": ("recall@1 {target} → {source}, context vectors", 3, "accuracy"),
    "overlap_recall_source_to_target": ("recall@1 {source} → {target}, token overlap (no model)", 3, None),
    "overlap_recall_target_to_source": ("recall@1 {target} → {source}, token overlap (no model)", 3, None),
    "random_sense_recall_source_to_target": ("recall@1 {source} → {target}, sense vectors, random weights", 3, None),
    "random_sense_recall_target_to_source": ("recall@1 {target} → {source}, sense vectors, random weights", 3, None),
    "sense_beyond_overlap_source_to_target": ("recall@1 {source} → {target} where overlap fails, sense", 3, None),
    "sense_beyond_overlap_target_to_source": ("recall@1 {target} → {source} where overlap fails, sense", 3, None),
    "context_beyond_overlap_source_to_target": ("recall@1 {source} → {target} where overlap fails, context", 3, None),
    "context_beyond_overlap_target_to_source": ("recall@1 {target} → {source} where overlap fails, context", 3, None),
    "sense_mean_rank_source_to_target": ("mean rank {source} → {target}, sense vectors", 1, None),
    "sense_mean_rank_target_to_source": ("mean rank {target} → {source}, sense vectors", 1, None),
    "context_mean_rank_source_to_target": ("mean rank {source} → {target}, context vectors", 1, None),
    "context_mean_rank_target_to_source": ("mean rank {target} → {source}, context vectors", 1, None),
    "sense_entropy_source": ("sense entropy, {source} (nats)", 3, None),
    "sense_entropy_target": ("sense entropy, {target} (nats)", 3, None),
    "target_perplexity": ("perplexity per token, {target}", 1, "perplexity"),
    "target_perplexity_per_word": ("perplexity per word, {target}", 1, None),
    "target_bits_per_byte": ("bits per byte, {target}", 3, None),
    "source_perplexity": ("perplexity per token, {source}", 1, None),
    "source_bits_per_byte": ("bits per byte, {source}", 3, None),
    "cross_entropy": ("cross-entropy per token, {source} (nats)", 3, None),
    "perplexity": ("perplexity per token, {source}", 1, "perplexity"),
    "perplexity_per_word": ("perplexity per word, {source}", 1, None),
    "bits_per_byte": ("bits per byte, {source}", 3, None),
}

BACKPACK_TAGS = ["custom_code", "arxiv:2601.10310", "arxiv:2305.16765"]

# Columns of the phase table.
WEIGHTS = {"w_sense": "w sense", "w_context": "w context", "w_lm": "w LM"}

# Entries of `data` that stand in sentences, metadata or tables of their own.
DATA_IN_PROSE = ("name", "description", "licence", "hub_id", "sources", "counts", "filters", "corpora")

# Sentences of the snippet where the metrics bring none, in the order of `ENGLISH_EXAMPLES`.
ENGLISH_EXAMPLES = ("The book is on the table.", "Where do you live?", "The file could not be opened.")
EXAMPLES = {
    "et": ("Raamat on laua peal.", "Kus sa elad?", "Faili ei saanud avada."),
    "id": ("Buku itu ada di atas meja.", "Di mana kamu tinggal?", "Berkas tidak dapat dibuka."),
    "sw": ("Kitabu kiko juu ya meza.", "Unaishi wapi?", "Faili haikuweza kufunguliwa."),
    "tr": ("Kitap masanın üstünde.", "Nerede yaşıyorsun?", "Dosya açılamadı."),
    "zh": ("书在桌子上。", "你住在哪里？", "无法打开文件。"),
}


def adaptation_card(metrics: dict) -> str:
    """The card of an adapted model, from the contents of its `metrics.json`.

    Raises:
        ValueError: If a key that every card needs is missing; the message names it.
    """
    _require(metrics, "model_name", "base_model", "languages")
    source, target = _languages(metrics)
    config = metrics.get("config") or {}
    pairs = metrics.get("examples") or list(zip(ENGLISH_EXAMPLES, EXAMPLES.get(target.code, ()), strict=False))
    base = base_model_name(metrics["base_model"])
    relation = metrics.get("base_model_relation", "finetune")
    values = {
        "base_id": base,
        "is_adapter": relation == "adapter",
        "base_model": f"[{base}](https://huggingface.co/{base})" if "/" in base else f"`{base}`",
        "pooling": config.get("sense_pooling", "magnitude"),
        "temperature": config.get("sense_pool_temperature", 0.7),
        "examples": pairs,
        "prompt": metrics.get("prompt") or (_beginning(pairs[0][1]) if pairs else ""),
        "phase_table": phase_table(config),
        "lm_only": _is_lm_only(config),
        "control_text": _control_text(metrics),
    }
    tags = ["backpack", "sensia", "cross-lingual"]
    return _card("adaptation.md", metrics, source, target, values, _base_metadata(base, relation, metrics), tags)


def pretraining_card(metrics: dict) -> str:
    """The card of a model trained from scratch, from the contents of its `metrics.json`; raises as above."""
    _require(metrics, "model_name")
    has_senses = "Senses per word" in metrics.get("model", {"Senses per word": None})
    source = language((metrics.get("languages") or {"source": "en"})["source"])
    values = {"prompt": metrics.get("prompt") or "The old man", "has_senses": has_senses}
    tokens = _trained_tokens(metrics)
    data = (metrics.get("data") or {}) | ({"tokens_trained_on": tokens} if tokens else {})
    tags = ["backpack" if has_senses else "baseline"]
    return _card("pretraining.md", metrics | {"data": data}, source, source, values, {}, tags, has_senses)


def baseline_card(metrics: dict) -> str:
    """The card of a model without senses that SENSIA is compared with, from its `metrics.json`; raises as above."""
    _require(metrics, "model_name", "base_model", "languages", "config")
    source, target = _languages(metrics)
    base = base_model_name(metrics["base_model"])
    values = {"base_model": base, "aligned": metrics["config"].get("w_context") != 0}
    metadata = _base_metadata(base, "finetune", metrics)
    return _card("baseline.md", metrics, source, target, values, metadata, ["baseline", "cross-lingual"], False)


def write_card(folder, repo_id: str | None = None, metrics: dict | None = None) -> Path:
    """Write README.md of a model folder from its `metrics.json`, `config.json` and `model.safetensors`.

    `metrics` are taken in place of the file's, before there is one.

    With `repo_id` ("owner/name") it is the card of that repository: it bears its name, and its snippet loads it.
    Returns the path of the card. Raises ValueError where there is no `metrics.json` or its `kind` is unknown.
    """
    folder = Path(folder)
    if metrics is None and not (folder / "metrics.json").is_file():
        raise ValueError(f"{folder} has no metrics.json; a card is rendered from what a training script measured.")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8")) if metrics is None else dict(metrics)
    renderers = {"adaptation": adaptation_card, "pretraining": pretraining_card, "baseline": baseline_card}
    if metrics.get("kind") not in renderers:
        raise ValueError(
            f"`kind` in {folder / 'metrics.json'} is {metrics.get('kind')!r}; allowed: {list(renderers)}."
        )
    if repo_id:
        metrics |= {"repo_id": repo_id, "model_name": repo_id.split("/")[-1]}
    metrics["model"] = model_facts(folder)
    if "Adapter" in metrics["model"]:
        metrics["base_model_relation"] = "adapter"
    if not metrics.get("figure"):
        figures = sorted(file.name for file in folder.glob("*.png"))
        metrics["figure"] = next((name for name in figures if "training" in name), None)
    if (folder / VOCABULARY_FIGURE).is_file():
        metrics["vocabulary_figure"] = VOCABULARY_FIGURE
    card = folder / "README.md"
    card.write_text(renderers[metrics["kind"]](metrics), encoding="utf-8")
    return card


def validate_card(text: str, repo_type: str = "model") -> None:
    """Refuse a card that lacks what the Hub or a reader needs.

    Args:
        text: The whole README.md, front matter included.
        repo_type: "model" or "dataset".

    Raises:
        ValueError: Names every missing metadata field and section, unknown languages, licences and tasks, a base model
            that is no Hub id, a licence of kind "other" without name and link, and placeholder text; or says that the
            front matter is not YAML.
    """
    try:
        card = (DatasetCard if repo_type == "dataset" else ModelCard)(text)
    except yaml.YAMLError as error:
        raise ValueError(f"The front matter of the card is not YAML: {' '.join(str(error).split())}.") from error
    data = card.data.to_dict()
    required = DATASET_FIELDS if repo_type == "dataset" else MODEL_FIELDS
    bases = data.get("base_model") or []
    if bases:
        required += ("base_model_relation",)
    if data.get("license") == "other":
        required += ("license_name", "license_link")
    problems = [f"metadata field `{name}` is missing" for name in required if not data.get(name)]
    if repo_type == "model":
        headings = set(re.findall(r"^## (.+?)\s*$", card.text, flags=re.MULTILINE))
        problems += [f"section `## {name}` is missing" for name in MODEL_SECTIONS if name not in headings]
    elif not card.text.strip():
        problems.append("the body is empty")
    codes = data.get("language") or []
    for code in [codes] if isinstance(codes, str) else codes:
        if code not in ("multilingual", "code"):
            try:
                language(str(code))
            except ValueError as error:
                problems.append(f"metadata field `language`: {error}")
    for name, known in (("license", LICENSES), ("pipeline_tag", TASKS)):
        given = data.get(name) or []
        unknown = [term for term in ([given] if isinstance(given, str) else given) if term not in known]
        if unknown:
            problems.append(f"metadata field `{name}` is {unknown[0]!r}, which the Hub does not know: {sorted(known)}")
    for base in [bases] if isinstance(bases, str) else bases:
        if not is_hub_id(base):
            problems.append(
                f"metadata field `base_model` is {base!r}, but must be the id of a Hub repository (owner/name): write "
                "it (`openai-community/gpt2` for `gpt2`), or publish with the base model's folder beside this one, "
                "which gives it the same owner"
            )
    for placeholder in re.findall(r"more information needed|\bTODO\b|\[needs more\b", card.text, flags=re.IGNORECASE):
        problems.append(f"the body holds the placeholder {placeholder!r}")
    if problems:
        raise ValueError("The card is not complete: " + "; ".join(problems) + ".")


def model_facts(folder) -> dict:
    """Parameters, weights' dtype and sizes of a model folder, for the card's first table."""
    folder = Path(folder)
    if (folder / "adapter_config.json").is_file():
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        facts = {"Adapter": config["peft_type"], "Rank": config.get("r"), "Adapted modules": config["target_modules"]}
        facts |= _weight_facts(folder / "adapter_model.safetensors")
        return {label: value for label, value in facts.items() if value is not None}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    backbone = config.get("backbone_config") or config
    names = {
        "Layers": ("num_hidden_layers", "n_layer"),
        "Hidden size": ("hidden_size", "n_embd"),
        "Attention heads": ("num_attention_heads", "n_head"),
        "Positions": ("max_position_embeddings", "n_positions"),
        "Vocabulary": ("vocab_size",),
    }
    facts = _weight_facts(folder / "model.safetensors")
    facts["Backbone"] = backbone.get("model_type")
    facts["Senses per word"] = config.get("num_senses")
    for label, keys in names.items():
        facts[label] = next((backbone[key] for key in keys if key in backbone), None)
    return {label: value for label, value in facts.items() if value is not None}


def _weight_facts(weights: Path) -> dict:
    if not weights.is_file():
        return {}
    with safe_open(weights, framework="np") as tensors:
        slices = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118 (not a dict)
        parameters = sum(math.prod(part.get_shape()) for part in slices)
        return {"Parameters": parameters, "Stored as": ", ".join(sorted({part.get_dtype() for part in slices}))}


def base_model_name(base: str) -> str:
    """The Hub id of a base model; for a folder on disk, its name."""
    base = str(base).rstrip("/")
    is_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base) and not base.startswith("model_cards/")
    return base if is_id and not Path(base).is_dir() else Path(base).resolve().name


def is_hub_id(name) -> bool:
    """Whether `name` can be that of a repository on the Hub: owner/name."""
    return isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None


def _base_metadata(base: str, relation: str, metrics: dict) -> dict:
    """What tells the Hub of the base model: its id. Before there is a repository, a folder's name is kept as well,
    which [`publish`] completes; a model without a name goes unmentioned."""
    kept = is_hub_id(base) or ("repo_id" not in metrics and re.fullmatch(r"[\w.-]+", base))
    return {"base_model": base, "base_model_relation": relation} if kept else {}


def phase_table(config: dict) -> str:
    """The schedule of a run as a Markdown table: steps, weights and temperatures of each phase (Appendix B)."""
    names = {field.name for field in fields(PhaseSchedule)}
    constant = {name: config.get(name) for name in WEIGHTS}  # set: instead of the scheduled weight
    given = {name: value for name, value in config.items() if name in names}
    if not given:
        return ""
    schedule = PhaseSchedule(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    align_end, polish_start = schedule.boundaries
    spans = {"align": (0.0, align_end), "joint": (align_end, polish_start), "polish": (polish_start, 1.0)}
    steps = config.get("steps") or config.get("max_steps") or 0
    frozen = config.get("polish_freeze") not in (None, "none", False)
    rows = []
    for phase in schedule.phases:
        start, end = spans[phase]
        inside = 1e-9 * (end - start)  # the boundary itself belongs to one of the two phases
        first, last = schedule.at(start + inside), schedule.at(end - inside)
        span = f"{number(round(start * steps))}–{number(round(end * steps))}" if steps > 0 else f"{end - start:.0%}"
        row = {"phase": phase, "steps": span}
        for name, label in WEIGHTS.items():
            scheduled = _from_to(getattr(first, name), getattr(last, name))
            row[label] = scheduled if constant[name] is None else number(constant[name])
        row["τ sense"] = _from_to(first.tau_sense, last.tau_sense)
        row["τ context"] = _from_to(first.tau_context, last.tau_context)
        row["senses and their weights"] = "frozen" if phase == "polish" and frozen else "trained"
        rows.append(row)
    return markdown_table(rows)


def markdown_table(rows: list[dict]) -> str:
    """Rows with the same keys as a Markdown table; the keys of all rows, in order of appearance, head the columns."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    # Numbers are set flush right.
    right = [all(_is_numeric(row.get(column, "")) for row in rows) for column in columns]
    lines = [columns, ["---:" if flush else "---" for flush in right]]
    lines += [[number(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value) -> str:
    """A number as a reader wants it: thousands apart, floats to four significant digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds in words: "42 s", "17 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def result_rows(metrics: dict, source: str, target: str) -> list[dict]:
    """One row a measured quantity: before adaptation, after it, and in the control, with intervals where measured."""
    columns = {"before": "before", "after": "this model", "control": "control"}
    columns = {key: label for key, label in columns.items() if metrics.get(key)}
    rows = []
    for key, (label, digits, _) in RESULTS.items():
        cells = {columns[name]: _cell(metrics[name], key, digits) for name in columns}
        if any(cells.values()):
            rows.append({"": label.format(source=source, target=target), **cells})
    return rows


def eval_results(metrics: dict, source: str, target: str) -> list[EvalResult]:
    """The model index: the values of `after` and of `benchmarks` as they stand in the metrics, unrounded."""
    after, evaluation = metrics.get("after") or {}, metrics.get("evaluation") or {}
    trained_on = _without_folders((metrics.get("data") or {}).get("name") or "the training data")
    name = evaluation.get("name") or f"held-out part of {trained_on}"
    place = {
        "dataset_name": name,
        "dataset_type": evaluation.get("type") or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        "dataset_config": evaluation.get("config"),
        "dataset_split": evaluation.get("split"),
    }
    results = []
    for key, (label, _, metric) in RESULTS.items():
        if metric and _measured(after.get(key)):
            task = ("text-generation", "Language modelling")
            task = ("sentence-similarity", "Translation retrieval") if "recall" in key else task
            label = label.format(source=source, target=target)
            results.append(
                EvalResult(
                    task[0], task_name=task[1], metric_type=metric, metric_value=after[key], metric_name=label, **place
                )
            )
    for row in metrics.get("benchmarks") or []:
        place = {"dataset_name": row["name"], "dataset_type": row.get("type") or row["name"].lower().replace(" ", "-")}
        place |= {"dataset_config": row.get("config"), "dataset_split": row.get("split")}
        metric = row.get("metric", "accuracy")
        results.append(
            EvalResult(row.get("task", "text-generation"), metric_type=metric, metric_value=row["value"], **place)
        )
    return results


def _card(
    template: str, metrics: dict, source, target, values: dict, metadata: dict, tags: list[str], uses_backpack=True
):
    data, config = metrics.get("data") or {}, metrics.get("config") or {}
    schedule_fields = {field.name for field in fields(PhaseSchedule)} | set(WEIGHTS) | {"phases"}
    settings = {k: v for k, v in config.items() if k not in schedule_fields and v is not None}
    if "seed" in settings:
        settings["seed"] = str(settings["seed"])
    if "steps" in settings:
        settings.pop("num_train_epochs", None)  # the steps are what was run
    results = eval_results(metrics, source.name, target.name)
    hub_ids = data.get("hub_id") or []
    license = metrics.get("license") or _default_license(data)
    values |= {
        "model_name": metrics["model_name"],
        "repo": metrics.get("repo_id") or metrics["model_name"],
        "source": source.name,
        "target": target.name,
        "number": number,
        "quoted": lambda text: json.dumps(text, ensure_ascii=False),
        "pairs": data.get("pairs"),
        "data_name": _without_folders(data.get("name") or ""),
        "model_table": _two_columns(metrics.get("model") or {}, "model"),
        "data_text": _data_text(data, license),
        "data_table": _two_columns({k: v for k, v in data.items() if k not in DATA_IN_PROSE}, "data"),
        "filter_table": _filter_table(data),
        "corpus_table": _two_columns(data.get("corpora") or {}, "corpus", "pairs"),
        "config_table": _two_columns(settings, "setting"),
        "figure": metrics.get("figure"),
        "vocabulary": _vocabulary_text(metrics, source.name, target.name),
        "vocabulary_figure": metrics.get("vocabulary_figure"),
        "protocol": _protocol(metrics),
        "result_table": markdown_table(result_rows(metrics, source.name, target.name)),
        "benchmark_table": markdown_table([_benchmark_row(row) for row in metrics.get("benchmarks") or []]),
        "spent_table": _two_columns(_spent(metrics), "spent"),
        "command": _without_folders(metrics.get("command") or ""),
        "version_table": _two_columns(metrics.get("versions") or {}, "package", "version"),
    }
    environment = Environment(
        loader=PackageLoader("sensia_trainer.hub"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    body = environment.get_template(template).render(values)
    card = ModelCardData(
        language=list(dict.fromkeys((source.code, target.code))),
        license=license,
        library_name="peft" if metrics.get("base_model_relation") == "adapter" else "transformers",
        pipeline_tag="text-generation",
        datasets=([hub_ids] if isinstance(hub_ids, str) else list(hub_ids)) or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        tags=tags + (BACKPACK_TAGS if uses_backpack else []) + list(metrics.get("tags") or []),
        model_name=metrics["model_name"],
        eval_results=results or None,
        co2_eq_emissions=metrics.get("co2_eq_emissions"),
        **metadata,
    ).to_dict()
    card.pop("model_name", None)  # stands in the model index; without one the Hub has no field for it
    parts = body.split("```")  # blank lines are merged in prose and kept in code
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", part) for part in parts[::2]]
    body = "```".join(parts)
    return f"---\n{ModelCardData(**card).to_yaml()}\n---\n\n{body.strip()}\n"


def _languages(metrics: dict) -> tuple[Language, Language]:
    codes = metrics["languages"]
    return language(codes["source"]), named(codes["target"], codes.get("target_name"))


def _require(metrics: dict, *names: str) -> None:
    missing = [name for name in names if not metrics.get(name)]
    if missing:
        raise ValueError(f"The metrics lack {missing}; a card cannot be rendered without them.")


def _default_license(data: dict) -> str:
    terms = " ".join([str(data.get("licence", "")), *(data.get("licence_classes") or {})]).lower()
    return "cc-by-nc-4.0" if re.search(r"\bnc\b|non-?commercial", terms) else "apache-2.0"


def _vocabulary_text(metrics: dict, source: str, target: str) -> str:
    """What the tokenizer became; empty where it stayed as it was."""
    report = metrics.get("vocabulary")
    return vocabulary_section(report, source, target) if report else ""


def _is_lm_only(config: dict) -> bool:
    """Whether both contrastive weights are zero in every phase: the control."""
    if config.get("w_sense") == config.get("w_context") == 0:
        return True
    weights = [config.get(f"{phase}_weights") for phase in PHASES]
    return all(weights) and not any(any(triple[:2]) for triple in weights)


def _without_folders(text: str) -> str:
    """Absolute paths and those under a variable by their last part: where files lay on one machine is no news."""
    return re.sub(r"(?<![\w.-])(?:/|~/|\$\w+/|\$\{\w+\}/)(?:[\w.+-]+/)*(?=[\w.+-])", "", text)


def _beginning(sentence: str) -> str:
    """The first half of a sentence, for the model to continue."""
    words = sentence.split()
    return " ".join(words[: (len(words) + 1) // 2]) if len(words) > 1 else sentence[: (len(sentence) + 1) // 2]


def _measured(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_numeric(cell) -> bool:
    return _measured(cell) or re.fullmatch(r"[\d.,\s\[\]–→-]*", str(cell)) is not None


def _cell(metrics: dict, key: str, digits: int) -> str:
    """A measured value to `digits` decimals, with its interval; empty where it was not measured."""
    value, interval = metrics.get(key), metrics.get(f"{key}_interval")
    if not _measured(value):
        return ""
    return f"{value:,.{digits}f}" + (f" [{interval[0]:,.{digits}f}, {interval[1]:,.{digits}f}]" if interval else "")


def _from_to(start: float, end: float) -> str:
    return number(round(start, 4)) if abs(start - end) < 1e-4 else f"{round(start, 4):g} → {round(end, 4):g}"


def _two_columns(values: dict, left: str, right: str = "value") -> str:
    """A mapping as a two-column table; entries that are None are left out, underscores read as spaces elsewhere."""
    rows = [{left: str(k).replace("_", " "), right: _plain(v)} for k, v in values.items() if v is not None]
    return markdown_table(rows)


def _plain(value):
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(_plain(part)) for part in value)
    return number(value)


def _trained_tokens(metrics: dict) -> int | None:
    """Tokens of all training steps; `None` where the run does not say."""
    config, data = metrics.get("config") or {}, metrics.get("data") or {}
    needed = [config.get("steps"), config.get("per_device_train_batch_size"), data.get("block_size")]
    if None in needed:
        return None
    return math.prod(needed) * (config.get("gradient_accumulation_steps") or 1) * (metrics.get("processes") or 1)


def _data_text(data: dict, license: str) -> str:
    sources = data.get("sources") or []
    names = sources if isinstance(sources, list) else [sources]
    name = data.get("name") or ", ".join(f"`{name}`" for name in names)
    sentences = [data.get("description") or (f"{_without_folders(name)}." if name else "")]
    if data.get("licence"):
        sentences.append(f"Licence of the data: {data['licence']}.")
    return " ".join(filter(None, sentences + [f"Licence of the weights: {license}."]))


def _filter_table(data: dict) -> str:
    if data.get("filters"):
        return markdown_table([{str(k).replace("_", " "): v for k, v in row.items()} for row in data["filters"]])
    return _two_columns(data.get("counts") or {}, "step", "count")


def _protocol(metrics: dict) -> str:
    after, evaluation = metrics.get("after") or {}, metrics.get("evaluation") or {}
    place = " ".join(filter(None, (evaluation.get("name"), evaluation.get("split"))))
    data, sentences = metrics.get("data") or {}, []
    if after.get("pairs"):
        place = f"of {place}" if place else "held out from the training data"
        sentences.append(f"Measured on {number(after['pairs'])} sentence pairs {place}.")
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
            "them, is their own."
        )
    if any(key.endswith("_interval") for name in ("before", "after", "control") for key in metrics.get(name) or {}):
        sentences.append("Brackets are 95 % bootstrap intervals over sentences.")
    sentences.append("Perplexity is per token of this tokenizer; bits per byte compare across tokenizers.")
    return " ".join(sentences)


def _control_text(metrics: dict) -> str:
    if not metrics.get("control"):
        return ""
    return (
        "The control saw the same base model, data and number of steps, with the language-modelling loss alone "
        "(both contrastive weights zero)."
    )


def _benchmark_row(row: dict) -> dict:
    digits = row.get("digits", 3)
    cells = {"benchmark": " ".join(filter(None, (row["name"], row.get("split")))), "items": row.get("items", "")}
    cells["this model"] = _cell({"value": row["value"], "value_interval": row.get("interval")}, "value", digits)
    cells["control"] = _cell(
        {"value": row.get("control"), "value_interval": row.get("control_interval")}, "value", digits
    )
    cells["score"] = " ".join(filter(None, (row.get("metric", "accuracy"), row.get("protocol"))))
    return cells


def _spent(metrics: dict) -> dict:
    spent = {"training time": duration(metrics["seconds"]) if _measured(metrics.get("seconds")) else None}
    spent["hardware"] = metrics.get("hardware")
    if _measured(metrics.get("energy_kwh")):
        spent["energy"] = f"{number(metrics['energy_kwh'])} kWh"
    elif spent["training time"]:
        spent["energy"] = "not metered"
    if _measured(metrics.get("co2_eq_emissions")):
        spent["emissions"] = f"{number(metrics['co2_eq_emissions'])} g CO₂ equivalent"
    return spent
